//! A process under load is killed with SIGKILL at random moments and started again on the same folder. Whatever it had
//! acknowledged must come to its end, with well-formed histories and no step lost.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use steadfast::prelude::*;
use steadfast::{ClientError, EventKind, Hub, HubOptions, InstanceQuery, StartOptions};
use steadfast_testkit::{SplitMix64, check_history};

/// Tells this program that it is the one to be killed: the folder.
const FOLDER: &str = "STEADFAST_KILL_TEST_FOLDER";
/// And the round.
const ROUND: &str = "STEADFAST_KILL_TEST_ROUND";
const ROUNDS: u32 = 8;
const SEED: u64 = 20_261_121;
const CALLERS: usize = 12;

fn executions_file(folder: &Path) -> PathBuf {
    folder.join("executions")
}

/// Leaves a line for each execution, so that it can be told afterwards what was really done.
#[activity]
async fn mark(ctx: ActivityContext, folder: PathBuf) -> Result<i32> {
    let line = format!("{} {}\n", ctx.instance, ctx.task_id);
    let mut file = OpenOptions::new().create(true).append(true).open(executions_file(&folder))?;
    file.write_all(line.as_bytes())?;
    Ok(ctx.task_id)
}

#[orchestration]
async fn part(ctx: OrchestrationContext, folder: PathBuf) -> Result<usize> {
    let marks = try_join_all((0..3).map(|_| ctx.call(mark, folder.clone()))).await?;
    Ok(marks.len())
}

#[orchestration]
async fn job(ctx: OrchestrationContext, folder: PathBuf) -> Result<usize> {
    let mut steps = 0;
    ctx.call(mark, folder.clone()).await?;
    let text: String = ctx.wait_for_event("go").await?;
    ctx.timer(Duration::from_millis(3)).await;
    ctx.call(mark, folder.clone()).await?;
    let parts = (0..2).map(|_| ctx.call_orchestration(part, folder.clone()));
    steps += try_join_all(parts).await?.into_iter().sum::<usize>();
    ctx.call(mark, folder.clone()).await?;
    Ok(steps + text.len())
}

async fn start_hub(folder: &Path) -> Hub {
    let options = HubOptions {
        // Materialisations and evictions are to be interrupted as well.
        materialise_interval: Duration::from_millis(15),
        session_idle_timeout: Duration::from_millis(5),
        ..HubOptions::default()
    };
    let builder = TaskHub::builder(folder.join("hub")).partitions(2).options(options);
    builder.register(mark).register(part).register(job).start().await.unwrap()
}

/// What runs in the process that is killed: starts instances and says so, one line for each thing acknowledged.
async fn run_until_killed(folder: &Path, round: u32) {
    let hub = start_hub(folder).await;
    say("ready");
    let number = Arc::new(AtomicUsize::new(0));
    let callers = (0..CALLERS).map(|_| {
        let (client, number, folder) = (hub.client(), number.clone(), folder.to_owned());
        tokio::spawn(async move {
            loop {
                let id = format!("job-{round}-{}", number.fetch_add(1, Ordering::SeqCst));
                let options = StartOptions { instance_id: Some(id.clone()), ..StartOptions::default() };
                client.start_with(job, folder.clone(), options).await.unwrap();
                say(&format!("started {id}"));
                client.raise_event(&id, "go", "four").await.unwrap();
                say(&format!("raised {id}"));
            }
        })
    });
    join_all(callers).await;
}

#[expect(clippy::print_stdout, reason = "this is how the worker reports to the test")]
fn say(line: &str) {
    println!("@{line}");
}

/// The process that is killed. Without the variables it is an empty test.
#[tokio::test(flavor = "multi_thread")]
async fn worker() {
    if let (Some(folder), Ok(round)) = (std::env::var_os(FOLDER), std::env::var(ROUND)) {
        run_until_killed(Path::new(&folder), round.parse().unwrap()).await;
    }
}

