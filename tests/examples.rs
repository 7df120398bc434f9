//! Runs every example as a process of its own, as a reader of the README would, and reads what it prints.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Far more than any example takes; one that hangs fails instead of blocking the tests.
const PATIENCE: Duration = Duration::from_secs(120);

/// An example's data folder and a place for its output.
struct Example {
    name: &'static str,
    folder: TempDir,
}

struct Finished {
    status: ExitStatus,
    output: String,
}

impl Example {
    fn new(name: &'static str) -> Self {
        Self { name, folder: tempfile::tempdir().unwrap() }
    }

    fn run(&self) -> Finished {
        let data = self.folder.path().join("data");
        Running::start(self.name, &executables().join(self.name), &[&data], self.folder.path()).finish()
    }

    /// Runs it and takes its output, which must be that of a program that ended well.
    fn succeed(&self) -> String {
        let Finished { status, output } = self.run();
        assert!(status.success(), "{} ended with {status}:\n{output}", self.name);
        output
    }
}

/// A process that writes into a file. Dropping it ends it.
struct Running {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Running {
    fn start(name: &str, program: &Path, arguments: &[&dyn AsRef<OsStr>], folder: &Path) -> Self {
        let output = folder.join(format!("{name}.txt"));
        let file = File::create(&output).unwrap();
        let child = Command::new(program)
            .args(arguments.iter().map(|argument| (*argument).as_ref()))
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { name: name.to_owned(), child, output }
    }

    fn printed(&self) -> String {
        fs::read_to_string(&self.output).unwrap()
    }

    /// Looks again and again until there is what is looked for.
    fn until<T>(&mut self, found: impl Fn(&mut Self) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            assert!(began.elapsed() < PATIENCE, "{} hangs; it printed:\n{}", self.name, self.printed());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends its input, and waits for its end.
    fn finish(mut self) -> Finished {
        drop(self.child.stdin.take());
        let status = self.until(|running| running.child.try_wait().unwrap());
        Finished { status, output: self.printed() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the examples are. `cargo test` builds them, but not when it is told to run this test only, so they are built
/// here once more, which costs nothing when they are up to date.
fn executables() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let profile = build(&["--examples"]);
        profile.join("examples")
    })
}

/// Builds something of the workspace, and says where.
fn build(what: &[&str]) -> PathBuf {
    // target/<profile>/deps/<this test>
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--workspace", "--target-dir"]).arg(profile.parent().unwrap());
    build.args(what).current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success(), "the examples must compile");
    profile.to_owned()
}

/// The lines of `output` that contain `text`.
fn lines<'a>(output: &'a str, text: &str) -> Vec<&'a str> {
    output.lines().filter(|line| line.contains(text)).collect()
}

#[track_caller]
fn assert_contains(output: &str, texts: &[&str]) {
    for text in texts {
        assert!(output.contains(text), "{text:?} is missing in:\n{output}");
    }
}

#[test]
fn hello_sequence_greets_and_finds_the_finished_instance_again() {
    let example = Example::new("hello_sequence");
    let first = example.succeed();
    assert_contains(
        &first,
        &[
            "Starting instance 'hello'",
            "Status: Completed",
            "  Hello, Tokyo!\n  Hello, Seattle!\n  Hello, London!\n",
            "ExecutionStarted",
            r#"hello_sequence ["Tokyo","Seattle","London"]"#,
            r#"#0 greet("Tokyo")"#,
            r##"#2 = "Hello, London!""##,
            "ExecutionCompleted",
        ],
    );
    let second = example.succeed();
    assert_contains(&second, &["from an earlier run", "Status: Completed", "  Hello, London!\n"]);
    let history = |output: &str| output.split_once("History:").unwrap().1.to_owned();
    assert_eq!(history(&first), history(&second));
}

#[test]
fn fan_out_fan_in_adds_up_all_pieces() {
    let output = Example::new("fan_out_fan_in").succeed();
    assert_contains(
        &output,
        &["40 pieces were counted", "There are 17984 primes.", "from 0 to 5000 has the most: 669."],
    );
}

#[test]
fn order_saga_undoes_what_was_done_in_reverse() {
    let output = Example::new("order_saga").succeed();
    let orders: Vec<_> = output.split("Order of a ").skip(1).collect();
    let [good, declined, unshipped] = *orders else { panic!("there are three orders:\n{output}") };

    assert_contains(good, &["reserve teapot", "charge 4900", "ship to", "done: parcel to 12 Hill Street"]);
    assert!(!good.contains("release") && !good.contains("refund"), "{good}");

    assert_contains(declined, &["release reservation of grand piano", "over the limit", "pay another way"]);
    assert!(!declined.contains("refund"), "{declined}");

    assert_contains(unshipped, &["the carrier needs an address"]);
    assert!(!unshipped.contains("pay another way"), "{unshipped}");
    let refund = unshipped.find("refund").expect("the payment is undone");
    let release = unshipped.find("release").expect("the reservation is undone");
    assert!(refund < release, "the last step is undone first:\n{unshipped}");
}

