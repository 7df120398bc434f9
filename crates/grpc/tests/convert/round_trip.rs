//! Random histories, failures and traces go out and come back the same.

use proptest::prelude::*;
use prost::Message;
use steadfast_core::entity::{EntityId, EntityLockRequest, EntityOperation, EntityUnlock};
use steadfast_core::{
    ActivityOptions, EventKind, ExecutionId, ExecutionStarted, FailureDetails, HistoryEvent, InstanceId,
    NO_EVENT_ID, OrchestrationStatus, ParentInstance, Payload, SubOrchestrationCreated, Tags, Timestamp,
    TraceContext,
};
use steadfast_grpc::convert::{
    Whose, failure_from_wire, failure_to_wire, history_from_wire, history_to_wire, timestamp,
    timestamp_to_wire,
};
use steadfast_grpc::wire;
use uuid::Uuid;

use crate::whose;

fn text() -> impl Strategy<Value = smol_str::SmolStr> {
    "[a-zA-Zü0-9]{1,30}".prop_map(smol_str::SmolStr::from)
}

fn text_or_nothing() -> impl Strategy<Value = smol_str::SmolStr> {
    ".{0,10}".prop_map(smol_str::SmolStr::from)
}

fn payload() -> impl Strategy<Value = Payload> {
    ".{0,60}".prop_map(Payload::from_json)
}

/// Within what the protocol can express.
fn time() -> impl Strategy<Value = Timestamp> {
    (-62_135_596_800_000_000i64..=253_402_300_799_999_999).prop_map(Timestamp::from_micros)
}

fn instance() -> impl Strategy<Value = InstanceId> {
    "[a-z:-]{1,200}".prop_map(InstanceId::from_trusted)
}

fn execution() -> impl Strategy<Value = ExecutionId> {
    any::<u128>().prop_map(|bits| ExecutionId::new(Uuid::from_u128(bits)))
}

fn entity() -> impl Strategy<Value = EntityId> {
    ("[a-zö]{1,30}", "[a-zA-Z@]{0,30}").prop_map(|(name, key)| EntityId::new(name, key).unwrap())
}

fn tags() -> impl Strategy<Value = Tags> {
    prop::collection::btree_map(text(), text_or_nothing(), 0..3)
}

fn trace() -> impl Strategy<Value = Option<TraceContext>> {
    prop::option::of((text(), text_or_nothing()).prop_map(|(parent, state)| TraceContext { parent, state }))
}

/// Type, message, stack trace, whether it is final, and properties as JSON.
type Link =
    (smol_str::SmolStr, String, Option<String>, bool, std::collections::BTreeMap<smol_str::SmolStr, String>);

fn failure() -> impl Strategy<Value = Box<FailureDetails>> {
    let properties = prop::collection::btree_map(text(), "-?[1-9][0-9]{0,8}|true|null|\"[a-z]{0,9}\"", 0..3);
    let trace = prop::option::of(".{1,40}");
    let one = (text_or_nothing(), ".{0,40}", trace, any::<bool>(), properties);
    prop::collection::vec(one, 1..5).prop_map(|links| {
        let link = |cause: Option<Box<FailureDetails>>, link: Link| {
            let (kind, message, trace, non_retriable, properties) = link;
            let mut failure = FailureDetails::new(kind, message);
            failure.stack_trace = trace;
            failure.non_retriable = non_retriable;
            failure.properties = properties.into_iter().map(|(name, value)| (name, value.into())).collect();
            failure.cause = cause;
            Some(Box::new(failure))
        };
        links.into_iter().fold(None, link).unwrap()
    })
}

/// The status and result of an execution that ended, without termination: its result goes out as the reason.
fn completed() -> impl Strategy<Value = EventKind> {
    let status = prop::sample::select(vec![OrchestrationStatus::Completed, OrchestrationStatus::Failed]);
    let output = prop::option::of(".{1,20}".prop_map(Payload::from_json));
    (status, output, prop::option::of(failure()))
        .prop_map(|(status, output, failure)| EventKind::ExecutionCompleted { status, output, failure })
}

fn options() -> impl Strategy<Value = Option<Box<ActivityOptions>>> {
    (tags(), trace()).prop_map(|(tags, trace)| {
        let plain = tags.is_empty() && trace.is_none();
        (!plain).then(|| Box::new(ActivityOptions { tags, trace, ..ActivityOptions::default() }))
    })
}

