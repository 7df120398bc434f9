//! What is reported: the structured log, and traces.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, Once};

use steadfast::log::LOG_IDS;
use steadfast::prelude::*;
use steadfast::{ContinueAsNewOptions, EventKind, StartOptions, TraceContext};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::support::{end_of, hub, soon, stop, with_and_without_sessions, with_id};

/// Something that was reported: its name, its level, whether it is a span, and its fields as text.
#[derive(Debug, Clone)]
struct Report {
    name: &'static str,
    level: tracing::Level,
    fields: BTreeMap<&'static str, String>,
}

impl Report {
    fn get(&self, field: &str) -> &str {
        self.fields.get(field).map_or("", String::as_str)
    }
}

impl Visit for Report {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

static REPORTS: Mutex<Vec<Report>> = Mutex::new(Vec::new());

/// Keeps everything of the target `steadfast`.
struct Collector;

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "steadfast"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let metadata = span.metadata();
        let mut report = Report { name: metadata.name(), level: *metadata.level(), fields: BTreeMap::new() };
        span.record(&mut report);
        let mut reports = REPORTS.lock().unwrap();
        reports.push(report);
        Id::from_u64(reports.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let place = usize::try_from(span.into_u64()).unwrap() - 1;
        values.record(&mut REPORTS.lock().unwrap()[place]);
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut report = Report { name: metadata.name(), level: *metadata.level(), fields: BTreeMap::new() };
        event.record(&mut report);
        REPORTS.lock().unwrap().push(report);
    }

    fn enter(&self, _span: &Id) {}
    fn exit(&self, _span: &Id) {}
}

fn collect() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Collector).unwrap());
}

/// What was reported about an instance, which no other test uses.
fn about(instance: &str) -> Vec<Report> {
    let of_it = |report: &&Report| {
        [
            report.get("instance"),
            report.get("durabletask.task.instance_id"),
            report.get("durabletask.event.target_instance_id"),
        ]
        .contains(&instance)
    };
    REPORTS.lock().unwrap().iter().filter(of_it).cloned().collect()
}

#[activity]
async fn where_am_i(ctx: ActivityContext) -> Result<Option<String>> {
    Ok(ctx.trace_context().map(|trace| trace.parent.to_string()))
}

#[activity]
async fn broken(_ctx: ActivityContext) -> Result<()> {
    Err(Error::msg("broken"))
}

/// The contexts of this execution, of an activity and of a child's activity, and that of the next execution.
#[orchestration]
async fn traced(ctx: OrchestrationContext, new_trace: bool) -> Result<Vec<Option<String>>> {
    let mut seen = vec![ctx.trace_context().map(|trace| trace.parent.to_string())];
    seen.push(ctx.call(where_am_i, ()).await?);
    if ctx.generation() == 0 {
        let _ = ctx.call(broken, ()).await;
        let options = SubOrchestrationOptions {
            instance_id: Some(format!("{}-child", ctx.instance_id())),
            ..Default::default()
        };
        seen.push(ctx.call_orchestration_with(traced_child, (), options).await?);
        ctx.raise_event("nobody", "hello", &())?;
        ctx.timer(std::time::Duration::from_millis(1)).await;
        ctx.wait_for_event::<()>("go").await?;
        ctx.set_custom_status(&seen)?;
        ctx.continue_as_new_with(&new_trace, ContinueAsNewOptions { new_trace, ..Default::default() })?;
    }
    Ok(seen)
}

