//! What only the extension can do, and what becomes of a worker where there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use steadfast_core::model::{
    ActivityContext, ActivityName, CallOptions, CancelReason, OrchestrationContext, RetryPolicy, activity,
    orchestration,
};
use steadfast_core::{Error, EventKind, failure};
use steadfast_grpc::extension::{FORMAT, Report, encode_report};
use steadfast_grpc::wire::extension::FromWorker;
use steadfast_grpc::wire::extension::worker_link_client::WorkerLinkClient;
use tokio::sync::{Notify, mpsc};
use tonic::Code;

use crate::orchestrations::{greet, hello};
use crate::support::{Over, Served, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_speaks_the_standard_protocol_where_there_is_no_extension() {
    let mut served = Served::start_without_extension().await;
    let code = hello();
    let handle = code.handle();
    let worker = served.worker(Over::Extended).register(code).register(greet()).start().await.unwrap();
    let run = served.client(Over::Extended).await.start(handle, ()).await.unwrap();
    assert_eq!(soon(run.result()).await.unwrap().len(), 3);
    worker.stop().await;
    served.stop().await;
}

/// The code of an instance counts how often it begins: once, unless its session is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_stays_with_its_worker_and_is_made_anew_where_it_was_not_kept() {
    for (kept, expected) in [(100, 1), (0, 4)] {
        let mut served = Served::start().await;
        let begun = Arc::new(AtomicU32::new(0));
        let counted = begun.clone();
        let code = orchestration("counted", move |ctx: OrchestrationContext, ()| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move {
                for name in ["a", "b", "c"] {
                    ctx.wait_for_event::<()>(name).await?;
                }
                Ok::<_, Error>(())
            }
        });
        let handle = code.handle();
        let worker = served.worker(Over::Extended).sessions(kept).register(code).start().await.unwrap();
        let client = served.client(Over::Extended).await;
        let run = client.start(handle, ()).await.unwrap();
        soon(run.wait_for_start()).await.unwrap();
        let id = run.id().as_str().to_owned();
        for (nth, name) in [(1, "a"), (2, "b"), (3, "c")] {
            client.raise_event(&id, name, &()).await.unwrap();
            soon(async {
                while begun_turns(&client, &id).await <= nth {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        soon(run.result()).await.unwrap();
        assert_eq!(begun.load(Ordering::SeqCst), expected, "{kept} sessions are kept");
        worker.stop().await;
        served.stop().await;
    }
}

async fn begun_turns(client: &steadfast_remote::Client, id: &str) -> usize {
    let history = client.history(id).await.unwrap();
    history.iter().filter(|event| event.kind == EventKind::OrchestratorStarted).count()
}

async fn resumptions(client: &steadfast_remote::Client, id: &str) -> usize {
    let history = client.history(id).await.unwrap();
    let is_one = |kind: &EventKind| matches!(kind, EventKind::ExecutionResumed { .. });
    history.iter().filter(|event| is_one(&event.kind)).count()
}

/// A suspension needs no code, so a kept session does not see it; it learns of it with the next turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_session_catches_up_with_turns_that_needed_no_code() {
    let mut served = Served::start().await;
    let begun = Arc::new(AtomicU32::new(0));
    let counted = begun.clone();
    let code = orchestration("suspended", move |ctx: OrchestrationContext, ()| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let first = ctx.wait_for_event::<u32>("a").await?;
            Ok::<_, Error>((first, ctx.wait_for_event::<u32>("b").await?))
        }
    });
    let handle = code.handle();
    let worker = served.worker(Over::Extended).register(code).start().await.unwrap();
    let client = served.client(Over::Extended).await;
    let run = client.start(handle, ()).await.unwrap();
    let id = run.id().as_str().to_owned();
    soon(run.wait_for_start()).await.unwrap();
    for round in 0..3 {
        client.suspend(&id, "a pause").await.unwrap();
        if round == 1 {
            client.raise_event(&id, "a", &1).await.unwrap();
        }
        client.resume(&id, "").await.unwrap();
        // A suspension takes a turn back that a worker has, and with it the session; so that turn is to be over.
        soon(async {
            while resumptions(&client, &id).await <= round {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    client.raise_event(&id, "b", &2).await.unwrap();
    assert_eq!(soon(run.result()).await.unwrap(), (1, 2));
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    worker.stop().await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_reach_the_hub_and_the_next_attempt_and_time_limits_cancel() {
    const STEPS: ActivityName<(), u32> = ActivityName::new("steps");
    let mut served = Served::start().await;
    let (told, reasons) = mpsc::unbounded_channel::<CancelReason>();
    let mut reasons = reasons;
    let steps = activity("steps", move |ctx: ActivityContext, ()| {
        let told = told.clone();
        async move {
            if let Some(reached) = ctx.last_heartbeat::<u32>()? {
                return Ok::<_, Error>(reached);
            }
            ctx.heartbeat(&41)?;
            ctx.heartbeat(&42)?;
            let reason = ctx.cancelled().await;
            told.send(reason).unwrap();
            Ok(0)
        }
    });
    let code = orchestration("limited", |ctx: OrchestrationContext, ()| async move {
        let options = CallOptions {
            heartbeat_timeout: Some(Duration::from_millis(200)),
            retry: Some(RetryPolicy::new(2, Duration::from_millis(1))),
            ..CallOptions::default()
        };
        Ok::<_, Error>(ctx.call_with(STEPS, (), options).await?)
    });
    let handle = code.handle();
    let worker = served.worker(Over::Extended).register(code).register(steps).start().await.unwrap();
    let run = served.client(Over::Extended).await.start(handle, ()).await.unwrap();
    let reached = soon(run.result()).await.unwrap();
    assert!((41..=42).contains(&reached), "{reached}");
    assert_eq!(soon(reasons.recv()).await, Some(CancelReason::HeartbeatTimedOut));
    worker.stop().await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activity_learns_that_nobody_waits_for_it() {
    const ENDLESS: ActivityName<(), ()> = ActivityName::new("endless");
    let mut served = Served::start().await;
    let begun = Arc::new(Notify::new());
    let (told, mut reasons) = mpsc::unbounded_channel::<CancelReason>();
    let running = begun.clone();
    let endless = activity("endless", move |ctx: ActivityContext, ()| {
        let (running, told) = (running.clone(), told.clone());
        async move {
            running.notify_one();
            told.send(ctx.cancelled().await).unwrap();
            Ok::<_, Error>(())
        }
    });
    let code = orchestration("waits", |ctx: OrchestrationContext, ()| async move {
        Ok::<_, Error>(ctx.call(ENDLESS, ()).await?)
    });
    let handle = code.handle();
    let worker = served.worker(Over::Extended).register(code).register(endless).start().await.unwrap();
    let client = served.client(Over::Extended).await;
    let run = client.start(handle, ()).await.unwrap();
    soon(begun.notified()).await;
    client.terminate(run.id().as_str(), "enough", false).await.unwrap();
    assert_eq!(soon(reasons.recv()).await, Some(CancelReason::Ended));
    worker.stop().await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_format_and_reports_that_cannot_be_are_refused() {
    let mut served = Served::start().await;
    let channel = tonic::transport::Channel::from_shared(served.url()).unwrap().connect().await.unwrap();
    let first = |format| FromWorker { format, content: Vec::new(), leaving: false };
    let mut stub = WorkerLinkClient::new(channel);
    let refused = stub.work(futures_util::stream::iter([first(FORMAT + 1)])).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let refused = stub.work(futures_util::stream::iter([first(FORMAT)])).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");

    let profile = steadfast_grpc::extension::Profile {
        name: "hostile".into(),
        places: [1; 3],
        orchestrations: Vec::new(),
        activities: Vec::new(),
        entities: Vec::new(),
    };
    let content = steadfast_grpc::extension::encode_profile(&profile);
    let greeting = FromWorker { format: FORMAT, content, leaving: false };
    let mut terminating = Vec::new();
    let answer = steadfast_core::turn::TurnAnswer {
        terminations: vec![(steadfast_core::InstanceId::from_trusted(""), "".into(), false)],
        ..Default::default()
    };
    let report = Report::Turn { token: "none".to_owned(), answer: Box::new(answer) };
    encode_report(&report, &mut terminating);
    for content in [vec![0xff; 40], terminating] {
        let bad = FromWorker { format: 0, content, leaving: false };
        let messages = futures_util::stream::iter([greeting.clone(), bad]);
        let mut answers = stub.work(messages).await.unwrap().into_inner();
        let refused = soon(async {
            loop {
                match answers.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("it is refused"),
                    Err(status) => return status,
                }
            }
        });
        assert_eq!(refused.await.code(), Code::InvalidArgument);
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_that_disagrees_with_a_history_fails_also_here() {
    let mut served = Served::start().await;
    let waits = |calls: bool| {
        orchestration("changed", move |ctx: OrchestrationContext, ()| async move {
            if calls {
                ctx.timer(Duration::from_millis(1)).await;
            }
            Ok::<_, Error>(ctx.wait_for_event::<()>("go").await?)
        })
    };
    let first = served.worker(Over::Extended).register(waits(false)).start().await.unwrap();
    let client = served.client(Over::Extended).await;
    let run = client.start(waits(false).handle(), ()).await.unwrap();
    soon(run.wait_for_start()).await.unwrap();
    first.stop().await;
    let second = served.worker(Over::Extended).register(waits(true)).start().await.unwrap();
    client.raise_event(run.id().as_str(), "go", &()).await.unwrap();
    let error = soon(run.result()).await.unwrap_err();
    let steadfast_engine::ClientError::Failed { details, .. } = error else { panic!("{error}") };
    assert_eq!(details.error_type, failure::kinds::NON_DETERMINISM);
    second.stop().await;
    served.stop().await;
}
