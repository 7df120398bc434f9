//! Activities at work: timeouts, heartbeats, cancellation, limits, priorities, fairness.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use steadfast::failure::kinds;
use steadfast::store::MemoryStore;
use steadfast::{
    ActivityContext, ActivityLimit, ActivityName, ActivityState, CallOptions, CancelReason, Client, Error,
    EventKind, HubBuilder, HubOptions, OrchestrationContext, OrchestrationName, OrchestrationStatus,
    RetryPolicy, activity, orchestration,
};
use steadfast_testkit::VirtualClock;
use tokio::sync::{mpsc, watch};

use crate::support::{end_of, hub_with_clock, soon, stop, with_and_without_sessions, with_id};

const WORK: ActivityName<String, String> = ActivityName::new("work");
const BOSS: OrchestrationName<String, String> = OrchestrationName::new("boss");

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What the test and the activity "work" tell each other. The activity says what happens to it and goes on when it is
/// let go, or is cancelled if it looks.
struct Bench {
    begun: mpsc::UnboundedReceiver<ActivityContext>,
    ended: mpsc::UnboundedReceiver<Result<String, CancelReason>>,
    go: watch::Sender<bool>,
}

/// The activity "work", which ends when it is told to, or when it is cancelled.
fn bench() -> (steadfast::ActivityDefinition<String, String>, Bench) {
    let (begin, begun) = mpsc::unbounded_channel();
    let (end, ended) = mpsc::unbounded_channel();
    let go = watch::Sender::new(false);
    let gone = go.clone();
    let work = activity("work", move |ctx: ActivityContext, input: String| {
        let (begin, end, mut go) = (begin.clone(), end.clone(), gone.subscribe());
        async move {
            let _ = begin.send(ctx.clone());
            let let_go = std::pin::pin!(go.wait_for(|go| *go));
            match select(let_go, ctx.cancelled()).await {
                Either::Left(_) => {
                    let _ = end.send(Ok(input.clone()));
                    Ok::<_, Error>(input)
                }
                Either::Right((reason, _)) => {
                    let _ = end.send(Err(reason));
                    Err(Error::new("GaveUp", reason.to_string()))
                }
            }
        }
    });
    (work, Bench { begun, ended, go })
}

impl Bench {
    async fn begins(&mut self) -> ActivityContext {
        soon("the begin of an attempt", self.begun.recv()).await.unwrap()
    }

    async fn ends(&mut self) -> Result<String, CancelReason> {
        soon("the end of an attempt", self.ended.recv()).await.unwrap()
    }
}

/// An orchestration that calls "work" once, with options, and returns its result or the type of its failure.
fn calls(options: CallOptions) -> steadfast::OrchestrationDefinition<String, String> {
    orchestration("boss", move |ctx: OrchestrationContext, input: String| {
        let options = options.clone();
        async move {
            Ok::<_, Error>(match ctx.call_with(WORK, input, options).await {
                Ok(result) => result,
                Err(error) => error.details.error_type.to_string(),
            })
        }
    })
}

fn retry(attempts: u32) -> Option<RetryPolicy> {
    Some(RetryPolicy::new(attempts, Duration::ZERO))
}

