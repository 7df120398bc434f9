//! Limits of histories and queues, and instances whose turns crash.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use steadfast::failure::kinds;
use steadfast::store::MemoryStore;
use steadfast::{
    ActivityContext, ActivityName, Client, ClientError, EntityCall, EntityContext, EntityDefinition,
    EntityId, Error, HubBuilder, HubOptions, OrchestrationContext, OrchestrationDefinition,
    OrchestrationName, OrchestrationStatus, Poison, Timestamp, activity, entity, orchestration,
};
use steadfast_testkit::VirtualClock;

use crate::support::{end_of, hub, soon, stop, with_and_without_sessions, with_id};

const ECHO: ActivityName<u32, u32> = ActivityName::new("echo");
const COUNT: OrchestrationName<u32, u32> = OrchestrationName::new("count");

fn echo() -> steadfast::ActivityDefinition<u32, u32> {
    activity("echo", |_: ActivityContext, n: u32| async move { Ok::<_, Error>(n) })
}

fn options(sessions: bool) -> HubOptions {
    HubOptions { extended_sessions: sessions, history_events_max: 100, ..HubOptions::default() }
}

with_and_without_sessions! {
    async fn an_execution_whose_history_has_no_room_fails_with_a_typed_failure(sessions: bool) {
        let count = orchestration("count", |ctx: OrchestrationContext, upto: u32| async move {
            for n in 0..upto {
                ctx.call(ECHO, n).await?;
            }
            Ok::<_, Error>(upto)
        });
        let hub = hub(sessions).options(options(sessions)).register(echo()).register(count).start().await.unwrap();
        let client = hub.client();
        client.start_with(COUNT, 20, with_id("short")).await.unwrap();
        assert_eq!(end_of(&client, "short").await.status, OrchestrationStatus::Completed);
        client.start_with(COUNT, 1000, with_id("long")).await.unwrap();
        let state = end_of(&client, "long").await;
        let failure = state.failure.unwrap();
        assert_eq!(failure.error_type, kinds::HISTORY_TOO_LONG);
        assert!(failure.non_retriable && failure.message.contains("continue as new"), "{failure}");
        assert!(state.history_events <= 100, "{}", state.history_events);
        assert_eq!(client.history("long").await.unwrap().len() as u64, state.history_events);
        stop(hub).await;
    }

    async fn a_turn_that_asks_for_more_than_fits_does_nothing_of_it(sessions: bool) {
        let ran = Arc::new(AtomicUsize::new(0));
        let counted = ran.clone();
        let echo = activity("echo", move |_: ActivityContext, n: u32| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move { Ok::<_, Error>(n) }
        });
        let fan = orchestration("count", |ctx: OrchestrationContext, width: u32| async move {
            Ok::<_, Error>(join_all((0..width).map(|n| ctx.call(ECHO, n))).await.len() as u32)
        });
        let hub = hub(sessions).options(options(sessions)).register(echo).register(fan).start().await.unwrap();
        let client = hub.client();
        client.start_with(COUNT, 5000, with_id("wide")).await.unwrap();
        assert_eq!(end_of(&client, "wide").await.failure.unwrap().error_type, kinds::HISTORY_TOO_LONG);
        assert_eq!(ran.load(Ordering::SeqCst), 0);
        stop(hub).await;
    }

    async fn an_execution_that_continues_as_new_in_time_never_meets_the_limit(sessions: bool) {
        let count = orchestration("count", |ctx: OrchestrationContext, left: u32| async move {
            for n in 0..20 {
                ctx.call(ECHO, n).await?;
            }
            if left > 0 {
                ctx.continue_as_new(&(left - 1))?;
            }
            Ok::<_, Error>(ctx.generation())
        });
        let hub = hub(sessions).options(options(sessions)).register(echo()).register(count).start().await.unwrap();
        let run = hub.client().start(COUNT, 10).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), 10);
        stop(hub).await;
    }

    async fn a_history_of_too_many_bytes_fails_too_and_events_of_others_count(sessions: bool) {
        let collect = orchestration("count", |ctx: OrchestrationContext, _: u32| async move {
            loop {
                ctx.wait_for_event::<String>("text").await?;
            }
            #[expect(unreachable_code, reason = "the type of the result")]
            Ok::<u32, Error>(0)
        });
        let options = HubOptions { history_events_max: 1_000_000, history_bytes_max: 10_000, ..options(sessions) };
        let hub = hub(sessions).options(options).register(collect).start().await.unwrap();
        let client = hub.client();
        client.start_with(COUNT, 0, with_id("fed")).await.unwrap();
        let text = "x".repeat(900);
        let mut sent = 0;
        loop {
            match client.raise_event("fed", "text", &text).await {
                Ok(()) => sent += 1,
                Err(ClientError::NotRunning { status, .. }) => {
                    assert_eq!(status, OrchestrationStatus::Failed);
                    break;
                }
                Err(error) => panic!("{error}"),
            }
            assert!(sent < 10_000, "it goes on for ever");
        }
        let state = end_of(&client, "fed").await;
        assert_eq!(state.failure.unwrap().error_type, kinds::HISTORY_TOO_LONG);
        assert!(state.history_bytes >= 10_000);
        stop(hub).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_for_an_instance_that_consumes_none_are_turned_away_at_the_bound_but_terminations_are_not() {
    let wait = orchestration("count", |ctx: OrchestrationContext, _: u32| async move {
        Ok::<_, Error>(ctx.wait_for_event::<u32>("go").await?)
    });
    let options = HubOptions { instance_messages_max: 5, ..HubOptions::default() };
    let hub = hub(true).options(options).register(wait).start().await.unwrap();
    let client = hub.client();
    let later = Some(Timestamp::MAX);
    let start = steadfast::StartOptions { scheduled_start: later, ..with_id("later") };
    client.start_with(COUNT, 0, start).await.unwrap();
    // Its start is one of the messages that wait.
    for n in 0..4 {
        client.raise_event("later", "go", &n).await.unwrap();
    }
    match client.raise_event("later", "go", &9).await {
        Err(ClientError::TooManyMessages { id, waiting }) => assert_eq!((id.as_str(), waiting), ("later", 5)),
        other => panic!("{other:?}"),
    }
    // Others are not concerned.
    client.start_with(COUNT, 0, with_id("other")).await.unwrap();
    client.raise_event("other", "go", &7).await.unwrap();
    assert_eq!(end_of(&client, "other").await.output.unwrap().as_str(), "7");
    client.terminate("later", "enough", false).await.unwrap();
    assert_eq!(end_of(&client, "later").await.status, OrchestrationStatus::Terminated);
    stop(hub).await;
}

/// A panic that panics again when it is thrown away: user code that gets past the guards.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the bomb went off");
    }
}

