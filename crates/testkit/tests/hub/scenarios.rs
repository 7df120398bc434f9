//! What the tests run: a plan of client calls whose end does not depend on the order of what happens at once, nor on
//! how often a call is made.

use std::collections::BTreeMap;
use std::time::Duration;

use steadfast_core::{IdReuse, OnExisting};
use steadfast_testkit::{EndState, Simulation, SimulationOptions};

use crate::entities;
use crate::programs::register_all;
use crate::rewinds;

pub(crate) type Plan = fn(&mut Simulation);

pub(crate) const SCENARIOS: &[(&str, Plan)] = &[
    ("three activities in sequence", three_activities),
    ("fan-out of 50", fan_out),
    ("timers that race", timers),
    ("external events", external_events),
    ("sub-orchestrations across partitions", sub_orchestrations),
    ("continue-as-new", continue_as_new),
    ("continue-as-new with carried events", carried_events),
    ("signals between instances", signals),
    ("suspend and resume", suspend_and_resume),
    ("terminate with children", terminate_with_children),
    ("purge and create again", purge_and_create_again),
    ("scheduled starts", scheduled_starts),
    ("ids that are in use", ids_in_use),
    ("continue-as-new leaving activities behind, with timeouts", hurried),
    ("payloads that are compressed", compressed_payloads),
    ("signals to entities", entities::signals),
    ("delayed signals", entities::delayed),
    ("calls of entities", entities::calls),
    ("critical sections", entities::transfers),
    ("owners of locks that end", entities::owners_that_end),
    ("owners of locks that fail or go on", entities::owners_that_fail_or_go_on),
    ("rewinds of failed activities", rewinds::activities),
    ("rewinds of failed children", rewinds::children),
    ("rewinds of a child and then of its parent", rewinds::child_first),
    ("rewinds with retries, timers and entities", rewinds::others),
    ("rewinds that are suspended and terminated", rewinds::held_up),
    ("rewinds of what cannot be rewound", rewinds::impossible),
];

pub(crate) fn hub(plan: Plan, options: SimulationOptions) -> Simulation {
    let mut hub = Simulation::new(options);
    register_all(&mut hub);
    plan(&mut hub);
    hub
}

/// How many seeds are tried; more with the environment variable `STEADFAST_TEST_SEEDS`, for a night.
pub(crate) fn seeds(usual: u64) -> std::ops::Range<u64> {
    let wanted = std::env::var("STEADFAST_TEST_SEEDS").ok().and_then(|text| text.parse().ok());
    0..wanted.unwrap_or(usual)
}

pub(crate) fn options(extended_sessions: bool) -> SimulationOptions {
    SimulationOptions {
        partitions: 3,
        extended_sessions,
        materialise_every: 2,
        ..SimulationOptions::default()
    }
}

pub(crate) type Ends = BTreeMap<String, EndState>;

/// What a plan leaves when nothing disturbs it.
pub(crate) fn ends(plan: Plan, options: SimulationOptions) -> Ends {
    let mut hub = hub(plan, options);
    hub.finish();
    hub.end_states()
}

pub(crate) fn finish_and_compare(hub: &mut Simulation, expected: &Ends, place: &str) {
    // So that the place is known when a check within fails.
    let finished = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| hub.finish()));
    assert!(finished.is_ok(), "{place}: see above");
    assert_eq!(&hub.end_states(), expected, "{place}");
}

fn three_activities(hub: &mut Simulation) {
    hub.start("three_steps", "a", &1);
    hub.start("three_steps", "fresh-b", &10);
}

fn fan_out(hub: &mut Simulation) {
    hub.start("fan_out", "wide", &50);
}

fn timers(hub: &mut Simulation) {
    hub.start("timer_race", "race", &2);
    hub.start("idle_timers", "idle", &3);
}

