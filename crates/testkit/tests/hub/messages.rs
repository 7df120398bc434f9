//! Invariant I2: a message changes its target exactly once, whatever the links do with it.

use std::time::Duration;

use steadfast_core::{EventKind, OrchestrationStatus};
use steadfast_testkit::{Schedule, SimulationOptions};

use crate::scenarios::{SCENARIOS, ends, finish_and_compare, hub, options};

#[test]
fn duplicated_reordered_and_lost_messages_change_nothing() {
    for (name, plan) in SCENARIOS {
        let expected = ends(*plan, options(true));
        for seed in 0..12 {
            let options = SimulationOptions {
                seed,
                schedule: Schedule::Random,
                duplicates: 60,
                reordered: 60,
                lost: 30,
                partitions: 4,
                ..options(seed % 2 == 0)
            };
            let mut hub = hub(*plan, options);
            finish_and_compare(&mut hub, &expected, &format!("{name}, seed {seed}"));
            assert_eq!(hub.crashes(), 0);
        }
    }
}

#[test]
fn a_result_that_is_reported_twice_is_taken_once() {
    for (name, plan) in SCENARIOS {
        let expected = ends(*plan, options(true));
        let options =
            SimulationOptions { repeated_activities: 100, schedule: Schedule::Random, ..options(true) };
        let mut hub = hub(*plan, options);
        finish_and_compare(&mut hub, &expected, name);
        assert!(hub.activity_runs().values().all(|runs| *runs == 2), "{name}");
        let histories = hub.histories();
        let scheduled = histories.values().flatten();
        let scheduled =
            scheduled.filter(|event| matches!(event.kind, EventKind::TaskScheduled { .. })).count();
        if !["continue", "purge", "rewind", "payloads that are compressed"]
            .iter()
            .any(|word| name.starts_with(word))
        {
            assert_eq!(scheduled, hub.activity_runs().len(), "{name}");
        }
    }
}

#[test]
fn undisturbed_runs_run_each_activity_once() {
    for (name, plan) in SCENARIOS {
        let mut hub = hub(*plan, options(true));
        hub.finish();
        assert!(hub.activity_runs().values().all(|runs| *runs == 1), "{name}");
    }
}

#[test]
fn partitions_that_are_rebuilt_in_turn_lose_and_repeat_nothing() {
    for (name, plan) in SCENARIOS {
        let expected = ends(*plan, options(true));
        for every in [5, 11, 31] {
            let mut hub = hub(*plan, options(true));
            let mut rebuilt = 0;
            while hub.run_steps(every + 2 * u64::from(rebuilt)) {
                hub.rebuild(rebuilt % 3);
                rebuilt += 1;
            }
            finish_and_compare(&mut hub, &expected, &format!("{name}, a rebuild every {every} steps"));
        }
    }
}

#[test]
fn an_acknowledged_message_leaves_nothing_behind_at_sender_and_receiver() {
    let (_, family) = SCENARIOS.iter().find(|(name, _)| name.starts_with("sub-orchestrations")).unwrap();
    let mut hub = hub(*family, options(true));
    let mut most = 0;
    while hub.run_steps(1) {
        most = most.max(hub.counts().iter().map(|counts| counts.outbox).sum::<usize>());
    }
    assert!(most > 0, "there were messages between partitions");
    hub.finish();
    assert!(hub.counts().iter().all(|counts| counts.outbox == 0));
}

/// A signal that is sent while the receiver's first turn is under way finds neither a state nor a queued start.
#[test]
fn a_signal_sent_while_the_receiver_runs_its_first_turn_arrives() {
    for seed in 0..60 {
        let plan = |hub: &mut steadfast_testkit::Simulation| {
            hub.start("ping", "left", &("right", 2));
        };
        let options = SimulationOptions { seed, schedule: Schedule::Random, ..SimulationOptions::default() };
        let mut hub = hub(plan, options);
        hub.finish();
        for instance in ["left", "right"] {
            assert_eq!(hub.state(instance).unwrap().status, OrchestrationStatus::Completed, "seed {seed}");
        }
    }
}

#[test]
fn a_second_start_while_the_first_turn_runs_is_refused() {
    let mut refused = 0;
    for seed in 0..60 {
        let options = SimulationOptions { seed, schedule: Schedule::Random, ..SimulationOptions::default() };
        let mut hub = hub(|_| {}, options);
        let first = hub.start("patient", "twice", &1);
        let second = hub.start("patient", "twice", &2);
        hub.run();
        let answers = [first, second].map(|request| hub.answer(request).unwrap().is_ok());
        assert_eq!(answers.iter().filter(|accepted| **accepted).count(), 1, "seed {seed}");
        refused += usize::from(!answers[0]);
        hub.raise("twice", "go", &0);
        hub.finish();
    }
    assert!(refused > 0, "the calls come in either order");
}

#[test]
fn a_start_that_waits_for_its_time_does_not_hold_back_a_later_execution() {
    let plan = |hub: &mut steadfast_testkit::Simulation| {
        hub.start_later("patient", "late", &1, Duration::from_secs(3600));
        hub.when_idle();
        hub.terminate("late", false);
        hub.when_idle();
        hub.start("three_steps", "late", &1);
    };
    let (mut quiet, mut rough) = (hub(plan, options(true)), hub(plan, options(true)));
    quiet.finish();
    while rough.run_steps(9 + rough.crashes()) {
        rough.crash_and_recover();
    }
    rough.finish();
    for hub in [quiet, rough] {
        assert!(hub.now().as_micros() < 1_700_000_000_000_000 + 3_600_000_000, "nothing waits an hour");
    }
}