fn task_kind() -> impl Strategy<Value = EventKind> {
    let scheduled = (text(), text_or_nothing(), payload(), options());
    let child = (text(), text_or_nothing(), instance(), payload(), tags(), trace());
    prop_oneof![
        scheduled.prop_map(|(name, version, input, options)| EventKind::TaskScheduled {
            name,
            version,
            input,
            options
        }),
        (any::<i32>(), payload())
            .prop_map(|(task_scheduled_id, result)| EventKind::TaskCompleted { task_scheduled_id, result }),
        (any::<i32>(), failure())
            .prop_map(|(task_scheduled_id, failure)| EventKind::TaskFailed { task_scheduled_id, failure }),
        child.prop_map(|(name, version, instance, input, tags, trace)| {
            EventKind::SubOrchestrationInstanceCreated(Box::new(SubOrchestrationCreated {
                name,
                version,
                instance,
                // Replaced by the one that follows from the event's id.
                execution: ExecutionId::new(Uuid::nil()),
                input,
                detached: false,
                tags,
                trace: trace.map(Box::new),
            }))
        }),
        (any::<i32>(), payload()).prop_map(|(task_scheduled_id, result)| {
            EventKind::SubOrchestrationInstanceCompleted { task_scheduled_id, result }
        }),
        (any::<i32>(), failure()).prop_map(|(task_scheduled_id, failure)| {
            EventKind::SubOrchestrationInstanceFailed { task_scheduled_id, failure }
        }),
        time().prop_map(|fire_at| EventKind::TimerCreated { fire_at }),
        (any::<i32>(), time()).prop_map(|(timer_id, fire_at)| EventKind::TimerFired { timer_id, fire_at }),
    ]
}

fn other_kind() -> impl Strategy<Value = EventKind> {
    let reason = || "|null|\"[a-z]{0,20}\"".prop_map(smol_str::SmolStr::from);
    prop_oneof![
        completed(),
        (reason(), any::<bool>())
            .prop_map(|(reason, recurse)| EventKind::ExecutionTerminated { reason, recurse }),
        (instance(), text(), payload()).prop_map(|(instance, name, input)| EventKind::EventSent {
            instance,
            name,
            input
        }),
        (text(), payload()).prop_map(|(name, input)| EventKind::EventRaised { name, input, trace: None }),
        payload().prop_map(|input| EventKind::ContinueAsNew { input }),
        text().prop_map(|data| EventKind::GenericEvent { data }),
        reason().prop_map(|reason| EventKind::ExecutionSuspended { reason }),
        reason().prop_map(|reason| EventKind::ExecutionRewound { reason, child: None }),
        text_or_nothing().prop_map(|id| EventKind::PatchApplied { id }),
        reason().prop_map(|reason| EventKind::ExecutionResumed { reason }),
    ]
}

fn entity_kind() -> impl Strategy<Value = EventKind> {
    let operation = || {
        let what = (text(), text(), payload(), prop::option::of(time()), entity());
        what.prop_map(|(request_id, operation, input, scheduled_time, target)| {
            let (target, caller, trace) = (Some(target), None, None);
            Box::new(EntityOperation { request_id, operation, input, scheduled_time, target, caller, trace })
        })
    };
    let lock = (text(), prop::collection::btree_set(entity(), 1..4), 0..4u32);
    let lock = lock.prop_map(|(critical_section, lock_set, position)| {
        let lock_set = lock_set.into_iter().collect();
        Box::new(EntityLockRequest { critical_section, lock_set, position, owner: None, trace: None })
    });
    let unlock = (text(), entity()).prop_map(|(critical_section, target)| {
        let (target, owner, then) = (Some(target), None, Vec::new());
        Box::new(EntityUnlock { critical_section, target, owner, then })
    });
    prop_oneof![
        operation().prop_map(EventKind::EntityOperationSignaled),
        operation().prop_map(EventKind::EntityOperationCalled),
        (text(), payload())
            .prop_map(|(request_id, output)| EventKind::EntityOperationCompleted { request_id, output }),
        (text(), failure())
            .prop_map(|(request_id, failure)| EventKind::EntityOperationFailed { request_id, failure }),
        lock.prop_map(EventKind::EntityLockRequested),
        text().prop_map(|critical_section| EventKind::EntityLockGranted { critical_section }),
        unlock.prop_map(EventKind::EntityUnlockSent),
    ]
}

