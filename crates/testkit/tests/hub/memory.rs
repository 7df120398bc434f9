//! Invariant I6: memory does not grow with what is idle or over, and nobody starves.

use steadfast_core::OrchestrationStatus;
use steadfast_core::partition::PartitionCounts;
use steadfast_testkit::SimulationOptions;

use crate::scenarios::{hub, options};

#[test]
fn finished_and_waiting_instances_leave_no_entries() {
    let mut hub = hub(|_| {}, options(true));
    for n in 0..100 {
        hub.start("three_steps", &format!("finished-{n}"), &n);
        hub.start("patient", &format!("waiting-{n}"), &n);
    }
    hub.finish();
    assert!(hub.counts().iter().all(|counts| *counts == PartitionCounts::default()), "{:?}", hub.counts());
    assert_eq!(hub.state("waiting-7").unwrap().status, OrchestrationStatus::Running);
    // What is forgotten is not lost.
    hub.raise("waiting-7", "go", &3);
    hub.finish();
    assert_eq!(hub.state("waiting-7").unwrap().output.unwrap().as_str(), "20");
}

#[test]
fn a_call_on_an_unknown_instance_leaves_no_entry() {
    let mut hub = hub(|_| {}, options(true));
    let requests = [hub.raise("nobody", "go", &1), hub.terminate("nobody", true), hub.purge("nobody")];
    hub.finish();
    for request in requests {
        assert_eq!(hub.answer(request), Some(&Err(steadfast_core::partition::Rejection::NotFound)));
    }
}

#[test]
fn ten_thousand_generations_take_constant_memory_and_starve_nobody() {
    let options = SimulationOptions { materialise_every: 50, ..SimulationOptions::default() };
    let mut hub = hub(|_| {}, options);
    hub.start("loop", "eternal", &10_000);
    let mut largest = PartitionCounts::default();
    let mut others = 0;
    while hub.run_steps(500) {
        let [counts] = hub.counts()[..] else { panic!("there is one partition") };
        largest.entries = largest.entries.max(counts.entries);
        largest.overlay_bytes = largest.overlay_bytes.max(counts.overlay_bytes);
        largest.session_places = largest.session_places.max(counts.session_places);
        if others < 20 {
            hub.start("three_steps", &format!("other-{others}"), &1);
            others += 1;
        }
    }
    hub.finish();
    assert_eq!(hub.state("eternal").unwrap().generation, 10_000);
    // Those that ended stay until the next materialisation.
    assert!(largest.entries <= 4 + others, "{largest:?}");
    // Each turn uses a session, which is remembered a few times for each that there is.
    assert!((1000..1200).contains(&largest.session_places), "{largest:?}");
    // About two kilobytes for each of them, whatever the number of generations.
    assert!(largest.overlay_bytes < 60_000, "{largest:?}");
    let ended =
        |hub: &mut steadfast_testkit::Simulation, id: &str| hub.state(id).unwrap().completed_at.unwrap();
    for n in 0..others {
        assert_eq!(hub.state(&format!("other-{n}")).unwrap().status, OrchestrationStatus::Completed);
        assert!(ended(&mut hub, &format!("other-{n}")) <= ended(&mut hub, "eternal"));
    }
}

#[test]
fn no_more_sessions_stay_than_are_allowed() {
    for resident_sessions_max in [0, 1, 3] {
        let options = SimulationOptions { resident_sessions_max, ..SimulationOptions::default() };
        let mut hub = hub(|_| {}, options);
        for n in 0..20 {
            hub.start("patient", &format!("patient-{n}"), &n);
            hub.when_idle();
        }
        let mut most = 0;
        while hub.run_steps(1) {
            most = most.max(hub.counts()[0].resident_sessions);
        }
        // One more while it takes its turn.
        assert_eq!(most, resident_sessions_max + 1);
        hub.finish();
    }
}
