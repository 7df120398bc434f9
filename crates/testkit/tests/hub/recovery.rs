//! Invariant I3: what recovery gives is what lives, however often and in the middle of whatever it is done.

use steadfast_core::partition::PartitionOptions;
use steadfast_core::{PartitionId, Position};
use steadfast_store::{Store, Survival, bridge};
use steadfast_testkit::{Schedule, SimulationOptions};

use crate::scenarios::{SCENARIOS, ends, finish_and_compare, hub, options};

#[test]
fn a_recovered_partition_equals_the_live_one_whenever_nothing_is_under_way() {
    for (name, plan) in SCENARIOS {
        let expected = ends(*plan, options(true));
        for (seed, materialise_every) in [(1, 0), (2, 1), (3, 3), (4, 10)] {
            let schedule = if seed % 2 == 0 { Schedule::Random } else { Schedule::Rounds };
            let options = SimulationOptions { seed, materialise_every, schedule, ..options(true) };
            let mut hub = hub(*plan, options);
            let mut compared = 0;
            while hub.run_steps(1) {
                compared += hub.compare_with_recovered();
                assert!(hub.steps() < 20_000, "{name} {materialise_every} {:?}", hub.counts());
            }
            assert!(compared > 3, "{name}: there were quiet moments");
            finish_and_compare(&mut hub, &expected, name);
        }
    }
}

#[test]
fn a_recovery_that_is_cut_off_can_be_recovered() {
    for (name, plan) in SCENARIOS {
        let expected = ends(*plan, options(true));
        let mut undisturbed = hub(*plan, options(true));
        undisturbed.finish();
        let steps = undisturbed.store().steps();
        for step in (0..steps).step_by(5) {
            let mut hub = hub(*plan, SimulationOptions { survival: Survival::Written, ..options(true) });
            hub.store().crash_at(step);
            while hub.crashes() == 0 && hub.run_steps(1) {}
            // The hub that came up dies before it does anything, then after a few steps, then in its first writes.
            hub.crash_and_recover();
            hub.run_steps(step % 7);
            hub.crash_and_recover_with(Survival::Synced);
            hub.store().crash_at(step % 3);
            finish_and_compare(
                &mut hub,
                &expected,
                &format!("{name}, crash at store step {step}, and again"),
            );
        }
    }
}

#[test]
fn recovering_twice_from_the_same_bytes_gives_the_same() {
    for (name, plan) in SCENARIOS {
        let mut hub = hub(*plan, SimulationOptions { materialise_every: 3, ..options(true) });
        while hub.run_steps(17) {
            for id in (0..3).map(PartitionId) {
                let image = hub.store().crash_image(Survival::Written);
                let recover = || bridge::recover_partition(&image, PartitionOptions::new(id, 3)).unwrap();
                let (mut first, mut second) = (recover(), recover());
                let both = [first.commit(), second.commit()].map(|commit| format!("{commit:?}"));
                assert_eq!(both[0], both[1], "{name}");
                assert_eq!(first.counts(), second.counts(), "{name}");
            }
        }
    }
}

#[test]
fn a_record_that_is_missing_is_noticed() {
    let (_, plan) = SCENARIOS[0];
    let mut hub = hub(plan, SimulationOptions { materialise_every: 0, ..SimulationOptions::default() });
    hub.run();
    // The records go, and the position up to which they are materialised stays.
    hub.store().truncate_log(PartitionId(0), Position(2)).unwrap();
    let recovered = bridge::recover_partition(hub.store(), PartitionOptions::new(PartitionId(0), 1));
    assert!(recovered.unwrap_err().to_string().contains("missing"));
}
