//! Runs the suites in `tests/interop` with the real SDKs for Python and JavaScript against the binary, and the examples
//! for both. The SDKs are installed into the target folder, once for each state of their lock files.
//!
//! Without an interpreter or without a way to install the SDKs a suite is skipped, and says so. With
//! `STEADFAST_REQUIRE_INTEROP=1` that is a failure.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock};

use tempfile::TempDir;

/// Set by CI: a suite that cannot be run has failed.
const REQUIRE: &str = "STEADFAST_REQUIRE_INTEROP";
const BINARY: &str = env!("CARGO_BIN_EXE_steadfast");

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().and_then(Path::parent).unwrap()
}

/// Where everything goes that is installed or written.
fn scratch() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop")
}

/// Tells what the tests' own output would hide: that of tests that pass is not shown.
fn say(text: &str) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    let mut stdout = io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// What a program printed, and how it ended.
struct Finished {
    status: ExitStatus,
    output: String,
}

/// Runs a program with both of its outputs in one.
fn finish(command: &mut Command) -> io::Result<Finished> {
    let (mut reader, writer) = io::pipe()?;
    let mut child = command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // The command holds the writing ends, and the pipe ends when all of them are closed.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut output = Vec::new();
    io::Read::read_to_end(&mut reader, &mut output)?;
    Ok(Finished { status: child.wait()?, output: String::from_utf8_lossy(&output).into_owned() })
}

/// Runs one step of an installation; what it printed explains a failure.
fn step(command: &mut Command) -> Result<String, String> {
    let what = format!("{command:?}");
    match finish(command) {
        Ok(Finished { status, output }) if status.success() => Ok(output),
        Ok(Finished { status, output }) => Err(format!("{what} ended with {status}:\n{output}")),
        Err(error) => Err(format!("{what}: {error}")),
    }
}

/// Installs into a folder unless what is there was made for the same `recipe`.
fn installed(
    name: &str,
    recipe: &str,
    install: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let folder = scratch().join(name);
    let made_for = folder.join("made-for");
    if fs::read_to_string(&made_for).is_ok_and(|made_for| made_for == recipe) {
        return Ok(folder);
    }
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    install(&folder)?;
    fs::write(made_for, recipe).unwrap();
    Ok(folder)
}

/// A Python that has the SDK and pytest, or why there is none.
fn python() -> Result<&'static Path, &'static str> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let python = PYTHON.get_or_init(|| {
        let requirements = root().join("tests/interop/python/requirements.txt");
        let version = step(Command::new("python3").args([
            "-c",
            "import sys; assert sys.version_info >= (3, 11), 'Python 3.11 is needed'; print(sys.version, sys.base_prefix)",
        ]))?;
        let recipe = format!("{version}{}", fs::read_to_string(&requirements).unwrap());
        let folder = installed("python", &recipe, |folder| {
            step(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
            step(
                Command::new(folder.join("bin/python"))
                    .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r"])
                    .arg(&requirements),
            )
            .map(drop)
        })?;
        Ok(folder.join("bin/python"))
    });
    python.as_deref().map_err(String::as_str)
}

/// The folder of modules in which the SDK for JavaScript is, or why there is none.
fn node_modules() -> Result<&'static Path, &'static str> {
    static MODULES: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let modules = MODULES.get_or_init(|| {
        let suite = root().join("tests/interop/javascript");
        let version = step(Command::new("node").arg("--version"))?;
        let files = ["package.json", "package-lock.json", ".npmrc"];
        let contents = files.map(|file| fs::read_to_string(suite.join(file)).unwrap());
        let folder = installed("javascript", &format!("{version}{}", contents.concat()), |folder| {
            for file in files {
                fs::copy(suite.join(file), folder.join(file)).unwrap();
            }
            step(Command::new("npm").args(["ci", "--no-progress"]).current_dir(folder)).map(drop)
        })?;
        Ok(folder.join("node_modules"))
    });
    modules.as_deref().map_err(String::as_str)
}

/// What is needed to run a suite; none is a skip that is told, or a failure where suites are required.
fn needed<'a>(what: &str, found: Result<&'a Path, &str>) -> Option<&'a Path> {
    match found {
        Ok(found) => Some(found),
        Err(why) if env::var_os(REQUIRE).is_some_and(|value| !value.is_empty() && value != "0") => {
            panic!("{what} cannot be run, and {REQUIRE} is set: {why}")
        }
        Err(why) => {
            say(&format!(
                "\nskipped: {what} cannot be run: {why}\nSet {REQUIRE}=1 to make this a failure.\n"
            ));
            None
        }
    }
}

/// Runs a suite and shows what it prints.
fn run_suite(what: &str, command: &mut Command) {
    let Finished { status, output } = finish(command.env("STEADFAST_BINARY", BINARY)).unwrap();
    say(&format!("\n---- {what} ----\n{output}\n"));
    assert!(status.success(), "{what} ended with {status}; its output is above");
}

#[test]
fn the_python_sdk_works_with_the_server() {
    let what = "the suite of the Python SDK";
    let Some(python) = needed(what, python()) else { return };
    fs::create_dir_all(scratch()).unwrap();
    run_suite(
        what,
        Command::new(python)
            .args(["-m", "pytest", "--quiet", "--durations=10", "--basetemp"])
            .arg(scratch().join("pytest"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(root().join("tests/interop/python")),
    );
}

#[test]
fn the_javascript_sdk_works_with_the_server() {
    let what = "the suite of the JavaScript SDK";
    let Some(modules) = needed(what, node_modules()) else { return };
    run_suite(
        what,
        Command::new("node")
            .args(["--test", "--test-reporter=spec", "--test-concurrency=1", "--test-timeout=300000"])
            .env("NODE_PATH", modules)
            .current_dir(root().join("tests/interop/javascript")),
    );
}

/// A server for an example.
struct Server {
    process: Child,
    address: String,
    _folder: TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Command::new(BINARY)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
        let address =
            address.unwrap_or_else(|| panic!("the first line tells the address: {line:?}")).to_owned();
        Self { process, address, _folder: folder }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An example as its README says it is run: the server first, then the script; and the client with a worker beside it.
fn run_example(command: impl Fn(&str) -> Command) {
    let server = Server::start();
    let at_server = |script: &str| {
        let mut command = command(script);
        command.env("STEADFAST_ADDRESS", &server.address);
        command
    };
    let Finished { status, output } = finish(&mut at_server("hello")).unwrap();
    assert!(status.success(), "hello ended with {status}:\n{output}");
    assert!(output.contains("Hello, Tokyo!") && output.contains("Hello, London!"), "{output}");

    let mut worker =
        at_server("worker").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let finished = finish(&mut at_server("client"));
    let _ = worker.kill();
    let _ = worker.wait();
    let Finished { status, output } = finished.unwrap();
    assert!(status.success(), "client ended with {status}:\n{output}");
    assert!(output.contains("paid") && output.contains("rejected"), "{output}");
}

#[test]
fn the_python_examples_run() {
    let Some(python) = needed("the Python examples", python()) else { return };
    run_example(|script| {
        let mut command = Command::new(python);
        command.arg(root().join("examples/python").join(script).with_extension("py"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    });
}

#[test]
fn the_javascript_examples_run() {
    let Some(modules) = needed("the JavaScript examples", node_modules()) else { return };
    run_example(|script| {
        let mut command = Command::new("node");
        command.arg(root().join("examples/javascript").join(script).with_extension("js"));
        command.env("NODE_PATH", modules);
        command
    });
}
