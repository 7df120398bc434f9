//! Versions: under which one an instance begins, what inherits it, and who takes it.

use std::sync::Arc;

use steadfast_core::failure::kinds;
use steadfast_core::model::{
    ActivityContext, ActivityName, OnNonDeterminism, OrchestrationContext, OrchestrationName, Register,
    Registry, SubOrchestrationOptions, activity, orchestration,
};
use steadfast_core::turn::{Session, Unfit};
use steadfast_core::{
    Error, EventKind, ExecutionStarted, OrchestrationStatus, Result, Tags, TaskMessage, VersionFailure,
    VersionMatch, VersionOptions,
};

use crate::support::{
    Driver, MAX_PAYLOAD, TEST, code, done, instance, raised, resumed, scenario, suspended, terminated,
};

const CHILD: OrchestrationName<(), String> = OrchestrationName::new("child");
const STEP: ActivityName<u32, u32> = ActivityName::new("step");

/// Tells its version when "go" arrives.
async fn tells(ctx: OrchestrationContext, (): ()) -> Result<String> {
    ctx.wait_for_event::<()>("go").await?;
    Ok(ctx.version().to_string())
}

fn registered<const N: usize>(versions: [&'static str; N]) -> Registry {
    let mut registry = Registry::default();
    for version in versions {
        orchestration(TEST, tells).version(version).register(&mut registry).unwrap();
    }
    registry
}

fn start_of(run: &mut Driver, version: &str, inherited: bool) -> TaskMessage {
    let mut start = run.start_of(TEST, ());
    let EventKind::ExecutionStarted(started) = &mut start.event.kind else { panic!("no start") };
    started.version = version.into();
    started.version_inherited = inherited;
    start
}

/// Under which version an instance begins, and what its code reads.
fn begins_as(registry: Registry, version: &str, inherited: bool) -> String {
    let run = scenario(registry, |run| {
        let start = start_of(run, version, inherited);
        run.turn(vec![start]);
        run.send([raised("go", ())]);
    });
    let EventKind::ExecutionStarted(started) = &run.history[1].kind else { panic!("no start") };
    assert!(!started.version_inherited);
    assert_eq!(run.turns[0].version, started.version);
    if run.status() == Some(OrchestrationStatus::Completed) {
        assert_eq!(run.output::<String>(), started.version.as_str());
    }
    started.version.to_string()
}

#[test]
fn a_version_asked_for_is_kept_and_code_without_version_runs_any() {
    assert_eq!(begins_as(registered(["1", "2"]), "1", false), "1");
    assert_eq!(begins_as(registered(["", "2"]), "7", false), "7");
}

#[test]
fn without_a_version_the_greatest_registered_one_counts() {
    assert_eq!(begins_as(registered(["9", "10", ""]), "", false), "10");
    assert_eq!(begins_as(registered([""]), "", false), "");
}

#[test]
fn an_inherited_version_counts_if_there_is_code_for_it_and_the_default_comes_next() {
    assert_eq!(begins_as(registered(["1", "2"]), "1", true), "1");
    assert_eq!(begins_as(registered([""]), "1", true), "1");
    assert_eq!(begins_as(registered(["2", "3"]), "1", true), "3");
    let with_default = |mut registry: Registry, default: &str| {
        registry
            .set_versions(VersionOptions { default_version: default.into(), ..VersionOptions::default() });
        registry
    };
    assert_eq!(begins_as(with_default(registered(["1", "2"]), "1"), "", false), "1");
    assert_eq!(begins_as(with_default(registered([""]), "1"), "", false), "1");
    assert_eq!(begins_as(with_default(registered(["2", "3"]), "1"), "", false), "3");
    assert_eq!(begins_as(with_default(registered(["1", "2"]), "1"), "2", true), "2");
}

#[test]
fn children_inherit_version_and_tags_unless_others_are_given() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            drop(ctx.call_orchestration(CHILD, ()));
            drop(ctx.call_orchestration(CHILD.version("5"), ()));
            let options = || SubOrchestrationOptions {
                version: Some("6".to_owned()),
                tags: Tags::from([("zone".into(), "b".into()), ("own".into(), "c".into())]),
                ..SubOrchestrationOptions::default()
            };
            drop(ctx.call_orchestration_with(CHILD, (), options()));
            ctx.start_orchestration_with(CHILD, (), options())?;
            Ok(ctx.wait_for_event::<()>("go").await?)
        }),
        |run| {
            let mut start = start_of(run, "3", false);
            let EventKind::ExecutionStarted(started) = &mut start.event.kind else { panic!("no start") };
            started.tags = Tags::from([("zone".into(), "a".into()), ("tenant".into(), "t".into())]);
            run.turn(vec![start]);
        },
    );
    let started = |message: &TaskMessage| match &message.event.kind {
        EventKind::ExecutionStarted(started) => ExecutionStarted::clone(started),
        other => panic!("{other:?}"),
    };
    let children: Vec<_> = run.last().messages.iter().map(started).collect();
    let version = |child: &ExecutionStarted| (child.version.to_string(), child.version_inherited);
    let versions: Vec<_> = children.iter().map(version).collect();
    let given = |version: &str| (version.to_owned(), false);
    assert_eq!(versions, [("3".to_owned(), true), given("5"), given("6"), given("6")]);
    let tags = |child: &ExecutionStarted| {
        child.tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(tags(&children[0]), "tenant=t zone=a");
    assert_eq!(tags(&children[2]), "own=c tenant=t zone=b");
    assert_eq!(tags(&children[3]), "own=c tenant=t zone=b");
}

