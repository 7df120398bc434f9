//! The record encoding: round trips, damage, and the frozen format.
#![allow(clippy::unwrap_used)]

#[path = "support/entity_events.rs"]
mod entity_events;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;
use steadfast_core::codec::{decode, decode_all, decode_many, encode, encode_to_vec};
use steadfast_core::{
    ActivityId, ActivityOptions, CarriedEvent, EventKind, EventVersions, ExecutionId, ExecutionStarted,
    FailureDetails, HistoryEvent, InstanceId, InstanceState, OrchestrationStatus, Origin, ParentInstance,
    PartitionId, Payload, Predecessor, SubOrchestrationCreated, Tags, TaskMessage, TimerKey, Timestamp,
    TraceContext, history_json,
};
use uuid::Uuid;

fn text() -> impl Strategy<Value = SmolStr> {
    // Short and long, for texts that are kept inline and that are not; any characters.
    prop_oneof![any::<String>(), "[a-z]{0,100}"].prop_map(SmolStr::from)
}

fn payload() -> impl Strategy<Value = Payload> {
    text().prop_map(Payload::from_json)
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_micros)
}

fn instance() -> impl Strategy<Value = InstanceId> {
    text().prop_map(InstanceId::from_trusted)
}

fn execution() -> impl Strategy<Value = ExecutionId> {
    any::<u128>().prop_map(|id| ExecutionId::new(Uuid::from_u128(id)))
}

fn failure() -> impl Strategy<Value = Box<FailureDetails>> {
    let properties = prop::collection::btree_map(text(), text(), 0..3);
    let one = (text(), any::<String>(), any::<Option<String>>(), any::<bool>(), properties).prop_map(
        |(error_type, message, stack_trace, non_retriable, properties)| {
            let cause = None;
            Box::new(FailureDetails { error_type, message, stack_trace, cause, non_retriable, properties })
        },
    );
    prop::collection::vec(one, 1..4).prop_map(|chain| {
        let nest = |cause, mut failure: Box<FailureDetails>| {
            failure.cause = cause;
            Some(failure)
        };
        chain.into_iter().fold(None, nest).unwrap()
    })
}

fn status() -> impl Strategy<Value = OrchestrationStatus> {
    use OrchestrationStatus::*;
    prop::sample::select(vec![
        Running,
        Completed,
        ContinuedAsNew,
        Failed,
        Canceled,
        Terminated,
        Pending,
        Suspended,
    ])
}

fn parent() -> impl Strategy<Value = ParentInstance> {
    (instance(), execution(), any::<i32>(), text()).prop_map(
        |(instance, execution, task_scheduled_id, name)| ParentInstance {
            instance,
            execution,
            task_scheduled_id,
            name,
        },
    )
}

fn trace() -> impl Strategy<Value = Option<Box<TraceContext>>> {
    prop::option::of((text(), text()).prop_map(|(parent, state)| Box::new(TraceContext { parent, state })))
}

fn tags() -> impl Strategy<Value = Tags> {
    prop::collection::btree_map(text(), text(), 0..3)
}

fn options() -> impl Strategy<Value = Option<Box<ActivityOptions>>> {
    let duration = || prop::option::of(any::<u64>().prop_map(Duration::from_micros));
    let options = (tags(), any::<i32>(), duration(), duration(), trace(), prop::option::of(payload()));
    prop::option::of(options.prop_map(
        |(tags, priority, start_to_close, heartbeat, trace, last_heartbeat)| {
            Box::new(ActivityOptions {
                tags,
                priority,
                start_to_close,
                heartbeat,
                trace: trace.map(|trace| *trace),
                last_heartbeat,
            })
        },
    ))
}

