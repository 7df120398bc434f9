//! Sub-orchestrations, detached ones, and events sent to others.

use futures_util::join;
use steadfast_core::model::{OrchestrationContext, OrchestrationName, Registry, SubOrchestrationOptions};
use steadfast_core::{
    EventKind, ExecutionId, ExecutionStarted, FailureDetails, OrchestrationStatus, ParentInstance,
    TaskMessage,
};

use crate::support::{child_done, child_failed, code, instance, raised, scenario};

const CHILD: OrchestrationName<u32, u32> = OrchestrationName::new("child");

fn start_in(message: &TaskMessage) -> &ExecutionStarted {
    match &message.event.kind {
        EventKind::ExecutionStarted(started) => started,
        other => panic!("not a start: {other:?}"),
    }
}

fn calls_child() -> Registry {
    code(|ctx: OrchestrationContext, (): ()| async move { Ok(ctx.call_orchestration(CHILD, 5).await?) })
}

#[test]
fn a_child_is_started_with_its_input_and_knows_its_parent() {
    let run = scenario(calls_child(), |run| {
        run.start(());
        run.expect(["child #0 child 5"]);
        run.send([child_done(0, 50)]);
    });
    assert_eq!(run.output::<u32>(), 50);
    let [message] = &run.turns[0].messages[..] else { panic!("{:?}", run.turns[0].messages) };
    let started = start_in(message);
    let execution = run.turns[0].execution.unwrap();
    assert_eq!((started.name.as_str(), started.input.as_str(), started.generation), ("child", "5", 0));
    assert_eq!(message.execution, Some(started.execution));
    assert_eq!(message.instance.as_str(), format!("{execution}:0"));
    let parent =
        ParentInstance { instance: instance(), execution, task_scheduled_id: 0, name: "test".into() };
    assert_eq!(started.parent, Some(parent));
}

#[test]
fn a_child_inherits_the_tags_of_its_parent() {
    let run = scenario(calls_child(), |run| {
        let mut start = run.start_of("test", ());
        if let EventKind::ExecutionStarted(started) = &mut start.event.kind {
            started.tags.insert("tenant".into(), "a".into());
        }
        run.turn(vec![start]);
    });
    assert_eq!(start_in(&run.last().messages[0]).tags["tenant"], "a");
}

#[test]
fn the_result_goes_to_the_parent_s_execution_under_the_id_it_waits_for() {
    let parent = ParentInstance {
        instance: steadfast_core::InstanceId::parse("parent").unwrap(),
        execution: ExecutionId::new(uuid::Uuid::from_u128(99)),
        task_scheduled_id: 4,
        name: "parent".into(),
    };
    for fails in [false, true] {
        let run = scenario(
            code(move |_: OrchestrationContext, (): ()| async move {
                if fails { Err(steadfast_core::Error::new("Broken", "no")) } else { Ok(1) }
            }),
            |run| {
                let mut start = run.start_of("test", ());
                if let EventKind::ExecutionStarted(started) = &mut start.event.kind {
                    started.parent = Some(parent.clone());
                }
                run.turn(vec![start]);
            },
        );
        let [message] = &run.last().messages[..] else { panic!("{:?}", run.last().messages) };
        assert_eq!((&message.instance, message.execution), (&parent.instance, Some(parent.execution)));
        let expected = match fails {
            false => child_done(4, 1),
            true => child_failed(4, FailureDetails::new("Broken", "no")),
        };
        assert_eq!(message.event.kind, expected);
    }
}

#[test]
fn a_child_s_failure_reaches_the_root_with_its_whole_chain_of_causes() {
    let run = scenario(calls_child(), |run| {
        run.start(());
        let root_cause = FailureDetails::new("Declined", "card declined").non_retriable();
        let child = FailureDetails::new("ActivityFailed", "activity 'charge' (#0) failed: card declined");
        run.send([child_failed(0, child.caused_by(root_cause))]);
    });
    let failure = run.failure();
    assert_eq!(failure.error_type, "SubOrchestrationFailed");
    assert!(failure.message.starts_with("sub-orchestration 'child' (#0) failed: activity 'charge'"));
    let chain: Vec<_> = failure.chain().map(|cause| cause.error_type.as_str()).collect();
    assert_eq!(chain, ["SubOrchestrationFailed", "ActivityFailed", "Declined"]);
}

#[test]
fn explicit_ids_and_versions_are_used_and_unusable_ids_fail_the_call() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let options = |id: &str| SubOrchestrationOptions {
                instance_id: Some(id.to_owned()),
                version: Some("2".to_owned()),
                ..Default::default()
            };
            let (good, bad) = join!(
                ctx.call_orchestration_with(CHILD, 1, options("child-a")),
                ctx.call_orchestration_with(CHILD, 2, options("@entity")),
            );
            let error = bad.unwrap_err();
            Ok((good?, error.id, error.details.error_type.to_string()))
        }),
        |run| {
            run.start(());
            run.expect(["child #0 child 1"]);
            run.send([child_done(0, 3)]);
        },
    );
    let started = start_in(&run.turns[0].messages[0]);
    assert_eq!((run.turns[0].messages[0].instance.as_str(), started.version.as_str()), ("child-a", "2"));
    assert_eq!(run.output::<(u32, i32, String)>(), (3, -1, "InvalidInstanceId".to_owned()));
}

#[test]
fn a_detached_child_has_no_parent_and_keeps_nobody_waiting() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let made = ctx.start_orchestration(CHILD, 1, None)?;
            let named = ctx.start_orchestration(CHILD, 2, Some("own-id"))?;
            assert!(ctx.start_orchestration(CHILD, 3, Some("")).is_err());
            Ok((made.to_string(), named.to_string()))
        }),
        |run| {
            run.start(());
        },
    );
    run.expect([
        "detached child #0 child 1",
        "detached child #1 child 2",
        &run.emitted()[2], // the completion, which names a generated id
    ]);
    let (made, named) = run.output::<(String, String)>();
    assert!(made.ends_with(":0"), "{made}");
    assert_eq!(named, "own-id");
    assert!(run.last().messages.iter().all(|message| start_in(message).parent.is_none()));
}

