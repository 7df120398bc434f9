//! Durable orchestrations: ordinary `async` code that survives crashes, restarts and months of waiting.
//!
//! An *orchestration* is an `async fn` that coordinates work. An *activity* is an `async fn` that does work. A *task hub*
//! runs them, and writes down each step before the next one begins. When the process stops, for whatever reason, the next
//! one opens the same folder, and every unfinished instance goes on where it was.
//!
//! ```
//! use steadfast::prelude::*;
//!
//! #[activity]
//! async fn greet(_ctx: ActivityContext, city: String) -> Result<String> {
//!     Ok(format!("Hello, {city}!"))
//! }
//!
//! #[orchestration(version = "1.0")]
//! async fn hello_sequence(ctx: OrchestrationContext, cities: Vec<String>) -> Result<Vec<String>> {
//!     let mut greetings = Vec::new();
//!     for city in cities {
//!         greetings.push(ctx.call(greet, city).await?);
//!     }
//!     Ok(greetings)
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<()> {
//! #   let folder = tempfile::tempdir()?;
//! #   let data = folder.path();
//!     let hub = TaskHub::builder(data).register(hello_sequence).register(greet).start().await?;
//!     let run = hub.client().start(hello_sequence, vec!["Tokyo".into(), "Seattle".into()]).await?;
//!     assert_eq!(run.result().await?, ["Hello, Tokyo!", "Hello, Seattle!"]);
//!     hub.stop().await?;
//!     Ok(())
//! }
//! ```
//!
//! The rest of this page is a tour, from one orchestration to a running service. The programs in `examples/` show the
//! same things at work.
//!
//! # Orchestrations are replayed
//!
//! A hub keeps a *history* of events for each instance: this activity was scheduled, that one returned this result. To
//! bring an instance back into memory it runs the code from the start and answers each call from the history, until the
//! code asks for something new. So the code of an orchestration has to be *deterministic*: given the same history, it must
//! ask for the same things in the same order.
//!
//! - The time is [`OrchestrationContext::now`], ids come from [`new_uuid`](OrchestrationContext::new_uuid), random numbers
//!   from [`random`](OrchestrationContext::random). All are equal at each replay.
//! - Files, sockets, other people's futures and sleeps belong into activities.
//! - Log with [`OrchestrationContext::log`], which is silent during replay.
//! - Iterate over ordered collections. The order of a `HashMap` differs from run to run.
//!
//! What goes wrong is found out. Code that disagrees with its history fails with
//! [`NON_DETERMINISM`](failure::kinds::NON_DETERMINISM) and says which event it was, what was expected and what was
//! found. Code that awaits something that is not durable fails with
//! [`NON_DURABLE_AWAIT`](failure::kinds::NON_DURABLE_AWAIT) instead of hanging for ever:
//!
//! ```
//! # use std::time::Duration;
//! # use steadfast::{ClientError, failure, prelude::*};
//! #[orchestration]
//! async fn impatient(_ctx: OrchestrationContext) -> Result<()> {
//!     tokio::time::sleep(Duration::from_secs(1)).await; // wrong: this should be `ctx.timer(..)`
//!     Ok(())
//! }
//! # #[tokio::main]
//! # async fn main() -> Result<()> {
//! # let hub = TaskHub::in_memory().register(impatient).start().await?;
//! let run = hub.client().start(impatient, ()).await?;
//! let Err(ClientError::Failed { details, .. }) = run.result().await else { panic!("it cannot succeed") };
//! assert_eq!(details.error_type, failure::kinds::NON_DURABLE_AWAIT);
//! # hub.stop().await?; Ok(()) }
//! ```
//!
//! # Activities and failures
//!
//! An activity may do anything. It runs *at least once*: one that was under way when the process died is run again, with the
//! same [`idempotency_key`](ActivityContext::idempotency_key). Its result is written down once, and from then on replay
//! answers with it.
//!
//! Functions return [`Result`], whose [`Error`] takes any `std::error::Error` by `?`. An error that an activity returns, and a
//! panic too, reaches the orchestration as a [`TaskError`]. If the orchestration does not handle it, the instance fails with the
//! whole chain as [`FailureDetails`]. Nothing that user code does takes down the hub.
//!
//! ```
//! # use std::time::Duration;
//! # use steadfast::prelude::*;
//! #[activity]
//! async fn charge(_ctx: ActivityContext, cents: u64) -> Result<String> {
//!     match cents {
//!         0 => Err(Error::new("EmptyCharge", "there is nothing to pay").non_retriable()),
//!         _ => Ok(format!("receipt over {cents}")),
//!     }
//! }
//!
//! #[orchestration]
//! async fn pay(ctx: OrchestrationContext, cents: u64) -> Result<String> {
//!     let policy = RetryPolicy::new(5, Duration::from_secs(1))
//!         .backoff(2.0)
//!         .retry_if(|failure| failure.error_type != "CardDeclined");
//!     match ctx.call_with_retry(charge, cents, policy).await {
//!         Ok(receipt) => Ok(receipt),
//!         Err(error) if error.details.error_type == "EmptyCharge" => Ok("free of charge".to_owned()),
//!         Err(error) => Err(error.into()),
//!     }
//! }
//! # #[tokio::main]
//! # async fn main() -> Result<()> {
//! # let hub = TaskHub::in_memory().register(pay).register(charge).start().await?;
//! assert_eq!(hub.client().start(pay, 0).await?.result().await?, "free of charge");
//! # hub.stop().await?; Ok(()) }
//! ```
//!
//! [`call_with`](OrchestrationContext::call_with) takes [`CallOptions`]: a retry policy, timeouts, a priority, tags. A running
//! activity tells how far it has come with [`heartbeat`](ActivityContext::heartbeat), which [`Client::activities`] shows and the
//! next attempt gets, and learns from [`cancelled`](ActivityContext::cancelled) that nobody waits for it any more.
//! [`HubOptions::activity_limits`] bounds how many activities of a name run at once and how often they begin.
//!
//! # Futures compose
//!
//! Every durable operation begins when its method is called, and gives a plain future. Join them, race them, collect them.
//! A race is decided by the order in the history, so it ends the same way at each replay.
//!
//! ```
//! # use steadfast::prelude::*;
//! use futures_util::future::{Either, select, try_join_all};
//! use std::time::Duration;
//!
//! #[activity]
//! async fn square(_ctx: ActivityContext, n: u64) -> Result<u64> {
//!     Ok(n * n)
//! }
//!
//! #[orchestration]
//! async fn sum_of_squares(ctx: OrchestrationContext, upto: u64) -> Result<u64> {
//!     let squares = try_join_all((1..=upto).map(|n| ctx.call(square, n)));
//!     match select(squares, ctx.timer(Duration::from_secs(60))).await {
//!         Either::Left((squares, _timer)) => Ok(squares?.into_iter().sum()),
//!         Either::Right(_) => Err(Error::msg("squaring takes too long")),
//!     }
//! }
//! # #[tokio::main]
//! # async fn main() -> Result<()> {
//! # let hub = TaskHub::in_memory().register(sum_of_squares).register(square).start().await?;
//! assert_eq!(hub.client().start(sum_of_squares, 100).await?.result().await?, 338_350);
//! # hub.stop().await?; Ok(()) }
//! ```
//!
//! Dropping a future gives up interest in its result. A timer that is dropped is cancelled. An activity goes on, and is told.
//!
//! # Timers and events
//!
//! [`timer`](OrchestrationContext::timer) waits on a timer that is on disk: an hour or a year, across restarts.
//! [`wait_for_event`](OrchestrationContext::wait_for_event) waits for something that [`Client::raise_event`] or another
//! orchestration sends. Events that come early are kept. Events of one name are served in the order in which they came.
//!
//! ```
//! # use std::time::Duration;
//! # use steadfast::prelude::*;
//! #[orchestration]
//! async fn approval(ctx: OrchestrationContext, document: String) -> Result<String> {
//!     ctx.set_custom_status("waiting for a decision")?;
//!     match ctx.wait_for_event_timeout::<bool>("decision", Duration::from_secs(3600)).await {
//!         Ok(true) => Ok(format!("{document}: approved")),
//!         Ok(false) => Ok(format!("{document}: rejected")),
//!         Err(_) => Ok(format!("{document}: nobody decided")),
//!     }
//! }
//! # #[tokio::main]
//! # async fn main() -> Result<()> {
//! # let hub = TaskHub::in_memory().register(approval).start().await?;
//! let client = hub.client();
//! let run = client.start(approval, "travel plan".to_owned()).await?;
//! client.raise_event(run.id().as_str(), "decision", &true).await?;
//! assert_eq!(run.result().await?, "travel plan: approved");
//! # hub.stop().await?; Ok(()) }
//! ```
//!
//! # Orchestrations of orchestrations
//!
//! [`call_orchestration`](OrchestrationContext::call_orchestration) runs another orchestration as an instance of its own and
//! awaits its result. [`start_orchestration`](OrchestrationContext::start_orchestration) starts one that nobody awaits.
//! [`raise_event`](OrchestrationContext::raise_event) sends an event from one to another. A large job becomes a tree of
//! instances with short histories.
//!
//! ```
//! # use futures_util::future::try_join_all;
//! # use steadfast::prelude::*;
//! #[activity]
//! async fn resize(_ctx: ActivityContext, picture: String) -> Result<u64> {
//!     Ok(picture.len() as u64)
//! }
//!
//! #[orchestration]
//! async fn album(ctx: OrchestrationContext, pictures: Vec<String>) -> Result<u64> {
//!     let sizes = try_join_all(pictures.into_iter().map(|picture| ctx.call(resize, picture))).await?;
//!     Ok(sizes.into_iter().sum())
//! }
//!
//! #[orchestration]
//! async fn library(ctx: OrchestrationContext, albums: Vec<Vec<String>>) -> Result<u64> {
//!     let sizes = try_join_all(albums.into_iter().map(|it| ctx.call_orchestration(album, it))).await?;
//!     Ok(sizes.into_iter().sum())
//! }
//! # #[tokio::main]
//! # async fn main() -> Result<()> {
//! # let hub = TaskHub::in_memory().register(library).register(album).register(resize).start().await?;
//! let albums = vec![vec!["sea".to_owned(), "sun".to_owned()], vec!["hill".to_owned()]];
//! assert_eq!(hub.client().start(library, albums).await?.result().await?, 10);
//! # hub.stop().await?; Ok(()) }
//! ```
//!
//! # Going on for ever
//!
//! A history grows with each step. An orchestration that lives long ends its execution with
//! [`continue_as_new`](OrchestrationContext::continue_as_new): the next execution of the same instance begins with an empty
//! history and the input that it was given. Events that nobody consumed go along.
//!
//! ```
//! # use steadfast::prelude::*;
//! #[orchestration]
//! async fn count_down(ctx: OrchestrationContext, from: u32) -> Result<String> {
//!     if from > 0 {
//!         ctx.continue_as_new(&(from - 1))?;
//!     }
//!     Ok(format!("done after {} generations", ctx.generation()))
//! }
//! # #[tokio::main]
//! # async fn main() -> Result<()> {
//! # let hub = TaskHub::in_memory().register(count_down).start().await?;
//! let run = hub.client().start(count_down, 100).await?;
//! assert_eq!(run.result().await?, "done after 100 generations");
//! # hub.stop().await?; Ok(()) }
//! ```
//!
//! # The client
//!
//! [`Client`] starts instances and looks after them: [`wait_for_completion`](Client::wait_for_completion),
//! [`state`](Client::state), [`history`](Client::history), [`terminate`](Client::terminate),
//! [`suspend`](Client::suspend), [`resume`](Client::resume), [`query`](Client::query), [`counts`](Client::counts), [`purge`](Client::purge). It is
//! cheap to clone. When a call returns, what it did is on disk. Every [`ClientError`] says what to do.
//!
//! ```
//! # use steadfast::prelude::*;
//! # use steadfast::{ClientError, StartOptions};
//! # #[orchestration]
//! # async fn invoice(ctx: OrchestrationContext, number: u32) -> Result<u32> {
//! #     ctx.wait_for_event::<()>("paid").await?;
//! #     Ok(number)
//! # }
//! # #[tokio::main]
//! # async fn main() -> Result<()> {
//! # let hub = TaskHub::in_memory().register(invoice).start().await?;
//! # let client = hub.client();
//! let options = StartOptions { instance_id: Some("invoice-17".to_owned()), ..StartOptions::default() };
//! let run = client.start_with(invoice, 17, options.clone()).await?;
//!
//! // An id has one live instance.
//! let twice = client.start_with(invoice, 17, options).await;
//! assert!(matches!(twice, Err(ClientError::AlreadyExists { .. })));
//!
//! client.terminate("invoice-17", "written off", true).await?;
//! assert!(matches!(run.result().await, Err(ClientError::Terminated { .. })));
//! # hub.stop().await?; Ok(()) }
//! ```
//!
//! What happens instead of that error is the start's choice: [`StartOptions::reuse`] gives the existing instance, or replaces
//! it, by its status. [`restart`](Client::restart) begins an instance again, and
//! [`purge_recursive`](Client::purge_recursive) removes one with its children.
//!
//! An instance that failed because something outside was broken need not begin again. When that is mended,
//! [`rewind`](Client::rewind) lets it go on from before the failure: what succeeded stays done.
//!
//! ```
//! use std::sync::atomic::{AtomicBool, Ordering};
//! use steadfast::prelude::*;
//!
//! static PRINTER_WORKS: AtomicBool = AtomicBool::new(false);
//!
//! #[activity]
//! async fn print(_ctx: ActivityContext, page: u32) -> Result<u32> {
//!     if PRINTER_WORKS.load(Ordering::Relaxed) { Ok(page) } else { Err(Error::msg("out of paper")) }
//! }
//!
//! #[orchestration]
//! async fn print_all(ctx: OrchestrationContext, pages: u32) -> Result<u32> {
//!     Ok(ctx.call(print, pages).await?)
//! }
//! # #[tokio::main]
//! # async fn main() -> Result<()> {
//! # let hub = TaskHub::in_memory().register(print).register(print_all).start().await?;
//!
//! let run = hub.client().start(print_all, 3).await?;
//! assert!(run.result().await.is_err());
//! PRINTER_WORKS.store(true, Ordering::Relaxed);
//! run.rewind("there is paper again").await?;
//! assert_eq!(run.result().await?, 3);
//! # hub.stop().await?; Ok(()) }
//! ```
//!
//! # Names and versions
//!
//! Histories refer to code by name and version, so code can be moved and renamed in Rust as long as
//! `#[activity(name = "..")]` keeps the recorded name. When the steps of an orchestration change, register the new code under a
//! new version beside the old one. Instances that began with the old version end with it.
//!
//! ```
//! use steadfast::prelude::*;
//!
//! #[orchestration(name = "greeting", version = "1")]
//! async fn greeting_v1(_ctx: OrchestrationContext, name: String) -> Result<String> {
//!     Ok(format!("Hello, {name}."))
//! }
//!
//! #[orchestration(name = "greeting", version = "2")]
//! async fn greeting(_ctx: OrchestrationContext, name: String) -> Result<String> {
//!     Ok(format!("Good morning, {name}."))
//! }
//! # #[tokio::main]
//! # async fn main() -> Result<()> {
//!
//! let hub = TaskHub::in_memory().register(greeting_v1).register(greeting).start().await?;
//! let client = hub.client();
//! assert_eq!(client.start(greeting_v1, "Ada".into()).await?.result().await?, "Hello, Ada.");
//! assert_eq!(client.start(greeting, "Ada".into()).await?.result().await?, "Good morning, Ada.");
//! # hub.stop().await?; Ok(()) }
//! ```
//!
//! Who asks for no version gets the greatest that is registered, or the hub's default. The version is part of the
//! instance's identity: [`Run::version`] tells it, [`OrchestrationContext::version`] and
//! [`ActivityContext::instance_version`] read it, sub-orchestrations and the next executions inherit it, and code that is
//! registered without a version can branch on it with [`compare_versions`]. [`HubBuilder::versions`] makes a process take
//! only the instances of its own version, or of older ones; the others wait for a process that takes them.
//!
//! For a small change there is [`OrchestrationContext::patched`]: instances that are past that point keep to the old path, all
//! others take the new one.
//!
//! The attributes name and type things, and do nothing else. [`activity`](fn@activity) and
//! [`orchestration`](fn@orchestration), the functions, do the same for closures. [`ActivityName`] and
//! [`OrchestrationName`] are handles for code that is registered elsewhere.
//!
//! # Hubs
//!
//! [`TaskHub::builder`] opens a folder, [`TaskHub::in_memory`] makes a hub for tests. A hub starts inside a tokio program, and one
//! process can have several. [`Hub::stop`] takes no new calls, lets running activities end, and answers every caller.
//! Dropping a hub without it, or killing the process, loses nothing that was acknowledged.
//!
//! A hub has partitions, each of which owns a part of the instances and works on its own. Their number is chosen when the hub
//! is created. [`HubOptions`] holds the other settings.
//!
//! # Testing
//!
//! The code of an activity is a function: call `greet::run(context, input)`. Orchestrations run in a hub in memory, as on this
//! page. The `steadfast-testkit` crate has virtual time, and replays recorded histories against changed code.

mod hub;

/// Clients and workers of task hubs that are served elsewhere (feature `remote`): see `steadfast serve`.
#[cfg(feature = "remote")]
pub use steadfast_remote as remote;

pub use hub::TaskHub;
pub use steadfast_core::dispatch::{ActivityLimit, RateLimit};
pub use steadfast_core::entity::{
    EntityCaller, EntityId, EntityLock, EntityLockRequest, EntityOperation, EntityOwner, EntityState,
    EntityUnlock,
};
pub use steadfast_core::model::{
    ActivityCall, ActivityContext, ActivityDefinition, ActivityFuture, ActivityHandle, ActivityMiddleware,
    ActivityName, ActivityNext, BatchOperation, CallOptions, CancelReason, Cancelled, ContinueAsNewOptions,
    ConvertError, Converter, CriticalSection, DataConverter, DuplicateRegistration, EntityAction,
    EntityBatchCall, EntityBatchFuture, EntityBatchResult, EntityCall, EntityContext, EntityDefinition,
    EntityFuture, EntityMiddleware, EntityNext, EntityStartOptions, EventFuture, IntoEntityId, LockFuture,
    OnNonDeterminism, OrchestrationContext, OrchestrationDefinition, OrchestrationHandle, OrchestrationName,
    Properties, ReadValue, Register, Registry, RetryPolicy, SubOrchestrationOptions, TaskFuture, TimerFuture,
    TurnContext, TurnMiddleware, TurnOutcome, activity, entity, erased_serde, orchestration,
};
pub use steadfast_core::partition::Poison;
pub use steadfast_core::turn::RewindRefusal;
pub use steadfast_core::{
    ActionKind, Completion, Error, EventAddress, EventKind, EventVersions, ExecutionId, ExecutionStarted,
    FailureDetails, HistoryEvent, IdReuse, InstanceCounts, InstanceFacts, InstanceFilter, InstanceId,
    InstanceKind, InstanceState, InvalidInstanceId, InvalidTags, OnExisting, OrchestrationStatus,
    OrchestratorAction, ParentInstance, Payload, Result, SubOrchestrationCreated, Tags, TaskError, TaskKind,
    TimeRange, Timestamp, TraceContext, VersionFailure, VersionMatch, VersionMismatch, VersionOptions,
    check_tags, compare_versions, failure, history_json, log, scaling,
};
pub use steadfast_engine::{
    ActivityProgress, ActivityState, CleanedEntities, Client, ClientError, Clock, EntityCleaning,
    EntityMetadata, EntityPage, EntityQuery, Hub, HubBuilder, HubError, HubOptions, InstanceQuery,
    InvalidPageToken, Page, PageToken, PurgeResult, PurgedTree, RawClient, RestartOptions, Run, StartOptions,
    Started, SystemClock,
};
pub use steadfast_macros::{activity, entity, orchestration};

/// What most programs need, to be imported whole.
pub mod prelude {
    pub use crate::{
        ActivityContext, ActivityHandle, CallOptions, EntityCall, EntityContext, EntityId, Error,
        OrchestrationContext, OrchestrationHandle, OrchestrationStatus, Register, Result, RetryPolicy,
        SubOrchestrationOptions, TaskError, TaskHub, Timestamp, activity, entity, orchestration,
    };
}

/// The stores that come with the crate, and the contract that others fulfil.
pub mod store {
    pub use steadfast_store::{CodecFailure, CodedStore, MemoryStore, StorageCodec, Store, StoreError};
    pub use steadfast_store_sled::{SledOptions, SledStore};
}

/// What the attributes name. Not for use by hand, and not part of the promise of stability.
#[doc(hidden)]
pub mod __private {
    pub use smol_str::SmolStr;
    pub use steadfast_core::model::{
        ActivityHandle, DuplicateRegistration, EntityCall, EntityContext, EntityDefinition, IntoEntityId,
        OrchestrationHandle, Register, Registry, activity, entity, orchestration,
    };
    pub use steadfast_core::{EntityId, Error, InvalidInstanceId};

    /// The type of a `Result`'s success, also when the result goes by an alias.
    #[diagnostic::on_unimplemented(
        message = "an activity or orchestration returns a `Result`, and `{Self}` is none",
        label = "not a `Result`",
        note = "write `-> Result<{Self}>`"
    )]
    pub trait Outcome {
        /// What it holds on success.
        type Ok;
    }

    impl<T, E> Outcome for Result<T, E> {
        type Ok = T;
    }
}

/// Compiles the README's examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