#[test]
fn human_approval_takes_a_decision_or_escalates() {
    let output = Example::new("human_approval").succeed();
    assert_contains(
        &output,
        &[
            "a train ticket was approved by Grace",
            "a yacht was rejected by Grace",
            "lunch was approved by the manager",
        ],
    );
    assert_eq!(lines(&output, "mail to the approver").len(), 3, "{output}");
    assert_eq!(lines(&output, "mail to the manager"), ["  mail to the manager: nobody decided on lunch"]);
}

#[test]
fn eternal_monitor_runs_many_generations_with_a_short_history() {
    let example = Example::new("eternal_monitor");
    for _ in 0..2 {
        let output = example.succeed();
        assert_contains(&output, &["Starting the monitor.", "hottest: 41 degrees"]);
        let number = |line: &str| -> u32 {
            let digits: String = lines(&output, line)[0].chars().filter(char::is_ascii_digit).collect();
            digits.parse().unwrap()
        };
        assert!(number("generations") >= 20, "{output}");
        assert!(number("The last history") <= 20, "the history stays short:\n{output}");
        assert!(lines(&output, "alarm: 41").len() >= 2, "{output}");
    }
}

#[test]
fn bank_accounts_transfer_in_critical_sections_and_lose_no_cent() {
    let example = Example::new("bank_accounts");
    for run in 1..=2 {
        let output = example.succeed();
        assert_contains(
            &output,
            &["ada gave bob 30 cents", "could not give eve 5000 cents", "cents are missing"],
        );
        assert_contains(&output, &[&format!("Together they have {} cents.", 300 * run)]);
    }
}

#[test]
fn middleware_counts_logs_refuses_and_seals() {
    let output = Example::new("middleware").succeed();
    assert_contains(
        &output,
        &[
            "fetch_secret of '",
            "the orchestration saw 7 sealed bytes",
            "admin_report needs the role admin",
            "the report is for the admin",
            "a client may not unlock @door@front",
            "the door was rung at 1 times and is shut",
            "6 turns, 1 activities",
            "3 operations",
        ],
    );
}

#[test]
fn remote_program_runs_its_code_and_asks_for_it_in_processes_of_their_own() {
    let profile =
        build(&["--bin", "steadfast", "--example", "remote_program", "--features", "steadfast/remote"]);
    let (folder, program) = (tempfile::tempdir().unwrap(), profile.join("examples/remote_program"));
    let data = folder.path().join("data");
    let serve: [&dyn AsRef<OsStr>; 5] = [&"serve", &"--listen", &"127.0.0.1:0", &"--data-dir", &data];
    let mut server = Running::start("server", &profile.join("steadfast"), &serve, folder.path());
    let address = server.until(|server| {
        let printed = server.printed();
        let (_, ready) = printed.split_once("ready: address=")?;
        Some(format!("http://{}", ready.split_once(' ')?.0))
    });
    let start = |role: &str| Running::start(role, &program, &[&role, &address], folder.path());
    // Nobody runs it yet.
    let mut client = start("client");
    client.until(|client| client.printed().contains(" runs\n").then_some(()));
    let worker = start("worker");
    let Finished { status, output } = client.finish();
    assert!(status.success(), "the client ended with {status}:\n{output}");
    assert!(output.ends_with("Hello, Tokyo!\nHello, Seattle!\nHello, London!\n"), "{output}");
    let Finished { status, output } = worker.finish();
    assert!(status.success(), "the worker ended with {status}:\n{output}");
    assert_contains(&output, &["The worker runs"]);
}

#[test]
#[cfg(unix)]
fn crash_resume_kills_itself_and_never_repeats_a_finished_step() {
    use std::os::unix::process::ExitStatusExt;

    let example = Example::new("crash_resume");
    let Finished { status, output } = example.run();
    assert_eq!(status.signal(), Some(9), "it ended with {status}:\n{output}");
    assert_contains(&output, &["Starting a journey", "It rests after step 3."]);
    let journal = fs::read_to_string(example.folder.path().join("data/journal.txt")).unwrap();
    assert_eq!(journal.lines().count(), 3, "{journal}");

    let output = example.succeed();
    assert_contains(
        &output,
        &["Found an unfinished journey", "Status: Completed", "Each of the 5 steps was run exactly once."],
    );
    let steps: Vec<_> = output.lines().filter_map(|line| line.strip_prefix("step ")).collect();
    assert_eq!(steps.len(), 5, "{output}");
    let process = |step: &str| step.split_once("process ").unwrap().1.to_owned();
    assert_eq!(process(steps[0]), process(steps[2]), "the first three steps are of the first process");
    assert_eq!(process(steps[3]), process(steps[4]), "the others are of the second");
    assert_ne!(process(steps[2]), process(steps[3]));

    assert_contains(&example.succeed(), &["The journey is finished."]);
}
