//! The scenarios on Steadfast, with its default settings.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::try_join_all;
use steadfast::store::{SledOptions, SledStore, Store};
use steadfast::{
    ActivityContext, ActivityName, Client, Error, Hub, HubBuilder, OrchestrationContext, OrchestrationName,
    OrchestrationStatus, TaskHub, activity, orchestration,
};
use steadfast_store_sled::DataSync;

use crate::{FANOUT, Result, Scenario, System, TIMER, Waits};

const GREET: ActivityName<String, String> = ActivityName::new("greet");

/// Steadfast as it is.
pub(crate) struct Synced(Running);

/// Steadfast whose data is written and not synchronised.
pub(crate) struct Unsynced(Running);

struct Running {
    hub: Hub,
    client: Client,
}

impl Running {
    async fn start(builder: HubBuilder) -> Result<Self> {
        let hub = builder
            .register(activity("greet", |_: ActivityContext, city: String| async move {
                Ok::<_, Error>(format!("Hello, {city}!"))
            }))
            .register(orchestration("hello", |ctx: OrchestrationContext, ()| async move {
                let mut greetings = Vec::new();
                for city in ["Tokyo", "Seattle", "London"] {
                    greetings.push(ctx.call(GREET, city.to_owned()).await?);
                }
                Ok::<_, Error>(greetings.join(" "))
            }))
            .register(orchestration("ping", |ctx: OrchestrationContext, ()| async move {
                Ok::<_, Error>(ctx.call(GREET, "Tokyo".to_owned()).await?)
            }))
            .register(orchestration("fanout", |ctx: OrchestrationContext, ()| async move {
                let greetings = (0..FANOUT).map(|number| ctx.call(GREET, number.to_string()));
                Ok::<_, Error>(try_join_all(greetings).await?.len().to_string())
            }))
            .register(orchestration("timer", |ctx: OrchestrationContext, ()| async move {
                ctx.timer(TIMER).await;
                Ok::<_, Error>("done".to_owned())
            }))
            .start()
            .await?;
        let client = hub.client();
        Ok(Self { hub, client })
    }

    async fn begin(&self, scenario: Scenario) -> Result<String> {
        let handle = OrchestrationName::<(), String>::new(scenario.name());
        Ok(self.client.start(handle, ()).await?.id().to_string())
    }

    async fn end(&self, id: &str) -> Result<bool> {
        let state = self.client.wait_for_completion(id, None).await?;
        Ok(state.status == OrchestrationStatus::Completed)
    }
}

impl System for Synced {
    const BEST_WAITS: Waits = Waits::AtOnce;

    async fn open(folder: &Path) -> Result<Self> {
        Ok(Self(Running::start(TaskHub::builder(folder)).await?))
    }

    async fn start(&self, scenario: Scenario, _: u64) -> Result<String> {
        self.0.begin(scenario).await
    }

    async fn wait(&self, id: &str) -> Result<bool> {
        self.0.end(id).await
    }

    async fn close(self) -> Result<()> {
        Ok(self.0.hub.stop().await?)
    }
}

/// Leaves it to the operating system.
struct NoSync;

impl DataSync for NoSync {
    fn sync(&self, _: &File) -> io::Result<()> {
        Ok(())
    }
}

impl System for Unsynced {
    const BEST_WAITS: Waits = Waits::AtOnce;

    async fn open(folder: &Path) -> Result<Self> {
        let folder = folder.to_owned();
        let builder = HubBuilder::new(move |partitions| {
            let options = SledOptions { partitions, data_sync: Arc::new(NoSync), ..SledOptions::default() };
            Ok(Arc::new(SledStore::open(&folder, options)?) as Arc<dyn Store>)
        });
        Ok(Self(Running::start(builder).await?))
    }

    async fn start(&self, scenario: Scenario, _: u64) -> Result<String> {
        self.0.begin(scenario).await
    }

    async fn wait(&self, id: &str) -> Result<bool> {
        self.0.end(id).await
    }

    async fn close(self) -> Result<()> {
        Ok(self.0.hub.stop().await?)
    }
}
