//! The attributes that name and type orchestrations and activities.
//!
//! `#[activity]` and `#[orchestration]` turn an `async fn` into a unit struct of the same name. The struct is a typed
//! handle, so that calls need neither strings nor type parameters, and it can be registered with a hub. The attributes
//! add no behaviour: what they generate can be written by hand with `ActivityName`, `OrchestrationName` and the
//! functions `activity` and `orchestration` of the `steadfast` crate.
//!
//! This crate must not know anything of the runtime. It names paths of the facade, and nothing else.

mod entity;
mod expand;

use proc_macro::TokenStream;

use expand::Kind;

/// Turns an `async fn` into an activity.
///
/// The function takes an `ActivityContext` and any number of inputs, and returns a `Result`. The attribute puts in its
/// place a unit struct of the same name and visibility, which is the activity's handle.
///
/// ```
/// use steadfast::prelude::*;
///
/// /// Greets a city.
/// #[activity]
/// async fn greet(_ctx: ActivityContext, city: String) -> Result<String> {
///     Ok(format!("Hello, {city}!"))
/// }
///
/// assert_eq!(ActivityHandle::name(&greet), "greet");
/// ```
///
/// No input makes the handle's input type `()`. Several inputs make it a tuple: the caller passes one.
///
/// ```
/// use steadfast::prelude::*;
///
/// #[activity(name = "shop.reserve", version = "2")]
/// async fn reserve(_ctx: ActivityContext, item: String, quantity: u32) -> Result<bool> {
///     Ok(!item.is_empty() && quantity > 0)
/// }
///
/// #[orchestration]
/// async fn order(ctx: OrchestrationContext, item: String) -> Result<bool> {
///     Ok(ctx.call(reserve, (item, 1)).await?)
/// }
///
/// assert_eq!(ActivityHandle::name(&reserve), "shop.reserve");
/// assert_eq!(ActivityHandle::version(&reserve), "2");
/// ```
///
/// The function itself stays callable as `run`, for unit tests and for calls from other activities:
///
/// ```no_run
/// # use steadfast::prelude::*;
/// # #[activity]
/// # async fn greet(_ctx: ActivityContext, city: String) -> Result<String> { Ok(city) }
/// # async fn test(context: ActivityContext) -> Result<()> {
/// assert_eq!(greet::run(context, "Tokyo".to_owned()).await?, "Hello, Tokyo!");
/// # Ok(()) }
/// ```
///
/// # Arguments
/// - `name = "..."`: the name it is registered under. The function's name when absent. Change the function's name
///   freely, but never this one, as long as instances exist that call it.
/// - `version = "..."`: the version it is registered under and asked for. None when absent.
/// - `crate = "..."`: the path of the `steadfast` crate, if it goes by another name.
///
/// # What is refused
/// A function that is not `async`, is generic, takes `self`, takes a reference, or returns no `Result`:
///
/// ```compile_fail
/// use steadfast::prelude::*;
///
/// #[activity]
/// fn greet(_ctx: ActivityContext, city: String) -> Result<String> { Ok(city) }
/// ```
///
/// ```compile_fail
/// use steadfast::prelude::*;
///
/// #[activity]
/// async fn greet(_ctx: ActivityContext, city: String) -> String { city }
/// ```
///
/// ```compile_fail
/// use steadfast::prelude::*;
///
/// struct NotSerializable;
///
/// #[activity]
/// async fn greet(_ctx: ActivityContext, city: NotSerializable) -> Result<()> { Ok(()) }
/// ```
#[proc_macro_attribute]
pub fn activity(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(Kind::Activity, arguments, item)
}

/// Turns an `async fn` into an orchestration.
///
/// The function takes an `OrchestrationContext` and any number of inputs, and returns a `Result`. It must be
/// deterministic: time, randomness and side effects come from the context and from activities only. Its future need
/// not be `Send`.
///
/// ```
/// use steadfast::prelude::*;
///
/// #[activity]
/// async fn greet(_ctx: ActivityContext, city: String) -> Result<String> {
///     Ok(format!("Hello, {city}!"))
/// }
///
/// #[orchestration(version = "1.0")]
/// async fn hello_sequence(ctx: OrchestrationContext, cities: Vec<String>) -> Result<Vec<String>> {
///     let mut greetings = Vec::new();
///     for city in cities {
///         greetings.push(ctx.call(greet, city).await?);
///     }
///     Ok(greetings)
/// }
///
/// assert_eq!(OrchestrationHandle::name(&hello_sequence), "hello_sequence");
/// assert_eq!(OrchestrationHandle::version(&hello_sequence), "1.0");
/// ```
///
/// Arguments, generated items and refusals are those of [`macro@activity`]. The function stays callable as `run`, so
/// that one orchestration can run the code of another as part of its own history.
#[proc_macro_attribute]
pub fn orchestration(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(Kind::Orchestration, arguments, item)
}

/// Turns the methods of a state into an entity.
///
/// It stands before the `impl` of a type that can be serialised and has a default. Methods that take `&mut self` become
/// operations, those that take `&self` become queries, which do not make an entity exist; both may be `async`. They may
/// take an `&EntityContext` first, and then any number of inputs; what they return may be a `Result`, whose failure
/// leaves the state as it was. Methods without `self` are left alone.
///
/// Beside the methods there are then `Counter::at(key)`, which names one entity and has a method for each operation, and
/// `Counter::entity()`, which is registered with a hub.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use steadfast::prelude::*;
///
/// #[derive(Default, Serialize, Deserialize)]
/// struct Counter {
///     sum: i64,
/// }
///
/// #[entity]
/// impl Counter {
///     fn add(&mut self, amount: i64) -> i64 {
///         self.sum += amount;
///         self.sum
///     }
///
///     async fn reset(&mut self, ctx: &EntityContext) -> Result<()> {
///         if ctx.caller().is_some() {
///             return Err(Error::msg("only clients may do that"));
///         }
///         self.sum = 0;
///         Ok(())
///     }
/// }
///
/// #[orchestration]
/// async fn count_twice(ctx: OrchestrationContext, key: String) -> Result<i64> {
///     ctx.call_entity(Counter::at(&key).add(1)).await?;
///     Ok(ctx.call_entity(Counter::at(&key).add(1)).await?)
/// }
///
/// # #[tokio::main(flavor = "multi_thread")]
/// # async fn main() -> Result<()> {
/// let hub = TaskHub::in_memory().register(Counter::entity()).register(count_twice).start().await?;
/// let client = hub.client();
/// client.signal_entity(Counter::at("a").add(40)).await?;
/// assert_eq!(client.start(count_twice, "a".into()).await?.result().await?, 42);
/// assert_eq!(client.entity_state::<Counter>(Counter::at("a")).await?.unwrap().sum, 42);
/// # hub.stop().await?; Ok(()) }
/// ```
///
/// # Arguments
/// - `name = "..."`: the name of the kind of entity. The type's name in lower case when absent.
/// - `blocking`: its methods may block their thread, and are run where that harms nobody else.
/// - `crate = "..."`: the path of the `steadfast` crate, if it goes by another name.
#[proc_macro_attribute]
pub fn entity(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entity::expand(arguments.into(), item.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}

fn expand(kind: Kind, arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(kind, arguments.into(), item.into())
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
