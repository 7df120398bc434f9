//! Whole hubs in virtual time, whose steps come in the same order each time: what they write, and how often.

use steadfast_store::Store;
use steadfast_testkit::{Simulation, SimulationOptions};

use crate::recorded::{SIMULATED, Written};
use crate::{Compared, alone, check, programs};

/// How many instances (or steps, or signals) are run. What they cost is multiplied to a thousand.
const COUNT: u64 = 200;

/// How many instances are started together; the next ones follow when nothing is left to do for these.
const BATCH: u64 = 100;

/// What is run.
type Plan = fn(&mut Simulation);

const PLANS: &[(&str, Plan)] = &[
    ("hello", |hub| batches(hub, "steps", 3)),
    ("ping", |hub| batches(hub, "steps", 1)),
    ("chain", |hub| one(hub, "steps")),
    ("fanout", |hub| one(hub, "fanout")),
    ("timers", |hub| batches(hub, "timer", 60)),
    ("children", |hub| batches(hub, "parent", 0)),
    ("events", events),
    ("signals", signals),
];

/// One instance with so many activities.
fn one(hub: &mut Simulation, name: &str) {
    hub.start(name, "instance", &COUNT);
}

fn batches(hub: &mut Simulation, name: &str, input: u64) {
    for number in 0..COUNT {
        if number % BATCH == 0 {
            hub.when_at_rest();
        }
        hub.start(name, &format!("instance-{number:03}"), &input);
    }
}

fn events(hub: &mut Simulation) {
    for number in 0..COUNT {
        hub.start("waiting", &format!("instance-{number:03}"), &());
    }
    for number in 0..COUNT {
        if number % BATCH == 0 {
            hub.when_idle();
        }
        hub.raise(&format!("instance-{number:03}"), "go", &number);
    }
}

fn signals(hub: &mut Simulation) {
    for number in 0..COUNT {
        if number % BATCH == 0 {
            hub.when_at_rest();
        }
        hub.signal(&format!("@counter@{}", number % 10), "add", &1);
    }
}

fn run(plan: Plan) -> Written {
    let mut hub = Simulation::new(SimulationOptions { partitions: 2, ..SimulationOptions::default() });
    hub.register(programs::greet());
    for orchestration in [programs::steps(), programs::fanout(), programs::parent()] {
        hub.register(orchestration);
    }
    hub.register(programs::timer());
    hub.register(programs::waiting());
    hub.register(programs::counter());
    plan(&mut hub);
    hub.finish();
    let found = hub.store().metrics();
    Written {
        log_bytes: found.log_bytes * 1000 / COUNT,
        log_records: found.log_records * 1000 / COUNT,
        log_syncs: found.log_syncs * 1000 / COUNT,
        materialised_bytes: found.materialised_bytes * 1000 / COUNT,
        materialised_instances: found.materialised_instances * 1000 / COUNT,
    }
}

/// A thousand of each: what they write to the log and to the instance store, and how often the log is synchronised when
/// a hundred are under way at once.
#[test]
fn no_scenario_writes_more_than_is_recorded() {
    let _alone = alone();
    let mut compared = Vec::new();
    let names: Vec<_> = SIMULATED.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        PLANS.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        "each scenario has recorded values"
    );
    for ((name, plan), (_, recorded)) in PLANS.iter().zip(SIMULATED) {
        let found = run(*plan);
        let Written { log_bytes, log_records, log_syncs, materialised_bytes, materialised_instances } =
            *recorded;
        let counts = [
            ("bytes logged", found.log_bytes, log_bytes),
            ("records logged", found.log_records, log_records),
            ("syncs of the log", found.log_syncs, log_syncs),
            ("bytes materialised", found.materialised_bytes, materialised_bytes),
            ("instances materialised", found.materialised_instances, materialised_instances),
        ];
        compared.extend(counts.into_iter().map(|(what, counted, recorded)| Compared {
            what: format!("{name}, {what} for a thousand"),
            counted,
            recorded,
            slack: 0,
        }));
    }
    check(&compared);
}
