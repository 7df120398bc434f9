//! Instances whose turns crash: only they suffer, they are tried again, and what is known of them survives.

use std::time::Duration;

use steadfast_core::partition::{Accepted, Rejection};
use steadfast_core::{IdReuse, OnExisting, OrchestrationStatus};
use steadfast_testkit::{Simulation, SimulationOptions};

use crate::programs::register_all;
use crate::scenarios::{SCENARIOS, ends, finish_and_compare, hub, options, seeds};

/// How far an instance has come when it is terminated or replaced, what a client finds under an id, and who is the first
/// to get a lock, does depend on the time that crashed turns take.
fn depends_on_time(scenario: &str) -> bool {
    ["terminate", "purge", "ids that are in use", "owners of locks that end"]
        .iter()
        .any(|start| scenario.starts_with(start))
}

#[test]
fn turns_that_crash_now_and_then_change_nothing_but_the_time() {
    for (name, plan) in SCENARIOS {
        let expected = ends(*plan, options(true));
        for seed in seeds(6) {
            let options = SimulationOptions {
                seed,
                crashed_turns: 30,
                compare_with_recovered: seed % 2 == 0,
                ..options(seed % 2 == 1)
            };
            let mut hub = hub(*plan, options);
            if seed > 3 {
                hub.run_steps(30 * seed);
                hub.crash_and_recover();
            }
            if depends_on_time(name) {
                // Nothing is stuck or left over all the same.
                hub.finish();
                continue;
            }
            finish_and_compare(&mut hub, &expected, &format!("{name}, seed {seed}"));
        }
    }
}

/// A hub in which every turn crashes.
fn sick(turn_crashes_max: u32) -> Simulation {
    let options = SimulationOptions { crashed_turns: 100, turn_crashes_max, ..options(true) };
    let mut hub = Simulation::new(options);
    register_all(&mut hub);
    hub
}

#[test]
fn an_instance_is_tried_again_after_longer_and_longer_pauses_and_then_left_alone() {
    let mut hub = sick(4);
    let began = hub.now();
    hub.start("three_steps", "bad", &1);
    hub.run();
    // One second, two, four; then it is left alone.
    assert_eq!(hub.now().since(began), Duration::from_secs(7));
    let poisoned = hub.poisoned();
    assert_eq!(poisoned.len(), 1);
    let (instance, poison) = &poisoned[0];
    assert_eq!((instance.as_str(), poison.crashes, poison.parked), ("bad", 4, true));
    assert_eq!(poison.problem, "the test lets it crash");
    assert_eq!(hub.state("bad").unwrap().status, OrchestrationStatus::Pending);
}

#[test]
fn crashes_are_counted_over_restarts_and_wherever_the_count_is_kept() {
    for materialise_every in [0, 1] {
        let sick =
            SimulationOptions { crashed_turns: 100, turn_crashes_max: 3, materialise_every, ..options(true) };
        let mut hub = Simulation::new(sick);
        register_all(&mut hub);
        hub.start("three_steps", "bad", &1);
        let counts = |hub: &Simulation| hub.poisoned().first().map_or(0, |(_, poison)| poison.crashes);
        let mut seen = 0;
        while seen < 3 {
            while counts(&hub) == seen {
                assert!(hub.run_steps(1), "it is not tried again");
            }
            seen += 1;
            while !hub.is_durable() {
                assert!(hub.run_steps(1));
            }
            hub.crash_and_recover();
            assert_eq!(counts(&hub), seen);
        }
        hub.run();
        assert!(hub.poisoned()[0].1.parked);
        // It is left alone in the next process as well.
        hub.crash_and_recover();
        hub.run();
        assert_eq!(counts(&hub), 3);
    }
}

#[test]
fn a_poisoned_instance_goes_on_when_it_is_released() {
    let mut hub = sick(2);
    hub.start("three_steps", "bad", &1);
    hub.run();
    hub.set_crashed_turns(0);
    hub.run();
    assert_eq!(hub.poisoned().len(), 1, "nothing is tried again by itself");
    let released = hub.release("bad");
    let nobody = hub.release("nobody");
    hub.finish();
    assert_eq!(hub.answer(released), Some(&Ok(Accepted::Released)));
    assert_eq!(hub.answer(nobody), Some(&Err(Rejection::NotPoisoned)));
    assert_eq!(hub.state("bad").unwrap().output.unwrap().as_str(), "8");
    assert!(hub.poisoned().is_empty());
}

