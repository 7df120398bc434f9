//! Instances that fail, are mended, and are rewound.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{join, join_all, try_join_all};
use steadfast_core::entity::EntityId;
use steadfast_core::model::{
    ActivityContext, ActivityName, CallOptions, EntityCall, OrchestrationContext, RetryPolicy,
    SubOrchestrationOptions, activity, entity, orchestration,
};
use steadfast_core::partition::Rejection;
use steadfast_core::{Error, EventKind, ExecutionId, OrchestrationStatus, Result};
use steadfast_testkit::{Simulation, SimulationOptions};

use crate::programs::{double, named};
use crate::scenarios::{hub, options};

type Seen = Arc<Mutex<BTreeMap<(String, i32), Vec<ExecutionId>>>>;

pub(crate) fn register(hub: &mut Simulation) {
    let seen = Seen::default();
    hub.register(activity("mendable", move |ctx: ActivityContext, times: usize| {
        let outcome = mendable(&seen, &ctx, times);
        async move { outcome }
    }));
    hub.register(entity::<u64>("memory").operation(
        "keep",
        |kept: &mut u64, _: &steadfast_core::model::EntityContext, n: u64| {
            *kept = n;
            Ok::<_, Error>(n)
        },
    ));
    hub.register(orchestration("brittle", brittle));
    hub.register(orchestration("brittle_child", brittle_child));
    hub.register(orchestration("brittle_family", brittle_family));
    hub.register(orchestration("brittle_mixture", brittle_mixture));
    hub.register(orchestration("brittle_patient", brittle_patient));
    hub.register(orchestration("broken", broken));
}

/// Fails in the first so many executions that call it from one place, however often each of them does.
fn mendable(seen: &Seen, ctx: &ActivityContext, times: usize) -> Result<u64> {
    let mut seen = seen.lock().unwrap();
    let executions = seen.entry((ctx.instance.to_string(), ctx.task_id)).or_default();
    if !executions.contains(&ctx.execution) {
        executions.push(ctx.execution);
    }
    match executions.iter().position(|execution| *execution == ctx.execution) {
        Some(place) if place < times => Err(Error::msg("not mended yet")),
        _ => Ok(1),
    }
}

fn mended_after(ctx: &OrchestrationContext, times: usize) -> steadfast_core::model::TaskFuture<u64> {
    ctx.call(ActivityName::<usize, u64>::dynamic("mendable"), times)
}

/// Activities at once, of which some fail, and then one more.
async fn brittle(ctx: OrchestrationContext, times: usize) -> Result<u64> {
    ctx.set_custom_status("at once")?;
    let (doubled, mended) =
        join(ctx.call(double(), 4), join_all((0..=times).map(|n| mended_after(&ctx, n)))).await;
    let sum = mended.into_iter().try_fold(doubled?, |sum, one| Ok::<_, Error>(sum + one?))?;
    ctx.set_custom_status("at last")?;
    Ok(sum + mended_after(&ctx, 1).await?)
}

/// Fails once, in an activity or in a child.
async fn brittle_child(ctx: OrchestrationContext, depth: u64) -> Result<u64> {
    if depth == 0 {
        return Ok(mended_after(&ctx, 1).await?);
    }
    let child = ctx.call_orchestration(named::<u64, u64>("brittle_child"), depth - 1).await?;
    Ok(child + ctx.call(double(), depth).await?)
}

/// Fails with the first child that does, and leaves the others behind, among them one that waits for an event.
async fn brittle_family(ctx: OrchestrationContext, depth: u64) -> Result<u64> {
    let id = ctx.instance_id();
    let child = |name, n, input| {
        let instance_id = Some(format!("{id}/{n}"));
        let options = SubOrchestrationOptions { instance_id, ..SubOrchestrationOptions::default() };
        ctx.call_orchestration_with(named::<u64, u64>(name), input, options)
    };
    let all = [
        child("brittle_child", 0, depth),
        child("brittle_child", 1, 0),
        child("patient", 2, 1),
        child("child", 3, 7),
    ];
    Ok(try_join_all(all).await?.into_iter().sum())
}

/// A retry policy, a timer and an entity beside an activity that fails.
async fn brittle_mixture(ctx: OrchestrationContext, (): ()) -> Result<u64> {
    let memory = EntityId::new("memory", ctx.instance_id().as_str())?;
    let retry = Some(RetryPolicy::new(2, Duration::ZERO));
    let options = CallOptions { retry, ..CallOptions::default() };
    let mendable = ActivityName::<usize, u64>::dynamic("mendable");
    let long = ctx.timer(Duration::from_secs(600));
    let kept = ctx.call_entity(EntityCall::<u64>::new(&memory, "keep", 3));
    let mended = ctx.call_with(mendable, 1, options).await?;
    long.await;
    Ok(mended + kept.await?)
}

/// Waits for the event `go` once it is mended.
async fn brittle_patient(ctx: OrchestrationContext, n: u64) -> Result<u64> {
    let mended = mended_after(&ctx, 1).await?;
    Ok(mended + n + ctx.wait_for_event::<u64>("go").await?)
}

async fn broken(ctx: OrchestrationContext, n: u64) -> Result<u64> {
    ctx.call(double(), n).await?;
    Err(Error::msg("nobody mends it"))
}

pub(crate) fn activities(hub: &mut Simulation) {
    hub.start("brittle", "glass", &2);
    hub.start("brittle", "fresh-glass", &1);
    for _ in 0..3 {
        hub.when_at_rest();
        hub.rewind("glass");
        hub.rewind("fresh-glass");
    }
}

pub(crate) fn children(hub: &mut Simulation) {
    hub.start("brittle_family", "clan", &2);
    hub.start("brittle_child", "line", &3);
    hub.when_at_rest();
    hub.purge("clan/1");
    hub.when_answered();
    hub.rewind("clan");
    hub.rewind("line");
    hub.when_idle();
    hub.raise("clan/2", "go", &5);
}