/// Waits for "go", and then crashes its turn as long as it is armed.
fn bomber(armed: &Arc<AtomicBool>) -> OrchestrationDefinition<u32, u32> {
    let armed = armed.clone();
    orchestration("count", move |ctx: OrchestrationContext, n: u32| {
        let armed = armed.clone();
        async move {
            let child = ctx.call_orchestration(WAITER, ());
            ctx.wait_for_event::<()>("go").await?;
            if armed.load(Ordering::SeqCst) {
                std::panic::panic_any(Bomb);
            }
            drop(child);
            Ok::<_, Error>(n)
        }
    })
}

const WAITER: OrchestrationName<(), String> = OrchestrationName::new("waiter");

fn waiter() -> OrchestrationDefinition<(), String> {
    orchestration("waiter", |ctx: OrchestrationContext, ()| async move {
        Ok::<_, Error>(ctx.wait_for_event::<String>("go").await?)
    })
}

fn builder(store: &MemoryStore, clock: &VirtualClock, armed: &Arc<AtomicBool>) -> HubBuilder {
    let store = store.clone();
    HubBuilder::new(move |_| Ok(Arc::new(store)))
        .clock(Arc::new(clock.clone()))
        .options(HubOptions { turn_crashes_max: 3, ..HubOptions::default() })
        .register(bomber(armed))
        .register(waiter())
}

async fn poison_of(client: &Client, id: &str) -> Option<Poison> {
    let all = client.poisoned().await.unwrap();
    all.into_iter().find(|(instance, _)| instance.as_str() == id).map(|(_, poison)| poison)
}

