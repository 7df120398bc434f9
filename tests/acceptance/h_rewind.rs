//! Group H: instances that failed go on from before their failure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures_util::future::{join_all, try_join_all};
use steadfast::prelude::*;
use steadfast::store::MemoryStore;
use steadfast::{
    ActivityName, Client, ClientError, EventKind, HubBuilder, HubOptions, InstanceFilter, InstanceId,
    InstanceQuery, InstanceState, OrchestrationName, StartOptions,
};
use tokio::sync::Semaphore;

use crate::support::{end_of, hub, soon, stop, until, with_and_without_sessions, with_id};

const WORK: ActivityName<String, String> = ActivityName::new("work");
const HELD: ActivityName<(), u32> = ActivityName::new("held");

/// What is outside: it can be broken and mended, and counts what is asked of it.
#[derive(Clone)]
struct World {
    broken: Arc<Mutex<BTreeSet<String>>>,
    asked: Arc<Mutex<BTreeMap<String, u32>>>,
    gate: Arc<Semaphore>,
}

impl World {
    fn broken<const N: usize>(what: [&str; N]) -> Self {
        let broken = what.map(str::to_owned).into();
        Self {
            broken: Arc::new(Mutex::new(broken)),
            asked: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
        }
    }

    fn mend(&self, what: &str) {
        assert!(self.broken.lock().unwrap().remove(what), "'{what}' was broken");
    }

    fn ask(&self, what: &str) -> Result<String> {
        *self.asked.lock().unwrap().entry(what.to_owned()).or_default() += 1;
        if self.broken.lock().unwrap().contains(what) {
            return Err(Error::msg(format!("{what} is broken")));
        }
        Ok(what.to_owned())
    }

    fn asked<const N: usize>(&self, expected: [(&str, u32); N]) {
        let expected = expected.map(|(what, times)| (what.to_owned(), times));
        assert_eq!(*self.asked.lock().unwrap(), BTreeMap::from(expected));
    }

    /// Registers what asks this world: the activity "work", one that waits for the gate, and an orchestration whose own
    /// code asks.
    fn within(&self, hub: HubBuilder) -> HubBuilder {
        let (in_activity, in_code, gate) = (self.clone(), self.clone(), self.gate.clone());
        let work = move |_: ActivityContext, what: String| {
            let outcome = in_activity.ask(&what);
            async move { outcome }
        };
        let held = move |_: ActivityContext, (): ()| {
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                Result::<u32>::Ok(1)
            }
        };
        let code = move |_: OrchestrationContext, what: String| {
            let outcome = in_code.ask(&what);
            async move { outcome }
        };
        hub.register(steadfast::activity("work", work))
            .register(steadfast::activity("held", held))
            .register(steadfast::orchestration("asks by itself", code))
            .register(in_turn)
            .register(at_once)
            .register(family)
            .register(hurry)
    }
}

fn asks_by_itself() -> OrchestrationName<String, String> {
    OrchestrationName::new("asks by itself")
}

/// One after the other.
#[orchestration]
async fn in_turn(ctx: OrchestrationContext, all: Vec<String>) -> Result<String> {
    let mut done = Vec::new();
    for what in all {
        done.push(ctx.call(WORK, what).await?);
        ctx.set_custom_status(&done.len())?;
    }
    Ok(done.concat())
}

/// All at once.
#[orchestration]
async fn at_once(ctx: OrchestrationContext, all: Vec<String>) -> Result<String> {
    let done = join_all(all.into_iter().map(|what| ctx.call(WORK, what))).await;
    Ok(done.into_iter().collect::<std::result::Result<Vec<_>, _>>()?.concat())
}

/// Hands its work to a child, which does so as well until the last one does the work.
#[orchestration]
async fn family(ctx: OrchestrationContext, (depth, what): (u32, String)) -> Result<String> {
    let options = |id| SubOrchestrationOptions { instance_id: Some(id), ..Default::default() };
    let id = format!("{}+", ctx.instance_id());
    Ok(match depth {
        0 => ctx.call_orchestration_with(asks_by_itself(), what, options(id)).await?,
        1 => ctx.call_orchestration_with(in_turn, vec!["a".into(), what], options(id)).await?,
        _ => ctx.call_orchestration_with(family, (depth - 1, what), options(id)).await?,
    })
}

