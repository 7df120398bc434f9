//! The connections of a worker, one after the other, over whichever protocol the server speaks.

use std::sync::Arc;

use tokio::sync::watch;
use tonic::{Code, Status};

use super::extended::Extended;
use super::profile::Profile;
use super::standard::Standard;
use super::under_way::UnderWay;
use super::{Protocol, Shared, TARGET};
use crate::calls::{pauses, problem};

/// Works until it is told to stop, through as many connections as are necessary.
pub(super) async fn work(
    shared: Arc<Shared>,
    profile: Profile,
    protocol: Protocol,
    mut stopping: watch::Receiver<bool>,
) {
    let under_way = UnderWay::default();
    let standard = Standard::new(shared.clone(), under_way.clone());
    let extended = Extended::new(shared, under_way.clone());
    let mut pauses = pauses();
    while !*stopping.borrow() {
        let worked = async {
            match protocol {
                Protocol::Standard => work_standard(&standard, &profile, &mut stopping).await,
                Protocol::Negotiated => match work_extended(&extended, &profile, &mut stopping).await {
                    Ended::NotSpoken(status) => {
                        tracing::info!(target: TARGET, worker = profile.name, reason = status.message(), "the server does not speak the extension; the worker speaks the standard protocol");
                        work_standard(&standard, &profile, &mut stopping).await
                    }
                    ended => ended,
                },
            }
        };
        let (status, was_connected) = match worked.await {
            Ended::Stopped => break,
            Ended::Lost(status) => (status, true),
            Ended::NotConnected(status) | Ended::NotSpoken(status) => (status, false),
        };
        if was_connected {
            pauses = crate::calls::pauses();
        }
        let (pause, problem) = (pauses.next().unwrap_or_default(), problem(&status));
        tracing::warn!(target: TARGET, worker = profile.name, code = ?status.code(), problem, ?pause, "the worker has no connection, and tries again");
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    under_way.idle().await;
}

/// How a connection ended.
enum Ended {
    /// The worker was told to stop, and did what it had begun.
    Stopped,
    /// There was one.
    Lost(Status),
    /// There was none.
    NotConnected(Status),
    /// The server does not speak this protocol.
    NotSpoken(Status),
}

async fn work_standard(
    standard: &Standard,
    profile: &Profile,
    stopping: &mut watch::Receiver<bool>,
) -> Ended {
    let connected = tokio::select! {
        _ = stopping.wait_for(|stopping| *stopping) => return Ended::Stopped,
        connected = standard.connect(profile) => connected,
    };
    let mut items = match connected {
        Ok(items) => items,
        Err(status) => return Ended::NotConnected(status),
    };
    tracing::info!(target: TARGET, worker = profile.name, "the worker is connected");
    tokio::select! {
        // Each result is a call of its own, so the stream can go first.
        _ = stopping.wait_for(|stopping| *stopping) => Ended::Stopped,
        status = standard.take(&mut items) => Ended::Lost(status),
    }
}

async fn work_extended(
    extended: &Extended,
    profile: &Profile,
    stopping: &mut watch::Receiver<bool>,
) -> Ended {
    let connected = tokio::select! {
        _ = stopping.wait_for(|stopping| *stopping) => return Ended::Stopped,
        connected = extended.connect(profile) => connected,
    };
    let mut connected = match connected {
        Ok(connected) => connected,
        Err(status) if matches!(status.code(), Code::Unimplemented | Code::FailedPrecondition) => {
            return Ended::NotSpoken(status);
        }
        Err(status) => return Ended::NotConnected(status),
    };
    tracing::info!(target: TARGET, worker = profile.name, "the worker is connected by the extension");
    let status = tokio::select! {
        _ = stopping.wait_for(|stopping| *stopping) => None,
        status = extended.take(&mut connected) => Some(status),
    };
    match status {
        Some(status) => Ended::Lost(status),
        None => {
            extended.leave(&mut connected).await;
            Ended::Stopped
        }
    }
}
