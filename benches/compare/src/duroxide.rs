//! The scenarios on duroxide, with its SQLite provider and its default settings.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use duroxide::providers::Provider;
use duroxide::providers::sqlite::SqliteProvider;
use duroxide::runtime::Runtime;
use duroxide::runtime::registry::ActivityRegistry;
use duroxide::{ActivityContext, Client, OrchestrationContext, OrchestrationRegistry, OrchestrationStatus};

use crate::{FANOUT, Result, Scenario, System, TIMER, Waits};

/// No instance takes so long; if one does, something is wrong.
const PATIENCE: Duration = Duration::from_secs(120);

/// duroxide as it is.
pub(crate) struct Duroxide {
    runtime: Arc<Runtime>,
    client: Client,
}

impl System for Duroxide {
    const BEST_WAITS: Waits = Waits::InTurn;

    async fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("duroxide.db");
        File::create(&path)?;
        let store = SqliteProvider::new(&format!("sqlite:{}", path.display()), None).await?;
        let store: Arc<dyn Provider> = Arc::new(store);
        let activities = ActivityRegistry::builder()
            .register(
                "greet",
                |_: ActivityContext, city: String| async move { Ok(format!("Hello, {city}!")) },
            )
            .build();
        let orchestrations = OrchestrationRegistry::builder()
            .register("hello", |ctx: OrchestrationContext, _: String| async move {
                let mut greetings = Vec::new();
                for city in ["Tokyo", "Seattle", "London"] {
                    greetings.push(ctx.schedule_activity("greet", city).await?);
                }
                Ok(greetings.join(" "))
            })
            .register("ping", |ctx: OrchestrationContext, _: String| async move {
                ctx.schedule_activity("greet", "Tokyo").await
            })
            .register("fanout", |ctx: OrchestrationContext, _: String| async move {
                let greetings = (0..FANOUT).map(|number| ctx.schedule_activity("greet", number.to_string()));
                let greetings = ctx.join(greetings.collect()).await;
                let greetings: std::result::Result<Vec<_>, _> = greetings.into_iter().collect();
                Ok(greetings?.len().to_string())
            })
            .register("timer", |ctx: OrchestrationContext, _: String| async move {
                ctx.schedule_timer(TIMER).await;
                Ok("done".to_owned())
            })
            .build();
        let runtime = Runtime::start_with_store(store.clone(), activities, orchestrations).await;
        Ok(Self { runtime, client: Client::new(store) })
    }

    async fn start(&self, scenario: Scenario, number: u64) -> Result<String> {
        let id = format!("{}-{number}", scenario.name());
        self.client.start_orchestration(&id, scenario.name(), "").await.map_err(problem)?;
        Ok(id)
    }

    async fn wait(&self, id: &str) -> Result<bool> {
        let status = self.client.wait_for_orchestration(id, PATIENCE).await.map_err(problem)?;
        Ok(matches!(status, OrchestrationStatus::Completed { .. }))
    }

    async fn close(self) -> Result<()> {
        self.runtime.shutdown(None).await;
        Ok(())
    }
}

fn problem(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}
