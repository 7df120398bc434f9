//! What orchestrations do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select, try_join_all};
use steadfast_core::model::{
    ActivityContext, ActivityDefinition, ActivityName, CallOptions, OrchestrationContext,
    OrchestrationDefinition, OrchestrationName, RetryPolicy, SubOrchestrationOptions, activity,
    orchestration,
};
use steadfast_core::{Error, EventKind, OrchestrationStatus, failure};
use steadfast_engine::{ClientError, StartOptions};

use crate::support::{Over, Served, over_each_protocol, soon};

const GREET: ActivityName<String, String> = ActivityName::new("greet");
const DOUBLE: ActivityName<u32, u32> = ActivityName::new("double");

pub(crate) fn greet() -> ActivityDefinition<String, String> {
    activity(
        "greet",
        |_: ActivityContext, name: String| async move { Ok::<_, Error>(format!("Hello, {name}!")) },
    )
}

pub(crate) fn hello() -> OrchestrationDefinition<(), Vec<String>> {
    orchestration("hello", |ctx: OrchestrationContext, ()| async move {
        let mut greetings = Vec::new();
        for city in ["Tokyo", "Seattle", "London"] {
            greetings.push(ctx.call(GREET, city.to_owned()).await?);
        }
        Ok::<_, Error>(greetings)
    })
}

fn double() -> ActivityDefinition<u32, u32> {
    activity("double", |_: ActivityContext, n: u32| async move { Ok::<_, Error>(2 * n) })
}

over_each_protocol!(
    a_sequence_of_activities,
    a_fan_out_of_two_hundred_activities,
    timers_and_a_race_with_one,
    external_events_in_order,
    children_and_their_failures,
    an_activity_is_tried_again_as_the_policy_says,
    panics_and_failures_are_failures,
    continuing_as_new_counts_generations_and_takes_events_along,
    what_the_context_says_is_what_an_embedded_hub_says,
    suspension_and_termination,
    a_custom_status_lasts_until_it_is_replaced,
    what_only_rust_can_ask_for,
    what_failed_is_tried_again_by_a_rewind,
);

async fn a_sequence_of_activities(over: Over) {
    let mut served = Served::start().await;
    let code = hello();
    let handle = code.handle();
    let worker = served.worker(over).register(code).register(greet()).start().await.unwrap();
    let client = served.client(over).await;
    let run = client.start(handle, ()).await.unwrap();
    let greetings = soon(run.result()).await.unwrap();
    assert_eq!(greetings, ["Hello, Tokyo!", "Hello, Seattle!", "Hello, London!"]);
    let state = run.state().await.unwrap();
    assert_eq!((state.status, state.execution), (OrchestrationStatus::Completed, run.execution()));
    let history = served.embedded().history(run.id().as_str()).await.unwrap();
    assert_eq!(client.history(run.id().as_str()).await.unwrap().len(), history.len());
    worker.stop().await;
    served.stop().await;
}

async fn a_fan_out_of_two_hundred_activities(over: Over) {
    let mut served = Served::start().await;
    let code = orchestration("sum", |ctx: OrchestrationContext, count: u32| async move {
        let doubled = try_join_all((0..count).map(|n| ctx.call(DOUBLE, n))).await?;
        Ok::<_, Error>(doubled.into_iter().sum::<u32>())
    });
    let handle = code.handle();
    let worker = served.worker(over).register(code).register(double()).start().await.unwrap();
    let run = served.client(over).await.start(handle, 200).await.unwrap();
    assert_eq!(soon(run.result()).await.unwrap(), 200 * 199);
    worker.stop().await;
    served.stop().await;
}