with_and_without_sessions! {
    async fn an_attempt_that_takes_too_long_fails_and_is_told_and_its_late_result_is_ignored(sessions: bool) {
        let (builder, clock) = hub_with_clock(sessions);
        let (begin, mut begun) = mpsc::unbounded_channel();
        let (release, _) = watch::channel(());
        let released = release.clone();
        // It does not look whether it is cancelled, and returns late.
        let stubborn = activity("work", move |ctx: ActivityContext, input: String| {
            let (begin, mut released) = (begin.clone(), released.subscribe());
            async move {
                let _ = begin.send(ctx);
                let _ = released.changed().await;
                Ok::<_, Error>(input)
            }
        });
        let options = CallOptions { start_to_close_timeout: Some(seconds(10)), ..CallOptions::default() };
        let hub = builder.register(stubborn).register(calls(options)).start().await.unwrap();
        let client = hub.client();
        client.start_with(BOSS, "late".into(), with_id("boss")).await.unwrap();
        let ctx = soon("the attempt", begun.recv()).await.unwrap();
        clock.advance(seconds(9));
        assert_eq!(ctx.cancel_reason(), None);
        clock.advance(seconds(1));
        let state = end_of(&client, "boss").await;
        assert_eq!(state.output.unwrap().decode::<String>().unwrap(), kinds::ACTIVITY_TIMED_OUT);
        assert_eq!(soon("the news", ctx.cancelled()).await, CancelReason::TimedOut);
        release.send_replace(());
        let before = client.history("boss").await.unwrap();
        stop(hub).await;
        let results = before.iter().filter(|event| matches!(event.kind, EventKind::TaskCompleted { .. })).count();
        assert_eq!(results, 0);
    }

    async fn a_retry_policy_sees_a_timeout_and_tries_again(sessions: bool) {
        let (builder, clock) = hub_with_clock(sessions);
        let (work, mut bench) = bench();
        let options = CallOptions {
            start_to_close_timeout: Some(seconds(10)),
            retry: retry(3),
            ..CallOptions::default()
        };
        let hub = builder.register(work).register(calls(options)).start().await.unwrap();
        let client = hub.client();
        client.start_with(BOSS, "third time".into(), with_id("boss")).await.unwrap();
        for _ in 0..2 {
            bench.begins().await;
            clock.advance(seconds(10));
            assert_eq!(bench.ends().await, Err(CancelReason::TimedOut));
        }
        bench.begins().await;
        bench.go.send_replace(true);
        let state = end_of(&client, "boss").await;
        assert_eq!(state.output.unwrap().as_str(), "\"third time\"");
        stop(hub).await;
    }

    async fn heartbeats_keep_an_attempt_alive_and_their_last_detail_goes_to_the_next_attempt(sessions: bool) {
        let (builder, clock) = hub_with_clock(sessions);
        let (work, mut bench) = bench();
        let options = CallOptions { heartbeat_timeout: Some(seconds(5)), retry: retry(3), ..CallOptions::default() };
        let hub = builder.register(work).register(calls(options)).start().await.unwrap();
        let client = hub.client();
        client.start_with(BOSS, "done".into(), with_id("boss")).await.unwrap();
        let first = bench.begins().await;
        assert_eq!(first.last_heartbeat::<u32>().unwrap(), None);
        for step in 1..=10u32 {
            clock.advance(seconds(4));
            assert_eq!(first.cancel_reason(), None, "{step}");
            first.heartbeat(&step).unwrap();
        }
        clock.advance(seconds(5));
        assert_eq!(bench.ends().await, Err(CancelReason::HeartbeatTimedOut));
        // The second attempt says nothing, and the third is still told what the first one had reached.
        let second = bench.begins().await;
        assert_eq!(second.last_heartbeat::<u32>().unwrap(), Some(10));
        clock.advance(seconds(5));
        assert_eq!(bench.ends().await, Err(CancelReason::HeartbeatTimedOut));
        let third = bench.begins().await;
        assert_eq!(third.last_heartbeat::<u32>().unwrap(), Some(10));
        assert!(third.last_heartbeat::<String>().is_err());
        bench.go.send_replace(true);
        assert_eq!(end_of(&client, "boss").await.status, OrchestrationStatus::Completed);
        stop(hub).await;
    }

    async fn an_activity_learns_that_its_orchestration_has_ended_in_any_way(sessions: bool) {
        let boss = orchestration("boss", |ctx: OrchestrationContext, how: String| async move {
            if ctx.generation() > 0 {
                return Ok("next".to_owned());
            }
            let open = ctx.call(WORK, how.clone());
            ctx.wait_for_event::<()>("end").await?;
            match how.as_str() {
                "fail" => return Err(Error::msg("no")),
                "continue" => ctx.continue_as_new(&how)?,
                _ => {}
            }
            drop(open);
            Ok("ended".to_owned())
        });
        let (builder, _clock) = hub_with_clock(sessions);
        let (work, mut bench) = bench();
        let hub = builder.register(work).register(boss).start().await.unwrap();
        let client = hub.client();
        for how in ["complete", "fail", "continue", "terminate"] {
            client.start_with(BOSS, how.into(), with_id(how)).await.unwrap();
            let ctx = bench.begins().await;
            assert!(!ctx.is_cancelled());
            match how {
                "terminate" => client.terminate(how, "enough", false).await.unwrap(),
                _ => client.raise_event(how, "end", &()).await.unwrap(),
            }
            let reason = bench.ends().await.unwrap_err();
            // A future that is dropped at the very end was dropped before the end.
            let dropped = matches!(how, "complete" | "continue");
            assert!(reason == CancelReason::Ended || dropped && reason == CancelReason::NotAwaited, "{how}: {reason}");
            end_of(&client, how).await;
        }
        stop(hub).await;
    }

    async fn an_activity_learns_that_its_future_was_dropped_and_the_orchestration_goes_on(sessions: bool) {
        let boss = orchestration("boss", |ctx: OrchestrationContext, input: String| async move {
            let work = ctx.call(WORK, input);
            match select(work, ctx.timer(seconds(60))).await {
                Either::Left((result, _)) => Ok(result?),
                Either::Right(((), work)) => {
                    drop(work);
                    Ok::<_, Error>(ctx.wait_for_event::<String>("go").await?)
                }
            }
        });
        let (builder, clock) = hub_with_clock(sessions);
        let (work, mut bench) = bench();
        let hub = builder.register(work).register(boss).start().await.unwrap();
        let client = hub.client();
        client.start_with(BOSS, "slow".into(), with_id("boss")).await.unwrap();
        bench.begins().await;
        clock.advance(seconds(60));
        assert_eq!(bench.ends().await, Err(CancelReason::NotAwaited));
        client.raise_event("boss", "go", "on").await.unwrap();
        assert_eq!(end_of(&client, "boss").await.output.unwrap().as_str(), "\"on\"");
        stop(hub).await;
    }
}

