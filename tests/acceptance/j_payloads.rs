//! Payloads: large ones, too large ones, and what of them can be read on disk.

use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use smol_str::SmolStr;
use steadfast::prelude::*;
use steadfast::store::{CodecFailure, StorageCodec};
use steadfast::{
    ActivityName, Client, ClientError, ContinueAsNewOptions, HubBuilder, HubOptions, OrchestrationName,
    StartOptions, failure, orchestration as by_name,
};

use crate::support::{end_of, soon, stop, until, with_id};

/// The default maximum.
const MAX: usize = 16 << 20;

/// A text whose JSON has `bytes` bytes, and which no compression makes much shorter.
fn noise(bytes: usize, seed: u64) -> String {
    let mut state = seed;
    let mut text = String::with_capacity(bytes);
    while text.len() < bytes - 2 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let character = 0x23 + (state >> 33) as u8 % 57;
        text.push(char::from(character));
    }
    text
}

#[activity]
async fn echo(_ctx: ActivityContext, text: String) -> Result<String> {
    Ok(text)
}

#[orchestration]
async fn keep(ctx: OrchestrationContext, text: String) -> Result<String> {
    let event: String = ctx.wait_for_event("cargo").await?;
    Ok(if event == text { text } else { "they differ".to_owned() })
}

/// Sends its input all the ways that a payload can go.
#[orchestration]
async fn carry(ctx: OrchestrationContext, text: String) -> Result<String> {
    ctx.set_custom_status(&text)?;
    if ctx.generation() == 0 {
        let arrived: String = ctx.wait_for_event("cargo").await?;
        let returned = ctx.call(echo, arrived).await?;
        ctx.continue_as_new(&returned)?;
        return Ok(String::new());
    }
    let child = SubOrchestrationOptions { instance_id: Some("child".to_owned()), ..Default::default() };
    let kept = ctx.call_orchestration_with(keep, text.clone(), child);
    ctx.raise_event("child", "cargo", &text)?;
    Ok(kept.await?)
}

fn carrying(builder: HubBuilder) -> HubBuilder {
    builder.register(echo).register(keep).register(carry)
}

/// Starts `carry` and hands it what it waits for.
async fn load(client: &Client, text: &str) {
    client.start_with(carry, text.to_owned(), with_id("lorry")).await.unwrap();
    client.raise_event("lorry", "cargo", text).await.unwrap();
}

fn same(found: &str, expected: &str, what: &str) {
    // Not assert_eq, which would print them.
    assert!(found == expected, "{what}: {} bytes instead of {}", found.len(), expected.len());
}

/// Hundreds of megabytes take their time without optimisation.
async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(600), future).await.unwrap()
}