#[test]
fn tags_that_cannot_be_used_fail_the_call_and_nothing_is_started() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let tags = Tags::from([("MS_CreateTrace".into(), "true".into())]);
            let options = SubOrchestrationOptions { tags, ..SubOrchestrationOptions::default() };
            let error = ctx.call_orchestration_with(CHILD, (), options.clone()).await.unwrap_err();
            let second = ctx.start_orchestration_with(CHILD, (), options).unwrap_err();
            Ok((error.details.error_type.to_string(), second.details().error_type.to_string()))
        }),
        |run| {
            run.start(());
        },
    );
    let invalid = || kinds::INVALID_TAGS.to_owned();
    assert_eq!(run.output::<(String, String)>(), (invalid(), invalid()));
    assert!(run.last().messages.is_empty());
}

#[test]
fn a_call_without_version_gets_the_activity_of_the_instances_version_or_the_one_without_or_the_greatest() {
    let activities = |versions: &[&'static str]| {
        let mut registry = Registry::default();
        for version in versions.iter().copied() {
            let code =
                activity("step", move |_: ActivityContext, (): ()| async move { Ok::<_, Error>(version) });
            code.version(version).register(&mut registry).unwrap();
        }
        registry
    };
    let found = |registry: &Registry, version: &str, inherited: &str| {
        let code = registry.find_activity_for("step", version, inherited)?.clone();
        let mut future = code(ActivityContext::outside_hub("step"), &steadfast_core::Payload::null());
        let mut task = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut task) {
            std::task::Poll::Ready(outcome) => Some(outcome.unwrap().decode::<String>().unwrap()),
            std::task::Poll::Pending => panic!("it waits"),
        }
    };
    let some = |text: &str| Some(text.to_owned());
    let all = activities(&["", "1", "2"]);
    assert_eq!(found(&all, "", "1"), some("1"));
    assert_eq!(found(&all, "", "3"), some(""));
    assert_eq!(found(&all, "", ""), some(""));
    assert_eq!(found(&all, "2", "1"), some("2"));
    assert_eq!(found(&all, "3", "1"), some(""));
    let versioned = activities(&["9", "10"]);
    assert_eq!(found(&versioned, "", "3"), some("10"));
    assert_eq!(found(&versioned, "3", "9"), None);
    assert_eq!(found(&Registry::default(), "", "1"), None);
}