async fn crashes(client: &Client, id: &str, count: u32) -> Poison {
    let look = async {
        loop {
            if let Some(poison) = poison_of(client, id).await.filter(|poison| poison.crashes >= count) {
                return poison;
            }
            tokio::task::yield_now().await;
        }
    };
    soon("the crash", look).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_whose_turns_crash_is_tried_again_then_left_alone_and_slows_no_other() {
    let (store, clock, armed) =
        (MemoryStore::new(1), VirtualClock::default(), Arc::new(AtomicBool::new(true)));
    let hub = builder(&store, &clock, &armed).start().await.unwrap();
    let client = hub.client();
    client.start_with(COUNT, 7, with_id("bad")).await.unwrap();
    client.raise_event("bad", "go", &()).await.unwrap();
    let first = crashes(&client, "bad", 1).await;
    assert!(!first.parked && first.problem.contains("the bomb went off"), "{first:?}");
    // The neighbours in the same partition go on without a rebuild, which would answer calls with an error.
    for n in 0..50 {
        let run = client.start_with(WAITER, (), with_id(&format!("good-{n}"))).await.unwrap();
        client.raise_event(run.id().as_str(), "go", "well").await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), "well");
    }
    // Without time passing it is not tried again.
    assert_eq!(poison_of(&client, "bad").await.unwrap().crashes, 1);
    clock.advance(Duration::from_secs(1));
    assert_eq!(crashes(&client, "bad", 2).await.crashes, 2);
    // The count is kept over a restart.
    drop(hub);
    let hub = builder(&store, &clock, &armed).start().await.unwrap();
    let client = hub.client();
    let last = crashes(&client, "bad", 3).await;
    assert!(last.parked && last.crashes == 3, "{last:?}");
    clock.advance(Duration::from_secs(1_000_000));
    // It can be seen, and takes messages, but no turns.
    client.raise_event("bad", "more", &1).await.unwrap();
    assert_eq!(client.state("bad").await.unwrap().status, OrchestrationStatus::Running);
    assert_eq!(poison_of(&client, "bad").await.unwrap().crashes, 3);
    // Released too early it crashes again; released when its code is mended it goes on where it was.
    client.release("bad").await.unwrap();
    assert_eq!(crashes(&client, "bad", 1).await.crashes, 1);
    armed.store(false, Ordering::SeqCst);
    client.release("bad").await.unwrap();
    assert_eq!(end_of(&client, "bad").await.output.unwrap().as_str(), "7");
    assert_eq!(poison_of(&client, "bad").await, None);
    assert!(matches!(client.release("bad").await, Err(ClientError::NotPoisoned { .. })));
    assert!(matches!(client.release("nobody").await, Err(ClientError::NotPoisoned { .. })));
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_instance_can_be_terminated_with_its_children_and_purged_and_its_id_used_again() {
    let (store, clock, armed) =
        (MemoryStore::new(2), VirtualClock::default(), Arc::new(AtomicBool::new(true)));
    let hub = builder(&store, &clock, &armed).start().await.unwrap();
    let client = hub.client();
    client.start_with(COUNT, 7, with_id("bad")).await.unwrap();
    client.raise_event("bad", "go", &()).await.unwrap();
    for crash in 1..=3 {
        let poison = crashes(&client, "bad", crash).await;
        assert_eq!(poison.parked, crash == 3);
        clock.advance(Duration::from_secs(10));
    }
    let state = client.state("bad").await.unwrap();
    let child = state.open_children.values().next().unwrap().to_string();
    assert!(matches!(client.purge("bad").await, Err(ClientError::NotEnded { .. })));
    client.terminate("bad", "beyond help", true).await.unwrap();
    let state = end_of(&client, "bad").await;
    assert_eq!(
        (state.status, state.reason.as_deref()),
        (OrchestrationStatus::Terminated, Some("beyond help"))
    );
    assert_eq!(end_of(&client, &child).await.status, OrchestrationStatus::Terminated);
    assert_eq!(poison_of(&client, "bad").await, None);
    client.purge("bad").await.unwrap();
    armed.store(false, Ordering::SeqCst);
    client.start_with(COUNT, 8, with_id("bad")).await.unwrap();
    client.raise_event("bad", "go", &()).await.unwrap();
    assert_eq!(end_of(&client, "bad").await.output.unwrap().as_str(), "8");
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_whose_code_is_not_registered_can_be_terminated() {
    let (store, clock, armed) =
        (MemoryStore::new(1), VirtualClock::default(), Arc::new(AtomicBool::new(false)));
    let hub = builder(&store, &clock, &armed).start().await.unwrap();
    hub.client().start_with(COUNT, 7, with_id("orphan")).await.unwrap();
    soon("the start", hub.client().wait_for_start("orphan", None)).await.unwrap();
    stop(hub).await;
    let again = store.clone();
    let hub = HubBuilder::new(move |_| Ok(Arc::new(again))).register(waiter()).start().await.unwrap();
    let client = hub.client();
    client.raise_event("orphan", "go", &()).await.unwrap();
    assert_eq!(client.state("orphan").await.unwrap().status, OrchestrationStatus::Running);
    client.terminate("orphan", "nobody knows it", true).await.unwrap();
    assert_eq!(end_of(&client, "orphan").await.status, OrchestrationStatus::Terminated);
    let history = client.history("orphan").await.unwrap();
    steadfast_testkit::check_history(&history).unwrap();
    stop(hub).await;
}

/// A panic that panics when it is thrown away, again and again: user code that gets past all guards but the last.
struct Bombs(u32);

impl Drop for Bombs {
    fn drop(&mut self) {
        if self.0 > 0 {
            std::panic::panic_any(Bombs(self.0 - 1));
        }
    }
}

/// Counts what it is asked for, and crashes its turn as long as it is armed: at once, or after it has waited.
fn fragile(armed: &Arc<AtomicBool>) -> EntityDefinition<u32> {
    let (at_once, later) = (armed.clone(), armed.clone());
    entity::<u32>("fragile")
        .operation("count", move |count: &mut u32, ctx: &EntityContext, (): ()| {
            *count += 1;
            if ctx.id().key() == "bad" && at_once.load(Ordering::SeqCst) {
                std::panic::panic_any(Bombs(5));
            }
            Ok::<_, Error>(*count)
        })
        .operation_async("count_slowly", move |count: &mut u32, ctx: &EntityContext, (): ()| {
            let armed = later.clone();
            Box::pin(async move {
                *count += 1;
                tokio::task::yield_now().await;
                if ctx.id().key() == "bad" && armed.load(Ordering::SeqCst) {
                    std::panic::panic_any(Bombs(5));
                }
                Ok::<_, Error>(*count)
            })
        })
}

const ASK: OrchestrationName<(String, String), u32> = OrchestrationName::new("ask");

fn ask() -> OrchestrationDefinition<(String, String), u32> {
    orchestration("ask", |ctx: OrchestrationContext, (key, operation): (String, String)| async move {
        let entity = EntityId::new("fragile", key)?;
        Ok::<_, Error>(ctx.call_entity(EntityCall::<u32>::new(&entity, operation, ())).await?)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_whose_turns_crash_concerns_no_other_and_goes_on_when_it_is_released() {
    for operation in ["count", "count_slowly"] {
        let (store, clock, armed) =
            (MemoryStore::new(1), VirtualClock::default(), Arc::new(AtomicBool::new(true)));
        let start = || builder(&store, &clock, &armed).register(fragile(&armed)).register(ask()).start();
        let hub = start().await.unwrap();
        let client = hub.client();
        let asked = |key: &str| (key.to_owned(), operation.to_owned());
        client.start_with(ASK, asked("bad"), with_id("waits")).await.unwrap();
        let first = crashes(&client, "@fragile@bad", 1).await;
        assert!(!first.parked, "{first:?}");
        // The neighbours in the same partition go on without a rebuild, which would answer calls with an error.
        for n in 1..=20 {
            let run = client.start(ASK, asked("good")).await.unwrap();
            assert_eq!(soon("the result", run.result()).await.unwrap(), n);
        }
        assert_eq!(poison_of(&client, "@fragile@bad").await.unwrap().crashes, 1);
        for crash in 2..=3 {
            clock.advance(Duration::from_secs(10));
            assert_eq!(crashes(&client, "@fragile@bad", crash).await.parked, crash == 3);
        }
        // What it is asked for while it is left alone waits, over a restart as well.
        let bad = EntityId::new("fragile", "bad").unwrap();
        client.signal_entity(EntityCall::<u32>::new(&bad, "count", ())).await.unwrap();
        drop(hub);
        let hub = start().await.unwrap();
        let client = hub.client();
        clock.advance(Duration::from_secs(1_000_000));
        assert_eq!(poison_of(&client, "@fragile@bad").await.unwrap().crashes, 3);
        assert_eq!(client.entity_state::<u32>(&bad).await.unwrap(), None);
        armed.store(false, Ordering::SeqCst);
        client.release("@fragile@bad").await.unwrap();
        assert_eq!(end_of(&client, "waits").await.output.unwrap().as_str(), "1");
        let run = client.start(ASK, asked("bad")).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), 3);
        assert_eq!(poison_of(&client, "@fragile@bad").await, None);
        assert!(matches!(client.release("@fragile@bad").await, Err(ClientError::NotPoisoned { .. })));
        stop(hub).await;
    }
}
