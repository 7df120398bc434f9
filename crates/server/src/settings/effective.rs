//! The settings as they count: defaults filled in, and checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use steadfast_engine::WorkersOptions;
use steadfast_grpc::{HubName, InvalidHubName, Limits, ServeOptions, TlsFiles};
use tracing_subscriber::filter::Targets;

use super::units::{Size, Time};
use super::{LogFormat, Settings};

/// Settings that cannot be used. Each text says what to change.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("the settings file {path:?} cannot be read")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the settings file {path:?} cannot be used: {problem}")]
    File { path: PathBuf, problem: String },
    #[error("default-hub: {0}")]
    DefaultHub(InvalidHubName),
    #[error("{name} is 0, and then nothing could ever be done; it is at least 1")]
    Zero { name: &'static str },
    #[error("{name} is less than {least}; it is at least as much")]
    Less { name: &'static str, least: &'static str },
    #[error("{name} is missing: {because}")]
    Missing { name: &'static str, because: &'static str },
    #[error(
        "log: {text:?} is no filter; write a level (off, error, warn, info, debug, trace), or such as 'warn,steadfast=debug'"
    )]
    LogFilter { text: String },
    #[error("listen names no address; give one, such as localhost:4001")]
    NoAddress,
}

/// A server's settings, complete and consistent.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) default_hub: HubName,
    pub(crate) create_hubs: bool,
    pub(crate) hubs_max: usize,
    pub(crate) partitions: u16,
    pub(crate) payload_bytes_max: usize,
    pub(crate) listen: Vec<String>,
    pub(crate) allow_unauthenticated: bool,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) serve: ServeOptions,
    pub(crate) workers: WorkersOptions,
    pub(crate) log: Targets,
    pub(crate) log_format: LogFormat,
}

/// The data folder of who says nothing.
pub(crate) const DATA_DIR: &str = "steadfast-data";

impl Settings {
    /// What counts where nothing is set. Files are only used if they are named.
    pub(crate) fn defaults() -> Self {
        let serve = ServeOptions::default();
        let limits = serve.limits;
        let workers = WorkersOptions::default();
        let seconds = |count| Some(Time(Duration::from_secs(count)));
        Self {
            data_dir: Some(Path::new(DATA_DIR).to_owned()),
            default_hub: Some("default".to_owned()),
            create_hubs: Some(false),
            hubs_max: Some(64),
            partitions: Some(4),
            listen: Some(vec!["localhost:4001".to_owned()]),
            allow_unauthenticated: Some(false),
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            token_file: None,
            reflection: Some(serve.reflection),
            connections_max: Some(limits.connections),
            calls_per_connection_max: Some(limits.calls_per_connection),
            calls_max: Some(limits.calls),
            worker_streams_max: Some(limits.worker_streams),
            message_size_max: Some(Size(limits.message_bytes)),
            payload_size_max: Some(Size(16 << 20)),
            receiving_size_max: Some(Size(limits.receiving_bytes)),
            message_timeout: Some(Time(serve.message_timeout)),
            greeting_timeout: Some(Time(serve.greeting_timeout)),
            keepalive_interval: Some(Time(serve.keepalive_interval)),
            drain_timeout: seconds(10),
            worker_extension: Some(serve.worker_extension),
            worker_default_places: Some(workers.default_places),
            worker_orchestration_lease: Some(Time(workers.orchestration_lease)),
            worker_entity_lease: Some(Time(workers.entity_lease)),
            worker_activity_lease: Some(Time(workers.activity_lease)),
            worker_disconnect_grace: Some(Time(workers.disconnect_grace)),
            worker_abandon_delay: Some(Time(workers.abandon_delay)),
            worker_abandon_delay_max: Some(Time(workers.abandon_delay_max)),
            log: Some("warn,steadfast::server=info".to_owned()),
            log_format: Some(LogFormat::Text),
        }
    }