fn worker(version: &str, match_strategy: VersionMatch, failure_strategy: VersionFailure) -> VersionOptions {
    VersionOptions { version: version.into(), match_strategy, failure_strategy, ..VersionOptions::default() }
}

fn with(mut registry: Registry, versions: VersionOptions) -> Registry {
    registry.set_versions(versions);
    registry
}

#[test]
fn a_start_of_a_version_that_the_worker_does_not_take_fails_for_good_or_is_not_run() {
    let strict = |failure| worker("1", VersionMatch::Strict, failure);
    let fails = scenario(with(registered([""]), strict(VersionFailure::Fail)), |run| {
        let start = start_of(run, "2", false);
        run.turn(vec![start]);
    });
    assert_eq!(fails.failure().error_type, kinds::VERSION_MISMATCH);
    assert!(fails.failure().non_retriable && fails.failure().message.contains("'2'"), "{}", fails.failure());
    assert_eq!(fails.story().len(), 2);

    let registry = Arc::new(with(registered([""]), strict(VersionFailure::Reject)));
    let mut run = Driver::new(registry.clone(), false);
    let session = Session::new(registry, instance(), MAX_PAYLOAD);
    let start = start_of(&mut run, "2", false);
    assert!(matches!(session.check(std::slice::from_ref(&start)), Err(Unfit::Version(_))));
    // Whoever is terminated before it begins needs nobody who could run it.
    let end = run.message(terminated("enough"));
    assert_eq!(session.check(&[start.clone(), end.clone()]), Ok(()));
    run.turn(vec![start, end]);
    assert_eq!(run.status(), Some(OrchestrationStatus::Terminated));
    let fitting = start_of(&mut run, "1", false);
    assert_eq!(session.check(&[fitting]), Ok(()));
}

#[test]
fn an_instance_under_way_that_a_new_worker_does_not_take_fails_at_its_next_turn_or_is_left_alone() {
    let older = |failure| worker("1", VersionMatch::CurrentOrOlder, failure);
    let under_way = |failure: VersionFailure| {
        scenario(registered([""]), |run| {
            let start = start_of(run, "2", false);
            run.turn(vec![start]);
            if failure == VersionFailure::Fail {
                run.deploy(with(registered([""]), older(failure)));
                run.send([suspended(), raised("go", ())]);
                run.send([resumed()]);
            }
        })
    };
    let failed = under_way(VersionFailure::Fail);
    assert_eq!(failed.failure().error_type, kinds::VERSION_MISMATCH);

    let live = under_way(VersionFailure::Reject);
    let registry = Arc::new(with(registered([""]), older(VersionFailure::Reject)));
    let mut session = Session::new(registry, instance(), MAX_PAYLOAD);
    assert!(matches!(session.replay(&live.history), Err(Unfit::Version(_))));
    assert!(session.is_over(), "nothing was begun");
}

#[test]
fn code_that_disagrees_parks_its_instances_if_the_worker_is_told_so_and_they_go_on_with_code_that_agrees() {
    let calls = |name: &'static str| {
        code(move |ctx: OrchestrationContext, (): ()| async move {
            let step: ActivityName<u32, u32> = ActivityName::new(name);
            Ok(ctx.call(step, 1).await? + ctx.call(STEP, 2).await?)
        })
    };
    let run = scenario(calls("step"), |run| {
        run.start(());
        let mut changed = calls("other");
        changed.set_on_nondeterminism(OnNonDeterminism::Park);
        let mut session = Session::new(Arc::new(changed), instance(), MAX_PAYLOAD);
        let unfit = session.replay(&run.history).unwrap_err();
        assert!(matches!(&unfit, Unfit::Disagrees(problem) if problem.expected.contains("step")), "{unfit}");
        run.send([done(0, 1)]);
        run.send([done(1, 2)]);
    });
    assert_eq!(run.output::<u32>(), 3);
}
