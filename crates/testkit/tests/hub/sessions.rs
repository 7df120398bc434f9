//! Sessions that stay in memory are a matter of speed: histories do not show them.

use steadfast_testkit::SimulationOptions;

use crate::scenarios::{SCENARIOS, hub, options};

fn histories(
    plan: crate::scenarios::Plan,
    options: SimulationOptions,
) -> std::collections::BTreeMap<String, Vec<steadfast_core::HistoryEvent>> {
    let mut hub = hub(plan, options);
    hub.finish();
    hub.histories()
}

#[test]
fn extended_sessions_on_and_off_give_equal_histories() {
    for (name, plan) in SCENARIOS {
        for partitions in [1, 3] {
            let with = |extended_sessions, resident_sessions_max, materialise_every| {
                let options = SimulationOptions {
                    partitions,
                    extended_sessions,
                    resident_sessions_max,
                    materialise_every,
                    ..options(true)
                };
                histories(*plan, options)
            };
            let expected = with(true, 1000, 0);
            assert_eq!(expected, with(false, 1000, 0), "{name}: without sessions");
            assert_eq!(expected, with(true, 1, 0), "{name}: one session");
            assert_eq!(expected, with(false, 1000, 1), "{name}: without sessions, materialised all the time");
        }
    }
}
