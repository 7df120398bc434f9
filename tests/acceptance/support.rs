//! What the groups share: hubs with sessions kept in memory and without, and patience.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use steadfast::{Client, Hub, HubBuilder, HubOptions, InstanceState, StartOptions, TaskHub};
use steadfast_testkit::VirtualClock;

/// No wait is long; this only keeps a lost wake-up from hanging the suite.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} never happened"))
}

/// A hub in memory, with sessions that stay in memory between turns or without: either way everything has the same
/// outcome.
pub(crate) fn hub(extended_sessions: bool) -> HubBuilder {
    TaskHub::in_memory().options(HubOptions { extended_sessions, ..HubOptions::default() })
}

/// The same with a clock that the test moves.
pub(crate) fn hub_with_clock(extended_sessions: bool) -> (HubBuilder, VirtualClock) {
    let clock = VirtualClock::default();
    (hub(extended_sessions).clock(Arc::new(clock.clone())), clock)
}

/// Start options with an id.
pub(crate) fn with_id(id: &str) -> StartOptions {
    StartOptions { instance_id: Some(id.to_owned()), ..StartOptions::default() }
}

/// Waits until the instance has ended.
pub(crate) async fn end_of(client: &Client, id: &str) -> InstanceState {
    soon("the end", client.wait_for_completion(id, None)).await.unwrap()
}

/// Waits until the instance's state is as wished. What it waits for is a fact that no call waits for, such as a custom
/// status.
pub(crate) async fn until(
    client: &Client,
    id: &str,
    wished: impl Fn(&InstanceState) -> bool,
) -> InstanceState {
    let look = async {
        loop {
            let state = client.state(id).await.unwrap();
            if wished(&state) {
                return state;
            }
            tokio::task::yield_now().await;
        }
    };
    soon("the wished state", look).await
}

pub(crate) async fn stop(hub: Hub) {
    soon("the stop", hub.stop()).await.unwrap();
}

/// Makes two tests of one: with sessions that stay in memory, and without.
macro_rules! with_and_without_sessions {
    ($($(#[$meta:meta])* async fn $name:ident($sessions:ident: bool) $body:block)*) => {
        $(
            mod $name {
                use super::*;

                async fn run($sessions: bool) $body

                $(#[$meta])*
                #[tokio::test(flavor = "multi_thread")]
                async fn with_extended_sessions() {
                    run(true).await;
                }

                $(#[$meta])*
                #[tokio::test(flavor = "multi_thread")]
                async fn without_extended_sessions() {
                    run(false).await;
                }
            }
        )*
    };
}
pub(crate) use with_and_without_sessions;
