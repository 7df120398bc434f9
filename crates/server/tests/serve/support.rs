//! The real binary in a folder of its own, on a free port of this machine, and clients that are connected to it.

use std::future::Future;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use steadfast_grpc::wire;
use steadfast_grpc::wire::task_hub_sidecar_service_client::TaskHubSidecarServiceClient;
use tempfile::TempDir;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// No wait in these tests is long; this only keeps a lost wake-up from hanging the suite.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that must happen.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens")
}

/// The binary, without settings from outside.
pub(crate) fn steadfast(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// Runs a command that ends by itself.
pub(crate) fn run(arguments: &[&str]) -> Output {
    steadfast(arguments).output().unwrap()
}

/// What it printed, after it succeeded.
pub(crate) fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// It failed, and said these words.
pub(crate) fn assert_complains(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in words {
        assert!(text.contains(word), "{text} does not say {word:?}");
    }
}

/// A running server. Dropping it kills the process.
pub(crate) struct Server {
    child: Child,
    /// The line that says that it is ready.
    pub(crate) ready: String,
    pub(crate) addresses: Vec<SocketAddr>,
    log: Option<JoinHandle<String>>,
    folder: TempDir,
}

impl Server {
    /// Serves a new data folder on a free port of 127.0.0.1.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// Serves the data folder `data` in this folder.
    pub(crate) fn start_in(folder: TempDir, arguments: &[&str]) -> Self {
        let data = folder.path().join("data");
        let mut command = steadfast(&["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(&data).args(arguments);
        Self::spawn(folder, command)
    }

    /// Runs the command, and waits until it is ready.
    pub(crate) fn spawn(folder: TempDir, mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let addresses = ready.split(' ').find_map(|word| word.strip_prefix("address="));
        let Some(addresses) = addresses else {
            panic!("the server does not start: {}", log.join().unwrap());
        };
        let addresses = addresses.split(',').map(|address| address.parse().unwrap()).collect();
        Self { child, ready, addresses, log: Some(log), folder }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has ended: how, its log, and its folder.
    pub(crate) fn wait(mut self) -> (ExitStatus, String, TempDir) {
        let status = self.child.wait().unwrap();
        let log = self.log.take().unwrap().join().unwrap();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        (status, log, folder)
    }

    /// [`Self::wait`], while clients of this test go on.
    pub(crate) async fn ended(self) -> (ExitStatus, String, TempDir) {
        soon(tokio::task::spawn_blocking(|| self.wait())).await.unwrap()
    }

    /// Stops it in good order: its log and its folder.
    pub(crate) fn stop_now(self) -> (String, TempDir) {
        self.signal(Signal::TERM);
        let (status, log, folder) = self.wait();
        assert!(status.success(), "{status}: {log}");
        (log, folder)
    }

    /// [`Self::stop_now`], while clients of this test go on.
    pub(crate) async fn stop(self) -> (String, TempDir) {
        soon(tokio::task::spawn_blocking(|| self.stop_now())).await.unwrap()
    }

    /// A connection of its own to the first address.
    pub(crate) async fn channel(&self) -> Channel {
        soon(self.endpoint("http").connect()).await.unwrap()
    }

    pub(crate) fn endpoint(&self, scheme: &str) -> Endpoint {
        let port = self.addresses[0].port();
        let host =
            if scheme == "https" { "localhost".to_owned() } else { self.addresses[0].ip().to_string() };
        Endpoint::from_shared(format!("{scheme}://{host}:{port}")).unwrap()
    }

    /// A client of the default hub.
    pub(crate) async fn client(&self) -> Client {
        client(self.channel().await, "", "")
    }

    /// A client of a hub, on a connection of its own.
    pub(crate) async fn client_of(&self, hub: &str) -> Client {
        client(self.channel().await, hub, "")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) type Client = TaskHubSidecarServiceClient<InterceptedService<Channel, Caller>>;

/// Says for which hub a call is, and who makes it.
#[derive(Clone)]
pub(crate) struct Caller {
    hub: Option<MetadataValue<Ascii>>,
    token: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(hub) = &self.hub {
            request.metadata_mut().insert("taskhub", hub.clone());
        }
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// A client on a connection; an empty hub or token is not sent.
pub(crate) fn client(channel: Channel, hub: &str, token: &str) -> Client {
    let hub = (!hub.is_empty()).then(|| hub.parse().unwrap());
    let token = (!token.is_empty()).then(|| format!("Bearer {token}").parse().unwrap());
    TaskHubSidecarServiceClient::with_interceptor(channel, Caller { hub, token })
}

/// An instance that nobody starts. Who waits for it waits as long as the server lets him.
pub(crate) const NEVER: &str = "never";

/// Starts an instance as SDKs do. There is no code to run it.
pub(crate) async fn start(client: &mut Client, id: &str) -> Result<(), Status> {
    let (instance_id, name) = (id.to_owned(), "anything".to_owned());
    let request = wire::CreateInstanceRequest { instance_id, name, ..Default::default() };
    soon(client.start_instance(request)).await.map(|_| ())
}

pub(crate) fn get(id: &str) -> wire::GetInstanceRequest {
    wire::GetInstanceRequest { instance_id: id.to_owned(), get_inputs_and_outputs: true }
}

pub(crate) async fn exists(client: &mut Client, id: &str) -> bool {
    soon(client.get_instance(get(id))).await.unwrap().into_inner().exists
}

pub(crate) async fn create_hub(client: &mut Client, recreate_if_exists: bool) -> Result<(), Status> {
    soon(client.create_task_hub(wire::CreateTaskHubRequest { recreate_if_exists })).await.map(|_| ())
}

/// The call was refused with this code and a text that holds the words.
pub(crate) fn assert_refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, words: &[&str]) {
    let status = outcome.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    for word in words {
        assert!(status.message().contains(word), "{status} does not say {word:?}");
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
