//! Events of entities: random ones, and those of the frozen history.

use proptest::prelude::*;
use steadfast_core::entity::{
    EntityCaller, EntityId, EntityLock, EntityLockRequest, EntityOperation, EntityOwner, EntityState,
    EntityUnlock,
};
use steadfast_core::{EventKind, ExecutionId, FailureDetails, InstanceId, Payload, Timestamp, TraceContext};
use uuid::Uuid;

fn text() -> impl Strategy<Value = smol_str::SmolStr> {
    ".{0,30}".prop_map(smol_str::SmolStr::from)
}

fn payload() -> impl Strategy<Value = Payload> {
    ".{0,60}".prop_map(Payload::from_json)
}

fn entity() -> impl Strategy<Value = EntityId> {
    ("[a-z]{1,30}", "[a-z@]{0,30}").prop_map(|(name, key)| EntityId::new(name, key).unwrap())
}

fn instance() -> impl Strategy<Value = InstanceId> {
    "[a-z]{1,40}".prop_map(InstanceId::from_trusted)
}

fn execution() -> impl Strategy<Value = ExecutionId> {
    any::<u128>().prop_map(|bits| ExecutionId::new(Uuid::from_u128(bits)))
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_micros)
}

fn owner() -> impl Strategy<Value = EntityOwner> {
    (instance(), execution()).prop_map(|(instance, execution)| EntityOwner { instance, execution })
}

fn operation() -> impl Strategy<Value = Box<EntityOperation>> {
    let caller = (instance(), prop::option::of(execution()))
        .prop_map(|(instance, execution)| EntityCaller { instance, execution });
    let what = (text(), text(), payload(), prop::option::of(time()));
    (what, prop::option::of(entity()), prop::option::of(caller)).prop_map(
        |((request_id, operation, input, scheduled_time), target, caller)| {
            let trace = None;
            Box::new(EntityOperation { request_id, operation, input, scheduled_time, target, caller, trace })
        },
    )
}

pub(crate) fn state() -> impl Strategy<Value = EntityState> {
    let lock = (text(), owner()).prop_map(|(critical_section, owner)| EntityLock { critical_section, owner });
    (prop::option::of(payload()), prop::option::of(lock)).prop_map(|(state, lock)| EntityState {
        state,
        lock,
        backlog: 0,
    })
}

pub(crate) fn kind() -> impl Strategy<Value = EventKind> {
    let entities = || prop::collection::vec(entity(), 0..4);
    let request = (text(), entities(), any::<u32>(), prop::option::of(owner())).prop_map(
        |(critical_section, lock_set, position, owner)| {
            let request = EntityLockRequest { critical_section, lock_set, position, owner, trace: None };
            EventKind::EntityLockRequested(Box::new(request))
        },
    );
    let unlock = (text(), prop::option::of(entity()), prop::option::of(owner()), entities()).prop_map(
        |(critical_section, target, owner, then)| {
            EventKind::EntityUnlockSent(Box::new(EntityUnlock { critical_section, target, owner, then }))
        },
    );
    prop_oneof![
        operation().prop_map(EventKind::EntityOperationSignaled),
        operation().prop_map(EventKind::EntityOperationCalled),
        (text(), payload())
            .prop_map(|(request_id, output)| EventKind::EntityOperationCompleted { request_id, output }),
        (text(), text()).prop_map(|(request_id, message)| EventKind::EntityOperationFailed {
            request_id,
            failure: Box::new(FailureDetails::new("E", message.as_str())),
        }),
        request,
        text().prop_map(|critical_section| EventKind::EntityLockGranted { critical_section }),
        unlock,
    ]
}

/// Those of the frozen history, with every optional part once present and once absent.
pub(crate) fn golden(at: impl Fn(i64) -> Timestamp) -> Vec<(i32, EventKind)> {
    let counter = || EntityId::new("counter", "a").unwrap();
    let execution = ExecutionId::new(Uuid::from_u128(9));
    let instance = || InstanceId::from_trusted("order-17");
    let trace = TraceContext {
        parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        state: "".into(),
    };
    let signal = EntityOperation {
        request_id: "".into(),
        operation: "add".into(),
        input: Payload::from_json("5"),
        scheduled_time: Some(at(600)),
        target: Some(counter()),
        caller: None,
        trace: Some(Box::new(trace.clone())),
    };
    let call = EntityOperation {
        request_id: "5c40a1f2-7b5e-5a2c-9d0e-0b7d5d1f3a11".into(),
        scheduled_time: None,
        target: None,
        caller: Some(EntityCaller { instance: instance(), execution: Some(execution) }),
        trace: None,
        ..signal.clone()
    };
    let lock = EntityLockRequest {
        critical_section: "section".into(),
        lock_set: vec![counter(), EntityId::new("counter", "b").unwrap()],
        position: 1,
        owner: Some(EntityOwner { instance: instance(), execution }),
        trace: Some(Box::new(trace)),
    };
    let history_lock = EntityLockRequest { owner: None, trace: None, position: 0, ..lock.clone() };
    let unlock = EntityUnlock {
        critical_section: "section".into(),
        target: Some(counter()),
        owner: None,
        then: Vec::new(),
    };
    let chained = EntityUnlock {
        target: None,
        owner: Some(EntityOwner { instance: instance(), execution }),
        then: vec![counter()],
        ..unlock.clone()
    };
    let request_id = call.request_id.clone();
    vec![
        (5, EventKind::EntityOperationSignaled(Box::new(signal))),
        (6, EventKind::EntityOperationCalled(Box::new(call))),
        (
            -1,
            EventKind::EntityOperationCompleted {
                request_id: request_id.clone(),
                output: Payload::from_json("7"),
            },
        ),
        (
            -1,
            EventKind::EntityOperationFailed {
                request_id,
                failure: Box::new(FailureDetails::new("app::Overdrawn", "too little")),
            },
        ),
        (7, EventKind::EntityLockRequested(Box::new(history_lock))),
        (-1, EventKind::EntityLockRequested(Box::new(lock))),
        (-1, EventKind::EntityLockGranted { critical_section: "section".into() }),
        (8, EventKind::EntityUnlockSent(Box::new(unlock))),
        (-1, EventKind::EntityUnlockSent(Box::new(chained))),
    ]
}