#[test]
fn a_poisoned_instance_can_be_terminated_with_its_children_and_purged() {
    for crash in [false, true] {
        let mut hub = sick(2);
        hub.set_crashed_turns(0);
        hub.start("parent_of_patients", "parent", &2);
        hub.run();
        hub.set_crashed_turns(100);
        hub.raise("parent", "whatever", &1);
        hub.run();
        assert!(hub.poisoned()[0].1.parked);
        hub.set_crashed_turns(0);
        hub.terminate("parent", true);
        if crash {
            hub.run_steps(7);
            hub.crash_and_recover();
        }
        hub.run();
        for instance in ["parent", "parent/0", "parent/1"] {
            assert_eq!(hub.state(instance).unwrap().status, OrchestrationStatus::Terminated, "{instance}");
        }
        assert!(hub.poisoned().is_empty());
        let purged = hub.purge("parent");
        hub.finish();
        assert_eq!(hub.answer(purged), Some(&Ok(Accepted::Purged)));
    }
}

#[test]
fn a_poisoned_instance_that_never_began_can_be_terminated() {
    let mut hub = sick(2);
    hub.start("three_steps", "bad", &1);
    hub.run();
    hub.terminate("bad", false);
    hub.finish();
    assert_eq!(hub.state("bad").unwrap().status, OrchestrationStatus::Terminated);
    assert!(hub.poisoned().is_empty());
}

#[test]
fn a_start_can_replace_a_poisoned_instance() {
    for begun in [false, true] {
        let mut hub = sick(2);
        if begun {
            hub.set_crashed_turns(0);
        }
        hub.start("patient", "bad", &1);
        hub.run();
        hub.set_crashed_turns(100);
        hub.raise("bad", "whatever", &1);
        hub.run();
        assert!(hub.poisoned()[0].1.parked);
        hub.set_crashed_turns(0);
        let start = hub.start("three_steps", "bad", &1);
        hub.reusing(start, IdReuse::default().on_live(OnExisting::Replace));
        hub.finish();
        assert_eq!(hub.answer(start), Some(&Ok(Accepted::Message)));
        assert_eq!(hub.state("bad").unwrap().output.unwrap().as_str(), "8");
        assert!(hub.poisoned().is_empty());
    }
}

/// However an instance is ended without its code, and whatever happens in between, its locks go to whoever waits.
#[test]
fn locks_of_an_instance_that_is_ended_without_its_code_are_freed() {
    for (end, crash_after) in ["terminate", "replace", "purge"]
        .into_iter()
        .flat_map(|end| [None, Some(1), Some(4), Some(9), Some(15), Some(25)].map(|after| (end, after)))
    {
        let place = format!("{end}, crash after {crash_after:?} steps");
        let mut hub = sick(2);
        hub.set_crashed_turns(0);
        hub.start("hold", "holder", &["a", "b", "c"]);
        hub.run();
        // It waits for a lock of another, so its request is on its way when it is ended.
        hub.start("hold", "waiter", &["0", "b"]);
        hub.run();
        hub.set_crashed_turns(100);
        for instance in ["holder", "waiter"] {
            hub.raise(instance, "whatever", &1);
        }
        hub.run();
        assert_eq!(hub.poisoned().iter().filter(|(_, poison)| poison.parked).count(), 2, "{place}");
        hub.set_crashed_turns(0);
        hub.crash_and_recover();
        hub.start("save", "saver", &(["0", "a", "b", "c"], 1));
        hub.run();
        assert_eq!(hub.state("saver").unwrap().status, OrchestrationStatus::Running, "{place}");
        for instance in ["holder", "waiter"] {
            if end == "replace" {
                let start = hub.start("three_steps", instance, &1);
                hub.reusing(start, IdReuse::default().on_live(OnExisting::Replace));
            } else {
                hub.terminate(instance, false);
            }
        }
        if let Some(steps) = crash_after {
            hub.run_steps(steps);
            hub.crash_and_recover();
        }
        hub.run();
        if end == "purge" {
            for instance in ["holder", "waiter"] {
                hub.purge(instance);
            }
        }
        hub.finish();
        assert_eq!(hub.state("saver").unwrap().status, OrchestrationStatus::Completed, "{place}");
        for account in ["0", "a", "b", "c"] {
            let entity = hub.state(&format!("@account@{account}")).unwrap().entity.unwrap();
            assert_eq!((entity.lock, entity.state.unwrap().as_str()), (None, "2"), "{place}");
        }
    }
}