pub(crate) fn child_first(hub: &mut Simulation) {
    hub.start("brittle_family", "clan", &1);
    hub.when_at_rest();
    hub.rewind("clan/0");
    hub.raise("clan/2", "go", &5);
    hub.when_at_rest();
    hub.rewind("clan");
}

pub(crate) fn others(hub: &mut Simulation) {
    hub.start("brittle_mixture", "mixture", &());
    hub.when_at_rest();
    hub.rewind("mixture");
}

pub(crate) fn held_up(hub: &mut Simulation) {
    for instance in ["ended", "held", "parent-of-held/0"] {
        hub.start("brittle_patient", instance, &1);
    }
    hub.when_at_rest();
    for instance in ["ended", "held"] {
        hub.rewind(instance);
    }
    hub.when_answered();
    hub.suspend("held");
    hub.when_idle();
    hub.terminate("ended", true);
    hub.raise("held", "go", &5);
    hub.when_idle();
    hub.resume("held");
}

pub(crate) fn impossible(hub: &mut Simulation) {
    hub.start("broken", "broken", &1);
    hub.start("three_steps", "whole", &1);
    hub.start("patient", "waiting", &1);
    hub.rewind("nobody");
    hub.when_at_rest();
    for instance in ["broken", "whole", "waiting"] {
        hub.rewind(instance);
    }
    hub.when_at_rest();
    hub.raise("waiting", "go", &1);
}

#[test]
fn a_rewind_is_answered_when_it_has_been_done() {
    for extended_sessions in [false, true] {
        let mut hub = hub(|_| {}, options(extended_sessions));
        hub.start("brittle_patient", "x", &1);
        hub.when_at_rest();
        let rewind = hub.rewind("x");
        while hub.answer(rewind).is_none() {
            assert!(hub.run_steps(1));
        }
        let state = hub.state("x").unwrap();
        assert_eq!(state.status, OrchestrationStatus::Running, "nobody sees it failed any more");
        assert_eq!((state.failure, state.completed_at), (None, None));
        hub.crash_and_recover();
        assert_eq!(hub.state("x").unwrap().status, OrchestrationStatus::Running);
        hub.raise("x", "go", &1);
        hub.finish();
        assert_eq!(hub.state("x").unwrap().status, OrchestrationStatus::Completed);
    }
}

#[test]
fn instances_that_have_not_failed_are_not_rewound() {
    let mut hub = hub(impossible, options(true));
    let asked = ["nobody", "waiting", "whole", "broken"].map(|instance| {
        hub.when_at_rest();
        hub.rewind(instance)
    });
    hub.finish();
    let answers = asked.map(|request| hub.answer(request).unwrap().clone());
    assert_eq!(answers[0], Err(Rejection::NotFound));
    assert_eq!(answers[1], Err(Rejection::NotFailed(OrchestrationStatus::Completed)));
    assert_eq!(answers[2], Err(Rejection::NotFailed(OrchestrationStatus::Completed)));
    assert!(answers[3].is_ok(), "it runs, and fails again");
    let state = hub.state("broken").unwrap();
    assert_eq!(state.status, OrchestrationStatus::Failed);
    let rewound = |kind: &EventKind| matches!(kind, EventKind::ExecutionRewound { .. });
    assert_eq!(hub.history("broken").iter().filter(|event| rewound(&event.kind)).count(), 2);
}

#[test]
fn activities_that_succeeded_are_not_run_again() {
    let mut hub = hub(activities, options(true));
    hub.finish();
    let (state, history) = (hub.state("glass").unwrap(), hub.history("glass"));
    assert_eq!(state.status, OrchestrationStatus::Completed);
    let EventKind::ExecutionStarted(started) = &history[1].kind else { panic!("no start") };
    assert_eq!((started.predecessors.len(), started.execution), (3, state.execution));
    let ran = |execution: ExecutionId| {
        let prefix = format!("{execution}:");
        hub.activity_runs().keys().filter(|key| key.starts_with(&prefix)).count()
    };
    // One doubles, and of three that come at once none, the second, and the third fail once more each time.
    let all: Vec<_> = started.predecessors.iter().map(|it| ran(it.execution)).collect();
    assert_eq!((all, ran(state.execution)), (vec![4, 2, 2], 1));
}

#[test]
fn children_keep_their_ids_and_answer_the_execution_that_was_rewound() {
    let mut hub = hub(children, options(true));
    hub.finish();
    for (instance, output) in
        [("clan", "35"), ("clan/0", "7"), ("clan/1", "1"), ("clan/2", "12"), ("line", "13")]
    {
        let state = hub.state(instance).unwrap();
        assert_eq!(state.output.as_ref().map(|output| output.as_str()), Some(output), "{instance}");
    }
    let parent = hub.state("clan").unwrap().execution;
    for (instance, of_new) in [("clan/0", true), ("clan/1", true), ("clan/2", false), ("clan/3", false)] {
        let state = hub.state(instance).unwrap();
        assert_eq!(state.parent.unwrap().execution == parent, of_new, "{instance}");
    }
}

#[test]
fn nothing_of_the_old_execution_is_left_under_way() {
    let mut hub = hub(others, SimulationOptions { materialise_every: 1, ..options(false) });
    hub.finish();
    let state = hub.state("mixture").unwrap();
    assert_eq!(state.output.unwrap().as_str(), "4");
    let failures = hub.history("mixture");
    let failures = failures.iter().filter(|event| matches!(event.kind, EventKind::TaskFailed { .. }));
    assert_eq!(failures.count(), 1, "the attempt before the last one stays");
}
