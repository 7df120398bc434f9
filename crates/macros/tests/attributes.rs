//! What the attributes generate, seen from a program that uses them.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use steadfast::prelude::*;
use steadfast::{FailureDetails, Registry};

/// Greets a city.
#[activity]
async fn greet(_ctx: ActivityContext, city: String) -> Result<String> {
    Ok(format!("Hello, {city}!"))
}

#[activity(name = "shop.reserve", version = "2.1")]
async fn reserve(_ctx: ActivityContext, item: String, quantity: u32) -> Result<String, std::fmt::Error> {
    Ok(format!("{quantity} x {item}"))
}

#[activity]
async fn tick(_ctx: ActivityContext) -> Result<()> {
    Ok(())
}

type Answer<T> = std::result::Result<T, FailureDetails>;

#[activity]
async fn answer(_ctx: ActivityContext, (left, right): (u32, u32)) -> Answer<u32> {
    Ok(left + right)
}

#[orchestration(version = "1.0")]
async fn hello(ctx: OrchestrationContext, mut cities: Vec<String>) -> Result<Vec<String>> {
    cities.sort();
    let mut greetings = Vec::new();
    for city in cities {
        greetings.push(ctx.call(greet, city).await?);
    }
    ctx.call(tick, ()).await?;
    greetings.push(ctx.call(reserve, ("tea".to_owned(), 2)).await?);
    Ok(greetings)
}

#[orchestration]
#[cfg(any())]
async fn never_compiled(ctx: NoSuchContext) -> NoSuchResult {}

mod inner {
    use super::*;

    #[orchestration(crate = "steadfast")]
    pub(super) async fn parent(ctx: OrchestrationContext, cities: Vec<String>) -> Result<usize> {
        Ok(ctx.call_orchestration(hello, cities).await?.len())
    }
}

fn context() -> ActivityContext {
    ActivityContext::outside_hub("test")
}

/// Runs a future that never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the future waits"),
    }
}

fn input_of<A: ActivityHandle>(_: A) -> &'static str {
    std::any::type_name::<(A::Input, A::Output)>()
}

#[test]
fn names_and_versions_come_from_the_function_or_the_arguments() {
    assert_eq!(ActivityHandle::name(&greet), "greet");
    assert_eq!(ActivityHandle::version(&greet), "");
    assert_eq!(ActivityHandle::name(&reserve), "shop.reserve");
    assert_eq!(ActivityHandle::version(&reserve), "2.1");
    assert_eq!(OrchestrationHandle::name(&hello), "hello");
    assert_eq!(OrchestrationHandle::version(&hello), "1.0");
}

#[test]
fn input_and_output_come_from_the_signature_through_any_alias() {
    assert_eq!(input_of(greet), "(alloc::string::String, alloc::string::String)");
    assert_eq!(input_of(reserve), "((alloc::string::String, u32), alloc::string::String)");
    assert_eq!(input_of(tick), "((), ())");
    assert_eq!(input_of(answer), "((u32, u32), u32)");
}

#[test]
fn the_code_can_be_called_without_a_hub() {
    assert_eq!(now(greet::run(context(), "Oslo".into())).unwrap(), "Hello, Oslo!");
    assert_eq!(now(reserve::run(context(), "tea".into(), 3)).unwrap(), "3 x tea");
    now(tick::run(context())).unwrap();
}

#[test]
fn handles_register_their_code_under_their_name_and_version() {
    let mut registry = Registry::default();
    greet.register(&mut registry).unwrap();
    reserve.register(&mut registry).unwrap();
    tick.register(&mut registry).unwrap();
    answer.register(&mut registry).unwrap();
    hello.register(&mut registry).unwrap();
    inner::parent.register(&mut registry).unwrap();
    assert!(registry.find_activity("shop.reserve", "2.1").is_some());
    assert!(registry.find_activity("shop.reserve", "3").is_none());
    assert_eq!(registry.orchestration_names(), ["hello", "parent"]);
    let twice = greet.register(&mut registry).unwrap_err();
    assert!(twice.to_string().contains("'greet'"), "{twice}");
}

#[test]
fn registered_code_takes_and_gives_json() {
    let mut registry = Registry::default();
    reserve.register(&mut registry).unwrap();
    tick.register(&mut registry).unwrap();
    let run = |name: &str, input: &str| {
        let code = registry.find_activity(name, "").unwrap();
        now(code(context(), &steadfast::Payload::from_json(input)))
    };
    assert_eq!(run("shop.reserve", r#"["tea",2]"#).unwrap().as_str(), r#""2 x tea""#);
    assert_eq!(run("tick", "null").unwrap().as_str(), "null");
    assert!(run("shop.reserve", "7").unwrap_err().non_retriable);
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Archive;

#[entity(blocking)]
impl Archive {
    fn read(&self) {}
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Counter;

#[entity(name = "Tally")]
impl Counter {
    fn read(&self) {}
}

#[test]
fn entities_say_whether_they_may_block() {
    let mut registry = Registry::default();
    Archive::entity().register(&mut registry).unwrap();
    Counter::entity().register(&mut registry).unwrap();
    for (name, blocking) in [("archive", true), ("tally", false)] {
        assert!(registry.find_entity(name).is_some());
        assert_eq!(registry.is_entity_blocking(name), blocking, "{name}");
    }
}