#[orchestration]
async fn traced_child(ctx: OrchestrationContext) -> Result<Option<String>> {
    Ok(ctx.call(where_am_i, ()).await?)
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

async fn run_traced(sessions: bool, id: &str, new_trace: bool) -> (Vec<TraceContext>, Vec<TraceContext>) {
    collect();
    let hub = hub(sessions)
        .register(where_am_i)
        .register(broken)
        .register(traced)
        .register(traced_child)
        .start()
        .await
        .unwrap();
    let client = hub.client();
    let options = StartOptions { trace: TraceContext::parse(PARENT, "vendor=1"), ..with_id(id) };
    let run = client.start_with(traced, new_trace, options).await.unwrap();
    client.raise_event(id, "go", &()).await.unwrap();
    let read = |seen: Vec<Option<String>>| -> Vec<_> {
        seen.iter().map(|it| TraceContext::parse(it.as_deref().unwrap(), "").unwrap()).collect()
    };
    let last = read(soon("the result", run.result()).await.unwrap());
    let history = client.history(id).await.unwrap();
    let EventKind::ExecutionStarted(started) = &history[1].kind else { panic!() };
    assert_eq!(started.trace.is_some(), !last.is_empty());
    stop(hub).await;
    let first = about(id)
        .iter()
        .filter(|report| report.name == "orchestration" && report.get("otel.kind") == "server")
        .map(|report| {
            let text = format!("00-{}-{}-01", report.get("trace_id"), report.get("span_id"));
            TraceContext::parse(&text, "").unwrap()
        })
        .collect();
    (first, last)
}

with_and_without_sessions! {
    async fn a_trace_reaches_activities_children_and_the_next_execution(sessions: bool) {
        let id = format!("traced-{sessions}");
        let (spans, last) = run_traced(sessions, &id, false).await;
        assert_eq!(spans.len(), 2, "one span for each execution");
        for context in spans.iter().chain(&last) {
            assert_eq!(context.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        }
        assert_eq!(spans[1], last[0], "what the code reads is the id of the span");
        assert_ne!(spans[0], spans[1]);

        let reports = about(&id);
        let find = |name: &str, kind: &str| -> Vec<Report> {
            let wanted = |report: &&Report| report.get("otel.name") == name && report.get("otel.kind") == kind;
            reports.iter().filter(wanted).cloned().collect()
        };
        let created = &find("create_orchestration:traced", "producer")[0];
        assert_eq!(created.get("parent_span_id"), "b7ad6b7169203331");
        let execution = &find("orchestration:traced", "server")[0];
        assert_eq!(execution.get("parent_span_id"), created.get("span_id"));
        assert_eq!(execution.get("durabletask.type"), "orchestration");
        assert_eq!(execution.get("durabletask.task.status"), "ContinuedAsNew");
        let (called, ran) =
            (&find("activity:where_am_i", "client")[0], &find("activity:where_am_i", "server")[0]);
        assert_eq!(called.get("parent_span_id"), execution.get("span_id"));
        assert_eq!(ran.get("parent_span_id"), called.get("span_id"));
        assert_eq!(find("activity:broken", "client")[0].get("durabletask.task.status"), "Failed");
        assert_eq!(find("orchestration:traced:timer", "internal").len(), 1);
        assert_eq!(find("orchestration_event:hello", "producer")[0].get("parent_span_id"), execution.get("span_id"));
        assert_eq!(find("orchestration_event:go", "producer").len(), 1);

        let child = about(&format!("{id}-child"));
        let of = |kind: &str| {
            child.iter().find(|it| it.name == "orchestration" && it.get("otel.kind") == kind).unwrap().clone()
        };
        assert_eq!(of("client").get("parent_span_id"), execution.get("span_id"));
        assert_eq!(of("server").get("parent_span_id"), of("client").get("span_id"));
    }

    async fn continue_as_new_can_begin_a_new_trace(sessions: bool) {
        let (spans, last) = run_traced(sessions, &format!("new-trace-{sessions}"), true).await;
        assert_eq!(spans[0].trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_ne!(spans[1].trace_id(), spans[0].trace_id());
        assert!(last.iter().all(|context| context.trace_id() == spans[1].trace_id()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_steps_of_an_instance_are_in_the_log_under_their_numbers_names_and_levels() {
    collect();
    let hub = hub(true)
        .register(where_am_i)
        .register(broken)
        .register(traced)
        .register(traced_child)
        .start()
        .await
        .unwrap();
    let client = hub.client();
    client.start_with(traced, false, with_id("logged")).await.unwrap();
    client.suspend("logged", "pause").await.unwrap();
    client.resume("logged", "go on").await.unwrap();
    client.raise_event("logged", "go", &()).await.unwrap();
    end_of(&client, "logged").await;
    client.history("logged").await.unwrap();
    client.state("logged").await.unwrap();
    client.purge("logged").await.unwrap();
    client.start_with(traced, false, with_id("logged-2")).await.unwrap();
    client.terminate("logged-2", "enough", true).await.unwrap();
    end_of(&client, "logged-2").await;
    stop(hub).await;
    let mut reports = about("logged");
    reports.extend(about("logged-2"));
    for name in [
        "SchedulingOrchestration",
        "RaisingEvent",
        "TerminatingInstance",
        "WaitingForInstance",
        "FetchingInstanceState",
        "FetchingInstanceHistory",
        "SchedulingActivity",
        "CreatingTimer",
        "SendingEvent",
        "OrchestrationCompleted",
        "ProcessingOrchestrationMessage",
        "OrchestrationExecuting",
        "OrchestrationExecuted",
        "TaskActivityStarting",
        "TaskActivityCompleted",
        "TaskActivityFailure",
        "SuspendingInstance",
        "ResumingInstance",
        "PurgeInstanceHistory",
    ] {
        let entry = LOG_IDS.iter().find(|entry| entry.name == name).unwrap();
        let found = reports.iter().find(|report| report.name == name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!((found.level, found.get("event_id")), (entry.level, &*entry.id.to_string()), "{name}");
    }
    let all = REPORTS.lock().unwrap();
    for name in ["WorkerStarting", "WorkerStarted", "WorkerStopping", "WorkerStopped"] {
        assert!(all.iter().any(|report| report.name == name), "no {name}");
    }
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Relay {
    passed: u32,
}

#[entity]
impl Relay {
    /// Says in which trace it is.
    fn pass(&mut self, ctx: &EntityContext, on: Option<String>) -> Result<Option<String>> {
        self.passed += 1;
        if let Some(on) = on {
            let started =
                steadfast::EntityStartOptions { instance_id: Some(on.clone()), ..Default::default() };
            ctx.signal(Relay::at(&on).pass(None))?;
            ctx.start_with(traced_child, (), started)?;
        }
        Ok(ctx.trace_context().map(|trace| trace.parent.to_string()))
    }

    fn stumble(&mut self) -> Result<()> {
        Err(Error::msg("it fell"))
    }
}

#[orchestration]
async fn relays(ctx: OrchestrationContext, key: String) -> Result<Option<String>> {
    let relay = Relay::at(&key);
    let seen = ctx.call_entity(relay.pass(Some(format!("{key}-next")))).await?;
    let _ = ctx.call_entity(relay.stumble()).await;
    ctx.signal_entity_at(Relay::at(format!("{key}-last")).pass(None), ctx.now())?;
    let section = ctx.lock_entities([&relay]).await?;
    ctx.call_entity(relay.pass(None)).await?;
    section.release();
    Ok(seen)
}

with_and_without_sessions! {
    async fn a_trace_reaches_entities_and_what_they_ask_for(sessions: bool) {
        collect();
        let hub = hub(sessions)
            .register(where_am_i)
            .register(traced_child)
            .register(relays)
            .register(Relay::entity())
            .start()
            .await
            .unwrap();
        let client = hub.client();
        let key = format!("entities-{sessions}");
        let [first, next, last, untold] = ["", "-next", "-last", "-client"].map(|it| format!("@relay@{key}{it}"));
        client.signal_entity(Relay::at(format!("{key}-client")).pass(None)).await.unwrap();
        let options = StartOptions { trace: TraceContext::parse(PARENT, ""), ..with_id(&key) };
        let run = client.start_with(relays, key.clone(), options).await.unwrap();
        let seen = soon("the result", run.result()).await.unwrap();
        end_of(&client, &format!("{key}-next")).await;
        let all_done = async {
            for id in [&next, &last, &untold] {
                let id = EntityId::parse(id).unwrap();
                while client.entity(&id).await.unwrap().is_none() {
                    tokio::task::yield_now().await;
                }
            }
        };
        soon("the signals", all_done).await;
        stop(hub).await;

        let spans = |about_whom: &str, name: &str, kind: &str| -> Vec<Report> {
            let wanted = |report: &Report| report.get("otel.name") == name && report.get("otel.kind") == kind;
            about(about_whom).into_iter().filter(wanted).collect()
        };
        let execution = &spans(&key, "orchestration:relays", "server")[0];
        let calls = spans(&first, "entity:relay:pass", "client");
        let runs = spans(&first, "entity:relay:pass", "server");
        assert_eq!((calls.len(), runs.len()), (2, 2));
        for (call, run) in calls.iter().zip(&runs) {
            assert_eq!(call.get("parent_span_id"), execution.get("span_id"));
            assert_eq!(run.get("parent_span_id"), call.get("span_id"));
            assert_eq!((call.get("durabletask.type"), call.get("durabletask.task.operation")), ("entity", "pass"));
            assert_eq!(call.get("durabletask.task.status"), "Completed");
            assert_eq!(run.get("trace_id"), "0af7651916cd43dd8448eb211c80319c");
        }
        let inside = TraceContext::parse(&seen.unwrap(), "").unwrap();
        assert_eq!(inside.span_id(), runs[0].get("span_id"), "what the code reads is the id of its span");
        for kind in ["client", "server"] {
            let failed = &spans(&first, "entity:relay:stumble", kind)[0];
            assert!(failed.get("durabletask.entity.error_message").contains("it fell"), "{failed:?}");
        }
        // What the entity asked for is below its operation.
        let (sent, got) =
            (&spans(&next, "entity:relay:pass", "producer")[0], &spans(&next, "entity:relay:pass", "consumer")[0]);
        assert_eq!(sent.get("parent_span_id"), runs[0].get("span_id"));
        assert_eq!(got.get("parent_span_id"), sent.get("span_id"));
        let child = format!("{key}-next");
        let (created, began) = (
            &spans(&child, "create_orchestration:traced_child", "producer")[0],
            &spans(&child, "orchestration:traced_child", "server")[0],
        );
        assert_eq!(created.get("parent_span_id"), runs[0].get("span_id"));
        assert_eq!(began.get("parent_span_id"), created.get("span_id"));
        // A signal of the orchestration, delayed; and one of a client, which begins a trace.
        let (sent, got) =
            (&spans(&last, "entity:relay:pass", "producer")[0], &spans(&last, "entity:relay:pass", "consumer")[0]);
        assert_eq!(sent.get("parent_span_id"), execution.get("span_id"));
        assert_eq!(got.get("parent_span_id"), sent.get("span_id"));
        assert!(!got.get("durabletask.task.scheduled_time").is_empty());
        let (sent, got) = (
            &spans(&untold, "entity:relay:pass", "producer")[0],
            &spans(&untold, "entity:relay:pass", "consumer")[0],
        );
        assert_eq!(got.get("parent_span_id"), sent.get("span_id"));
        assert_ne!(sent.get("trace_id"), execution.get("trace_id"));

        let reports = about(&first);
        for name in ["EntityBatchExecuting", "EntityBatchExecuted", "EntityLockAcquired", "EntityLockReleased"] {
            let entry = LOG_IDS.iter().find(|entry| entry.name == name).unwrap();
            let found = reports.iter().find(|report| report.name == name).unwrap_or_else(|| panic!("no {name}"));
            assert_eq!((found.level, found.get("event_id")), (entry.level, &*entry.id.to_string()), "{name}");
        }
        let locked = reports.iter().find(|report| report.name == "EntityLockAcquired").unwrap();
        assert_eq!(locked.get("owner"), key);
    }
}

#[test]
fn numbers_and_names_of_the_log_are_used_once() {
    let mut ids: Vec<_> = LOG_IDS.iter().map(|entry| entry.id).collect();
    assert!(ids.is_sorted());
    ids.dedup();
    let names: std::collections::BTreeSet<_> = LOG_IDS.iter().map(|entry| entry.name).collect();
    assert_eq!((ids.len(), names.len()), (LOG_IDS.len(), LOG_IDS.len()));
}