#[test]
fn children_of_one_execution_never_share_ids() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            let (a, b, c) = join!(
                ctx.call_orchestration(CHILD, 0),
                ctx.call_orchestration(CHILD, 1),
                ctx.call_orchestration(CHILD, 2)
            );
            Ok(a? + b? + c?)
        }),
        |run| {
            run.start(());
            run.send([child_done(2, 1), child_done(0, 1), child_done(1, 1)]);
        },
    );
    let messages = &run.turns[0].messages;
    let ids: std::collections::HashSet<_> = messages.iter().map(|m| (&m.instance, m.execution)).collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(run.output::<u32>(), 3);
}

#[test]
fn a_start_for_an_id_in_use_is_refused_and_the_parent_is_told() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move { Ok(ctx.wait_for_event::<u32>("e").await?) }),
        |run| {
            run.start(());
            let parent = ParentInstance {
                instance: steadfast_core::InstanceId::parse("parent").unwrap(),
                execution: ExecutionId::new(uuid::Uuid::from_u128(99)),
                task_scheduled_id: 4,
                name: "parent".into(),
            };
            let mut refused = run.start_of("test", ());
            if let EventKind::ExecutionStarted(started) = &mut refused.event.kind {
                started.parent = Some(parent.clone());
            }
            let turn = run.turn(vec![refused]);
            assert_eq!((turn.discarded, turn.execution, turn.events.len()), (1, None, 0));
            let [message] = &turn.messages[..] else { panic!("{:?}", turn.messages) };
            assert_eq!((&message.instance, message.execution), (&parent.instance, Some(parent.execution)));
            let EventKind::SubOrchestrationInstanceFailed { task_scheduled_id: 4, failure } =
                &message.event.kind
            else {
                panic!("{message:?}")
            };
            assert_eq!(failure.error_type, "AlreadyExists");
            assert!(failure.message.contains("'the-instance'"), "{failure}");
            // The one that was there is not disturbed.
            run.send([raised("e", 1)]);
        },
    );
    assert_eq!(run.output::<u32>(), 1);
}

#[test]
fn a_detached_start_for_an_id_in_use_is_dropped_silently() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move { Ok(ctx.wait_for_event::<u32>("e").await?) }),
        |run| {
            run.start(());
            let refused = run.start_of("test", ());
            run.turn(vec![refused]);
        },
    );
    assert_eq!((run.last().discarded, run.last().messages.len()), (1, 0));
}

#[test]
fn a_duplicate_of_a_start_changes_nothing_and_tells_nobody_whatever_became_of_it() {
    let parent = ParentInstance {
        instance: steadfast_core::InstanceId::parse("parent").unwrap(),
        execution: ExecutionId::new(uuid::Uuid::from_u128(99)),
        task_scheduled_id: 4,
        name: "parent".into(),
    };
    let run = scenario(
        code(|ctx: OrchestrationContext, generation: u32| async move {
            ctx.wait_for_event::<()>("e").await?;
            if generation == 0 {
                ctx.continue_as_new(&1)?;
            }
            Ok(())
        }),
        |run| {
            let mut start = run.start_of("test", 0);
            if let EventKind::ExecutionStarted(started) = &mut start.event.kind {
                started.parent = Some(parent.clone());
            }
            let duplicate = |run: &mut crate::support::Driver| {
                let turn = run.turn(vec![start.clone(), start.clone()]);
                assert_eq!((turn.discarded, turn.events.len(), turn.messages.len()), (2, 0, 0));
            };
            run.turn(vec![start.clone()]);
            duplicate(run);
            run.send([raised("e", ())]);
            run.next_generation([]);
            // Its execution is over, but what continues it lives.
            duplicate(run);
            run.send([raised("e", ())]);
            assert_eq!(run.status(), Some(OrchestrationStatus::Completed));
            duplicate(run);
        },
    );
    assert_eq!(run.turns.len(), 7);
}

#[test]
fn events_are_sent_one_way_and_unusable_receivers_or_payloads_are_typed_errors() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            ctx.raise_event("other", "hello", &"you")?;
            let no_id = ctx.raise_event("", "hello", &()).unwrap_err();
            let large = ctx.raise_event("other", "hello", &"x".repeat(2000)).unwrap_err();
            Ok((no_id.to_string(), large.details().error_type.to_string()))
        }),
        |run| {
            run.start(());
        },
    );
    assert_eq!(run.emitted()[0], "send #0 other hello \"you\"");
    let (no_id, large) = run.output::<(String, String)>();
    assert!(no_id.contains("empty"), "{no_id}");
    assert_eq!(large, "PayloadTooLarge");
    let [message] = &run.last().messages[..] else { panic!("{:?}", run.last().messages) };
    assert_eq!((message.instance.as_str(), message.execution), ("other", None));
    assert_eq!(message.event.kind, raised("hello", "you"));
}

#[test]
fn an_instance_may_send_itself_an_event() {
    let run = scenario(
        code(|ctx: OrchestrationContext, (): ()| async move {
            ctx.raise_event(ctx.instance_id().as_str(), "echo", &7)?;
            Ok(ctx.wait_for_event::<u32>("echo").await?)
        }),
        |run| {
            run.start(());
            let echo = run.last().messages[0].clone();
            run.turn(vec![echo]);
        },
    );
    assert_eq!(run.output::<u32>(), 7);
}
