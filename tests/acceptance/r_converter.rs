//! Data converters: every value goes through the hub's, wherever it was made.

use steadfast::prelude::*;
use steadfast::{
    ConvertError, DataConverter, EntityStartOptions, EventKind, Payload, ReadValue, erased_serde, failure,
};

use crate::support::{end_of, hub, soon, stop, with_and_without_sessions, with_id};

#[activity]
async fn echo(_ctx: ActivityContext, text: String) -> Result<String> {
    Ok(text)
}

#[orchestration]
async fn two_steps(ctx: OrchestrationContext, text: String) -> Result<String> {
    let once = ctx.call(echo, text).await?;
    Ok(ctx.call(echo, once).await?)
}

/// JSON, marked, so that a place that does not go through the converter is found out.
struct Marked;

impl DataConverter for Marked {
    fn encode(&self, value: &dyn erased_serde::Serialize) -> std::result::Result<Payload, ConvertError> {
        let json = serde_json::to_string(value).map_err(ConvertError::new)?;
        Ok(Payload::from_json(format!("marked:{json}")))
    }

    fn decode(&self, payload: &Payload, read: ReadValue<'_>) -> std::result::Result<(), ConvertError> {
        let Some(json) = payload.as_str().strip_prefix("marked:") else {
            return Err(ConvertError::new(format!("no mark on {payload}")));
        };
        let mut json = serde_json::Deserializer::from_str(json);
        read(&mut <dyn erased_serde::Deserializer<'_>>::erase(&mut json)).map_err(ConvertError::new)
    }
}

#[orchestration]
async fn through_converter(ctx: OrchestrationContext, text: String) -> Result<String> {
    let event: String = ctx.wait_for_event("go").await?;
    ctx.set_custom_status(&event)?;
    let text = ctx.call(echo, text).await?;
    if ctx.generation() == 0 {
        ctx.raise_event(ctx.instance_id().as_str(), "go", &text)?;
        ctx.continue_as_new(&text)?;
    }
    let child = ctx.call_orchestration(two_steps, text).await?;
    Ok(child)
}

with_and_without_sessions! {
    async fn every_value_goes_through_the_data_converter(sessions: bool) {
        let hub = hub(sessions)
            .register(echo)
            .register(two_steps)
            .register(through_converter)
            .data_converter(Marked)
            .start()
            .await
            .unwrap();
        let client = hub.client();
        let run = client.start_with(through_converter, "cargo".to_owned(), with_id("a")).await.unwrap();
        client.raise_event("a", "go", "cargo").await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), "cargo");
        let state = client.state("a").await.unwrap();
        for payload in [Some(state.input), state.output, state.custom_status] {
            assert_eq!(payload.unwrap().as_str(), "marked:\"cargo\"");
        }
        // What cannot be read is a typed failure.
        let foreign = client.raw().start("two_steps", Payload::from_json("7"), None, with_id("b")).await;
        foreign.unwrap();
        let failure = end_of(&client, "b").await.failure.unwrap();
        assert_eq!(failure.error_type, failure::kinds::INVALID_PAYLOAD);
        assert!(failure.message.contains("no mark"), "{failure}");
        stop(hub).await;
    }
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Purse {
    coins: Vec<u32>,
}

#[entity]
impl Purse {
    fn put(&mut self, coin: u32) -> usize {
        self.coins.push(coin);
        self.coins.len()
    }

    async fn share(&mut self, ctx: &EntityContext, with: String) -> Result<usize> {
        tokio::task::yield_now().await;
        for coin in self.coins.drain(..) {
            ctx.signal(Purse::at(&with).put(coin))?;
        }
        let options = EntityStartOptions { instance_id: Some(format!("for-{with}")), ..Default::default() };
        ctx.start_with(two_steps, with, options)?;
        Ok(self.coins.len())
    }

    fn total(&self) -> u32 {
        self.coins.iter().sum()
    }
}

#[orchestration]
async fn pays(ctx: OrchestrationContext, key: String) -> Result<(usize, usize, u32)> {
    let purse = Purse::at(&key);
    ctx.signal_entity(purse.put(3))?;
    let coins = ctx.call_entity(purse.put(4)).await?;
    let total = ctx.call_entity(purse.total()).await?;
    let left = ctx.call_entity(purse.share(format!("{key}-heir"))).await?;
    ctx.call_entity(EntityCall::<()>::new(&purse, "delete", ())).await?;
    Ok((coins, left, total))
}

with_and_without_sessions! {
    async fn values_of_entities_go_through_the_data_converter_of_the_hub_that_they_meet(sessions: bool) {
        let hub = hub(sessions)
            .register(echo)
            .register(two_steps)
            .register(pays)
            .register(Purse::entity())
            .data_converter(Marked)
            .start()
            .await
            .unwrap();
        let client = hub.client();
        client.signal_entity(Purse::at("a").put(2)).await.unwrap();
        let run = client.start_with(pays, "a".to_owned(), with_id("pays")).await.unwrap();
        assert_eq!(soon("the result", run.result()).await.unwrap(), (3, 0, 9));
        assert_eq!(client.entity(Purse::at("a")).await.unwrap(), None);
        let heir = async {
            loop {
                match client.entity_state::<Purse>(Purse::at("a-heir")).await.unwrap() {
                    Some(Purse { coins }) if coins.len() == 3 => return coins,
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        assert_eq!(soon("the signals", heir).await, [2, 3, 4]);
        let known = client.entity(Purse::at("a-heir")).await.unwrap().unwrap();
        assert_eq!(known.state.unwrap().as_str(), "marked:{\"coins\":[2,3,4]}");
        assert_eq!(end_of(&client, "for-a-heir").await.output.unwrap().as_str(), "marked:\"a-heir\"");
        for event in client.history("pays").await.unwrap() {
            let payload = match event.kind {
                EventKind::EntityOperationCalled(operation) | EventKind::EntityOperationSignaled(operation) => {
                    operation.input
                }
                EventKind::EntityOperationCompleted { output, .. } => output,
                _ => continue,
            };
            assert!(payload.as_str().starts_with("marked:"), "{payload}");
        }
        // What cannot be read is a typed failure, and so is what cannot be written.
        let purse = EntityId::new("purse", "b").unwrap();
        client.raw().signal_entity(&purse, "put", Payload::from_json("7"), "", None).await.unwrap();
        client.signal_entity(Purse::at("b").put(1)).await.unwrap();
        let unfit = EntityCall::<()>::new(&purse, "put", std::collections::BTreeMap::from([((), 1)]));
        let error = client.signal_entity(unfit).await.unwrap_err();
        assert!(error.to_string().contains("no form as a payload"), "{error}");
        stop(hub).await;
    }
}