fn started() -> impl Strategy<Value = ExecutionStarted> {
    let carried = (text(), payload(), time(), trace());
    let carried = carried.prop_map(|(name, input, timestamp, trace)| CarriedEvent {
        name,
        input,
        timestamp,
        trace,
        versions: None,
    });
    let what = (text(), text(), payload(), execution());
    let rest = (prop::option::of(time()), any::<u32>(), prop::collection::vec(carried, 0..3), trace());
    let predecessor =
        (execution(), any::<i32>()).prop_map(|(execution, kept_below)| Predecessor { execution, kept_below });
    let before = prop::collection::vec(predecessor, 0..3);
    let identity = (any::<bool>(), any::<u32>(), prop::option::of(time()), before);
    (what, prop::option::of(parent()), tags(), rest, identity).prop_map(
        |((name, version, input, execution), parent, tags, rest, identity)| {
            let (scheduled_start, generation, carried_events, trace) = rest;
            let (version_inherited, incarnation, created_at, predecessors) = identity;
            ExecutionStarted {
                name,
                version,
                input,
                execution,
                parent,
                tags,
                scheduled_start,
                generation,
                carried_events,
                trace,
                version_inherited,
                incarnation,
                created_at,
                predecessors,
            }
        },
    )
}

fn child() -> impl Strategy<Value = SubOrchestrationCreated> {
    (text(), text(), instance(), execution(), payload(), any::<bool>(), tags(), trace()).prop_map(
        |(name, version, instance, execution, input, detached, tags, trace)| SubOrchestrationCreated {
            name,
            version,
            instance,
            execution,
            input,
            detached,
            tags,
            trace,
        },
    )
}

fn kind() -> impl Strategy<Value = EventKind> {
    use EventKind::*;
    let id = any::<i32>;
    prop_oneof![
        started().prop_map(|started| ExecutionStarted(Box::new(started))),
        (status(), prop::option::of(payload()), prop::option::of(failure()))
            .prop_map(|(status, output, failure)| ExecutionCompleted { status, output, failure }),
        (text(), any::<bool>()).prop_map(|(reason, recurse)| ExecutionTerminated { reason, recurse }),
        (text(), text(), payload(), options()).prop_map(|(name, version, input, options)| TaskScheduled {
            name,
            version,
            input,
            options
        }),
        (id(), payload()).prop_map(|(task_scheduled_id, result)| TaskCompleted { task_scheduled_id, result }),
        (id(), failure()).prop_map(|(task_scheduled_id, failure)| TaskFailed { task_scheduled_id, failure }),
        child().prop_map(|child| SubOrchestrationInstanceCreated(Box::new(child))),
        (id(), payload()).prop_map(|(task_scheduled_id, result)| SubOrchestrationInstanceCompleted {
            task_scheduled_id,
            result
        }),
        (id(), failure()).prop_map(|(task_scheduled_id, failure)| SubOrchestrationInstanceFailed {
            task_scheduled_id,
            failure
        }),
        time().prop_map(|fire_at| TimerCreated { fire_at }),
        (id(), time()).prop_map(|(timer_id, fire_at)| TimerFired { timer_id, fire_at }),
        Just(OrchestratorStarted),
        Just(OrchestratorCompleted),
        (instance(), text(), payload()).prop_map(|(instance, name, input)| EventSent {
            instance,
            name,
            input
        }),
        (text(), payload(), trace()).prop_map(|(name, input, trace)| EventRaised { name, input, trace }),
        (text(), payload(), trace(), text(), prop::option::of(text())).prop_map(
            |(name, input, trace, sender, receiver)| {
                EventKind::raised(name, input, trace, Some(EventVersions { sender, receiver }))
            }
        ),
        payload().prop_map(|input| ContinueAsNew { input }),
        text().prop_map(|data| GenericEvent { data }),
        text().prop_map(|reason| ExecutionSuspended { reason }),
        text().prop_map(|reason| ExecutionResumed { reason }),
        entity_events::kind(),
        (text(), prop::option::of(started()))
            .prop_map(|(reason, child)| ExecutionRewound { reason, child: child.map(Box::new) }),
        text().prop_map(|id| PatchApplied { id }),
    ]
}

fn event() -> impl Strategy<Value = HistoryEvent> {
    (any::<i32>(), time(), kind()).prop_map(|(event_id, timestamp, kind)| HistoryEvent {
        event_id,
        timestamp,
        kind,
    })
}

fn origin() -> impl Strategy<Value = Origin> {
    let timer = (time(), instance(), execution(), any::<i32>()).prop_map(
        |(fire_at, instance, execution, timer_id)| TimerKey { fire_at, instance, execution, timer_id },
    );
    prop_oneof![
        Just(Origin::Client),
        Just(Origin::Local),
        any::<u64>().prop_map(|id| Origin::Activity(ActivityId(id))),
        timer.prop_map(Origin::Timer),
        (any::<u16>(), any::<u64>())
            .prop_map(|(source, sequence)| Origin::Remote { source: PartitionId(source), sequence }),
    ]
}