async fn timers_and_a_race_with_one(over: Over) {
    let mut served = Served::start().await;
    let code = orchestration("race", |ctx: OrchestrationContext, ()| async move {
        let began = ctx.now();
        ctx.timer(Duration::from_millis(20)).await;
        let waited = ctx.now().since(began) >= Duration::from_millis(20);
        let event = std::pin::pin!(ctx.wait_for_event::<u32>("go"));
        let timer = std::pin::pin!(ctx.timer(Duration::from_secs(3600)));
        let won = match select(event, timer).await {
            Either::Left((event, _)) => event?,
            Either::Right(_) => 0,
        };
        Ok::<_, Error>((waited, won))
    });
    let handle = code.handle();
    let worker = served.worker(over).register(code).start().await.unwrap();
    let client = served.client(over).await;
    let run = client.start(handle, ()).await.unwrap();
    client.raise_event(run.id().as_str(), "go", &7).await.unwrap();
    assert_eq!(soon(run.result()).await.unwrap(), (true, 7));
    worker.stop().await;
    served.stop().await;
}

async fn external_events_in_order(over: Over) {
    let mut served = Served::start().await;
    let code = orchestration("collect", |ctx: OrchestrationContext, count: u32| async move {
        let mut got = Vec::new();
        for _ in 0..count {
            got.push(ctx.wait_for_event::<u32>("item").await?);
        }
        Ok::<_, Error>(got)
    });
    let handle = code.handle();
    let worker = served.worker(over).register(code).start().await.unwrap();
    let client = served.client(over).await;
    let run = client.start(handle, 5).await.unwrap();
    for item in 0..5 {
        client.raise_event(run.id().as_str(), "ITEM", &item).await.unwrap();
    }
    assert_eq!(soon(run.result()).await.unwrap(), [0, 1, 2, 3, 4]);
    let again = client.raise_event(run.id().as_str(), "item", &9).await.unwrap_err();
    assert!(
        matches!(again, ClientError::NotRunning { status: OrchestrationStatus::Completed, .. }),
        "{again}"
    );
    worker.stop().await;
    served.stop().await;
}

async fn children_and_their_failures(over: Over) {
    const CHILD: OrchestrationName<u32, u32> = OrchestrationName::new("child");
    let mut served = Served::start().await;
    let parent = orchestration("parent", |ctx: OrchestrationContext, ()| async move {
        let options = SubOrchestrationOptions {
            instance_id: Some("the-child".to_owned()),
            ..SubOrchestrationOptions::default()
        };
        let named = ctx.call_orchestration_with(CHILD, 20, options).await?;
        let plain = ctx.call_orchestration(CHILD, 1).await?;
        let failed = ctx.call_orchestration(CHILD, 0).await.unwrap_err();
        Ok::<_, Error>((named + plain, failed.details.message))
    });
    let child = orchestration("child", |ctx: OrchestrationContext, n: u32| async move {
        match n {
            0 => Err(Error::new("app::Zero", "nothing to double")),
            n => Ok(ctx.call(DOUBLE, n).await?),
        }
    });
    let handle = parent.handle();
    let worker =
        served.worker(over).register(parent).register(child).register(double()).start().await.unwrap();
    let client = served.client(over).await;
    let run = client.start(handle, ()).await.unwrap();
    assert_eq!(soon(run.result()).await.unwrap(), (42, "nothing to double".to_owned()));
    let child = client.state("the-child").await.unwrap();
    assert_eq!(child.parent.unwrap().instance, *run.id());
    worker.stop().await;
    served.stop().await;
}

