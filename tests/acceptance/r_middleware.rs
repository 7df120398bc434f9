//! Middleware around turns, activities and entities. Data converters are in `r_converter`, what is reported in
//! `r_log_trace`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use steadfast::prelude::*;
use steadfast::{
    ActivityCall, ActivityFuture, ActivityMiddleware, ActivityNext, ClientError, Completion, EntityBatchCall,
    EntityBatchFuture, EntityMiddleware, EntityNext, ExecutionStarted, FailureDetails, InstanceId, Payload,
    Properties, TurnContext, TurnMiddleware, TurnOutcome, failure,
};

use crate::support::{end_of, hub, soon, stop, with_and_without_sessions, with_id};

#[activity]
async fn echo(_ctx: ActivityContext, text: String) -> Result<String> {
    Ok(text)
}

#[orchestration]
async fn two_steps(ctx: OrchestrationContext, text: String) -> Result<String> {
    let once = ctx.call(echo, text).await?;
    Ok(ctx.call(echo, once).await?)
}

/// What middleware and code did, in order.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, note: impl Into<String>) {
        self.0.lock().unwrap().push(note.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Notes when it is called; each level tells the next how deep it is.
struct Level(u32, Notes);
struct Depth(u32);

impl TurnMiddleware for Level {
    fn begin(&self, _instance: &InstanceId, started: &ExecutionStarted, properties: &mut Properties) {
        assert_eq!(started.name, "two_steps");
        assert_eq!(properties.get::<Depth>().map_or(0, |depth| depth.0), self.0);
        properties.insert(Depth(self.0 + 1));
    }

    fn before(&self, turn: &mut TurnContext<'_>) -> std::result::Result<(), FailureDetails> {
        assert_eq!(turn.properties.get::<Depth>().unwrap().0, 10, "all of them have begun");
        self.1.add(format!("before {}{}", self.0, if turn.is_first { " first" } else { "" }));
        Ok(())
    }

    fn after(&self, turn: &mut TurnContext<'_>, outcome: &mut TurnOutcome<'_>) {
        let end = outcome.completion().is_some();
        let (id, actions) = (turn.instance.as_str(), outcome.actions().len());
        self.1.add(format!("after {} {id} {actions} {end}", self.0));
    }
}

impl ActivityMiddleware for Level {
    fn call<'a>(&'a self, mut call: ActivityCall, next: ActivityNext<'a>) -> ActivityFuture<'a> {
        Box::pin(async move {
            assert_eq!(call.properties.get::<Depth>().map_or(0, |depth| depth.0), self.0);
            call.properties.insert(Depth(self.0 + 1));
            self.1.add(format!("in {} {}", self.0, call.task().name));
            let outcome = next.run(call).await;
            self.1.add(format!("out {}", self.0));
            outcome
        })
    }
}

with_and_without_sessions! {
    async fn what_was_added_first_is_outermost(sessions: bool) {
        let (turns, activities) = (Notes::default(), Notes::default());
        let mut builder = hub(sessions).register(echo).register(two_steps);
        for level in 0..10 {
            builder = builder
                .turn_middleware(Level(level, turns.clone()))
                .activity_middleware(Level(level, activities.clone()));
        }
        let hub = builder.start().await.unwrap();
        let run = hub.client().start_with(two_steps, "x".to_owned(), with_id("a")).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), "x");
        let mut expected = Vec::new();
        for (first, actions, end) in [(" first", 1, false), ("", 1, false), ("", 0, true)] {
            expected.extend((0..10).map(|level| format!("before {level}{first}")));
            expected.extend((0..10).rev().map(|level| format!("after {level} a {actions} {end}")));
        }
        assert_eq!(turns.take(), expected);
        let one: Vec<_> = (0..10)
            .map(|level| format!("in {level} echo"))
            .chain((0..10).rev().map(|level| format!("out {level}")))
            .collect();
        assert_eq!(activities.take(), [one.clone(), one].concat());
        stop(hub).await;
    }

    async fn what_middleware_puts_in_can_be_read_by_code_also_when_it_is_replayed(sessions: bool) {
        struct Tenant(String);
        struct Enrich;
        impl TurnMiddleware for Enrich {
            fn begin(&self, _: &InstanceId, started: &ExecutionStarted, properties: &mut Properties) {
                properties.insert(Tenant(started.tags["tenant"].to_string()));
            }
        }
        impl ActivityMiddleware for Enrich {
            fn call<'a>(&'a self, mut call: ActivityCall, next: ActivityNext<'a>) -> ActivityFuture<'a> {
                let tenant = Tenant(format!("{} for {}", call.task().instance, call.task().name));
                call.properties.insert(tenant);
                next.run(call)
            }
        }
        let ask = steadfast::activity("ask", |ctx: ActivityContext, ()| async move {
            assert!(ctx.property::<u8>().is_none());
            Result::<_>::Ok(ctx.property::<Tenant>().unwrap().0.clone())
        });
        let asked = ask.handle();
        let tenants = steadfast::orchestration("tenants", move |ctx: OrchestrationContext, ()| {
            let asked = asked.clone();
            async move {
                let before = ctx.property::<Tenant>().unwrap().0.clone();
                let theirs = ctx.call(&asked, ()).await?;
                Result::<_>::Ok((before, theirs, ctx.property::<Tenant>().unwrap().0.clone()))
            }
        });
        let handle = tenants.handle();
        let hub = hub(sessions)
            .register(ask)
            .register(tenants)
            .turn_middleware(Enrich)
            .activity_middleware(Enrich)
            .start()
            .await
            .unwrap();
        let options = steadfast::StartOptions {
            tags: [("tenant".to_owned(), "blue".to_owned())].into(),
            ..with_id("a")
        };
        let run = hub.client().start_with(handle, (), options).await.unwrap();
        let (before, theirs, after) = soon("the result", run.result()).await.unwrap();
        assert_eq!((before.as_str(), theirs.as_str(), after.as_str()), ("blue", "a for ask", "blue"));
        stop(hub).await;
    }

    async fn a_refused_turn_ends_the_execution_and_nothing_further_in_sees_it(sessions: bool) {
        struct Refuse(Arc<AtomicU32>);
        impl TurnMiddleware for Refuse {
            fn before(&self, turn: &mut TurnContext<'_>) -> std::result::Result<(), FailureDetails> {
                // The code of an instance comes as far as its name says.
                let allowed: u32 = turn.instance.as_str().trim_start_matches("turns-").parse().unwrap();
                if self.0.fetch_add(1, Ordering::SeqCst) < allowed {
                    return Ok(());
                }
                Err(FailureDetails::new("NotAuthorised", "no more turns"))
            }
        }
        let (outer, inner) = (Notes::default(), Notes::default());
        struct Count(Notes);
        impl TurnMiddleware for Count {
            fn after(&self, _turn: &mut TurnContext<'_>, outcome: &mut TurnOutcome<'_>) {
                let failed = matches!(outcome.completion(), Some(Completion::Failed(_)));
                self.0.add(if failed { "failed" } else { "good" });
            }
        }
        let turns = Arc::new(AtomicU32::new(0));
        let hub = hub(sessions)
            .register(echo)
            .register(two_steps)
            .turn_middleware(Count(outer.clone()))
            .turn_middleware(Refuse(turns.clone()))
            .turn_middleware(Count(inner.clone()))
            .start()
            .await
            .unwrap();
        let client = hub.client();
        for allowed in 0..3usize {
            turns.store(0, Ordering::SeqCst);
            let id = format!("turns-{allowed}");
            let run = client.start_with(two_steps, "x".to_owned(), with_id(&id)).await.unwrap();
            let error = soon("the end", run.result()).await.unwrap_err();
            let ClientError::Failed { details, .. } = error else { panic!("{error}") };
            assert_eq!(details.error_type, "NotAuthorised");
            assert_eq!(inner.take().len(), allowed);
            assert_eq!(outer.take(), [vec!["good"; allowed], vec!["failed"]].concat());
            let history = client.history(&id).await.unwrap();
            steadfast_testkit::check_history(&history).unwrap();
            let scheduled = history.iter().filter(|event| event.kind.type_name() == "TaskScheduled").count();
            assert_eq!(scheduled, allowed);
        }
        stop(hub).await;
    }

    async fn middleware_can_replace_the_result_and_the_custom_status_or_fail_the_execution(sessions: bool) {
        struct Replace;
        impl TurnMiddleware for Replace {
            fn after(&self, turn: &mut TurnContext<'_>, outcome: &mut TurnOutcome<'_>) {
                match turn.instance.as_str() {
                    "panics" => panic!("middleware went wrong"),
                    "fails" if turn.is_first => outcome.fail(FailureDetails::new("Vetoed", "not this one")),
                    _ => {}
                }
                outcome.replace_output(Payload::encode("replaced").unwrap());
                outcome.set_custom_status(Payload::encode("seen").unwrap());
            }
        }
        let hub = hub(sessions)
            .register(echo)
            .register(two_steps)
            .turn_middleware(Replace)
            .start()
            .await
            .unwrap();
        let client = hub.client();
        let mut ends = Vec::new();
        for id in ["good", "fails", "panics"] {
            client.start_with(two_steps, "x".to_owned(), with_id(id)).await.unwrap();
            let state = end_of(&client, id).await;
            let failure = state.failure.map(|failure| failure.error_type.to_string());
            ends.push((state.output.map(|output| output.to_string()), failure));
            steadfast_testkit::check_history(&client.history(id).await.unwrap()).unwrap();
            if id == "good" {
                assert_eq!(state.custom_status.unwrap().as_str(), "\"seen\"");
            }
        }
        let kind = |kind: &str| (None, Some(kind.to_owned()));
        let good = (Some("\"replaced\"".to_owned()), None);
        assert_eq!(ends, [good, kind("Vetoed"), kind(failure::kinds::PANIC)]);
        stop(hub).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_termination_is_stronger_than_middleware() {
    struct Veto;
    impl TurnMiddleware for Veto {
        fn after(&self, _turn: &mut TurnContext<'_>, outcome: &mut TurnOutcome<'_>) {
            if outcome.completion().is_some() {
                outcome.fail(FailureDetails::new("Vetoed", "not this one"));
            }
        }
    }
    let hub = hub(true).register(waits).turn_middleware(Veto).start().await.unwrap();
    let client = hub.client();
    let run = client.start_with(waits, (), with_id("a")).await.unwrap();
    soon("the start", run.wait_for_start()).await.unwrap();
    client.terminate("a", "enough", false).await.unwrap();
    assert_eq!(end_of(&client, "a").await.status, OrchestrationStatus::Terminated);
    stop(hub).await;
}

#[orchestration]
async fn waits(ctx: OrchestrationContext) -> Result<String> {
    Ok(ctx.wait_for_event::<String>("go").await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn middleware_can_stand_in_for_an_activity_change_its_input_and_refuse_it() {
    struct Guard;
    impl ActivityMiddleware for Guard {
        fn call<'a>(&'a self, mut call: ActivityCall, next: ActivityNext<'a>) -> ActivityFuture<'a> {
            Box::pin(async move {
                match call.input.as_str() {
                    "\"stand in\"" => Ok(Payload::encode("stood in").unwrap()),
                    "\"change\"" => {
                        call.input = Payload::encode("changed").unwrap();
                        next.run(call).await
                    }
                    "\"refuse\"" => Err(FailureDetails::new("Refused", "not here")),
                    "\"panic\"" => panic!("middleware went wrong"),
                    _ => next.run(call).await,
                }
            })
        }
    }
    let hub = hub(true).register(echo).register(two_steps).activity_middleware(Guard).start().await.unwrap();
    let client = hub.client();
    for (input, expected) in [("stand in", "stood in"), ("change", "changed"), ("plain", "plain")] {
        let run = client.start(two_steps, input.to_owned()).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), expected);
    }
    for (input, kind) in [("refuse", "Refused"), ("panic", failure::kinds::PANIC)] {
        let run = client.start(two_steps, input.to_owned()).await.unwrap();
        let error = soon("the result", run.result()).await.unwrap_err();
        let ClientError::Failed { details, .. } = error else { panic!("{error}") };
        assert!(details.is_caused_by(kind), "{details:?}");
    }
    stop(hub).await;
}

/// Remembers what it was given, and by whom as far as middleware says so.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Ledger(Vec<String>);

#[entity]
impl Ledger {
    fn add(&mut self, ctx: &EntityContext, text: String) -> usize {
        let by = ctx.property::<Depth>().map_or(0, |depth| depth.0);
        self.0.push(format!("{text} {by}"));
        self.0.len()
    }

    async fn add_slowly(&mut self, text: String) -> usize {
        tokio::task::yield_now().await;
        self.0.push(text);
        self.0.len()
    }
}

impl EntityMiddleware for Level {
    fn call<'a>(&'a self, mut call: EntityBatchCall, next: EntityNext<'a>) -> EntityBatchFuture<'a> {
        Box::pin(async move {
            assert_eq!(call.properties.get::<Depth>().map_or(0, |depth| depth.0), self.0);
            call.properties.insert(Depth(self.0 + 1));
            let asked: Vec<_> = call
                .operations()
                .iter()
                .map(|it| {
                    let caller = it.caller.as_ref().map_or("a client", |caller| caller.instance.as_str());
                    format!("{} {} by {caller}", it.operation, it.input)
                })
                .collect();
            self.1.add(format!("in {} {} {}", self.0, call.entity(), asked.join(", ")));
            let result = next.run(call).await;
            self.1.add(format!("out {} {}", self.0, result.results.len()));
            result
        })
    }
}

#[orchestration]
async fn adds(ctx: OrchestrationContext, (key, texts): (String, Vec<String>)) -> Result<Vec<String>> {
    let calls = texts.into_iter().map(|text| ctx.call_entity(Ledger::at(&key).add(text)));
    let ends = futures_util::future::join_all(calls.collect::<Vec<_>>()).await;
    let said = |end: std::result::Result<usize, steadfast::TaskError>| match end {
        Ok(count) => count.to_string(),
        Err(error) => error.details.error_type.to_string(),
    };
    Ok(ends.into_iter().map(said).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn middleware_of_entities_sees_every_batch_outermost_first_and_its_properties_can_be_read() {
    let notes = Notes::default();
    let mut builder = hub(true).register(Ledger::entity()).register(adds);
    for level in 0..3 {
        builder = builder.entity_middleware(Level(level, notes.clone()));
    }
    let hub = builder.start().await.unwrap();
    let client = hub.client();
    let run = client.start_with(adds, ("a".to_owned(), vec!["x".to_owned()]), with_id("o")).await.unwrap();
    assert_eq!(soon("the result", run.result()).await.unwrap(), ["1"]);
    let seen = |asked: &str| {
        let mut seen: Vec<_> = (0..3).map(|level| format!("in {level} @ledger@a {asked}")).collect();
        seen.extend((0..3).rev().map(|level| format!("out {level} 1")));
        seen
    };
    assert_eq!(notes.take(), seen("add \"x\" by o"));
    // Also around a batch that waits for something real.
    client.signal_entity(Ledger::at("a").add_slowly("y".to_owned())).await.unwrap();
    let known = async {
        loop {
            let Ledger(all) = client.entity_state(Ledger::at("a")).await.unwrap().unwrap_or_default();
            if all.len() == 2 {
                return all;
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(soon("the signal", known).await, ["x 3", "y"]);
    assert_eq!(notes.take(), seen("add_slowly \"y\" by a client"));
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn middleware_of_entities_can_refuse_operations_or_all_stand_in_change_inputs_and_replace_results() {
    struct Guard;
    impl EntityMiddleware for Guard {
        fn call<'a>(&'a self, mut call: EntityBatchCall, next: EntityNext<'a>) -> EntityBatchFuture<'a> {
            let refusal = |kind: &str| FailureDetails::new(kind, "not here").non_retriable();
            match call.entity().key() {
                "closed" => return Box::pin(std::future::ready(call.refuse_all(&refusal("Closed")))),
                "panics" => panic!("middleware went wrong"),
                _ => {}
            }
            for at in 0..call.operations().len() {
                match call.operations()[at].input.as_str() {
                    "\"refuse\"" => call.refuse(at, refusal("Refused")),
                    "\"change\"" => {
                        call.operations_mut()[at].input = Payload::encode("changed").unwrap();
                    }
                    _ => {}
                }
            }
            // Of no operation of this batch.
            call.refuse(1000, refusal("Nobody"));
            let hidden: Vec<_> = call.operations().iter().map(|it| it.input.as_str() == "\"hide\"").collect();
            Box::pin(async move {
                let mut result = next.run(call).await;
                for (outcome, hidden) in result.results.iter_mut().zip(hidden) {
                    if hidden {
                        *outcome = Err(FailureDetails::new("Hidden", "you need not know"));
                    }
                }
                result
            })
        }
    }
    let notes = Notes::default();
    let hub = hub(true)
        .register(Ledger::entity())
        .register(adds)
        .entity_middleware(Guard)
        .entity_middleware(Level(0, notes.clone()))
        .start()
        .await
        .unwrap();
    let client = hub.client();
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    for (key, asked, answers, left) in [
        (
            "a",
            texts(&["refuse", "x", "refuse", "change", "hide"]),
            texts(&["Refused", "1", "Refused", "2", "Hidden"]),
            Some(texts(&["x 1", "changed 1", "hide 1"])),
        ),
        ("nothing", texts(&["refuse", "refuse"]), texts(&["Refused", "Refused"]), None),
        ("closed", texts(&["x", "y"]), texts(&["Closed", "Closed"]), None),
        ("panics", texts(&["x", "y"]), texts(&[failure::kinds::PANIC, failure::kinds::PANIC]), None),
    ] {
        let run = client.start(adds, (key.to_owned(), asked)).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), answers, "{key}");
        let state = client.entity_state::<Ledger>(Ledger::at(key)).await.unwrap();
        assert_eq!(state.map(|Ledger(all)| all), left, "{key}");
    }
    // What is refused is not seen further in, and nothing is if nothing is left.
    let seen = notes.take();
    assert_eq!(seen.iter().filter(|note| note.starts_with("in 0 @ledger@a")).count() * 2, seen.len());
    assert!(seen.iter().all(|note| !note.contains("refuse")), "{seen:?}");
    stop(hub).await;
}