#[test]
fn an_instance_that_crashes_slows_no_other() {
    let mut hub = Simulation::new(SimulationOptions {
        crashed_turns: 100,
        crashes_of: Some("bad".to_owned()),
        ..options(true)
    });
    register_all(&mut hub);
    hub.start("three_steps", "bad", &1);
    hub.when_answered();
    for n in 0..10 {
        hub.start("three_steps", &format!("good-{n}"), &1);
    }
    let began = hub.now();
    while (0..10).any(|n| hub.state(&format!("good-{n}")).is_none_or(|state| !state.status.is_terminal())) {
        assert!(hub.run_steps(1));
    }
    assert!(hub.now().since(began) <= Duration::from_secs(1), "{:?}", hub.now().since(began));
    assert!(!hub.poisoned().is_empty());
}

/// A hub in which only the turns of one entity crash.
fn sick_entity(id: &str, turn_crashes_max: u32) -> Simulation {
    let options = SimulationOptions {
        crashed_turns: 100,
        crashes_of: Some(id.to_owned()),
        turn_crashes_max,
        ..options(true)
    };
    let mut hub = Simulation::new(options);
    register_all(&mut hub);
    hub
}

#[test]
fn an_entity_whose_turns_crash_is_left_alone_and_does_its_operations_when_it_is_released() {
    for (operation, crash) in
        [("insert", false), ("insert", true), ("insert_slowly", false), ("insert_slowly", true)]
    {
        let mut hub = sick_entity("@set@bad", 3);
        hub.signal("@set@bad", operation, &1);
        hub.signal("@set@good", "insert", &1);
        hub.run();
        let (instance, poison) = hub.poisoned().remove(0);
        assert_eq!((instance.as_str(), poison.crashes, poison.parked), ("@set@bad", 3, true));
        assert_eq!(entity_state(&mut hub, "@set@bad"), None);
        assert_eq!(entity_state(&mut hub, "@set@good").as_deref(), Some("[1]"), "others are not concerned");
        // What is asked of it meanwhile waits.
        hub.signal("@set@bad", "insert", &2);
        if crash {
            hub.run_steps(7);
            hub.crash_and_recover();
        }
        hub.run();
        assert_eq!(hub.poisoned()[0].1.crashes, 3);
        hub.set_crashed_turns(0);
        let released = hub.release("@set@bad");
        hub.finish();
        assert_eq!(hub.answer(released), Some(&Ok(Accepted::Released)));
        assert_eq!(entity_state(&mut hub, "@set@bad").as_deref(), Some("[1,2]"), "{operation}");
        assert!(hub.poisoned().is_empty());
    }
}

#[test]
fn a_locked_entity_whose_turns_crash_keeps_its_owner_waiting_and_nothing_else_is_lost() {
    let mut hub = sick_entity("@account@a", 2);
    hub.set_crashed_turns(0);
    hub.start("transfer", "first", &("a", "b", 1));
    hub.start("transfer", "second", &("b", "a", 2));
    while hub.state("first").is_none_or(|state| state.history_events < 8) {
        assert!(hub.run_steps(1), "the locks are never given");
    }
    hub.set_crashed_turns(100);
    hub.run();
    assert!(hub.poisoned()[0].1.parked);
    assert_eq!(hub.state("first").unwrap().status, OrchestrationStatus::Running);
    hub.set_crashed_turns(0);
    hub.release("@account@a");
    hub.finish();
    for transfer in ["first", "second"] {
        assert_eq!(hub.state(transfer).unwrap().status, OrchestrationStatus::Completed, "{transfer}");
    }
    assert_eq!(entity_state(&mut hub, "@account@a").as_deref(), Some("1"));
    assert_eq!(entity_state(&mut hub, "@account@b").as_deref(), Some("-1"));
}

fn entity_state(hub: &mut Simulation, id: &str) -> Option<String> {
    let state = hub.state(id)?.entity?.state?;
    Some(state.as_str().to_owned())
}
