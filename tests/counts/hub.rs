//! A real hub, with its threads, on a store in memory: messages between its actors, and allocations of all threads.

use std::sync::Arc;
use std::time::Duration;

use steadfast::store::MemoryStore;
use steadfast::{Client, HubBuilder, HubOptions};

use crate::kernel::Kernel;
use crate::programs::{STEPS, greet, steps};
use crate::recorded::{HUB, KERNEL};
use crate::{Compared, allocations, allocations_of_process, alone, check};

/// How many times each count is taken; the least is that of the work, and what is more came from threads that met.
const ROUNDS: usize = 7;

/// How many instances are run, one after the other, for each count.
const INSTANCES: u64 = 100;

async fn run(client: &Client, steps: u64) {
    for _ in 0..INSTANCES {
        client.start(STEPS, steps).await.unwrap().result().await.unwrap();
    }
}

/// The least counts of a hundred runs: messages and allocations.
fn count(steps_each: u64) -> (u64, u64) {
    // One thread for clients and activities, and nothing that happens by the clock.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let hours = Duration::from_secs(3600);
    let options =
        HubOptions { materialise_interval: hours, session_idle_timeout: hours, ..HubOptions::default() };
    let store = MemoryStore::new(1);
    let builder = HubBuilder::new(move |_| Ok(Arc::new(store))).options(options);
    let hub = runtime.block_on(builder.register(greet()).register(steps()).start()).unwrap();
    let client = hub.client();
    // So that what grows with use has grown.
    runtime.block_on(run(&client, steps_each));
    let (mut messages, mut allocated) = (u64::MAX, u64::MAX);
    for _ in 0..ROUNDS {
        let before = hub.actor_messages();
        allocated = allocated.min(allocations_of_process(|| runtime.block_on(run(&client, steps_each))));
        messages = messages.min(hub.actor_messages() - before);
    }
    runtime.block_on(hub.stop()).unwrap();
    (messages, allocated)
}

#[test]
fn a_hub_sends_and_allocates_no_more_than_is_recorded() {
    let _alone = alone();
    let compared = HUB.iter().flat_map(|recorded| {
        let (messages, allocated) = count(recorded.steps);
        let compared = |what, counted, recorded_as, slack| Compared {
            what: format!("{} with {} activities in sequence, {what}", INSTANCES, recorded.steps),
            counted,
            recorded: recorded_as,
            slack,
        };
        [
            compared("messages of actors", messages, recorded.messages, 0),
            // Half an allocation for each.
            compared("allocations of the process", allocated, recorded.allocations, INSTANCES / 2),
        ]
    });
    check(&compared.collect::<Vec<_>>());
}

#[test]
fn the_kernel_allocates_no_more_than_is_recorded() {
    let _alone = alone();
    let mut kernel = Kernel::new();
    let mut counted = Vec::new();
    for (name, program, input) in [
        ("ping", "steps", 1),
        ("hello", "steps", 3),
        ("chain of 100", "steps", 100),
        ("fanout of 100", "fanout", 100),
    ] {
        // So that what grows with use has grown.
        kernel.run(program, input);
        counted.push((name, allocations(|| kernel.run(program, input))));
    }
    let history = kernel.history(100);
    drop(kernel.replay(&history));
    counted.push(("replay of 100 steps", allocations(|| drop(kernel.replay(&history)))));
    let mut bytes = Vec::new();
    history.iter().for_each(|event| steadfast_core::codec::encode(event, &mut bytes));
    let decode = || steadfast_core::codec::decode_many::<steadfast::HistoryEvent>(&bytes).unwrap();
    counted.push(("decoding of 100 steps", allocations(|| drop(decode()))));
    let names: Vec<_> = KERNEL.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, counted.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "each has a recorded value");
    let compared = counted.iter().zip(KERNEL).map(|((name, counted), (_, recorded))| Compared {
        what: format!("{name} in the kernel, allocations"),
        counted: *counted,
        recorded: *recorded,
        slack: 0,
    });
    check(&compared.collect::<Vec<_>>());
}
