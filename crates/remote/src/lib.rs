//! Task hubs that are served elsewhere: a client that starts instances there and talks to them, and a worker that runs their
//! code here.
//!
//! Code is written and registered as for a hub in this process, and clients have the same methods, types and errors. Only how a
//! program connects differs:
//!
//! ```no_run
//! use steadfast_core::Error;
//! use steadfast_core::model::{ActivityContext, ActivityName, OrchestrationContext, activity, orchestration};
//! use steadfast_remote::{Client, Worker};
//!
//! const GREET: ActivityName<String, String> = ActivityName::new("greet");
//!
//! # async fn example() -> Result<(), Error> {
//! let hello = orchestration("hello", |ctx: OrchestrationContext, name: String| async move {
//!     Ok::<_, Error>(ctx.call(GREET, name).await?)
//! });
//! let greet = activity("greet", |_: ActivityContext, name: String| async move {
//!     Ok::<_, Error>(format!("Hello, {name}!"))
//! });
//! let handle = hello.handle();
//! let worker = Worker::builder("http://127.0.0.1:4001").register(hello).register(greet).start().await?;
//! let client = Client::connect("http://127.0.0.1:4001").await?;
//! let greeting = client.start(handle, "Tokyo".to_owned()).await?.result().await?;
//! worker.stop().await;
//! # Ok(()) }
//! ```
//!
//! Both come back after a server that was away, and lose nothing: what waits there waits on, and what was under way is done again.
//! This crate must not know which store a hub has, or how one is configured.

mod address;
mod batched;
mod calls;
mod client;
mod connection;
mod error;
mod tls;
mod worker;

pub use address::{Server, TlsOptions};
pub use client::{Client, Run};
pub use error::ConnectError;
pub use worker::{Protocol, Worker, WorkerBuilder};