async fn an_activity_is_tried_again_as_the_policy_says(over: Over) {
    const FLAKY: ActivityName<(), u32> = ActivityName::new("flaky");
    let mut served = Served::start().await;
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = attempts.clone();
    let flaky = activity("flaky", move |_: ActivityContext, ()| {
        let counted = counted.clone();
        async move {
            match counted.fetch_add(1, Ordering::SeqCst) {
                attempt @ 0..2 => Err(Error::new("app::Flaky", format!("attempt {attempt}"))),
                attempt => Ok(attempt),
            }
        }
    });
    let code = orchestration("patient", |ctx: OrchestrationContext, ()| async move {
        let policy = RetryPolicy::new(5, Duration::from_millis(1));
        Ok::<_, Error>(ctx.call_with_retry(FLAKY, (), policy).await?)
    });
    let handle = code.handle();
    let worker = served.worker(over).register(code).register(flaky).start().await.unwrap();
    let run = served.client(over).await.start(handle, ()).await.unwrap();
    assert_eq!(soon(run.result()).await.unwrap(), 2);
    assert_eq!(attempts.load(Ordering::SeqCst), 3);
    worker.stop().await;
    served.stop().await;
}

async fn panics_and_failures_are_failures(over: Over) {
    const BAD: ActivityName<(), ()> = ActivityName::new("bad");
    let mut served = Served::start().await;
    let bad = activity("bad", |_: ActivityContext, ()| async move {
        if true {
            panic!("the activity panics");
        }
        Ok::<(), Error>(())
    });
    let tells = orchestration("tells", |ctx: OrchestrationContext, ()| async move {
        Ok::<_, Error>(ctx.call(BAD, ()).await.unwrap_err().details.error_type.to_string())
    });
    let panics = orchestration("panics", |_: OrchestrationContext, ()| async move {
        if true {
            panic!("the orchestration panics");
        }
        Ok::<(), Error>(())
    });
    let (tells_handle, panics_handle) = (tells.handle(), panics.handle());
    let worker = served.worker(over).register(tells).register(panics).register(bad).start().await.unwrap();
    let client = served.client(over).await;
    let told = client.start(tells_handle, ()).await.unwrap();
    assert_eq!(soon(told.result()).await.unwrap(), failure::kinds::PANIC);
    let panicked = client.start(panics_handle, ()).await.unwrap();
    let error = soon(panicked.result()).await.unwrap_err();
    let ClientError::Failed { details, .. } = error else { panic!("{error}") };
    assert_eq!(details.error_type, failure::kinds::PANIC);
    assert!(details.message.contains("the orchestration panics"), "{details}");
    worker.stop().await;
    served.stop().await;
}

async fn continuing_as_new_counts_generations_and_takes_events_along(over: Over) {
    let mut served = Served::start().await;
    let code = orchestration("loop", |ctx: OrchestrationContext, seen: Vec<u32>| async move {
        if seen.is_empty() {
            ctx.wait_for_event::<()>("begin").await?;
        }
        let mut seen = seen;
        seen.push(ctx.generation());
        if ctx.generation() < 3 {
            ctx.continue_as_new(&seen)?;
            return Ok(Vec::new());
        }
        // It was sent to the first execution.
        seen.push(ctx.wait_for_event::<u32>("late").await?);
        Ok::<_, Error>(seen)
    });
    let handle = code.handle();
    let client = served.client(over).await;
    let run = client.start(handle, Vec::new()).await.unwrap();
    client.raise_event(run.id().as_str(), "late", &100).await.unwrap();
    client.raise_event(run.id().as_str(), "begin", &()).await.unwrap();
    let worker = served.worker(over).register(code).start().await.unwrap();
    assert_eq!(soon(run.result()).await.unwrap(), [0, 1, 2, 3, 100]);
    worker.stop().await;
    served.stop().await;
}