fn hub_on(store: &MemoryStore, clock: &VirtualClock) -> HubBuilder {
    let store = store.clone();
    HubBuilder::new(move |_| Ok(Arc::new(store))).clock(Arc::new(clock.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_after_a_crash_knows_the_last_heartbeat_and_that_it_is_cancelled() {
    let boss = || {
        orchestration("boss", |ctx: OrchestrationContext, input: String| async move {
            let work = ctx.call(WORK, input);
            ctx.wait_for_event::<()>("drop it").await?;
            drop(work);
            Ok::<_, Error>(ctx.wait_for_event::<String>("end").await?)
        })
    };
    let (store, clock) = (MemoryStore::new(2), VirtualClock::default());
    for (round, materialise) in [Duration::from_millis(1), Duration::from_secs(3600)].into_iter().enumerate()
    {
        let id = format!("boss-{round}");
        let options = || HubOptions { materialise_interval: materialise, ..HubOptions::default() };
        let (work, mut first) = bench();
        let hub =
            hub_on(&store, &clock).register(work).register(boss()).options(options()).start().await.unwrap();
        let client = hub.client();
        client.start_with(BOSS, "x".into(), with_id(&id)).await.unwrap();
        let ctx = first.begins().await;
        ctx.heartbeat("half way").unwrap();
        // A call comes after the heartbeat, and is written with it.
        client.raise_event(&id, "drop it", &()).await.unwrap();
        assert_eq!(first.ends().await, Err(CancelReason::NotAwaited));
        // The result of the attempt is lost with the process, or it is not; only the former is of interest here.
        drop(hub);
        let (work, mut second) = bench();
        let hub =
            hub_on(&store, &clock).register(work).register(boss()).options(options()).start().await.unwrap();
        let client = hub.client();
        if !client.activities(&id).await.unwrap().is_empty() {
            let ctx = second.begins().await;
            assert_eq!(ctx.last_heartbeat::<String>().unwrap().as_deref(), Some("half way"));
            assert_eq!(second.ends().await, Err(CancelReason::NotAwaited));
        }
        client.raise_event(&id, "end", "now").await.unwrap();
        end_of(&client, &id).await;
        stop(hub).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_activity_whose_process_dies_goes_on_from_its_last_durable_heartbeat() {
    let (store, clock) = (MemoryStore::new(1), VirtualClock::default());
    let (work, mut first) = bench();
    let hub =
        hub_on(&store, &clock).register(work).register(calls(CallOptions::default())).start().await.unwrap();
    let client = hub.client();
    client.start_with(BOSS, "x".into(), with_id("boss")).await.unwrap();
    let ctx = first.begins().await;
    ctx.heartbeat(&41u32).unwrap();
    clock.advance(seconds(2));
    ctx.heartbeat(&42u32).unwrap();
    // Whatever is written next takes the heartbeat along.
    client.suspend("boss", "to have something written").await.unwrap();
    drop(hub);
    let (work, mut second) = bench();
    let hub =
        hub_on(&store, &clock).register(work).register(calls(CallOptions::default())).start().await.unwrap();
    let client = hub.client();
    let again = second.begins().await;
    assert_eq!(again.idempotency_key(), ctx.idempotency_key());
    assert_eq!(again.last_heartbeat::<u32>().unwrap(), Some(42));
    second.go.send_replace(true);
    client.resume("boss", "go on").await.unwrap();
    assert_eq!(end_of(&client, "boss").await.output.unwrap().as_str(), "\"x\"");
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_see_what_waits_and_how_far_running_activities_have_come() {
    let fan = orchestration("boss", |ctx: OrchestrationContext, _: String| async move {
        let all = join_all((0..3).map(|n| ctx.call(WORK, n.to_string()))).await;
        Ok::<_, Error>(all.len().to_string())
    });
    let (work, mut bench) = bench();
    let (builder, clock) = hub_with_clock(true);
    let options = HubOptions { concurrent_activities_max: 1, ..HubOptions::default() };
    let hub = builder.options(options).register(work).register(fan).start().await.unwrap();
    let client = hub.client();
    assert_eq!(client.activities("boss").await.unwrap(), []);
    client.start_with(BOSS, String::new(), with_id("boss")).await.unwrap();
    let ctx = bench.begins().await;
    ctx.heartbeat(&serde_json::json!({"percent": 40})).unwrap();
    clock.advance(seconds(1));
    ctx.heartbeat(&serde_json::json!({"percent": 50})).unwrap();
    let seen = client.activities("boss").await.unwrap();
    let states: Vec<_> = seen.iter().map(|activity| (activity.task_id, activity.state)).collect();
    assert_eq!(
        states,
        [(0, ActivityState::Running), (1, ActivityState::Waiting), (2, ActivityState::Waiting)]
    );
    assert_eq!(seen[0].heartbeat.as_ref().unwrap().as_str(), "{\"percent\":50}");
    assert!(seen[0].heartbeat_at.is_some() && seen[1].heartbeat.is_none());
    assert_eq!((seen[0].name.as_str(), seen[0].cancelled), ("work", None));
    bench.go.send_replace(true);
    end_of(&client, "boss").await;
    assert_eq!(client.activities("boss").await.unwrap(), []);
    stop(hub).await;
}

/// Calls "work" so many times at once.
fn fan() -> steadfast::OrchestrationDefinition<u32, u32> {
    orchestration("fan", |ctx: OrchestrationContext, count: u32| async move {
        let results = join_all((0..count).map(|n| ctx.call(WORK, n.to_string()))).await;
        Ok::<_, Error>(results.into_iter().filter(Result::is_ok).count() as u32)
    })
}

const FAN: OrchestrationName<u32, u32> = OrchestrationName::new("fan");

fn limited(limit: ActivityLimit) -> HubOptions {
    HubOptions { activity_limits: BTreeMap::from([("work".to_owned(), limit)]), ..HubOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_concurrency_limit_of_a_name_holds_over_all_partitions_and_all_get_through() {
    for max in [1, 3] {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (running, seen) = (now.clone(), most.clone());
        let work = activity("work", move |_: ActivityContext, input: String| {
            let (running, seen) = (running.clone(), seen.clone());
            async move {
                seen.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                running.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, Error>(input)
            }
        });
        let options = limited(ActivityLimit::concurrency(max));
        let hub =
            crate::support::hub(true).options(options).register(work).register(fan()).start().await.unwrap();
        let client = hub.client();
        let runs = join_all((0..12).map(|_| client.start(FAN, 20))).await;
        for run in runs {
            assert_eq!(soon("the result", run.unwrap().result()).await.unwrap(), 20);
        }
        let most = most.load(Ordering::SeqCst);
        assert!(most <= max && most > 0, "{most} ran at once where {max} may");
        stop(hub).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn activities_of_a_limited_name_begin_at_its_rate_by_the_clock_of_the_hub() {
    let (work, mut bench) = bench();
    bench.go.send_replace(true);
    let (builder, clock) = hub_with_clock(true);
    let options = limited(ActivityLimit::rate(2.0, 3));
    let hub = builder.partitions(1).options(options).register(work).register(fan()).start().await.unwrap();
    let client = hub.client();
    client.start_with(FAN, 10, with_id("fan")).await.unwrap();
    let mut done = 0;
    for (step, due) in [3, 1, 1, 1, 1, 1, 1, 1].into_iter().enumerate() {
        for _ in 0..due {
            bench.ends().await.unwrap();
        }
        done += due;
        // All that the rate allows have ended, and the others wait.
        assert!(bench.ended.try_recv().is_err(), "step {step}");
        if done < 10 {
            clock.advance(Duration::from_millis(499));
            let waiting = client.activities("fan").await.unwrap();
            assert_eq!(
                waiting.iter().filter(|it| it.state == ActivityState::Waiting).count(),
                10 - done,
                "{step}"
            );
            clock.advance(Duration::from_millis(1));
        }
    }
    assert_eq!(end_of(&client, "fan").await.output.unwrap().as_str(), "10");
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_cannot_be_met_are_refused_when_the_hub_starts() {
    for limit in [ActivityLimit::concurrency(0), ActivityLimit::rate(0.0, 1), ActivityLimit::rate(1.0, 0)] {
        let error = crate::support::hub(true).options(limited(limit)).start().await.err().unwrap();
        assert!(error.to_string().contains("'work'"), "{error}");
    }
}

/// The order in which activities begin when there is one place.
async fn order(client: &Client, bench: &mut Bench, count: usize) -> Vec<String> {
    bench.go.send_replace(true);
    let mut order = Vec::new();
    for _ in 0..count {
        order.push(bench.ends().await.unwrap());
    }
    let _ = client;
    order
}

#[tokio::test(flavor = "multi_thread")]
async fn among_waiting_activities_the_greater_priority_begins_first() {
    let boss = orchestration("boss", |ctx: OrchestrationContext, _: String| async move {
        let call = |priority: i32| {
            let options = CallOptions { priority, ..CallOptions::default() };
            ctx.call_with(WORK, priority.to_string(), options)
        };
        let all = join_all([0, -1, 5, 0, 7, 5].map(call)).await;
        Ok::<_, Error>(all.len().to_string())
    });
    let (work, mut bench) = bench();
    let options = HubOptions { concurrent_activities_max: 1, ..HubOptions::default() };
    let hub = crate::support::hub(true)
        .partitions(1)
        .options(options)
        .register(work)
        .register(boss)
        .start()
        .await
        .unwrap();
    let client = hub.client();
    client.start_with(BOSS, String::new(), with_id("boss")).await.unwrap();
    bench.begins().await;
    // The first had a place at once; the others are sorted.
    assert_eq!(order(&client, &mut bench, 6).await, ["0", "7", "5", "5", "0", "-1"]);
    end_of(&client, "boss").await;
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_instance_with_many_waiting_activities_does_not_starve_another_with_one() {
    let single = orchestration("boss", |ctx: OrchestrationContext, input: String| async move {
        Ok::<_, Error>(ctx.call(WORK, input).await?)
    });
    let (work, mut bench) = bench();
    let options = HubOptions { concurrent_activities_max: 1, ..HubOptions::default() };
    let hub = crate::support::hub(true)
        .partitions(1)
        .options(options)
        .register(work)
        .register(fan())
        .register(single)
        .start()
        .await
        .unwrap();
    let client = hub.client();
    let crowd = 5000;
    client.start_with(FAN, crowd, with_id("crowd")).await.unwrap();
    bench.begins().await;
    client.start_with(BOSS, "single".into(), with_id("single")).await.unwrap();
    // It waits, like all but one of the crowd's.
    let waits = async {
        while client.activities("single").await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon("the wait of the single one", waits).await;
    let order = order(&client, &mut bench, crowd as usize + 1).await;
    let place = order.iter().position(|input| input == "single").unwrap();
    assert!(place <= 3, "{place} others went before it");
    end_of(&client, "crowd").await;
    stop(hub).await;
}
