//! `steadfast serve`: the hubs of a data folder, served until the process is told to stop.

mod signals;

use std::io::Write;
use std::net::SocketAddr;
use std::process;
use std::sync::Arc;

use steadfast_core::Result;
use steadfast_engine::HubOptions;
use steadfast_grpc::{Access, Listeners, OpenAccess, Tls, TlsFiles, serve, socket_addresses};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::hubs::{DataFolder, HubSettings, OpenHubs};
use crate::logs;
use crate::settings::{Config, is_local};
use crate::tokens::TokenAccess;
use signals::StopSignals;

/// A server that would be open to all.
#[derive(Debug, thiserror::Error)]
#[error(
    "{address} can be reached from other machines, and nobody would have to say who they are; ask for tokens (--token-file) or for \
     client certificates (--tls-client-ca), listen on localhost, or say --allow-unauthenticated"
)]
pub(crate) struct Unauthenticated {
    address: SocketAddr,
}

/// Serves until a signal comes.
pub(crate) fn run(config: Config) -> Result<()> {
    logs::start(config.log.clone(), config.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(until_stopped(config))
}

/// Refuses to let everybody on the network do everything, unless that was asked for.
pub(crate) async fn check_addresses(config: &Config) -> Result<()> {
    let authenticates =
        config.token_file.is_some() || config.tls.as_ref().is_some_and(|tls| tls.client_authority.is_some());
    for address in &config.listen {
        let resolved = socket_addresses(address).await?;
        let public = resolved.into_iter().find(|address| !is_local(address));
        if let Some(address) = public.filter(|_| !authenticates && !config.allow_unauthenticated) {
            return Err(Unauthenticated { address }.into());
        }
    }
    Ok(())
}

async fn until_stopped(config: Config) -> Result<()> {
    let mut stop = StopSignals::install()?;
    let mut reload = signal(SignalKind::hangup())?;
    check_addresses(&config).await?;
    raise_descriptor_limit();
    let tls = config.tls.clone().map(Tls::load).transpose()?;
    let tokens = config.token_file.clone().map(TokenAccess::read).transpose()?.map(Arc::new);
    let folder = DataFolder::take(&config.data_dir)?;
    let listeners = Listeners::bind(&config.listen).await?;
    let hubs = OpenHubs::new(folder, hub_settings(&config));
    hubs.open_default().await?;
    announce(&config, &listeners.addresses()?);

    let (tell, told) = oneshot::channel();
    let access: Arc<dyn Access> = match &tokens {
        Some(tokens) => tokens.clone(),
        None => Arc::new(OpenAccess::default()),
    };
    let served = serve(listeners, tls.clone(), Arc::new(hubs.clone()), access, config.serve, async {
        // Dropping it says the same.
        let _ = told.await;
    });
    let work = async {
        let served = served.await;
        // They are stopped already unless serving failed.
        hubs.stop().await;
        Ok(served?)
    };
    let reloads = async {
        while reload.recv().await.is_some() {
            reload_files(tls.as_ref(), tokens.as_deref());
        }
    };
    let follow = async {
        if let Some(tokens) = &tokens {
            tokens.follow().await;
        }
    };
    let beside = async {
        tokio::join!(reloads, follow);
        std::future::pending::<()>().await;
    };
    let work = async {
        tokio::select! {
            ended = work => ended,
            () = beside => Ok(()),
        }
    };
    tokio::pin!(work);
    tokio::select! {
        ended = &mut work => return ended,
        signal = stop.next() => {
            tracing::info!(target: logs::TARGET, signal = signal.name, "stopping: calls under way may end, a second signal stops at once");
        }
    }
    let _ = tell.send(());
    tokio::select! {
        ended = &mut work => {
            tracing::info!(target: logs::TARGET, "stopped");
            ended
        }
        signal = stop.next() => {
            tracing::warn!(target: logs::TARGET, signal = signal.name, "stopped at once");
            // As a shell says it of a process that a signal ended.
            process::exit(128 + signal.number)
        }
    }
}

/// What SIGHUP asks for.
fn reload_files(tls: Option<&Tls>, tokens: Option<&TokenAccess>) {
    match tls.map(Tls::reload) {
        Some(Ok(())) => tracing::info!(target: logs::TARGET, "certificates read again"),
        Some(Err(error)) => {
            let error = logs::chain(&error);
            tracing::error!(target: logs::TARGET, error, "certificates stay as they were");
        }
        None => {}
    }
    if let Some(tokens) = tokens {
        tokens.reload();
    }
}

fn hub_settings(config: &Config) -> HubSettings {
    HubSettings {
        default_hub: config.default_hub.clone(),
        create: config.create_hubs,
        open_max: config.hubs_max,
        partitions: config.partitions,
        options: HubOptions {
            payload_bytes_max: config.payload_bytes_max,
            stop_timeout: config.serve.drain_timeout,
            ..HubOptions::default()
        },
        workers: config.workers.clone(),
    }
}

/// The one line that a start prints to stdout, once calls are taken: for people, and for programs that look for a port.
fn announce(config: &Config, addresses: &[SocketAddr]) {
    let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
    let line = format!(
        "steadfast {} ready: address={} hub={} store=sled tls={} tokens={} data-dir={}",
        env!("CARGO_PKG_VERSION"),
        addresses.join(","),
        config.default_hub,
        match &config.tls {
            None => "off",
            Some(TlsFiles { client_authority: None, .. }) => "on",
            Some(_) => "mutual",
        },
        if config.token_file.is_some() { "on" } else { "off" },
        config.data_dir.display(),
    );
    tracing::info!(target: logs::TARGET, "{line}");
    let mut stdout = std::io::stdout();
    // Whoever closed it does not want to know.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Each connection takes a descriptor, and the customary limit of 1024 is for programs that use `select`.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(target: logs::TARGET, %error, "the limit of open files stays as it is");
    }
}