async fn what_the_context_says_is_what_an_embedded_hub_says(over: Over) {
    const FACTS: ActivityName<(), (String, i32, String)> = ActivityName::new("facts");
    let mut served = Served::start().await;
    let facts = activity("facts", |ctx: ActivityContext, ()| async move {
        let tag = ctx.tags().get("kind").map(ToString::to_string).unwrap_or_default();
        Ok::<_, Error>((ctx.instance_version.to_string(), ctx.task_id, tag))
    });
    let code = orchestration("context", |ctx: OrchestrationContext, ()| async move {
        let before = (ctx.new_uuid(), ctx.random(), ctx.execution_id().to_string());
        let options =
            CallOptions { tags: [("kind".to_owned(), "fact".to_owned())].into(), ..CallOptions::default() };
        let facts = ctx.call_with(FACTS, (), options).await?;
        let tags = ctx.tags().get("team").map(ToString::to_string);
        let same = before.2 == ctx.execution_id().to_string();
        Ok::<_, Error>((before.0.to_string(), before.1, facts, tags, ctx.version().to_string(), same))
    });
    let handle = code.handle();
    let worker = served.worker(over).register(code).register(facts).start().await.unwrap();
    let client = served.client(over).await;
    let options = StartOptions {
        version: Some("2.5".to_owned()),
        tags: [("team".to_owned(), "blue".to_owned())].into(),
        ..StartOptions::default()
    };
    let run = client.start_with(handle, (), options).await.unwrap();
    assert_eq!(run.version(), "2.5");
    let (uuid, random, facts, tags, version, same) = soon(run.result()).await.unwrap();
    assert_eq!(facts, ("2.5".to_owned(), 0, "fact".to_owned()));
    assert_eq!((tags.as_deref(), version.as_str(), same), (Some("blue"), "2.5", true));
    assert_eq!((uuid.len(), random != 0), (36, true));
    worker.stop().await;
    served.stop().await;
}

async fn suspension_and_termination(over: Over) {
    let mut served = Served::start().await;
    let code = orchestration("waits", |ctx: OrchestrationContext, ()| async move {
        Ok::<_, Error>(ctx.wait_for_event::<String>("go").await?)
    });
    let handle = code.handle();
    let worker = served.worker(over).register(code).start().await.unwrap();
    let client = served.client(over).await;
    let run = client.start(handle, ()).await.unwrap();
    let id = run.id().as_str().to_owned();
    soon(run.wait_for_start()).await.unwrap();
    client.suspend(&id, "a pause").await.unwrap();
    client.raise_event(&id, "go", "now").await.unwrap();
    assert_eq!(client.state(&id).await.unwrap().status, OrchestrationStatus::Suspended);
    client.resume(&id, "").await.unwrap();
    assert_eq!(soon(run.result()).await.unwrap(), "now");

    let code = OrchestrationName::<(), String>::new("waits");
    let run = client.start(code, ()).await.unwrap();
    client.terminate(run.id().as_str(), "not needed", false).await.unwrap();
    let error = soon(run.result()).await.unwrap_err();
    assert!(matches!(&error, ClientError::Terminated { reason, .. } if reason == "not needed"), "{error}");
    let again = client.terminate(run.id().as_str(), "twice", false).await.unwrap_err();
    assert!(
        matches!(again, ClientError::NotRunning { status: OrchestrationStatus::Terminated, .. }),
        "{again}"
    );
    worker.stop().await;
    served.stop().await;
}

