//! Invariant I5: a store error at any call gives up the partition and builds it anew; nothing is half applied.

use steadfast_store::{Fault, FaultPoint, Operation, StoreError};
use steadfast_testkit::SimulationOptions;

use crate::scenarios::{SCENARIOS, ends, finish_and_compare, hub, options};

fn faults(operation: Operation, nth: u64) -> Vec<Fault> {
    let io = StoreError::Io { doing: "testing", problem: "the disk is gone".to_owned() };
    let points: &[FaultPoint] = match operation {
        Operation::Load => &[FaultPoint::Before],
        Operation::Sync => &[FaultPoint::Before, FaultPoint::After],
        _ => &[FaultPoint::Before, FaultPoint::AfterWrites(1), FaultPoint::After],
    };
    let fault = |(at, point): (usize, &FaultPoint)| {
        let error = if at % 2 == 0 { io.clone() } else { StoreError::Full };
        Fault { operation, nth, point: *point, error }
    };
    points.iter().enumerate().map(fault).collect()
}

#[test]
fn an_error_at_any_call_of_the_store_changes_nothing() {
    for (nth, (name, plan)) in SCENARIOS.iter().enumerate() {
        let options = options(nth % 2 == 0);
        let expected = ends(*plan, options.clone());
        for operation in [Operation::Append, Operation::Sync, Operation::Materialise, Operation::Load] {
            let (mut struck, mut call) = (true, 1);
            while struck {
                struck = false;
                for fault in faults(operation, call) {
                    let place = format!("{name}, {fault:?}");
                    let mut hub = hub(*plan, options.clone());
                    hub.store().fail(fault);
                    finish_and_compare(&mut hub, &expected, &place);
                    struck |= hub.crashes() > 0;
                }
                // Those who read in between are checks; what matters of loads comes early.
                call += if operation == Operation::Load { 3 } else { 1 };
                assert!(call < 300, "{name}: {operation:?} comes to an end");
            }
        }
    }
}

#[test]
fn a_log_that_cannot_be_truncated_is_truncated_later() {
    for (name, plan) in SCENARIOS {
        let expected = ends(*plan, options(true));
        let mut hub = hub(*plan, options(true));
        for fault in (1..20).flat_map(|nth| faults(Operation::Truncate, nth)) {
            hub.store().fail(fault);
        }
        finish_and_compare(&mut hub, &expected, name);
    }
}

#[test]
fn errors_all_the_time_are_survived() {
    for (name, plan) in SCENARIOS {
        let expected = ends(*plan, options(true));
        let mut hub = hub(*plan, SimulationOptions { materialise_every: 3, ..options(false) });
        for nth in (2..400).step_by(5) {
            for operation in [Operation::Append, Operation::Materialise, Operation::Load] {
                faults(operation, nth).into_iter().take(1).for_each(|fault| hub.store().fail(fault));
            }
        }
        finish_and_compare(&mut hub, &expected, name);
        assert!(hub.crashes() > 0, "{name}");
    }
}