    /// Fills in the defaults and checks.
    pub(crate) fn complete(self) -> Result<Config, ConfigError> {
        let default = ServeOptions::default();
        let Self {
            data_dir,
            default_hub,
            create_hubs,
            hubs_max,
            partitions,
            listen,
            allow_unauthenticated,
            tls_cert,
            tls_key,
            tls_client_ca,
            token_file,
            reflection,
            connections_max,
            calls_per_connection_max,
            calls_max,
            worker_streams_max,
            message_size_max,
            payload_size_max,
            receiving_size_max,
            message_timeout,
            greeting_timeout,
            keepalive_interval,
            drain_timeout,
            worker_extension,
            worker_default_places,
            worker_orchestration_lease,
            worker_entity_lease,
            worker_activity_lease,
            worker_disconnect_grace,
            worker_abandon_delay,
            worker_abandon_delay_max,
            log,
            log_format,
        } = self.or(Self::defaults());
        let listen = listen.unwrap_or_default();
        if listen.is_empty() {
            return Err(ConfigError::NoAddress);
        }
        let log = log.unwrap_or_default();
        let Ok(filter) = log.parse::<Targets>() else {
            return Err(ConfigError::LogFilter { text: log });
        };
        let limits = Limits {
            connections: at_least_one("connections-max", connections_max)?,
            calls_per_connection: at_least_one("calls-per-connection-max", calls_per_connection_max)?,
            calls: at_least_one("calls-max", calls_max)?,
            worker_streams: at_least_one("worker-streams-max", worker_streams_max)?,
            message_bytes: at_least_one("message-size-max", message_size_max.map(|size| size.0))?,
            receiving_bytes: at_least_one("receiving-size-max", receiving_size_max.map(|size| size.0))?,
        };
        if limits.receiving_bytes < limits.message_bytes {
            return Err(ConfigError::Less { name: "receiving-size-max", least: "message-size-max" });
        }
        let time = |time: Option<Time>, otherwise| time.map_or(otherwise, |time| time.0);
        let some_time = |name, time: Option<Time>| at_least_one(name, time.map(|time| time.0));
        let workers = WorkersOptions {
            default_places: at_least_one("worker-default-places", worker_default_places)?,
            orchestration_lease: some_time("worker-orchestration-lease", worker_orchestration_lease)?,
            entity_lease: some_time("worker-entity-lease", worker_entity_lease)?,
            activity_lease: some_time("worker-activity-lease", worker_activity_lease)?,
            disconnect_grace: time(worker_disconnect_grace, WorkersOptions::default().disconnect_grace),
            abandon_delay: some_time("worker-abandon-delay", worker_abandon_delay)?,
            abandon_delay_max: some_time("worker-abandon-delay-max", worker_abandon_delay_max)?,
        };
        if workers.abandon_delay_max < workers.abandon_delay {
            let (name, least) = ("worker-abandon-delay-max", "worker-abandon-delay");
            return Err(ConfigError::Less { name, least });
        }
        Ok(Config {
            data_dir: data_dir.unwrap_or_default(),
            default_hub: default_hub.unwrap_or_default().parse().map_err(ConfigError::DefaultHub)?,
            create_hubs: create_hubs.unwrap_or_default(),
            hubs_max: at_least_one("hubs-max", hubs_max)?,
            partitions: at_least_one("partitions", partitions)?,
            payload_bytes_max: at_least_one("payload-size-max", payload_size_max.map(|size| size.0))?,
            listen,
            allow_unauthenticated: allow_unauthenticated.unwrap_or_default(),
            tls: tls_files(tls_cert, tls_key, tls_client_ca)?,
            token_file,
            serve: ServeOptions {
                limits,
                greeting_timeout: some_time("greeting-timeout", greeting_timeout)?,
                message_timeout: some_time("message-timeout", message_timeout)?,
                keepalive_interval: some_time("keepalive-interval", keepalive_interval)?,
                drain_timeout: time(drain_timeout, default.drain_timeout),
                reflection: reflection.unwrap_or(default.reflection),
                worker_extension: worker_extension.unwrap_or(default.worker_extension),
            },
            workers,
            log: filter,
            log_format: log_format.unwrap_or(LogFormat::Text),
        })
    }
}

fn at_least_one<T: Default + PartialEq>(name: &'static str, value: Option<T>) -> Result<T, ConfigError> {
    match value {
        Some(value) if value != T::default() => Ok(value),
        _ => Err(ConfigError::Zero { name }),
    }
}

fn tls_files(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_authority: Option<PathBuf>,
) -> Result<Option<TlsFiles>, ConfigError> {
    let missing = |name, because| Err(ConfigError::Missing { name, because });
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key, client_authority })),
        (Some(_), None) => {
            missing("tls-key", "a certificate (tls-cert) is of no use without its private key")
        }
        (None, Some(_)) => {
            missing("tls-cert", "a private key (tls-key) is of no use without its certificate")
        }
        (None, None) if client_authority.is_some() => missing(
            "tls-cert",
            "clients can show certificates (tls-client-ca) only to a server that speaks TLS",
        ),
        (None, None) => Ok(None),
    }
}
