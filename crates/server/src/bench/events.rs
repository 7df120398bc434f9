//! The scenario `events`: instances with a history, that are sent events in turn. With fewer sessions in memory than
//! there are instances, each event meets one that has to be read and replayed first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use steadfast_core::Result;
use steadfast_core::model::{OrchestrationContext, OrchestrationName, orchestration};
use steadfast_engine::{Client, HubBuilder, StartOptions};

use super::load::each;
use super::report::{Measured, Progress};
use super::scenario::{GO, STAMP, payload};
use super::{BenchArguments, fill};

/// How many activities it does and how many events it waits for; the text only makes the input longer.
type Input = (u64, u64, String);

const EVENTFUL: OrchestrationName<Input, ()> = OrchestrationName::new("eventful");

/// How many activities are under way at once: a long history is to be there soon.
const AT_ONCE: usize = 100;

/// How often it is looked whether an instance has done its steps.
const LOOK: Duration = Duration::from_millis(5);

pub(super) fn register(builder: HubBuilder) -> HubBuilder {
    builder.register(orchestration(
        "eventful",
        |ctx: OrchestrationContext, (steps, events, _): Input| async move {
            for first in (0..steps).step_by(AT_ONCE) {
                let last = steps.min(first + AT_ONCE as u64);
                try_join_all((first..last).map(|step| ctx.call(STAMP, step))).await?;
            }
            ctx.set_custom_status(&"waiting")?;
            for _ in 0..events {
                ctx.wait_for_event::<u64>(GO).await?;
            }
            Result::<_>::Ok(())
        },
    ))
}

/// Counts events. The latencies are of the last one for each instance: from the call to the instance's end.
pub(super) async fn run(
    client: &Client,
    arguments: &BenchArguments,
    progress: &Progress,
) -> Result<Measured> {
    let BenchArguments { instances, concurrency, steps, events, .. } = *arguments;
    let id = |number: u64| format!("eventful-{number:09}");
    let text: Arc<str> = payload(arguments.payload_bytes).into();
    each(client, instances, concurrency, &Progress::new(true, 0), move |client, number| {
        let text = text.clone();
        async move {
            let options = StartOptions { instance_id: Some(id(number)), ..StartOptions::default() };
            client.start_with(EVENTFUL, (steps, events, text.to_string()), options).await?;
            while client.state(&id(number)).await?.custom_status.is_none() {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        }
    })
    .await?;
    fill::settle().await;
    let began = Instant::now();
    for event in 1..events {
        each(client, instances, concurrency, progress, move |client, number| async move {
            Ok(client.raise_event(&id(number), GO, &event).await?)
        })
        .await?;
    }
    let latencies = each(client, instances, concurrency, progress, move |client, number| async move {
        client.raise_event(&id(number), GO, &events).await?;
        client.wait_for_completion(&id(number), None).await?;
        Ok(())
    })
    .await?;
    Ok(Measured::new(instances * events, 0, began.elapsed(), latencies))
}
