//! The settings of a server: flags, environment and file are one list, under the same names.

mod effective;
mod sources;
pub(crate) mod units;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

pub(crate) use effective::{Config, ConfigError, DATA_DIR};
pub(crate) use sources::{Layers, Sources};
use units::{Size, Time};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the settings file is.
#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// A TOML file with settings, under the names of the flags: `listen = ["localhost:4001"]`. Flags and the environment
    /// go before it.
    #[arg(long, env = "STEADFAST_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Declares the settings once: the flag, its variable in the environment and its key in the file have one name.
macro_rules! settings {
    ($($(#[doc = $doc:literal])+ #[arg($($arg:tt)*)] $name:ident: $type:ty,)*) => {
        /// What was set in one place. Nothing has a default here.
        #[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
        pub(crate) struct Settings {
            $($(#[doc = $doc])+ #[arg(long, $($arg)*)] pub(crate) $name: Option<$type>,)*
        }

        impl Settings {
            /// The names of all settings, as fields are called.
            pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// These, and those of `others` that are not set here.
            pub(crate) fn or(self, others: Self) -> Self {
                Self { $($name: self.$name.or(others.$name)),* }
            }
        }
    };
}

settings! {
    /// The folder of all task hubs; it is created if there is none. One server at a time can use it [default:
    /// steadfast-data]
    #[arg(env = "STEADFAST_DATA_DIR", value_name = "DIR", help_heading = "Hubs")]
    data_dir: PathBuf,
    /// The task hub of calls that name none (SDKs name one in the metadata `taskhub`). It is created if there is none
    /// [default: default]
    #[arg(env = "STEADFAST_DEFAULT_HUB", value_name = "NAME", help_heading = "Hubs")]
    default_hub: String,
    /// Create the other hubs that calls name, too. Without it a call for a hub that does not exist gets NOT_FOUND, and
    /// hubs are made by `steadfast hub create` or the rpc CreateTaskHub [default: false]
    #[arg(
        env = "STEADFAST_CREATE_HUBS", value_name = "BOOL", help_heading = "Hubs",
        num_args = 0..=1, require_equals = true, default_missing_value = "true"
    )]
    create_hubs: bool,
    /// How many hubs may be open at once; one is open from its first call on [default: 64]
    #[arg(env = "STEADFAST_HUBS_MAX", value_name = "COUNT", help_heading = "Hubs")]
    hubs_max: usize,
    /// How many partitions a new hub gets: as many cores can work for it. It cannot be changed later [default: 4]
    #[arg(env = "STEADFAST_PARTITIONS", value_name = "COUNT", help_heading = "Hubs")]
    partitions: u16,
    /// Where to listen, as host:port; several times, or separated by commas. `localhost` is 127.0.0.1 and ::1. Port 0
    /// is one that is free, which is printed [default: localhost:4001]
    #[arg(env = "STEADFAST_LISTEN", value_name = "ADDRESS", value_delimiter = ',', help_heading = "Network")]
    listen: Vec<String>,
    /// Serve other machines although no tokens and no client certificates are asked for: whoever reaches the port can
    /// do everything [default: false]
    #[arg(
        env = "STEADFAST_ALLOW_UNAUTHENTICATED", value_name = "BOOL", help_heading = "Network",
        num_args = 0..=1, require_equals = true, default_missing_value = "true"
    )]
    allow_unauthenticated: bool,
    /// The server's certificate and those between it and its authority, as PEM. With it, only TLS is spoken
    #[arg(env = "STEADFAST_TLS_CERT", value_name = "FILE", help_heading = "Network")]
    tls_cert: PathBuf,
    /// The private key of the certificate, as PEM
    #[arg(env = "STEADFAST_TLS_KEY", value_name = "FILE", help_heading = "Network")]
    tls_key: PathBuf,
    /// The authorities that sign clients, as PEM. With it, only clients with a certificate of theirs can connect
    #[arg(env = "STEADFAST_TLS_CLIENT_CA", value_name = "FILE", help_heading = "Network")]
    tls_client_ca: PathBuf,
    /// The hashed tokens of callers and what each may do, a line each, as `steadfast token new` prints them. With it,
    /// every call needs one. The file is read again on SIGHUP, and when it has changed
    #[arg(env = "STEADFAST_TOKEN_FILE", value_name = "FILE", help_heading = "Network")]
    token_file: PathBuf,
    /// Describe the methods to whoever asks (gRPC reflection) [default: true]
    #[arg(
        env = "STEADFAST_REFLECTION", value_name = "BOOL", help_heading = "Network",
        num_args = 0..=1, require_equals = true, default_missing_value = "true"
    )]
    reflection: bool,
    /// How many connections may be open [default: 20000]
    #[arg(env = "STEADFAST_CONNECTIONS_MAX", value_name = "COUNT", help_heading = "Limits")]
    connections_max: usize,
    /// How many calls may be under way on one connection, waits included; further ones wait at the client [default:
    /// 20000]
    #[arg(env = "STEADFAST_CALLS_PER_CONNECTION_MAX", value_name = "COUNT", help_heading = "Limits")]
    calls_per_connection_max: u32,
    /// How many calls may be under way at all, waits included; further ones get RESOURCE_EXHAUSTED [default: 100000]
    #[arg(env = "STEADFAST_CALLS_MAX", value_name = "COUNT", help_heading = "Limits")]
    calls_max: usize,
    /// How many workers may be connected; further ones get RESOURCE_EXHAUSTED [default: 2000]
    #[arg(env = "STEADFAST_WORKER_STREAMS_MAX", value_name = "COUNT", help_heading = "Limits")]
    worker_streams_max: usize,
    /// The largest message that is taken, with all its payloads: bytes, or with KiB, MiB, GiB [default: 64MiB]
    #[arg(env = "STEADFAST_MESSAGE_SIZE_MAX", value_name = "SIZE", help_heading = "Limits")]
    message_size_max: Size,
    /// The largest single payload (input, result, event): bytes, or with KiB, MiB, GiB [default: 16MiB]
    #[arg(env = "STEADFAST_PAYLOAD_SIZE_MAX", value_name = "SIZE", help_heading = "Limits")]
    payload_size_max: Size,
    /// How long a new connection may take until it speaks HTTP/2: ms, s, m or h [default: 10s]
    #[arg(env = "STEADFAST_GREETING_TIMEOUT", value_name = "TIME", help_heading = "Limits")]
    greeting_timeout: Time,
    /// How many bytes the messages may have together that have begun to come and are not there yet; further ones get
    /// RESOURCE_EXHAUSTED. At least message-size-max: bytes, or with KiB, MiB, GiB [default: 256MiB]
    #[arg(env = "STEADFAST_RECEIVING_SIZE_MAX", value_name = "SIZE", help_heading = "Limits")]
    receiving_size_max: Size,
    /// How long a message may take that has begun to come, and again for each MiB of it; what takes longer gets
    /// DEADLINE_EXCEEDED: ms, s, m or h [default: 30s]
    #[arg(env = "STEADFAST_MESSAGE_TIMEOUT", value_name = "TIME", help_heading = "Limits")]
    message_timeout: Time,
    /// How often a silent connection is asked whether somebody is there: ms, s, m or h [default: 1m]
    #[arg(env = "STEADFAST_KEEPALIVE_INTERVAL", value_name = "TIME", help_heading = "Limits")]
    keepalive_interval: Time,
    /// How long calls, and then the work that workers have begun, may take to end when the server is told to stop: ms, s,
    /// m or h [default: 10s]
    #[arg(env = "STEADFAST_DRAIN_TIMEOUT", value_name = "TIME", help_heading = "Limits")]
    drain_timeout: Time,
    /// Let Rust workers speak the extension of the protocol that is made for them; without it they speak the standard
    /// protocol, as SDKs do [default: true]
    #[arg(
        env = "STEADFAST_WORKER_EXTENSION", value_name = "BOOL", help_heading = "Workers",
        num_args = 0..=1, require_equals = true, default_missing_value = "true"
    )]
    worker_extension: bool,
    /// How many items of each kind a worker gets at once that does not say how many it takes [default: 100]
    #[arg(env = "STEADFAST_WORKER_DEFAULT_PLACES", value_name = "COUNT", help_heading = "Workers")]
    worker_default_places: usize,
    /// How long a worker may take for a turn of an orchestration before another one gets it as well: ms, s, m or h
    /// [default: 5m]
    #[arg(env = "STEADFAST_WORKER_ORCHESTRATION_LEASE", value_name = "TIME", help_heading = "Workers")]
    worker_orchestration_lease: Time,
    /// How long a worker may take for a batch of an entity's operations: ms, s, m or h [default: 30m]
    #[arg(env = "STEADFAST_WORKER_ENTITY_LEASE", value_name = "TIME", help_heading = "Workers")]
    worker_entity_lease: Time,
    /// How long a worker may take for an activity before it is run a second time: ms, s, m or h [default: 12h]
    #[arg(env = "STEADFAST_WORKER_ACTIVITY_LEASE", value_name = "TIME", help_heading = "Workers")]
    worker_activity_lease: Time,
    /// How long the activities and entities of a worker that is gone wait for it, before others get them: ms, s, m or h
    /// [default: 2s]
    #[arg(env = "STEADFAST_WORKER_DISCONNECT_GRACE", value_name = "TIME", help_heading = "Workers")]
    worker_disconnect_grace: Time,
    /// How long an item that a worker gave back waits before the same worker gets it again; it doubles each time: ms, s, m
    /// or h [default: 1s]
    #[arg(env = "STEADFAST_WORKER_ABANDON_DELAY", value_name = "TIME", help_heading = "Workers")]
    worker_abandon_delay: Time,
    /// The longest such wait: ms, s, m or h [default: 1m]
    #[arg(env = "STEADFAST_WORKER_ABANDON_DELAY_MAX", value_name = "TIME", help_heading = "Workers")]
    worker_abandon_delay_max: Time,
    /// What is logged, to stderr: off, error, warn, info, debug or trace, also by target: `steadfast=info` logs
    /// every step of every instance [default: warn,steadfast::server=info]
    #[arg(env = "STEADFAST_LOG", value_name = "FILTER", help_heading = "Log")]
    log: String,
    /// How it is logged [default: text]
    #[arg(env = "STEADFAST_LOG_FORMAT", value_name = "FORMAT", help_heading = "Log")]
    log_format: LogFormat,
}

/// Whether only this machine reaches the address.
pub(crate) fn is_local(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