fn external_events(hub: &mut Simulation) {
    hub.start("collect", "collector", &4);
    hub.when_answered();
    hub.raise("collector", "number", &0);
    hub.raise("collector", "NUMBER", &1);
    hub.when_idle();
    hub.raise("collector", "number", &2);
    hub.raise("collector", "other", &9);
    hub.when_answered();
    hub.raise("collector", "number", &3);
}

fn sub_orchestrations(hub: &mut Simulation) {
    hub.start("family", "smith", &1);
}

fn continue_as_new(hub: &mut Simulation) {
    hub.start("counter", "counter", &4);
}

fn carried_events(hub: &mut Simulation) {
    hub.start("sum_up", "sum", &(5, [0u64; 0]));
    hub.when_answered();
    for n in 0..3 {
        hub.raise("sum", "number", &n);
    }
    hub.when_answered();
    for n in 3..5 {
        hub.raise("sum", "number", &n);
    }
}

fn signals(hub: &mut Simulation) {
    hub.start("ping", "pinger", &("ponger", 3));
    hub.start("ping", "pinger2", &("ponger-two", 2));
}

fn suspend_and_resume(hub: &mut Simulation) {
    hub.start("patient", "sleeper", &1);
    hub.when_idle();
    hub.suspend("sleeper");
    hub.when_answered();
    hub.raise("sleeper", "go", &5);
    hub.when_idle();
    hub.resume("sleeper");
}

fn terminate_with_children(hub: &mut Simulation) {
    hub.start("parent_of_patients", "parent", &3);
    hub.start("parent_of_patients", "other", &2);
    hub.when_idle();
    hub.terminate("parent", true);
    hub.terminate("other", false);
    hub.when_idle();
    hub.raise("other/0", "go", &1);
    hub.terminate("other/1", false);
}

fn purge_and_create_again(hub: &mut Simulation) {
    hub.start("three_steps", "again", &1);
    hub.start("three_steps", "gone", &2);
    hub.when_at_rest();
    hub.purge("again");
    hub.purge("gone");
    hub.when_answered();
    hub.start("fan_out", "again", &3);
    hub.when_idle();
    hub.start("counter", "again", &1);
}

fn hurried(hub: &mut Simulation) {
    hub.start("hurried", "hurry", &3);
    hub.start("hurried", "fresh-hurry", &1);
}

fn scheduled_starts(hub: &mut Simulation) {
    hub.start_later("three_steps", "later", &1, Duration::from_secs(60));
    hub.start_later("three_steps", "never", &1, Duration::from_secs(90));
    hub.when_idle();
    hub.terminate("never", false);
    hub.raise("later", "ignored", &1);
}

fn compressed_payloads(hub: &mut Simulation) {
    let text = "abcdefghij".repeat(2_000);
    hub.start("bulky", "lorry", &(0, &text));
    hub.when_answered();
    hub.raise("lorry", "cargo", &text);
}

/// Live instances are replaced or left alone; a child whose id a scheduled instance holds is refused at once.
fn ids_in_use(hub: &mut Simulation) {
    hub.start("patient", "replaced", &1);
    hub.start("parent_of_patients", "replaced-with-children", &2);
    hub.start("patient", "kept", &1);
    hub.start_later("patient", "held/0", &1, Duration::from_secs(60));
    hub.when_idle();
    let replace = IdReuse::default().on_live(OnExisting::Replace);
    for instance in ["replaced", "replaced-with-children"] {
        let start = hub.start("three_steps", instance, &1);
        hub.reusing(start, replace);
    }
    let start = hub.start("three_steps", "kept", &1);
    hub.reusing(start, IdReuse::default().on_live(OnExisting::Ignore).on_ended(OnExisting::Ignore));
    hub.start("parent_of_patients", "held", &1);
    hub.when_at_rest();
    hub.raise("kept", "go", &2);
    hub.raise("held/0", "go", &3);
    for n in 0..2 {
        hub.raise(&format!("replaced-with-children/{n}"), "go", &n);
    }
}
