//! Clients that call whatever they like at whatever moment, on a hub that crashes: nobody can say what comes of it, but
//! every call is answered, every history is well formed and replays, and nothing is left over.

use std::time::Duration;

use steadfast_testkit::{Simulation, SimulationOptions, SplitMix64};

use crate::scenarios::{hub, seeds};

const INSTANCES: &[&str] = &["a", "b", "c", "a/0", "b/named"];

fn plan(hub: &mut Simulation, random: &mut SplitMix64) {
    for _ in 0..5 + random.below(20) {
        let instance = INSTANCES[random.below(INSTANCES.len())];
        match random.below(21) {
            0 => hub.start("three_steps", instance, &1),
            1 => hub.start("patient", instance, &1),
            2 => hub.start("parent_of_patients", instance, &2),
            3 => hub.start("family", instance, &1),
            4 => hub.start("counter", instance, &3),
            5 => hub.start("sum_up", instance, &(3, [0u64; 0])),
            6 => hub.start("ping", instance, &(INSTANCES[random.below(INSTANCES.len())], 2)),
            7 => hub.start_later("timer_race", instance, &1, Duration::from_secs(random.below(100) as u64)),
            8 | 9 => hub.raise(instance, "number", &random.below(4)),
            10 => hub.raise(instance, "go", &1),
            11 => hub.terminate(instance, random.chance(50)),
            12 => hub.suspend(instance),
            13 => hub.resume(instance),
            14 => hub.start("hurried", instance, &2),
            15 => hub.start("brittle_family", instance, &1),
            16 => hub.start("brittle", instance, &1),
            17 | 18 => hub.rewind(instance),
            _ => hub.purge(instance),
        };
        match random.below(10) {
            0..4 => {}
            4..7 => hub.when_answered(),
            7..9 => hub.when_idle(),
            _ => hub.when_at_rest(),
        }
    }
    // So that nothing waits for ever with something in hand.
    hub.when_at_rest();
    INSTANCES.iter().for_each(|instance| {
        hub.resume(instance);
    });
}

fn run(seed: u64) {
    let mut random = SplitMix64::new(seed ^ 0xf7ee);
    let crashed_turns = [0, 0, 10][random.below(3)];
    let options = SimulationOptions { hasty_time: 3, crashed_turns, ..SimulationOptions::rough(seed) };
    let partitions = usize::from(options.partitions);
    let mut hub = hub(|_| {}, options);
    plan(&mut hub, &mut random);
    for _ in 0..random.below(4) {
        if !hub.run_steps(random.below(400) as u64) {
            break;
        }
        match random.below(3) {
            0 => hub.crash_and_recover(),
            1 => hub.rebuild(random.below(partitions) as u16),
            _ => {
                let next = hub.store().steps() + random.below(30) as u64;
                hub.store().crash_at(next);
            }
        }
    }
    hub.finish();
}

#[test]
fn whatever_clients_do_every_call_is_answered_and_nothing_is_left_over() {
    for seed in seeds(150) {
        let finished = std::panic::catch_unwind(|| run(seed));
        assert!(finished.is_ok(), "seed {seed}: see above");
    }
}
