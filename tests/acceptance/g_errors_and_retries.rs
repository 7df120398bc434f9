//! Group G: failures reach whoever can handle them, and retry policies do what each of their fields says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use steadfast::failure::kinds;
use steadfast::{
    ActivityContext, ActivityName, CallOptions, Client, ClientError, Error, EventKind, OrchestrationContext,
    OrchestrationName, OrchestrationStatus, RetryPolicy, SubOrchestrationOptions, activity, orchestration,
};

use crate::support::{end_of, hub, hub_with_clock, soon, stop, until, with_and_without_sessions, with_id};

const FLAKY: ActivityName<u32, u32> = ActivityName::new("flaky");
const BOSS: OrchestrationName<u32, u32> = OrchestrationName::new("boss");
const CHILD: OrchestrationName<u32, u32> = OrchestrationName::new("child");

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Fails so many times and then returns how often it was called.
fn flaky(failures: u32) -> (steadfast::ActivityDefinition<u32, u32>, Arc<AtomicU32>) {
    let calls = Arc::new(AtomicU32::new(0));
    let counter = calls.clone();
    let flaky = activity("flaky", move |_: ActivityContext, _: u32| {
        let call = counter.fetch_add(1, Ordering::SeqCst) + 1;
        async move { if call <= failures { Err(Error::new("Flaky", format!("call {call}"))) } else { Ok(call) } }
    });
    (flaky, calls)
}

fn with_policy(policy: RetryPolicy) -> steadfast::OrchestrationDefinition<u32, u32> {
    orchestration("boss", move |ctx: OrchestrationContext, n: u32| {
        let policy = policy.clone();
        async move { Ok::<_, Error>(ctx.call_with_retry(FLAKY, n, policy).await?) }
    })
}

/// The pauses between the attempts, in seconds, by the history.
async fn pauses(client: &Client, id: &str) -> Vec<u64> {
    let history = client.history(id).await.unwrap();
    let timers = history.iter().filter_map(|event| match event.kind {
        EventKind::TimerCreated { fire_at } => Some(fire_at.since(event.timestamp).as_secs()),
        _ => None,
    });
    timers.collect()
}

/// Runs "boss" with the policy over an activity that fails so often; the calls it made, its pauses, and how it ended.
async fn attempts(
    sessions: bool,
    policy: RetryPolicy,
    failures: u32,
) -> (u32, Vec<u64>, OrchestrationStatus) {
    let (builder, clock) = hub_with_clock(sessions);
    let (flaky, calls) = flaky(failures);
    let hub = builder.register(flaky).register(with_policy(policy)).start().await.unwrap();
    let client = hub.client();
    client.start_with(BOSS, 0, with_id("boss")).await.unwrap();
    let mut passed = 0;
    let end = loop {
        // It has ended, or waits for a timer that was not there before.
        let state =
            until(&client, "boss", |state| state.status.is_terminal() || !state.open_timers.is_empty()).await;
        if state.status.is_terminal() {
            break state;
        }
        let due = *state.open_timers.values().next().unwrap();
        let now = steadfast::Clock::now(&clock);
        clock.advance(due.since(now));
        passed += 1;
        assert!(passed < 100, "it tries for ever");
    };
    let result = (calls.load(Ordering::SeqCst), pauses(&client, "boss").await, end.status);
    stop(hub).await;
    result
}