async fn a_custom_status_lasts_until_it_is_replaced(over: Over) {
    let mut served = Served::start().await;
    let code = orchestration("status", |ctx: OrchestrationContext, ()| async move {
        ctx.set_custom_status("first")?;
        ctx.wait_for_event::<()>("a").await?;
        ctx.wait_for_event::<()>("b").await?;
        ctx.set_custom_status("last")?;
        Ok::<_, Error>(())
    });
    let handle = code.handle();
    let worker = served.worker(over).register(code).start().await.unwrap();
    let client = served.client(over).await;
    let run = client.start(handle, ()).await.unwrap();
    let id = run.id().as_str().to_owned();
    let status = async || client.state(&id).await.unwrap().custom_status.map(|it| it.as_str().to_owned());
    soon(run.wait_for_start()).await.unwrap();
    assert_eq!(status().await.as_deref(), Some("\"first\""));
    client.raise_event(&id, "a", &()).await.unwrap();
    // The turn that this begins is over when its end is in the history.
    soon(async {
        let raised = |kind: &EventKind| matches!(kind, EventKind::EventRaised { .. });
        while !client.history(&id).await.unwrap().iter().any(|event| raised(&event.kind)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(status().await.as_deref(), Some("\"first\""));
    client.raise_event(&id, "b", &()).await.unwrap();
    soon(run.result()).await.unwrap();
    assert_eq!(status().await.as_deref(), Some("\"last\""));
    worker.stop().await;
    served.stop().await;
}

/// Over the standard protocol, which has no words for it, the instance fails and says why.
async fn what_only_rust_can_ask_for(over: Over) {
    const ALONE: OrchestrationName<(), ()> = OrchestrationName::new("alone");
    let mut served = Served::start().await;
    let patched = orchestration("patched", |ctx: OrchestrationContext, ()| async move {
        let before = ctx.patched("new-way");
        ctx.timer(Duration::from_millis(1)).await;
        Ok::<_, Error>(before && ctx.patched("new-way"))
    });
    let urgent = orchestration("urgent", |ctx: OrchestrationContext, ()| async move {
        let options = CallOptions { priority: 5, ..CallOptions::default() };
        Ok::<_, Error>(ctx.call_with(DOUBLE, 4, options).await? == 8)
    });
    let limited = orchestration("limited", |ctx: OrchestrationContext, ()| async move {
        let start_to_close_timeout = Some(Duration::from_secs(60));
        let options = CallOptions { start_to_close_timeout, ..CallOptions::default() };
        Ok::<_, Error>(ctx.call_with(DOUBLE, 4, options).await? == 8)
    });
    let starts = orchestration("starts", |ctx: OrchestrationContext, ()| async move {
        ctx.start_orchestration(ALONE, (), None)?;
        Ok::<_, Error>(true)
    });
    let alone = orchestration("alone", |_: OrchestrationContext, ()| async move { Ok::<_, Error>(()) });
    let worker = served
        .worker(over)
        .register(patched)
        .register(urgent)
        .register(limited)
        .register(starts)
        .register(alone)
        .register(double())
        .start()
        .await
        .unwrap();
    let client = served.client(over).await;
    for name in ["patched", "urgent", "limited", "starts"] {
        let run = client.start(OrchestrationName::<(), bool>::new(name), ()).await.unwrap();
        match (over, soon(run.result()).await) {
            (Over::Standard, Err(ClientError::Failed { details, .. })) => {
                assert_eq!(details.error_type, "NotInStandardProtocol", "{name}: {details}");
            }
            (Over::Extended, Ok(true)) => {}
            (_, outcome) => panic!("{name} {over:?}: {outcome:?}"),
        }
    }
    worker.stop().await;
    served.stop().await;
}

async fn what_failed_is_tried_again_by_a_rewind(over: Over) {
    const MENDED: ActivityName<(), u32> = ActivityName::new("mended");
    let mut served = Served::start().await;
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = attempts.clone();
    let mended = activity("mended", move |_: ActivityContext, ()| {
        let attempt = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            match attempt {
                0 => Err(Error::new("app::Broken", "not yet")),
                attempt => Ok(attempt),
            }
        }
    });
    let code = orchestration("rewound", |ctx: OrchestrationContext, ()| async move {
        let doubled = ctx.call(DOUBLE, 21).await?;
        Ok::<_, Error>(doubled + ctx.call(MENDED, ()).await?)
    });
    let handle = code.handle();
    let worker =
        served.worker(over).register(code).register(double()).register(mended).start().await.unwrap();
    let client = served.client(over).await;
    let run = client.start(handle, ()).await.unwrap();
    let error = soon(run.result()).await.unwrap_err();
    assert!(matches!(error, ClientError::Failed { .. }), "{error}");
    client.rewind(run.id().as_str(), "it is mended").await.unwrap();
    assert_eq!(soon(run.result()).await.unwrap(), 43);
    worker.stop().await;
    served.stop().await;
}