fn spawn_worker(folder: &Path, round: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// What the killed processes had acknowledged.
#[derive(Default)]
struct Acknowledged {
    started: BTreeSet<String>,
    raised: BTreeSet<String>,
}

impl Acknowledged {
    fn note(&mut self, line: &str) {
        match line.split_once(' ') {
            Some(("started", id)) => self.started.insert(id.to_owned()),
            Some(("raised", id)) => self.raised.insert(id.to_owned()),
            _ => false,
        };
    }
}

/// Runs the worker, kills it a random while after it is ready, and collects what it said until then.
fn run_and_kill(folder: &Path, round: u32, after: Duration, acknowledged: &Mutex<Acknowledged>) {
    let mut worker = spawn_worker(folder, round);
    let output = BufReader::new(worker.stdout.take().unwrap());
    std::thread::scope(|scope| {
        let (ready, is_ready) = mpsc::channel();
        scope.spawn(move || {
            for line in output.lines() {
                // The line at which the kill came is cut off, and was not acknowledged to anybody.
                let Ok(line) = line else { break };
                // The test harness may have begun the line.
                let Some((_, said)) = line.split_once('@') else { continue };
                if said == "ready" {
                    ready.send(()).unwrap();
                }
                acknowledged.lock().unwrap().note(said);
            }
        });
        is_ready.recv_timeout(Duration::from_secs(60)).expect("the worker comes up");
        std::thread::sleep(after);
        worker.kill().unwrap();
        worker.wait().unwrap();
    });
}

/// How often each activity was executed, by instance and task id.
fn executions(folder: &Path) -> BTreeMap<(String, i32), usize> {
    let mut executions = BTreeMap::new();
    for line in fs::read_to_string(executions_file(folder)).unwrap().lines() {
        let (instance, task_id) = line.rsplit_once(' ').unwrap();
        *executions.entry((instance.to_owned(), task_id.parse().unwrap())).or_default() += 1;
    }
    executions
}

async fn all_instances(hub: &Hub) -> Vec<String> {
    let mut ids = Vec::new();
    let mut query = InstanceQuery { page_size: 500, ..InstanceQuery::default() };
    loop {
        let page = hub.client().query(&query).await.unwrap();
        ids.extend(page.instances.into_iter().map(|state| state.instance.as_str().to_owned()));
        query.continuation = page.continuation;
        if query.continuation.is_none() {
            return ids;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_again_and_again_loses_nothing_that_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = SplitMix64::new(SEED);
    let acknowledged = Mutex::default();
    for round in 0..ROUNDS {
        let after = Duration::from_millis(20 + random.next_u64() % 500);
        run_and_kill(folder.path(), round, after, &acknowledged);
    }
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.started.len() > 50, "only {} instances were started", acknowledged.started.len());

    let hub = start_hub(folder.path()).await;
    let client = hub.client();
    let ids = all_instances(&hub).await;
    for id in &acknowledged.started {
        assert!(ids.contains(id), "{id} was acknowledged and is gone");
    }
    // Those whose event nobody promised get another one; if they had one, it changes nothing.
    for id in ids.iter().filter(|id| id.starts_with("job-") && !acknowledged.raised.contains(*id)) {
        match client.raise_event(id, "go", "four").await {
            Ok(()) | Err(ClientError::NotRunning { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let ends =
        join_all(ids.iter().map(|id| client.wait_for_completion(id, Some(Duration::from_secs(60))))).await;
    for (id, end) in ids.iter().zip(ends) {
        assert_eq!(end.unwrap().status, OrchestrationStatus::Completed, "{id}");
    }
    let executed = executions(folder.path());
    let mut children = 0;
    for id in all_instances(&hub).await {
        let state = client.state(&id).await.unwrap();
        assert_eq!(state.status, OrchestrationStatus::Completed, "{id}");
        children += usize::from(state.parent.is_some());
        let expected = if state.parent.is_some() { "3" } else { "10" };
        assert_eq!(state.output.unwrap().as_str(), expected, "{id}");
        let history = client.history(&id).await.unwrap();
        check_history(&history).unwrap_or_else(|error| panic!("{id}: {error}"));
        let completed = history.iter().filter_map(|event| match &event.kind {
            EventKind::TaskCompleted { task_scheduled_id, .. } => Some(*task_scheduled_id),
            _ => None,
        });
        let completed: Vec<_> = completed.collect();
        assert_eq!(completed.len(), 3, "{id}");
        for task in completed {
            assert!(executed.contains_key(&(id.clone(), task)), "{id} #{task} has a result and never ran");
        }
    }
    assert_eq!(
        children,
        2 * ids.iter().filter(|id| id.starts_with("job-")).count(),
        "each job has two parts"
    );
    hub.stop().await.unwrap();
}