/// Fails as soon as one does.
#[orchestration]
async fn hurry(ctx: OrchestrationContext, what: String) -> Result<u32> {
    let held = ctx.call(HELD, ());
    try_join_all([ctx.call(WORK, what)]).await?;
    Ok(held.await?)
}

fn texts<const N: usize>(all: [&str; N]) -> Vec<String> {
    all.map(str::to_owned).to_vec()
}

async fn failed(client: &Client, id: &str) -> InstanceState {
    let state = end_of(client, id).await;
    assert_eq!(state.status, OrchestrationStatus::Failed, "{:?}", state.output);
    state
}

async fn output(client: &Client, id: &str) -> String {
    let state = end_of(client, id).await;
    assert_eq!(state.status, OrchestrationStatus::Completed, "{:?}", state.failure);
    state.output.unwrap().as_str().trim_matches('"').to_owned()
}

async fn rewind(client: &Client, id: &str) {
    soon("the rewind", client.rewind(id, "it is mended")).await.unwrap();
    assert_ne!(
        client.state(id).await.unwrap().status,
        OrchestrationStatus::Failed,
        "nobody sees that any more"
    );
}

with_and_without_sessions! {
    async fn an_orchestration_whose_own_code_failed_runs_again(sessions: bool) {
        let world = World::broken(["x"]);
        let hub = world.within(hub(sessions)).start().await.unwrap();
        let client = hub.client();
        let options = StartOptions { tags: [("zone".to_owned(), "a".to_owned())].into(), ..with_id("i") };
        let run = client.start_with(asks_by_itself(), "x".into(), options).await.unwrap();
        let before = failed(&client, "i").await;
        world.mend("x");
        soon("the rewind", run.rewind("it is mended")).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), "x");
        let after = client.state("i").await.unwrap();
        assert_ne!(after.execution, before.execution);
        assert_eq!((after.failure, after.generation, after.incarnation), (None, 0, 0));
        assert_eq!((after.created_at, after.tags, after.version, after.input), (before.created_at, before.tags, before.version, before.input));
        stop(hub).await;
    }

    async fn an_activity_that_failed_runs_again_and_those_that_succeeded_do_not(sessions: bool) {
        let world = World::broken(["b"]);
        let hub = world.within(hub(sessions)).start().await.unwrap();
        let client = hub.client();
        client.start_with(in_turn, texts(["a", "b", "c"]), with_id("i")).await.unwrap();
        let state = failed(&client, "i").await;
        assert_eq!(state.custom_status.unwrap().as_str(), "1");
        world.mend("b");
        rewind(&client, "i").await;
        assert_eq!(output(&client, "i").await, "abc");
        world.asked([("a", 1), ("b", 2), ("c", 1)]);
        let history = client.history("i").await.unwrap();
        let reasons: Vec<_> = history.iter().filter_map(|event| match &event.kind {
            EventKind::ExecutionRewound { reason, .. } => Some(reason.as_str()),
            _ => None,
        }).collect();
        assert_eq!(reasons, ["it is mended"]);
        assert!(!history.iter().any(|event| matches!(event.kind, EventKind::TaskFailed { .. })));
        stop(hub).await;
    }

    async fn all_that_failed_of_a_fan_out_run_again(sessions: bool) {
        let world = World::broken(["b", "d"]);
        let hub = world.within(hub(sessions)).start().await.unwrap();
        let client = hub.client();
        client.start_with(at_once, texts(["a", "b", "c", "d"]), with_id("i")).await.unwrap();
        failed(&client, "i").await;
        world.mend("b");
        world.mend("d");
        rewind(&client, "i").await;
        assert_eq!(output(&client, "i").await, "abcd");
        world.asked([("a", 1), ("b", 2), ("c", 1), ("d", 2)]);
        stop(hub).await;
    }

    async fn it_can_be_rewound_again(sessions: bool) {
        let world = World::broken(["a", "c"]);
        let hub = world.within(hub(sessions)).start().await.unwrap();
        let client = hub.client();
        client.start_with(in_turn, texts(["a", "b", "c"]), with_id("i")).await.unwrap();
        let mut executions = vec![failed(&client, "i").await.execution];
        for what in ["a", "c"] {
            world.mend(what);
            rewind(&client, "i").await;
            executions.push(end_of(&client, "i").await.execution);
        }
        assert_eq!(output(&client, "i").await, "abc");
        world.asked([("a", 2), ("b", 1), ("c", 2)]);
        executions.sort_unstable();
        executions.dedup();
        assert_eq!(executions.len(), 3);
        stop(hub).await;
    }

    async fn a_child_whose_own_code_failed_is_rewound_with_its_parent(sessions: bool) {
        let world = World::broken(["x"]);
        let hub = world.within(hub(sessions)).start().await.unwrap();
        let client = hub.client();
        client.start_with(family, (0, "x".into()), with_id("i")).await.unwrap();
        failed(&client, "i").await;
        world.mend("x");
        rewind(&client, "i").await;
        assert_eq!(output(&client, "i").await, "x");
        assert_eq!(output(&client, "i+").await, "x");
        stop(hub).await;
    }

    async fn a_child_with_a_failed_activity_is_rewound_with_its_parent(sessions: bool) {
        let world = World::broken(["x"]);
        let hub = world.within(hub(sessions)).start().await.unwrap();
        let client = hub.client();
        client.start_with(family, (1, "x".into()), with_id("i")).await.unwrap();
        failed(&client, "i").await;
        let before = client.state("i+").await.unwrap();
        world.mend("x");
        rewind(&client, "i").await;
        assert_eq!(output(&client, "i").await, "ax");
        world.asked([("a", 1), ("x", 2)]);
        let (parent, child) = (client.state("i").await.unwrap(), client.state("i+").await.unwrap());
        assert_ne!(child.execution, before.execution);
        assert_eq!(child.parent.unwrap().execution, parent.execution);
        stop(hub).await;
    }

    async fn children_of_children_are_rewound(sessions: bool) {
        let world = World::broken(["x"]);
        let hub = world.within(hub(sessions)).start().await.unwrap();
        let client = hub.client();
        client.start_with(family, (4, "x".into()), with_id("i")).await.unwrap();
        failed(&client, "i").await;
        world.mend("x");
        rewind(&client, "i").await;
        assert_eq!(output(&client, "i").await, "ax");
        for id in ["i+", "i++", "i+++", "i++++"] {
            assert_eq!(output(&client, id).await, "ax");
        }
        world.asked([("a", 1), ("x", 2)]);
        stop(hub).await;
    }

    async fn a_child_that_was_purged_is_started_again(sessions: bool) {
        let world = World::broken(["x"]);
        let hub = world.within(hub(sessions)).start().await.unwrap();
        let client = hub.client();
        client.start_with(family, (2, "x".into()), with_id("i")).await.unwrap();
        failed(&client, "i").await;
        client.purge("i+").await.unwrap();
        world.mend("x");
        rewind(&client, "i").await;
        assert_eq!(output(&client, "i").await, "ax");
        let (parent, child) = (client.state("i").await.unwrap(), client.state("i+").await.unwrap());
        assert_eq!(child.parent.unwrap().execution, parent.execution);
        // The grandchild had not gone: the new child finds it ended under its id, and starts it again, too.
        assert_eq!(output(&client, "i++").await, "ax");
        world.asked([("a", 2), ("x", 2)]);
        stop(hub).await;
    }

    async fn a_child_can_be_rewound_alone_and_answers_when_its_parent_is(sessions: bool) {
        let world = World::broken(["x"]);
        let hub = world.within(hub(sessions)).start().await.unwrap();
        let client = hub.client();
        client.start_with(family, (1, "x".into()), with_id("i")).await.unwrap();
        failed(&client, "i").await;
        world.mend("x");
        rewind(&client, "i+").await;
        assert_eq!(output(&client, "i+").await, "ax");
        failed(&client, "i").await;
        rewind(&client, "i").await;
        assert_eq!(output(&client, "i").await, "ax");
        world.asked([("a", 1), ("x", 2)]);
        stop(hub).await;
    }

    async fn what_was_under_way_is_done_again_and_its_late_result_does_not_count(sessions: bool) {
        let world = World::broken(["x"]);
        let hub = world.within(hub(sessions)).start().await.unwrap();
        let client = hub.client();
        client.start_with(hurry, "x".into(), with_id("i")).await.unwrap();
        failed(&client, "i").await;
        world.mend("x");
        rewind(&client, "i").await;
        // One attempt is of the execution that failed. Whichever of the two goes on first, only the other one counts.
        until(&client, "i", |state| state.history_events > 10).await;
        world.gate.add_permits(2);
        assert_eq!(output(&client, "i").await, "1");
        let results = client.history("i").await.unwrap();
        let results = results.iter().filter(|event| matches!(event.kind, EventKind::TaskCompleted { .. }));
        assert_eq!(results.count(), 2);
        stop(hub).await;
    }

    async fn only_failed_instances_are_rewound_and_the_errors_say_so(sessions: bool) {
        let world = World::broken(["x"]);
        let hub = world.within(hub(sessions)).start().await.unwrap();
        let client = hub.client();
        assert!(matches!(client.rewind("nobody", "").await, Err(ClientError::InstanceNotFound { .. })));
        client.start_with(hurry, "y".into(), with_id("running")).await.unwrap();
        client.start_with(in_turn, texts(["y"]), with_id("completed")).await.unwrap();
        end_of(&client, "completed").await;
        client.wait_for_start("running", None).await.unwrap();
        let status = |error| match error {
            Err(ClientError::NotFailed { status, .. }) => status,
            other => panic!("{other:?}"),
        };
        let error = client.rewind("running", "").await.unwrap_err();
        assert!(error.to_string().contains("not allowed"), "{error}");
        assert_eq!(status(Err(error)), OrchestrationStatus::Running);
        assert_eq!(status(client.rewind("completed", "").await), OrchestrationStatus::Completed);
        client.terminate("running", "enough", false).await.unwrap();
        end_of(&client, "running").await;
        assert_eq!(status(client.rewind("running", "").await), OrchestrationStatus::Terminated);
        world.gate.add_permits(1);
        stop(hub).await;
    }

    async fn a_hub_that_was_started_again_rewinds_what_failed_before_and_needs_its_code(sessions: bool) {
        let (store, world) = (MemoryStore::new(2), World::broken(["x"]));
        let build = || {
            let (store, options) = (store.clone(), HubOptions { extended_sessions: sessions, ..HubOptions::default() });
            HubBuilder::new(move |_| Ok(Arc::new(store))).options(options)
        };
        let hub = world.within(build()).start().await.unwrap();
        hub.client().start_with(family, (2, "x".into()), with_id("i")).await.unwrap();
        failed(&hub.client(), "i").await;
        stop(hub).await;

        let hub = build().start().await.unwrap();
        let error = hub.client().rewind("i", "").await.unwrap_err();
        let ClientError::NotRewound { refusal: steadfast::RewindRefusal::NotRegistered(missing), .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(missing.name, "family");
        failed(&hub.client(), "i").await;
        stop(hub).await;

        // A child whose code is not there waits for it, like any.
        world.mend("x");
        let hub = build().register(family).start().await.unwrap();
        rewind(&hub.client(), "i").await;
        stop(hub).await;
        let hub = world.within(build()).start().await.unwrap();
        assert_eq!(output(&hub.client(), "i").await, "ax");
        world.asked([("a", 1), ("x", 2)]);
        stop(hub).await;
    }

    async fn counts_and_queries_see_a_rewound_instance_as_what_it_is(sessions: bool) {
        let world = World::broken(["x"]);
        let hub = world.within(hub(sessions)).start().await.unwrap();
        let client = hub.client();
        for id in ["one", "two"] {
            client.start_with(hurry, "x".into(), with_id(id)).await.unwrap();
            failed(&client, id).await;
        }
        let found = async |status| {
            let filter = InstanceFilter { statuses: vec![status], ..InstanceFilter::default() };
            let query = InstanceQuery { filter, ..InstanceQuery::default() };
            let page = client.query(&query).await.unwrap();
            page.instances.iter().map(|state| state.instance.clone()).collect::<Vec<InstanceId>>()
        };
        assert_eq!(found(OrchestrationStatus::Failed).await.len(), 2);
        world.mend("x");
        rewind(&client, "two").await;
        let counts = client.counts().await.unwrap();
        assert_eq!((counts.of(OrchestrationStatus::Failed), counts.of(OrchestrationStatus::Running)), (1, 1));
        assert_eq!(found(OrchestrationStatus::Failed).await, [InstanceId::parse("one").unwrap()]);
        assert_eq!(found(OrchestrationStatus::Running).await, [InstanceId::parse("two").unwrap()]);
        client.terminate("two", "enough", false).await.unwrap();
        end_of(&client, "two").await;
        client.purge("two").await.unwrap();
        assert_eq!(client.counts().await.unwrap().orchestrations(), 1);
        world.gate.add_permits(3);
        stop(hub).await;
    }
}