async fn check_lorry(client: &Client, text: &str) {
    let state = patiently(client.wait_for_completion("lorry", None)).await.unwrap();
    assert_eq!(state.status, OrchestrationStatus::Completed);
    same(&state.output.unwrap().decode::<String>().unwrap(), text, "result");
    same(&state.custom_status.unwrap().decode::<String>().unwrap(), text, "custom status");
    let history = client.history("lorry").await.unwrap();
    assert!(history.iter().any(|event| event.kind.type_name() == "SubOrchestrationInstanceCompleted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_of_16_mib_go_all_ways_in_memory() {
    let hub = carrying(TaskHub::in_memory()).start().await.unwrap();
    let text = noise(MAX, 1);
    load(&hub.client(), &text).await;
    check_lorry(&hub.client(), &text).await;
    patiently(hub.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_of_16_mib_go_all_ways_on_disk_and_survive_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let text = noise(MAX, 3);
    let open = || carrying(TaskHub::builder(folder.path())).start();
    let hub = open().await.unwrap();
    load(&hub.client(), &text).await;
    // Dropping a hub is as good as a crash of the process.
    drop(hub);
    let hub = open().await.unwrap();
    check_lorry(&hub.client(), &text).await;
    patiently(hub.stop()).await.unwrap();
    let hub = open().await.unwrap();
    check_lorry(&hub.client(), &text).await;
    hub.client().purge("lorry").await.unwrap();
    patiently(hub.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn large_payloads_survive_hubs_that_die_with_them_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let text = noise(1 << 20, 3);
    let open = || {
        // Without sessions every turn replays, and with a short interval the instance store has a part of everything.
        let options = HubOptions {
            extended_sessions: false,
            materialise_interval: Duration::from_millis(5),
            ..HubOptions::default()
        };
        carrying(TaskHub::builder(folder.path())).options(options).start()
    };
    let hub = open().await.unwrap();
    load(&hub.client(), &text).await;
    drop(hub);
    let hub = open().await.unwrap();
    until(&hub.client(), "lorry", |state| state.custom_status.is_some()).await;
    drop(hub);
    let hub = open().await.unwrap();
    until(&hub.client(), "lorry", |state| state.generation == 1).await;
    drop(hub);
    let hub = open().await.unwrap();
    check_lorry(&hub.client(), &text).await;
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_all_kinds_come_back_as_they_were() {
    let hub = carrying(TaskHub::in_memory()).start().await.unwrap();
    let client = hub.client();
    let texts = [
        String::new(),
        "null".to_owned(),
        "https://example.org/blob/17?compressed=true".to_owned(),
        "\u{0}\u{1f}\"\\/\u{2028}🦀".repeat(3_000),
        "\u{ff}\u{100}".to_owned(),
        "a".repeat(100_000),
    ];
    for (nth, text) in texts.iter().enumerate() {
        let id = format!("text-{nth}");
        let run = client.start_with(keep, text.clone(), with_id(&id)).await.unwrap();
        client.raise_event(&id, "cargo", text).await.unwrap();
        same(&soon("the result", run.result()).await.unwrap(), text, &id);
    }
    stop(hub).await;
}

const LIMIT: usize = 1000;

/// What becomes of a payload of so many bytes, by each way that code can send one.
async fn try_everything(ctx: OrchestrationContext, bytes: usize) -> Result<Vec<SmolStr>> {
    let text = noise(bytes, 4);
    let kind = |error: &Error| error.details().error_type.clone();
    let mut outcomes = Vec::new();
    outcomes.extend(ctx.set_custom_status(&text).as_ref().err().map(kind));
    outcomes.extend(ctx.raise_event("receiver", "cargo", &text).as_ref().err().map(kind));
    outcomes.extend(ctx.continue_as_new(&text).as_ref().err().map(kind));
    outcomes
        .extend(ctx.continue_as_new_with(&text, ContinueAsNewOptions::default()).as_ref().err().map(kind));
    outcomes.extend(ctx.start_orchestration(keep, text.clone(), Some("detached")).as_ref().err().map(kind));
    let called = ctx.call(echo, text.clone()).await;
    outcomes.extend(called.err().map(|error| error.details.error_type));
    let options = SubOrchestrationOptions { instance_id: Some("child".to_owned()), ..Default::default() };
    let child = ctx.call_orchestration_with(keep, text, options).await;
    outcomes.extend(child.err().map(|error| error.details.error_type));
    let grown = ctx.call(ActivityName::<usize, String>::new("grow"), bytes).await;
    outcomes.extend(grown.err().map(|error| error.details.error_type));
    Ok(outcomes)
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_sends_too_much_is_told_and_nothing_is_half_done() {
    let options = HubOptions { payload_bytes_max: LIMIT, ..HubOptions::default() };
    let hub = TaskHub::in_memory()
        .options(options)
        .register(echo)
        .register(keep)
        .register(by_name("try_everything", try_everything))
        .register(steadfast::activity("grow", |_: ActivityContext, bytes: usize| async move {
            Result::<_>::Ok(noise(bytes, 5))
        }))
        .start()
        .await
        .unwrap();
    let client = hub.client();
    let trying = OrchestrationName::<usize, Vec<SmolStr>>::new("try_everything");
    let run = client.start(trying, LIMIT + 1).await.unwrap();
    let outcomes = soon("the result", run.result()).await.unwrap();
    assert_eq!(outcomes, [failure::kinds::PAYLOAD_TOO_LARGE; 8]);
    // The only trace of all that is the activity that was asked for by a number and returned too much.
    let history = client.history(run.id().as_str()).await.unwrap();
    let scheduled: Vec<_> = history.iter().filter(|event| event.event_id >= 0).collect();
    let kinds: Vec<_> = scheduled.iter().map(|event| event.kind.type_name()).collect();
    assert_eq!(kinds, ["TaskScheduled", "ExecutionCompleted"]);
    assert_eq!(client.state(run.id().as_str()).await.unwrap().custom_status, None);
    for id in ["child", "detached"] {
        assert!(matches!(client.state(id).await, Err(ClientError::InstanceNotFound { .. })));
    }
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_send_too_much_are_told_and_nothing_is_half_done() {
    let options = HubOptions { payload_bytes_max: LIMIT, ..HubOptions::default() };
    let hub = carrying(TaskHub::in_memory()).options(options).start().await.unwrap();
    let client = hub.client();
    let too_large = |error: ClientError| {
        let ClientError::PayloadTooLarge { bytes, max } = error else { panic!("{error}") };
        assert_eq!((bytes, max), (LIMIT + 1, LIMIT));
    };
    too_large(client.start_with(keep, noise(LIMIT + 1, 6), with_id("a")).await.err().unwrap());
    assert!(matches!(client.state("a").await, Err(ClientError::InstanceNotFound { .. })));
    let fits = noise(LIMIT, 7);
    let run = client.start_with(keep, fits.clone(), with_id("a")).await.unwrap();
    soon("the start", run.wait_for_start()).await.unwrap();
    let before = client.history("a").await.unwrap();
    too_large(client.raise_event("a", "cargo", &noise(LIMIT + 1, 8)).await.unwrap_err());
    let reason = "r".repeat(LIMIT + 1);
    too_large(client.terminate("a", &reason, false).await.unwrap_err());
    too_large(client.suspend("a", &reason).await.unwrap_err());
    too_large(client.resume("a", &reason).await.unwrap_err());
    assert_eq!(client.history("a").await.unwrap(), before);
    client.raise_event("a", "cargo", &fits).await.unwrap();
    same(&soon("the result", run.result()).await.unwrap(), &fits, "result");
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestration_that_returns_too_much_fails_with_a_typed_error() {
    let options = HubOptions { payload_bytes_max: LIMIT, ..HubOptions::default() };
    let grow =
        by_name(
            "grow",
            |_: OrchestrationContext, bytes: usize| async move { Result::<_>::Ok(noise(bytes, 9)) },
        );
    let handle = grow.handle();
    let hub = TaskHub::in_memory().options(options).register(grow).start().await.unwrap();
    let client = hub.client();
    assert_eq!(client.start(&handle, LIMIT).await.unwrap().result().await.unwrap().len(), LIMIT - 2);
    let failed = client.start(&handle, LIMIT + 1).await.unwrap().result().await.unwrap_err();
    let ClientError::Failed { details, .. } = failed else { panic!("{failed}") };
    assert_eq!(details.error_type, failure::kinds::PAYLOAD_TOO_LARGE);
    assert!(details.non_retriable);
    stop(hub).await;
}

/// Every file below a folder, one behind the other.
fn bytes_below(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bytes.extend(bytes_below(&path));
        } else {
            bytes.extend(std::fs::read(path).unwrap());
        }
    }
    bytes
}

fn holds(bytes: &[u8], marker: &str) -> bool {
    bytes.windows(marker.len()).any(|window| window == marker.as_bytes())
}

/// Stands for an encryption: what it makes differs each time, and is not readable.
#[derive(Default)]
struct Masked(AtomicU8);

impl StorageCodec for Masked {
    fn encode(&self, bytes: &[u8]) -> std::result::Result<Vec<u8>, CodecFailure> {
        let mask = self.0.fetch_add(7, Ordering::Relaxed) | 0x80;
        Ok(std::iter::once(mask).chain(bytes.iter().map(|byte| byte ^ mask)).collect())
    }

    fn decode(&self, bytes: &[u8]) -> std::result::Result<Vec<u8>, CodecFailure> {
        let (mask, bytes) = bytes.split_first().ok_or("nothing was stored")?;
        Ok(bytes.iter().map(|byte| byte ^ mask).collect())
    }
}

const SECRET: &str = "correct-horse-battery-staple";

/// How the input of the instance "long" begins, which is too long to be kept with the rest of its state.
const LONG_SECRET: &str = "incorrect-mule-battery-staple";

fn long_secret() -> String {
    format!("{LONG_SECRET}{}", noise(20_000, 11))
}

/// Leaves the secret wherever something is kept.
async fn leave_secrets(client: &Client) {
    let options = StartOptions { tags: [("note".to_owned(), "a tag".to_owned())].into(), ..with_id("lorry") };
    client.start_with(carry, SECRET.to_owned(), options).await.unwrap();
    client.raise_event("lorry", "cargo", SECRET).await.unwrap();
    end_of(client, "lorry").await;
    client.start_with(keep, SECRET.to_owned(), with_id("waits")).await.unwrap();
    client.raise_event("waits", SECRET, SECRET).await.unwrap();
    client.suspend("waits", SECRET).await.unwrap();
    client.start_with(keep, long_secret(), with_id("long")).await.unwrap();
    until(client, "long", |state| state.status == OrchestrationStatus::Running).await;
    client.start_with(keep, SECRET.to_owned(), with_id("ended")).await.unwrap();
    client.terminate("ended", SECRET, false).await.unwrap();
    let failing = OrchestrationName::<(), ()>::new("failing");
    client.start_with(failing, (), with_id("failed")).await.unwrap();
    end_of(client, "failed").await;
}

fn failing(builder: HubBuilder) -> HubBuilder {
    carrying(builder).register(by_name("failing", |_: OrchestrationContext, ()| async move {
        Result::<()>::Err(Error::msg(format!("it failed because of {SECRET}")))
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_readable_lands_on_disk_behind_a_codec_and_everything_is_there_after_a_crash() {
    let (clear, coded) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hub = failing(TaskHub::builder(clear.path())).start().await.unwrap();
    leave_secrets(&hub.client()).await;
    drop(hub);
    let readable = bytes_below(clear.path());
    let all = [SECRET, LONG_SECRET].into_iter().all(|secret| holds(&readable, secret));
    assert!(all, "else this test would find nothing in any case");
    let reveals = |place: &Path| {
        let bytes = bytes_below(place);
        holds(&bytes, SECRET) || holds(&bytes, LONG_SECRET)
    };

    let open = || failing(TaskHub::builder(coded.path())).storage_codec(Masked::default()).start();
    let hub = open().await.unwrap();
    leave_secrets(&hub.client()).await;
    assert!(!reveals(coded.path()), "while the hub runs");
    drop(hub);
    assert!(!reveals(coded.path()), "after a crash");
    let hub = open().await.unwrap();
    check_lorry(&hub.client(), SECRET).await;
    let suspended = until(&hub.client(), "waits", |state| state.reason.is_some()).await;
    assert_eq!(suspended.reason.unwrap(), SECRET);
    stop(hub).await;
    assert!(!reveals(coded.path()), "after a stop");
    let hub = open().await.unwrap();
    assert_eq!(hub.client().state("long").await.unwrap().input.decode::<String>().unwrap(), long_secret());
    let failed = hub.client().state("failed").await.unwrap().failure.unwrap();
    assert!(failed.message.contains(SECRET));
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_behind_a_codec_is_not_opened_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let hub =
        carrying(TaskHub::builder(folder.path())).storage_codec(Masked::default()).start().await.unwrap();
    hub.client().start_with(keep, SECRET.to_owned(), with_id("waits")).await.unwrap();
    drop(hub);
    let error = carrying(TaskHub::builder(folder.path())).start().await.err().unwrap();
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert!(text.contains("codec"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_payloads_are_compressed_on_disk_as_the_options_say() {
    let text = "all work and no play makes jack a dull boy. ".repeat(20_000);
    let mut sizes = Vec::new();
    for compress_payloads_from in [HubOptions::default().compress_payloads_from, usize::MAX] {
        let folder = tempfile::tempdir().unwrap();
        let options = HubOptions { compress_payloads_from, ..HubOptions::default() };
        let hub = carrying(TaskHub::builder(folder.path())).options(options).start().await.unwrap();
        load(&hub.client(), &text).await;
        check_lorry(&hub.client(), &text).await;
        sizes.push(hub.store_metrics().log_bytes as usize);
        drop(hub);
        // What was written in one way is read in any.
        let hub = carrying(TaskHub::builder(folder.path())).start().await.unwrap();
        check_lorry(&hub.client(), &text).await;
        stop(hub).await;
    }
    assert!(sizes[0] * 20 < sizes[1], "{sizes:?} bytes of records");
}