fn started() -> impl Strategy<Value = ExecutionStarted> {
    let parent = (instance(), execution(), any::<i32>(), text_or_nothing());
    let parent = parent.prop_map(|(instance, execution, task_scheduled_id, name)| ParentInstance {
        instance,
        execution,
        task_scheduled_id,
        name,
    });
    let what = (text(), text_or_nothing(), payload(), execution());
    let rest = (prop::option::of(parent), tags(), prop::option::of(time()), trace());
    (what, rest).prop_map(|((name, version, input, execution), (parent, tags, scheduled_start, trace))| {
        ExecutionStarted {
            parent,
            tags,
            scheduled_start,
            trace: trace.map(Box::new),
            ..ExecutionStarted::new(name, version, input, execution)
        }
    })
}

/// Turns as the kernel writes them: `OrchestratorStarted`, events, `OrchestratorCompleted` with the same time.
fn history() -> impl Strategy<Value = Vec<HistoryEvent>> {
    let event = (any::<i32>(), time(), prop_oneof![task_kind(), other_kind(), entity_kind()]);
    let event = event.prop_map(|(event_id, timestamp, kind)| HistoryEvent { event_id, timestamp, kind });
    let turn = (time(), prop::collection::vec(event, 0..8));
    (started(), prop::collection::vec(turn, 1..5)).prop_map(|(started, turns)| {
        let execution = started.execution;
        let mut start =
            Some(HistoryEvent::message(turns[0].0, EventKind::ExecutionStarted(Box::new(started))));
        let mut history = Vec::new();
        for (at, mut events) in turns {
            history.push(HistoryEvent::message(at, EventKind::OrchestratorStarted));
            history.extend(start.take());
            for event in &mut events {
                if let EventKind::SubOrchestrationInstanceCreated(created) = &mut event.kind {
                    created.execution = execution.derive("child", event.event_id);
                }
            }
            history.append(&mut events);
            history.push(HistoryEvent::message(at, EventKind::OrchestratorCompleted));
        }
        history
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_history_goes_out_in_bytes_and_comes_back_the_same(history in history()) {
        let Whose { instance, .. } = whose();
        let chunk = wire::HistoryChunk { events: history_to_wire(&instance, &history) };
        for event in &chunk.events {
            prop_assert!(event.timestamp.is_some() && event.event_type.is_some());
        }
        let read = wire::HistoryChunk::decode(chunk.encode_to_vec().as_slice()).unwrap();
        prop_assert_eq!(history_from_wire(read.events, &whose()).unwrap(), history);
    }

    #[test]
    fn a_failure_comes_back_with_its_causes_and_properties(failure in failure()) {
        let bytes = failure_to_wire(&failure).encode_to_vec();
        let read = wire::TaskFailureDetails::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(failure_from_wire(read), *failure);
    }

    #[test]
    fn every_moment_goes_out_as_a_valid_timestamp(micros in any::<i64>()) {
        let time = Timestamp::from_micros(micros);
        let read = timestamp(timestamp_to_wire(time), "t").unwrap();
        let expressible = (-62_135_596_800_000_000..=253_402_300_799_999_999).contains(&micros);
        prop_assert_eq!(read == time, expressible);
    }

    #[test]
    fn damaged_bytes_of_a_history_never_lead_to_a_panic(
        history in history(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let chunk = wire::HistoryChunk { events: history_to_wire(&whose().instance, &history) };
        let mut bytes = chunk.encode_to_vec();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(read) = wire::HistoryChunk::decode(bytes.as_slice())
            && let Ok(history) = history_from_wire(read.events, &whose())
        {
            // What was taken can be given again.
            let again = history_to_wire(&whose().instance, &history);
            prop_assert!(again.len() <= history.len());
        }
    }
}

#[test]
fn an_event_without_a_cause_keeps_the_number_for_that() {
    let history = [HistoryEvent::message(Timestamp::from_micros(5), EventKind::OrchestratorStarted)];
    assert_eq!(history_to_wire(&whose().instance, &history)[0].event_id, NO_EVENT_ID);
}