fn message() -> impl Strategy<Value = TaskMessage> {
    (instance(), prop::option::of(execution()), event(), origin())
        .prop_map(|(instance, execution, event, origin)| TaskMessage { instance, execution, event, origin })
}

/// A state that has seen a few events.
fn state() -> impl Strategy<Value = InstanceState> {
    let entity = prop::option::of(entity_events::state().prop_map(Box::new));
    let keepsake = prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
    (instance(), started(), time(), prop::collection::vec(event(), 0..8), entity, keepsake).prop_map(
        |(instance, started, at, events, entity, keepsake)| {
            let mut state = InstanceState { entity, ..InstanceState::pending(instance, &started, at) };
            events.iter().for_each(|event| state.apply(event));
            state.keepsake = keepsake.map(Arc::from);
            state
        },
    )
}

/// The value comes back, and no shorter piece of its bytes is taken for a value. The bytes are those of bincode.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> Result<(), TestCaseError> {
    let bytes = encode_to_vec(value);
    prop_assert_eq!(&bytes, &bincode::serde::encode_to_vec(value, bincode::config::standard()).unwrap());
    prop_assert_eq!(&decode_all::<T>(&bytes).unwrap(), value);
    for end in 0..bytes.len() {
        prop_assert!(decode_all::<T>(&bytes[..end]).is_err());
    }
    let mut longer = bytes;
    longer.push(0);
    prop_assert!(decode_all::<T>(&longer).is_err());
    Ok(())
}

