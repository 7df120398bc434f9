//! Middleware of the hub around turns that workers take.

use std::sync::Arc;

use parking_lot::Mutex;
use steadfast_core::failure::kinds;
use steadfast_core::model::{Properties, TurnContext, TurnMiddleware, TurnOutcome};
use steadfast_core::turn::TurnAnswer;
use steadfast_core::{
    Completion, ExecutionStarted, FailureDetails, InstanceId, InstanceState, OrchestrationStatus, Payload,
};
use steadfast_store::MemoryStore;

use crate::support::{end_of, hub, hub_on, soon, stop};
use crate::workers::{activity, calls, completed, start, started, turn, worker};

type Refusal = Result<(), FailureDetails>;

/// What middleware saw, in order.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, note: String) {
        self.0.lock().push(note);
    }

    /// What there is, once it is so much.
    async fn taken(&self, count: usize) -> Vec<String> {
        let noted = async {
            while self.0.lock().len() < count {
                tokio::task::yield_now().await;
            }
        };
        soon("the middleware", noted).await;
        self.take()
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

/// Notes what it sees, and counts its turns in the properties.
struct Watch(&'static str, Notes);
#[derive(Clone, Copy)]
struct Turns(u32);

impl TurnMiddleware for Watch {
    fn begin(&self, _instance: &InstanceId, started: &ExecutionStarted, properties: &mut Properties) {
        self.1.add(format!("{} begins {}", self.0, started.name));
        properties.insert(Turns(0));
    }

    fn before(&self, turn: &mut TurnContext<'_>) -> Refusal {
        let turns = turn.properties.get::<Turns>().unwrap().0;
        self.1.add(format!("{} before {turns}{}", self.0, if turn.is_first { " first" } else { "" }));
        Ok(())
    }

    fn after(&self, turn: &mut TurnContext<'_>, outcome: &mut TurnOutcome<'_>) {
        let turns = turn.properties.get::<Turns>().unwrap().0;
        turn.properties.insert(Turns(turns + 1));
        let end = match outcome.completion() {
            None => "goes on",
            Some(Completion::Completed(_)) => "completed",
            Some(Completion::Terminated(_)) => "terminated",
            Some(Completion::Failed(_)) => "failed",
            Some(Completion::ContinueAsNew { .. }) => "continues",
        };
        let first = if turn.is_first { " first" } else { "" };
        self.1.add(format!("{} after {turns}{first} {} {end}", self.0, outcome.actions().len()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn middleware_is_around_the_turns_of_workers_and_not_around_their_replay() {
    let (store, notes) = (MemoryStore::new(1), Notes::default());
    let build = || {
        hub_on(&store).turn_middleware(Watch("o", notes.clone())).turn_middleware(Watch("i", notes.clone()))
    };
    let (hub, client, workers) = started(build()).await;
    start(&client, "watched", "w").await;
    let mut one = worker(&workers, 1);
    let (token, _) = turn(&mut one).await;
    assert_eq!(
        notes.take(),
        ["o begins watched", "i begins watched", "o before 0 first", "i before 0 first"]
    );
    workers.complete_turn(&token, calls(&["nobody", "nobody"]));
    assert_eq!(notes.taken(2).await, ["i after 0 first 2 goes on", "o after 1 first 2 goes on"]);
    activity(&mut one).await;
    drop(one);
    stop(hub).await;

    let (hub, client, workers) = started(build()).await;
    client.raise_event("w", "go", "on").await.unwrap();
    let mut one = worker(&workers, 1);
    let (token, _) = loop {
        match soon("the turn", one.next()).await {
            Some(steadfast_engine::WorkItem::Turn { token, turn, .. }) => break (token, turn),
            Some(_) => {}
            None => panic!("the hub is there"),
        }
    };
    workers.complete_turn(&token, completed());
    end_of(&client, "w").await;
    let seen = notes.take();
    assert_eq!(seen[..2], ["o begins watched", "i begins watched"]);
    assert_eq!(seen[2..], ["o before 0", "i before 0", "i after 0 0 completed", "o after 1 0 completed"]);
    drop(one);
    stop(hub).await;
}

/// Refuses the turns of instances that are called so, and does to others what their names say.
struct Rule;

impl TurnMiddleware for Rule {
    fn before(&self, turn: &mut TurnContext<'_>) -> Refusal {
        match turn.instance.as_str() {
            "refused" => Err(FailureDetails::new("NotAuthorised", "no turns")),
            "refused-later" if !turn.is_first => Err(FailureDetails::new("NotAuthorised", "no more turns")),
            _ => Ok(()),
        }
    }

    fn after(&self, turn: &mut TurnContext<'_>, outcome: &mut TurnOutcome<'_>) {
        match turn.instance.as_str() {
            "panics" => panic!("middleware went wrong"),
            "vetoed" => outcome.fail(FailureDetails::new("Vetoed", "not this one")),
            _ => {}
        }
        outcome.replace_output(Payload::encode("replaced").unwrap());
        outcome.set_custom_status(Payload::encode("seen").unwrap());
    }
}

fn kind_of(state: InstanceState) -> Option<String> {
    state.failure.map(|failure| failure.error_type.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn middleware_can_refuse_turns_of_workers_and_change_their_answers() {
    let notes = Notes::default();
    let builder = hub(1).turn_middleware(Watch("o", notes.clone())).turn_middleware(Rule);
    let (hub, client, workers) = started(builder).await;
    let mut one = worker(&workers, 1);

    start(&client, "any", "refused").await;
    assert_eq!(kind_of(end_of(&client, "refused").await).as_deref(), Some("NotAuthorised"));
    assert!(one.try_next().is_none(), "no worker got it");
    assert_eq!(notes.take(), ["o begins any", "o before 0 first", "o after 0 first 0 failed"]);

    start(&client, "any", "replaced").await;
    let (token, _) = turn(&mut one).await;
    workers.complete_turn(&token, completed());
    let state = end_of(&client, "replaced").await;
    assert_eq!(state.output.unwrap().as_str(), "\"replaced\"");
    assert_eq!(state.custom_status.unwrap().as_str(), "\"seen\"");

    // Nor is it rewound without being asked.
    start(&client, "any", "refused-later").await;
    let (token, _) = turn(&mut one).await;
    workers.complete_turn(&token, TurnAnswer::failed(FailureDetails::new("Broken", "it broke")));
    assert_eq!(kind_of(end_of(&client, "refused-later").await).as_deref(), Some("Broken"));
    let outcome = soon("the answer", client.rewind("refused-later", "mended")).await;
    let refusal = "middleware refused it: NotAuthorised: no more turns";
    assert!(outcome.unwrap_err().to_string().contains(refusal));
    assert!(one.try_next().is_none(), "no worker got it");

    for (id, kind) in [("vetoed", "Vetoed"), ("panics", kinds::PANIC)] {
        // The code would go on.
        start(&client, "any", id).await;
        let (token, _) = turn(&mut one).await;
        workers.complete_turn(&token, TurnAnswer::default());
        assert_eq!(kind_of(end_of(&client, id).await).as_deref(), Some(kind));
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_termination_is_stronger_than_middleware_and_a_suspension_waits_for_the_resumption() {
    let notes = Notes::default();
    let builder = hub(1).turn_middleware(Watch("o", notes.clone())).turn_middleware(Rule);
    let (hub, client, workers) = started(builder).await;
    let mut one = worker(&workers, 2);
    for id in ["vetoed", "refused-later"] {
        start(&client, "any", id).await;
        let (token, _) = turn(&mut one).await;
        if id == "refused-later" {
            workers.complete_turn(&token, TurnAnswer::default());
        }
    }
    // The one is with the worker.
    client.terminate("vetoed", "enough", false).await.unwrap();
    assert_eq!(end_of(&client, "vetoed").await.status, OrchestrationStatus::Terminated);

    // The turn of the one was begun again, for it to obey.
    assert_eq!(notes.taken(8).await.iter().filter(|note| note.contains("first 0 terminated")).count(), 1);
    client.suspend("refused-later", "a pause").await.unwrap();
    assert_eq!(notes.taken(2).await, ["o before 1", "o after 1 0 goes on"]);
    assert_eq!(client.state("refused-later").await.unwrap().status, OrchestrationStatus::Suspended);
    client.resume("refused-later", "on").await.unwrap();
    assert_eq!(kind_of(end_of(&client, "refused-later").await).as_deref(), Some("NotAuthorised"));
    assert_eq!(notes.take(), ["o before 2", "o after 2 0 failed"]);
    assert!(one.try_next().is_none(), "no worker got it");
    stop(hub).await;
}
