//! Wherever a hub crashes, it ends as if nothing had happened.

use steadfast_store::Survival;
use steadfast_testkit::{EndState, Schedule, SimulationOptions};

use crate::scenarios::{Ends, Plan, SCENARIOS, finish_and_compare, hub, options, seeds};

/// Runs a plan to its end without a crash; what is left, the steps of the hub, and those of its store.
fn undisturbed(plan: Plan, options: SimulationOptions) -> (Ends, u64, u64) {
    let mut hub = hub(plan, options);
    hub.finish();
    let steps = (hub.steps(), hub.store().steps());
    (hub.end_states(), steps.0, steps.1)
}

#[test]
fn undisturbed_scenarios_come_to_their_end() {
    for (name, plan) in SCENARIOS {
        let compared = |extended| SimulationOptions { compare_with_recovered: true, ..options(extended) };
        let (with, ..) = undisturbed(*plan, compared(true));
        let (without, ..) = undisturbed(*plan, compared(false));
        assert_eq!(with, without, "{name}");
        // Entities do not end; but nobody keeps one locked.
        let is_free = |end: &EndState| end.entity.as_ref().is_some_and(|entity| entity.lock.is_none());
        assert!(with.values().all(|end| end.status.is_terminal() || is_free(end)), "{name}: {with:?}");
    }
}

#[test]
fn a_crash_after_any_step_changes_nothing() {
    for (nth, (name, plan)) in SCENARIOS.iter().enumerate() {
        let options = options(nth % 2 == 0);
        let (expected, steps, _) = undisturbed(*plan, options.clone());
        for step in 1..steps {
            let mut hub = hub(*plan, options.clone());
            hub.run_steps(step);
            let survival = [Survival::Synced, Survival::Written, Survival::FirstWrites(1)][step as usize % 3];
            hub.crash_and_recover_with(survival);
            finish_and_compare(
                &mut hub,
                &expected,
                &format!("{name}, crash after step {step} ({survival:?})"),
            );
        }
    }
}

#[test]
fn a_crash_within_any_write_of_the_store_changes_nothing() {
    for (nth, (name, plan)) in SCENARIOS.iter().enumerate() {
        let options = options(nth % 2 == 1);
        let (expected, _, steps) = undisturbed(*plan, options.clone());
        for step in 0..steps {
            for survival in [Survival::Synced, Survival::Written] {
                let mut hub = hub(*plan, SimulationOptions { survival, ..options.clone() });
                hub.store().crash_at(step);
                finish_and_compare(
                    &mut hub,
                    &expected,
                    &format!("{name}, crash at store step {step} ({survival:?})"),
                );
                assert_eq!(hub.crashes(), 1, "{name}: the crash at store step {step} is on the way");
            }
        }
    }
}

#[test]
fn crashes_again_and_again_change_nothing_but_the_number_of_runs() {
    for (name, plan) in SCENARIOS {
        let (expected, ..) = undisturbed(*plan, options(true));
        for every in [7, 23, 50] {
            let mut hub = hub(*plan, options(true));
            // Ever later, or a hub that needs more steps than that for anything would never get on.
            let mut distance = every;
            while hub.run_steps(distance) {
                hub.crash_and_recover_with(Survival::FirstWrites(hub.crashes() as usize % 4));
                distance += 3;
            }
            finish_and_compare(&mut hub, &expected, &format!("{name}, crash every {every} steps"));
        }
    }
}

#[test]
fn rough_runs_with_crashes_and_rebuilds_at_random_end_alike() {
    for (name, plan) in SCENARIOS {
        let (expected, ..) = undisturbed(*plan, options(true));
        for seed in seeds(40) {
            let mut options = SimulationOptions::rough(seed);
            if *name == "scheduled starts" {
                // Whether the termination comes in time is part of the end.
                options.hasty_time = 0;
            }
            let (schedule, partitions) = (options.schedule, options.partitions);
            assert_eq!(schedule, Schedule::Random);
            let place = format!("{name}, seed {seed}, {options:?}");
            let mut random = steadfast_testkit::SplitMix64::new(seed + 1000);
            let mut hub = hub(*plan, options);
            for _ in 0..random.below(5) {
                if !hub.run_steps(random.below(200) as u64) {
                    break;
                }
                match random.below(3) {
                    0 => hub.crash_and_recover(),
                    1 => hub.rebuild(random.below(usize::from(partitions)) as u16),
                    _ => {
                        let next = hub.store().steps() + random.below(20) as u64;
                        hub.store().crash_at(next);
                    }
                }
            }
            finish_and_compare(&mut hub, &expected, &place);
        }
    }
}
