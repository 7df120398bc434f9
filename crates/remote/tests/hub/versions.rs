//! Which worker takes which version.

use steadfast_core::model::{OrchestrationContext, OrchestrationName, orchestration};
use steadfast_core::{Error, OrchestrationStatus, VersionFailure, VersionMatch, VersionOptions, failure};
use steadfast_engine::{ClientError, StartOptions, WorkKind};

use crate::support::{Over, Served, over_each_protocol, soon};

const CODE: OrchestrationName<(), String> = OrchestrationName::new("code");

over_each_protocol!(
    each_version_goes_to_the_worker_that_has_it,
    strict_workers_leave_other_versions_to_others_or_fail_them,
    what_nobody_has_waits_and_the_hub_says_so,
);

fn code(tells: &'static str) -> steadfast_core::model::OrchestrationDefinition<(), String> {
    orchestration("code", move |ctx: OrchestrationContext, ()| async move {
        Ok::<_, Error>(format!("{tells} runs {}", ctx.version()))
    })
}

fn version(version: &str) -> StartOptions {
    StartOptions { version: Some(version.to_owned()), ..StartOptions::default() }
}

async fn each_version_goes_to_the_worker_that_has_it(over: Over) {
    let mut served = Served::start().await;
    let first = served.worker(over).register(code("first").version("1")).start().await.unwrap();
    let second = served.worker(over).register(code("second").version("2")).start().await.unwrap();
    let client = served.client(over).await;
    for (asked, expected) in [("1", "first runs 1"), ("2", "second runs 2"), ("1", "first runs 1")] {
        let run = client.start_with(CODE, (), version(asked)).await.unwrap();
        assert_eq!(soon(run.result()).await.unwrap(), expected);
    }
    first.stop().await;
    second.stop().await;
    served.stop().await;
}

async fn strict_workers_leave_other_versions_to_others_or_fail_them(over: Over) {
    let mut served = Served::start().await;
    let strict = |version: &str, failure_strategy| VersionOptions {
        version: version.into(),
        match_strategy: VersionMatch::Strict,
        failure_strategy,
        ..VersionOptions::default()
    };
    let rejects = served.worker(over).register(code("rejects")).versions(strict("1", VersionFailure::Reject));
    let rejects = rejects.start().await.unwrap();
    let client = served.client(over).await;
    let waits = client.start_with(CODE, (), version("2")).await.unwrap();
    let runs = client.start_with(CODE, (), version("1")).await.unwrap();
    assert_eq!(soon(runs.result()).await.unwrap(), "rejects runs 1");
    assert_eq!(waits.state().await.unwrap().status, OrchestrationStatus::Pending);
    let fails = served.worker(over).register(code("fails")).versions(strict("3", VersionFailure::Fail));
    let fails = fails.start().await.unwrap();
    let error = soon(waits.result()).await.unwrap_err();
    let ClientError::Failed { details, .. } = error else { panic!("{error}") };
    assert_eq!(details.error_type, failure::kinds::VERSION_MISMATCH);
    rejects.stop().await;
    fails.stop().await;
    served.stop().await;
}

async fn what_nobody_has_waits_and_the_hub_says_so(over: Over) {
    let mut served = Served::start().await;
    let other = served.worker(over).register(code("other").version("1")).start().await.unwrap();
    let client = served.client(over).await;
    let waits = client.start_with(CODE, (), version("7")).await.unwrap();
    let missing = (WorkKind::Orchestration, "code".into(), "7".into(), 1);
    soon(async {
        while !served.workers().status().without_worker.contains(&missing) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let worker = served.worker(over).register(code("late").version("7")).start().await.unwrap();
    assert_eq!(soon(waits.result()).await.unwrap(), "late runs 7");
    other.stop().await;
    worker.stop().await;
    served.stop().await;
}
