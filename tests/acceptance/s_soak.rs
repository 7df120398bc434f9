//! Group S: memory stays flat however long a hub runs. A soak of hours, scaled to seconds: equal rounds of work, in a process of
//! its own, whose memory the operating system reports after each.

use std::process::Command;
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use steadfast::{
    ActivityContext, ActivityName, CallOptions, Client, Error, OrchestrationContext, OrchestrationName,
    TaskHub, activity, orchestration,
};

use crate::support::{soon, stop, with_id};

const WORK: ActivityName<u32, u32> = ActivityName::new("work");
const MIXED: OrchestrationName<u32, u32> = OrchestrationName::new("mixed");
const COUNTER: OrchestrationName<u64, u64> = OrchestrationName::new("counter");

/// The process in which the rounds run has this set.
const CHILD: &str = "STEADFAST_TEST_SOAK";

/// Until then allocator, runtime and tables have found their size.
const WARM_UP: usize = 4;
const ROUNDS: usize = 12;
const INSTANCES: u32 = 400;

/// What allocators do by themselves. Eight rounds of 400 instances that left 5 KiB each would be twice as much.
const SLACK_KIB: u64 = 8 * 1024;

/// The process's resident memory in KiB; none where the operating system does not tell.
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

#[test]
fn memory_is_flat_over_rounds_of_equal_work() {
    if std::env::var_os(CHILD).is_some() || resident_kib().is_none() {
        return;
    }
    let name = "s_soak::the_rounds";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads", "1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{output}\n{}", String::from_utf8_lossy(&child.stderr));
    let rounds: Vec<u64> =
        output.lines().filter_map(|line| line.strip_prefix("resident ")?.parse().ok()).collect();
    assert_eq!(rounds.len(), ROUNDS, "{output}");
    let (settled, last) =
        (rounds[WARM_UP..ROUNDS - 2].iter().min().unwrap(), rounds[ROUNDS - 2..].iter().min().unwrap());
    assert!(*last <= settled + SLACK_KIB, "memory grows, in KiB after each round: {rounds:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by memory_is_flat_over_rounds_of_equal_work in a process of its own"]
async fn the_rounds() {
    let work = activity("work", |ctx: ActivityContext, n: u32| async move {
        ctx.heartbeat(&n)?;
        if n == u32::MAX {
            // Somebody who waits until nobody waits for it.
            ctx.cancelled().await;
        }
        Ok::<_, Error>(n)
    });
    // A little of everything: results, a race with a loser that is cancelled, a child, an event, a timer.
    let mixed = orchestration("mixed", |ctx: OrchestrationContext, n: u32| async move {
        let options = CallOptions {
            priority: (n % 3) as i32,
            heartbeat_timeout: Some(Duration::from_secs(3600)),
            ..CallOptions::default()
        };
        let first = ctx.call_with(WORK, n, options).await?;
        match select(ctx.call(WORK, u32::MAX), ctx.timer(Duration::from_millis(1))).await {
            Either::Left(_) => return Err(Error::msg("it waits for ever")),
            Either::Right(((), loser)) => drop(loser),
        }
        if n.is_multiple_of(10) {
            ctx.call_orchestration(MIXED, n + 1).await?;
        }
        ctx.wait_for_event_timeout::<u32>("never", Duration::from_millis(1)).await.ok();
        Ok::<_, Error>(first)
    });
    let counter = orchestration("counter", |ctx: OrchestrationContext, seen: u64| async move {
        let more = ctx.wait_for_event::<u64>("more").await?;
        ctx.continue_as_new(&(seen + more))?;
        Ok::<_, Error>(seen)
    });
    let hub = TaskHub::in_memory().register(work).register(mixed).register(counter).start().await.unwrap();
    let client = hub.client();
    client.start_with(COUNTER, 0, with_id("counter")).await.unwrap();
    for round in 0..ROUNDS {
        one_round(&client, round).await;
        println!("\nresident {}", resident_kib().unwrap());
    }
    stop(hub).await;
}

async fn one_round(client: &Client, round: usize) {
    let starts = (0..INSTANCES).map(|n| client.start_with(MIXED, n, with_id(&format!("mixed-{round}-{n}"))));
    let runs = join_all(starts).await;
    for (n, run) in runs.into_iter().enumerate() {
        assert_eq!(soon("the result", run.unwrap().result()).await.unwrap(), n as u32);
    }
    let events = (0..INSTANCES).map(|_| client.raise_event("counter", "more", &1u64));
    assert!(join_all(events).await.iter().all(Result::is_ok));
    // The store keeps what has ended in memory here, so that it has to go. Children have ids of their own.
    loop {
        let query = steadfast::InstanceQuery::default();
        let page = client.query(&query).await.unwrap();
        let ended: Vec<_> = page.instances.iter().filter(|state| state.status.is_terminal()).collect();
        if ended.is_empty() {
            break;
        }
        for state in ended {
            client.purge(state.instance.as_str()).await.unwrap();
        }
    }
}
