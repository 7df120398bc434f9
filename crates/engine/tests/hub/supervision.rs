//! What happens when the store fails or an actor panics: the partition is rebuilt, and nothing is lost (invariant I5).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use steadfast_core::{InstanceFacts, InstanceId, OrchestrationStatus, PartitionId, Position, Timestamp};
use steadfast_engine::{Client, ClientError, Clock, HubOptions, SystemClock};
use steadfast_store::{
    Fault, FaultPoint, HistoryChange, InstanceChange, InstanceWrite, Materialisation, MemoryStore, Operation,
    Store, StoreError,
};

use crate::support::{
    GatedStore, STEPS, WAITER, echo, end_of, fence, history_of, hub, hub_on, id_in, ids_in, soon, steps,
    stop, waiter, with_id,
};

fn disk_error() -> StoreError {
    StoreError::Io { doing: "running a test", problem: "a scripted fault".to_owned() }
}

/// Everything is moved to the instance store at once, and sessions are short, so that all operations are called often.
fn restless() -> HubOptions {
    HubOptions {
        materialise_interval: Duration::from_millis(1),
        session_idle_timeout: Duration::ZERO,
        ..HubOptions::default()
    }
}

/// Starts an instance as a careful program does: after an error it looks whether the start took effect.
async fn start_for_certain(client: &Client, id: &str) {
    loop {
        match client.start_with(STEPS, 4, with_id(id)).await.map(|_| ()) {
            Ok(()) | Err(ClientError::AlreadyExists { .. }) => return,
            Err(ClientError::Store(_) | ClientError::Interrupted | ClientError::Unavailable) => {
                if client.state(id).await.is_ok() {
                    return;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_of_the_store_may_fail_and_all_instances_complete() {
    use Operation::{Append, Load, Materialise, Sync, Truncate};
    for operation in [Append, Sync, Materialise, Truncate, Load] {
        for point in [FaultPoint::Before, FaultPoint::AfterWrites(1), FaultPoint::After] {
            let store = MemoryStore::new(3);
            let builder = hub_on(&store).register(steps()).register(echo());
            let hub = builder.options(restless()).start().await.unwrap();
            let client = hub.client();
            let ids: Vec<_> = (0..60).map(|n| format!("steps-{n}")).collect();
            for nth in [1, 7, 20] {
                store.fail(Fault { operation, nth, point, error: disk_error() });
            }
            soon("the starts", join_all(ids.iter().map(|id| start_for_certain(&client, id)))).await;
            for id in &ids {
                let state = end_of(&client, id).await;
                assert_eq!(state.status, OrchestrationStatus::Completed, "{operation:?} {point:?} {id}");
                history_of(&client, id).await;
            }
            // If few records were needed, the last fault strikes when the hub writes everything at its end, and it says so.
            let stopped = soon("the stop", hub.stop()).await;
            assert!(stopped.is_ok() || operation == Sync, "{operation:?} {point:?} {stopped:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_panics_is_like_one_that_fails() {
    let store = GatedStore::new(2);
    let hub = store.hub().register(steps()).register(echo()).options(restless()).start().await.unwrap();
    let client = hub.client();
    for (round, operation) in
        [Operation::Append, Operation::Materialise, Operation::Load].into_iter().enumerate()
    {
        *store.panics.lock() = Some(operation);
        let ids: Vec<_> = (0..20).map(|n| format!("steps-{round}-{n}")).collect();
        soon("the starts", join_all(ids.iter().map(|id| start_for_certain(&client, id)))).await;
        for id in &ids {
            assert_eq!(end_of(&client, id).await.status, OrchestrationStatus::Completed, "{operation:?}");
        }
        let panicked = async {
            while store.panics.lock().is_some() {
                let _ = client.state("nobody").await;
            }
        };
        soon("the panic", panicked).await;
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_panics_over_a_question_answers_the_next_one() {
    let store = GatedStore::new(1);
    let hub = store.hub().register(waiter()).start().await.unwrap();
    let client = hub.client();
    for _ in 0..3 {
        *store.panics.lock() = Some(Operation::Load);
        let outcome = soon("the answer", client.state("nobody")).await;
        assert!(matches!(outcome, Err(ClientError::InstanceNotFound { .. })), "{outcome:?}");
        assert_eq!(*store.panics.lock(), None);
    }
    client.start_with(WAITER, (), with_id("waiter")).await.unwrap();
    client.raise_event("waiter", "go", "on").await.unwrap();
    assert_eq!(end_of(&client, "waiter").await.status, OrchestrationStatus::Completed);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_the_store_cannot_answer_ends_with_its_error() {
    let store = MemoryStore::new(1);
    let options = HubOptions { unavailable_timeout: Duration::from_millis(50), ..HubOptions::default() };
    let hub = hub_on(&store).register(waiter()).options(options).start().await.unwrap();
    let client = hub.client();
    let (operation, point) = (Operation::Load, FaultPoint::Before);
    // One failure is not worth mentioning.
    store.fail(Fault { operation, nth: 1, point, error: disk_error() });
    assert!(matches!(
        soon("the answer", client.state("nobody")).await,
        Err(ClientError::InstanceNotFound { .. })
    ));
    store.crash();
    let outcome = soon("the answer", client.wait_for_completion("nobody", None)).await;
    assert!(matches!(outcome, Err(ClientError::Store(StoreError::Io { .. }))), "{outcome:?}");
    drop(hub);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_cannot_be_materialised_does_not_hold_up_another() {
    let store = GatedStore::new(2);
    *store.refused.lock() = Some(PartitionId(0));
    let hub = store.hub().register(steps()).register(echo()).options(restless()).start().await.unwrap();
    let client = hub.client();
    let sick: Vec<_> = ids_in("sick", 0, 2).take(20).collect();
    for id in &sick {
        soon("the start", start_for_certain(&client, id)).await;
    }
    for id in ids_in("well", 1, 2).take(200) {
        client.start_with(STEPS, 4, with_id(&id)).await.unwrap();
        assert_eq!(end_of(&client, &id).await.status, OrchestrationStatus::Completed);
    }
    *store.refused.lock() = None;
    for id in &sick {
        assert_eq!(end_of(&client, id).await.status, OrchestrationStatus::Completed);
        history_of(&client, id).await;
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_are_answered_after_a_rebuild() {
    let store = MemoryStore::new(1);
    let hub = hub_on(&store).register(waiter()).start().await.unwrap();
    let client = hub.client();
    client.start_with(WAITER, (), with_id("waiter")).await.unwrap();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.wait_for_completion("waiter", None).await }
    });
    fence(&client, "waiter").await;
    for _ in 0..3 {
        let (operation, point) = (Operation::Append, FaultPoint::Before);
        store.fail(Fault { operation, nth: 1, point, error: disk_error() });
        let outcome = client.suspend("waiter", "will not work").await;
        assert!(matches!(outcome, Err(ClientError::Store(_))));
        assert_eq!(
            soon("the state", client.state("waiter")).await.unwrap().status,
            OrchestrationStatus::Running
        );
    }
    client.raise_event("waiter", "go", "at last").await.unwrap();
    let state = soon("the news", waiting).await.unwrap().unwrap();
    assert_eq!(state.output.unwrap().as_str(), "\"at last\"");
    stop(hub).await;
}

/// Panics once within an actor.
struct PanickingClock(Arc<AtomicBool>);

impl Clock for PanickingClock {
    fn now(&self) -> Timestamp {
        let in_actor = std::thread::current().name().is_some_and(|name| name.starts_with("actix"));
        if in_actor && self.0.swap(false, Ordering::SeqCst) {
            panic!("the clock fell down");
        }
        SystemClock.now()
    }

    fn on_jump(&self, wake: Box<dyn Fn() + Send + Sync>) -> bool {
        SystemClock.on_jump(wake)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_partition_is_survived_by_a_rebuild() {
    let armed = Arc::new(AtomicBool::new(false));
    let clock = Arc::new(PanickingClock(armed.clone()));
    let hub = hub(2).register(waiter()).clock(clock).start().await.unwrap();
    let client = hub.client();
    let (sick, well) = (id_in("sick", 0, 2), id_in("well", 1, 2));
    client.start_with(WAITER, (), with_id(&sick)).await.unwrap();
    client.start_with(WAITER, (), with_id(&well)).await.unwrap();
    for _ in 0..3 {
        armed.store(true, Ordering::SeqCst);
        // A call that reaches the actor while it is going down is not the one that makes it panic; and should the new actor
        // panic when it begins, the call waits for the one after it.
        while armed.load(Ordering::SeqCst) {
            let outcome = soon("the answer", client.raise_event(&sick, "other", "it panics")).await;
            assert!(matches!(outcome, Ok(()) | Err(ClientError::Interrupted)), "{outcome:?}");
        }
    }
    for id in [&sick, &well] {
        while let Err(error) = soon("the answer", client.raise_event(id, "go", "on")).await {
            assert!(matches!(error, ClientError::Interrupted), "{error}");
        }
        assert_eq!(end_of(&client, id).await.status, OrchestrationStatus::Completed);
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_waits_for_what_the_old_actor_had_begun_to_write() {
    let store = GatedStore::new(1);
    let hub = store.hub().register(waiter()).options(restless()).start().await.unwrap();
    let client = hub.client();
    store.materialise.close();
    store.recover.close();
    client.start_with(WAITER, (), with_id("waiter")).await.unwrap();
    store.materialise.reached().await;
    // The capture is on the way when the partition fails.
    let (operation, point) = (Operation::Append, FaultPoint::After);
    store.memory.fail(Fault { operation, nth: 1, point, error: disk_error() });
    let outcome = client.raise_event("waiter", "go", "on").await;
    assert!(matches!(outcome, Err(ClientError::Store(_))));
    let begun = tokio::time::timeout(Duration::from_millis(300), store.recover.reached()).await;
    store.materialise.open();
    // A failure with closed gates would hang in the hub's drop.
    if begun.is_ok() {
        store.recover.open();
        panic!("the rebuild began while the store was being written");
    }
    store.recover.reached().await;
    store.recover.open();
    // The event's record was in the log when the append failed, so it took effect.
    assert_eq!(end_of(&client, "waiter").await.status, OrchestrationStatus::Completed);
    history_of(&client, "waiter").await;
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_instance_is_not_missed_while_its_state_is_read() {
    let store = GatedStore::new(1);
    let build = || store.hub().register(waiter()).options(restless());
    let hub = build().start().await.unwrap();
    hub.client().start_with(WAITER, (), with_id("waiter")).await.unwrap();
    soon("the start", hub.client().wait_for_start("waiter", None)).await.unwrap();
    stop(hub).await;

    let hub = build().start().await.unwrap();
    let client = hub.client();
    store.loaded.close();
    store.materialise.close();
    let raising = tokio::spawn({
        let client = client.clone();
        async move { client.raise_event("waiter", "go", "on").await }
    });
    store.loaded.reached().await;
    let mut waiting = Box::pin(client.wait_for_completion("waiter", None));
    let waits = std::future::poll_fn(|task| Poll::Ready(waiting.as_mut().poll(task).is_pending()));
    assert!(waits.await);
    // The question is asked, and in the loader's queue behind the load for the event.
    fence_by_list(&client).await;
    store.loaded.let_one_pass();
    soon("the event", raising).await.unwrap().unwrap();
    // The question has been read from the store and is held back; the instance ends, is stored and forgotten.
    store.loaded.reached().await;
    store.materialise.reached().await;
    let before = store.materialisations.get();
    store.materialise.open();
    let stored = async {
        while store.materialisations.get() == before {
            tokio::task::yield_now().await;
        }
    };
    soon("the materialisation", stored).await;
    fence_by_list(&client).await;
    store.loaded.open();
    let state = soon("the news", waiting).await.unwrap();
    assert_eq!(state.status, OrchestrationStatus::Completed);
    stop(hub).await;
}

/// Returns once the partitions have handled everything before, without the loader.
async fn fence_by_list(client: &Client) {
    for _ in 0..5 {
        soon("a page", client.query(&Default::default())).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_instance_is_a_typed_error_for_its_callers_and_concerns_no_other() {
    let store = MemoryStore::new(1);
    let damaged = InstanceWrite {
        instance: InstanceId::parse("damaged").unwrap(),
        reflects: Position(0),
        change: InstanceChange::Put {
            payloads: Vec::new(),
            state: Arc::from(&[0xff; 40][..]),
            history: HistoryChange::Replace(Arc::from(&[][..])),
            history_events: 0,
            fresh: true,
            ended: false,
            facts: InstanceFacts::new("waiter", OrchestrationStatus::Running, Timestamp::default()),
        },
    };
    let batch = Materialisation { instances: vec![damaged], ..Materialisation::default() };
    store.materialise(PartitionId(0), &batch).unwrap();
    let hub = hub_on(&store).register(waiter()).start().await.unwrap();
    let client = hub.client();
    client.start_with(WAITER, (), with_id("sound")).await.unwrap();
    for _ in 0..2 {
        let calls = [
            client.raise_event("damaged", "go", "on").await,
            client.start_with(WAITER, (), with_id("damaged")).await.map(|_| ()),
            client.purge("damaged").await,
            client.state("damaged").await.map(|_| ()),
        ];
        for outcome in calls {
            let Err(ClientError::Store(StoreError::Corrupt { place, .. })) = outcome else {
                panic!("{outcome:?}")
            };
            assert!(place.contains("damaged"), "{place}");
        }
    }
    client.raise_event("sound", "go", "on").await.unwrap();
    assert_eq!(end_of(&client, "sound").await.status, OrchestrationStatus::Completed);
    stop(hub).await;
}