/// Whatever the bytes are, reading them ends with a typed error, or with the value that bincode reads as well.
fn read_all_ways(bytes: &[u8]) {
    fn read<T: DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
        let config = bincode::config::standard().with_limit::<{ 1 << 31 }>();
        let expected = bincode::serde::borrow_decode_from_slice::<T, _>(bytes, config).ok();
        let mut rest = bytes;
        let found = decode::<T>(&mut rest).ok().map(|value| (value, bytes.len() - rest.len()));
        assert_eq!(found, expected);
    }
    read::<HistoryEvent>(bytes);
    read::<Vec<HistoryEvent>>(bytes);
    read::<TaskMessage>(bytes);
    read::<InstanceState>(bytes);
    read::<FailureDetails>(bytes);
    let _ = decode_many::<HistoryEvent>(bytes);
    let _ = InstanceState::decode(bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_event_comes_back_and_truncated_ones_are_errors(event in event()) {
        check(&event)?;
    }

    #[test]
    fn every_event_comes_back_from_json(event in event(), instance in instance()) {
        let started = matches!(event.kind, EventKind::ExecutionStarted(_));
        let text = history_json::write(&instance, std::slice::from_ref(&event));
        let dump = history_json::read(&text).unwrap();
        prop_assert_eq!(dump.events, vec![event]);
        prop_assert_eq!(dump.instance, started.then_some(instance));
    }

    #[test]
    fn every_message_comes_back_and_truncated_ones_are_errors(message in message()) {
        check(&message)?;
    }

    #[test]
    fn every_state_comes_back_and_truncated_ones_are_errors(state in state()) {
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        prop_assert_eq!(&InstanceState::decode(&bytes).unwrap(), &state);
        // What comes behind the rest may be missing, and not a piece of it.
        let rest = encode_to_vec(&state).len();
        let without_keepsake = InstanceState { keepsake: None, ..state.clone() };
        let keepsake = state.keepsake.as_ref().map_or(0, |keepsake| encode_to_vec(keepsake).len());
        let whole = [rest, bytes.len() - keepsake];
        for end in (0..bytes.len()).filter(|end| !whole.contains(end)) {
            prop_assert!(InstanceState::decode(&bytes[..end]).is_err());
        }
        prop_assert_eq!(&InstanceState::decode(&bytes[..bytes.len() - keepsake]).unwrap(), &without_keepsake);
        let without = InstanceState { requested_locks: None, ..without_keepsake };
        prop_assert_eq!(&InstanceState::decode(&bytes[..rest]).unwrap(), &without);
        check(&without)?;
    }

    #[test]
    fn values_one_behind_the_other_are_read_one_by_one_and_all_at_once(
        events in prop::collection::vec(event(), 0..6)
    ) {
        let mut bytes = Vec::new();
        events.iter().for_each(|event| encode(event, &mut bytes));
        prop_assert_eq!(&decode_many::<HistoryEvent>(&bytes).unwrap(), &events);
        let mut rest = &bytes[..];
        for event in &events {
            prop_assert_eq!(&decode::<HistoryEvent>(&mut rest).unwrap(), event);
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_all_ways(&bytes);
    }

    #[test]
    fn damaged_bytes_never_panic(
        message in message(), state in state(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        for mut bytes in [encode_to_vec(&message), encode_to_vec(&message.event), encode_to_vec(&state)] {
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            read_all_ways(&bytes);
        }
    }
}

#[test]
fn an_error_says_what_is_wrong() {
    let bytes = encode_to_vec(&golden());
    let cut = decode_all::<Vec<HistoryEvent>>(&bytes[..bytes.len() - 1]).unwrap_err();
    assert!(cut.to_string().starts_with("cannot read the record: "), "{cut}");
    let unknown_kind = [0, 0, 200];
    assert!(decode_all::<HistoryEvent>(&unknown_kind).unwrap_err().problem.contains("variant"));
    let not_utf8 = [2, 0xff, 0xff];
    assert!(!decode_all::<Payload>(&not_utf8).unwrap_err().problem.is_empty());
}

/// One event of every kind, in the order of the variants, with every optional part once present and once absent.
fn golden() -> Vec<HistoryEvent> {
    let at = |seconds: i64| Timestamp::from_micros(1_700_000_000_000_000 + seconds * 1_000_000);
    let execution = |n: u128| ExecutionId::new(Uuid::from_u128(n));
    let id = |text: &str| InstanceId::parse(text).unwrap();
    let json = |text: &str| Payload::from_json(text);
    let failure = || {
        let cause = FailureDetails::new("app::Declined", "card declined").non_retriable();
        let mut failure =
            FailureDetails::new("ActivityFailed", "activity 'charge' (#3) failed").caused_by(cause);
        failure.stack_trace = Some("at charge".to_owned());
        Box::new(failure.with_property("steadfast.lastHeartbeat", "17"))
    };
    let trace = || {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into();
        Some(Box::new(TraceContext { parent, state: "vendor=1".into() }))
    };
    let started = steadfast_core::ExecutionStarted {
        name: "order".into(),
        version: "1.0".into(),
        input: json("{\"items\":[1,2,300],\"note\":\"a text longer than what is kept inline\"}"),
        execution: execution(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
        parent: Some(ParentInstance {
            instance: id("parent"),
            execution: execution(2),
            task_scheduled_id: 70_000,
            name: "checkout".into(),
        }),
        tags: BTreeMap::from([("tenant".into(), "a".into()), ("zone".into(), "ü".into())]),
        scheduled_start: Some(at(60)),
        generation: 3,
        carried_events: vec![CarriedEvent {
            name: "Approval".into(),
            input: json("true"),
            timestamp: at(-5),
            trace: trace(),
            versions: None,
        }],
        trace: None,
        version_inherited: true,
        incarnation: 2,
        created_at: Some(at(-60)),
        predecessors: vec![Predecessor { execution: execution(9), kept_below: 5 }],
    };
    let rewound =
        steadfast_core::ExecutionStarted::new("child".into(), SmolStr::default(), json("[]"), execution(3));
    let child = SubOrchestrationCreated {
        name: "child".into(),
        version: SmolStr::default(),
        instance: id("child-1"),
        execution: execution(3),
        input: json("[]"),
        detached: true,
        tags: BTreeMap::from([("zone".into(), "b".into())]),
        trace: trace(),
    };
    let options = ActivityOptions {
        tags: BTreeMap::from([("tenant".into(), "b".into())]),
        priority: -2,
        start_to_close: Some(Duration::from_millis(1500)),
        heartbeat: None,
        trace: trace().map(|trace| *trace),
        last_heartbeat: Some(json("17")),
    };
    use EventKind::*;
    let kinds = vec![
        (-1, ExecutionStarted(Box::new(started))),
        (
            9,
            ExecutionCompleted {
                status: OrchestrationStatus::Failed,
                output: None,
                failure: Some(failure()),
            },
        ),
        (-1, ExecutionTerminated { reason: "enough".into(), recurse: true }),
        (
            0,
            TaskScheduled {
                name: "charge".into(),
                version: "2".into(),
                input: json("17"),
                options: Some(Box::new(options)),
            },
        ),
        (-1, TaskCompleted { task_scheduled_id: 0, result: json("\"ok\"") }),
        (-1, TaskFailed { task_scheduled_id: 300, failure: failure() }),
        (1, SubOrchestrationInstanceCreated(Box::new(child))),
        (-1, SubOrchestrationInstanceCompleted { task_scheduled_id: 1, result: json("null") }),
        (-1, SubOrchestrationInstanceFailed { task_scheduled_id: 1, failure: failure() }),
        (2, TimerCreated { fire_at: Timestamp::MAX }),
        (-1, TimerFired { timer_id: 2, fire_at: at(120) }),
        (-1, OrchestratorStarted),
        (-1, OrchestratorCompleted),
        (3, EventSent { instance: id("other"), name: "hello".into(), input: json("{}") }),
        (-1, EventRaised { name: "Approval".into(), input: json("false"), trace: None }),
        (4, ContinueAsNew { input: json("5") }),
        (-1, GenericEvent { data: "free text".into() }),
        (-1, ExecutionSuspended { reason: "pause".into() }),
        (-1, ExecutionResumed { reason: "go on".into() }),
        (-1, ExecutionRewound { reason: "cured".into(), child: Some(Box::new(rewound)) }),
        (-1, PatchApplied { id: "check-first".into() }),
        (
            i32::MAX,
            ExecutionCompleted {
                status: OrchestrationStatus::Completed,
                output: Some(json("[\"Hello, Tokyo!\"]")),
                failure: None,
            },
        ),
    ];
    let kinds = kinds.into_iter().chain(entity_events::golden(at));
    let event = |(n, (event_id, kind))| HistoryEvent { event_id, timestamp: at(n), kind };
    (0..).zip(kinds).map(event).collect()
}

/// Lines of 32 bytes.
fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    bytes.chunks(32).map(line).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter(|digit| !digit.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// What version 2 wrote is read for ever. If this fails, [`steadfast_core::codec::FORMAT_VERSION`] must change and
/// old records must still be read; the file itself is never changed.
#[test]
fn version_2_of_the_format_is_frozen() {
    assert_eq!(steadfast_core::codec::FORMAT_VERSION, 2);
    let frozen = from_hex(include_str!("golden/v2/history.hex"));
    let golden = golden();
    assert_eq!(decode_many::<HistoryEvent>(&frozen).unwrap(), golden);
    let mut written = Vec::new();
    golden.iter().for_each(|event| encode(event, &mut written));
    assert_eq!(hex(&written), hex(&frozen));
}

#[test]
fn the_frozen_history_comes_back_from_json() {
    let id = InstanceId::parse("order-17").unwrap();
    let text = history_json::write(&id, &golden());
    assert_eq!(history_json::read(&text).unwrap().events, golden());
}

#[test]
fn the_frozen_history_has_every_kind_of_event() {
    let mut names: Vec<_> = golden().iter().map(|event| event.kind.type_name()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 28, "EventKind has another number of variants now? {names:?}");
}

#[test]
fn events_that_speak_of_versions_are_written_behind_the_frozen_kinds_and_others_as_before() {
    let raised = |versions| {
        let kind = EventKind::raised("go".into(), Payload::from_json("1"), None, versions);
        HistoryEvent::message(Timestamp::from_micros(2), kind)
    };
    let (sender, receiver) = ("1.0".into(), Some("2".into()));
    let versioned = raised(Some(EventVersions { sender, receiver }));
    assert_eq!(hex(&encode_to_vec(&versioned)), "01041c02676f01310003312e30010132\n");
    for plain in [None, Some(EventVersions::default())] {
        assert!(matches!(raised(plain).kind, EventKind::EventRaised { .. }));
    }
}