with_and_without_sessions! {
    async fn max_attempts_counts_the_first_one_and_the_last_failure_is_reported(sessions: bool) {
        let (calls, pauses, status) = attempts(sessions, RetryPolicy::new(3, seconds(2)), 9).await;
        assert_eq!((calls, pauses, status), (3, vec![2, 2], OrchestrationStatus::Failed));
        let (calls, pauses, status) = attempts(sessions, RetryPolicy::new(3, seconds(2)), 2).await;
        assert_eq!((calls, pauses, status), (3, vec![2, 2], OrchestrationStatus::Completed));
    }

    async fn the_backoff_coefficient_makes_each_pause_longer_up_to_the_greatest_interval(sessions: bool) {
        let policy = RetryPolicy::new(6, seconds(1)).backoff(3.0).max_interval(seconds(10));
        let (calls, pauses, status) = attempts(sessions, policy, 9).await;
        assert_eq!((calls, pauses, status), (6, vec![1, 3, 9, 10, 10], OrchestrationStatus::Failed));
    }

    async fn no_attempt_begins_after_the_timeout(sessions: bool) {
        let policy = RetryPolicy::new(100, seconds(4)).timeout(seconds(10));
        let (calls, pauses, status) = attempts(sessions, policy, 200).await;
        assert_eq!((calls, pauses, status), (3, vec![4, 4], OrchestrationStatus::Failed));
    }

    async fn without_a_first_interval_the_attempts_follow_at_once(sessions: bool) {
        let (calls, pauses, status) = attempts(sessions, RetryPolicy::new(4, Duration::ZERO), 3).await;
        assert_eq!((calls, pauses, status), (4, vec![], OrchestrationStatus::Completed));
    }

    async fn only_failures_that_the_predicate_wants_are_tried_again(sessions: bool) {
        let wanted = RetryPolicy::new(5, Duration::ZERO).retry_if(|failure| failure.message != "call 2");
        assert_eq!(attempts(sessions, wanted, 9).await, (2, vec![], OrchestrationStatus::Failed));
    }

    async fn a_failure_that_says_so_is_not_tried_again(sessions: bool) {
        let calls = Arc::new(AtomicU32::new(0));
        let counter = calls.clone();
        let flaky = activity("flaky", move |_: ActivityContext, _: u32| {
            counter.fetch_add(1, Ordering::SeqCst);
            async move { Err::<u32, _>(Error::msg("hopeless").non_retriable()) }
        });
        let boss = with_policy(RetryPolicy::new(5, Duration::ZERO));
        let hub = hub(sessions).register(flaky).register(boss).start().await.unwrap();
        let run = hub.client().start(BOSS, 0).await.unwrap();
        let Err(ClientError::Failed { details, .. }) = soon("the result", run.result()).await else { panic!() };
        assert!(details.non_retriable);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        stop(hub).await;
    }

    async fn an_activity_that_is_not_registered_is_a_failure_that_no_policy_tries_again(sessions: bool) {
        let boss = with_policy(RetryPolicy::new(5, Duration::ZERO));
        let hub = hub(sessions).register(boss).start().await.unwrap();
        let client = hub.client();
        client.start_with(BOSS, 0, with_id("boss")).await.unwrap();
        let failure = end_of(&client, "boss").await.failure.unwrap();
        assert!(failure.is_caused_by(kinds::ACTIVITY_NOT_REGISTERED), "{failure:?}");
        let history = client.history("boss").await.unwrap();
        let calls = history.iter().filter(|event| matches!(event.kind, EventKind::TaskScheduled { .. })).count();
        assert_eq!(calls, 1);
        stop(hub).await;
    }

    async fn the_code_can_handle_failures_and_go_on(sessions: bool) {
        let (flaky, _) = flaky(5);
        let boss = orchestration("boss", |ctx: OrchestrationContext, n: u32| async move {
            let mut failures = 0;
            while ctx.call(FLAKY, n).await.is_err() {
                failures += 1;
            }
            Ok::<_, Error>(failures)
        });
        let hub = hub(sessions).register(flaky).register(boss).start().await.unwrap();
        let run = hub.client().start(BOSS, 0).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), 5);
        stop(hub).await;
    }

    async fn an_unhandled_failure_of_an_activity_fails_the_instance_with_the_whole_chain(sessions: bool) {
        let parent = orchestration("boss", |ctx: OrchestrationContext, n: u32| async move {
            Ok::<_, Error>(ctx.call_orchestration(CHILD, n).await?)
        });
        let child = orchestration("child", |ctx: OrchestrationContext, n: u32| async move {
            Ok::<_, Error>(ctx.call(FLAKY, n).await?)
        });
        let (flaky, _) = flaky(9);
        let hub = hub(sessions).register(flaky).register(parent).register(child).start().await.unwrap();
        let run = hub.client().start(BOSS, 0).await.unwrap();
        let Err(ClientError::Failed { details, .. }) = soon("the result", run.result()).await else { panic!() };
        let chain: Vec<_> = details.chain().map(|failure| failure.error_type.as_str()).collect();
        assert_eq!(chain, [kinds::SUB_ORCHESTRATION_FAILED, kinds::ACTIVITY_FAILED, "Flaky"]);
        assert_eq!(details.chain().last().unwrap().message, "call 1");
        stop(hub).await;
    }

    async fn panics_are_failures_in_activities_and_in_orchestrations(sessions: bool) {
        let flaky = activity("flaky", |_: ActivityContext, n: u32| async move {
            assert!(n > 100, "an activity panics");
            Ok::<_, Error>(n)
        });
        let boss = orchestration("boss", |ctx: OrchestrationContext, n: u32| async move {
            let Err(error) = ctx.call(FLAKY, n).await else { return Ok::<_, Error>(n) };
            assert_eq!(error.details.error_type, kinds::PANIC);
            panic!("and so does the orchestration: {}", error.details.message);
        });
        let hub = hub(sessions).register(flaky).register(boss).start().await.unwrap();
        let run = hub.client().start(BOSS, 1).await.unwrap();
        let Err(ClientError::Failed { details, .. }) = soon("the result", run.result()).await else { panic!() };
        assert_eq!(details.error_type, kinds::PANIC);
        assert!(details.message.ends_with("an activity panics"), "{details}");
        stop(hub).await;
    }

    async fn a_policy_on_children_tries_the_whole_child_again(sessions: bool) {
        let (flaky, calls) = flaky(2);
        let child = orchestration("child", |ctx: OrchestrationContext, n: u32| async move {
            Ok::<_, Error>(ctx.call(FLAKY, n).await?)
        });
        let boss = orchestration("boss", |ctx: OrchestrationContext, n: u32| async move {
            let retry = Some(RetryPolicy::new(3, Duration::ZERO));
            let options = SubOrchestrationOptions { retry, ..SubOrchestrationOptions::default() };
            Ok::<_, Error>(ctx.call_orchestration_with(CHILD, n, options).await?)
        });
        let hub = hub(sessions).register(flaky).register(child).register(boss).start().await.unwrap();
        let run = hub.client().start(BOSS, 0).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), 3);
        assert_eq!(calls.load(Ordering::SeqCst), 3);
        stop(hub).await;
    }

    async fn a_policy_among_other_options_works_the_same(sessions: bool) {
        let (flaky, calls) = flaky(2);
        let boss = orchestration("boss", |ctx: OrchestrationContext, n: u32| async move {
            let retry = Some(RetryPolicy::new(3, Duration::ZERO));
            Ok::<_, Error>(ctx.call_with(FLAKY, n, CallOptions { retry, ..CallOptions::default() }).await?)
        });
        let hub = hub(sessions).register(flaky).register(boss).start().await.unwrap();
        let run = hub.client().start(BOSS, 0).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), 3);
        assert_eq!(calls.load(Ordering::SeqCst), 3);
        stop(hub).await;
    }
}
