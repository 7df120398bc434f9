//! The hubs that are open, each with its engine.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};
use parking_lot::RwLock;
use steadfast_engine::{Hub, HubBuilder, HubOptions, WorkersOptions};
use steadfast_grpc::{HubName, Hubs, HubsError, TaskHubService};
use steadfast_store::Store;
use steadfast_store_sled::{SledOptions, SledStore};
use tokio::sync::Mutex;

use crate::logs;

use super::folder::{DataFolder, FolderError};

/// How hubs are opened.
#[derive(Debug, Clone)]
pub(crate) struct HubSettings {
    pub(crate) default_hub: HubName,
    /// Whether a call for a hub that does not exist makes it.
    pub(crate) create: bool,
    pub(crate) open_max: usize,
    /// How many partitions a new hub gets.
    pub(crate) partitions: u16,
    pub(crate) options: HubOptions,
    pub(crate) workers: WorkersOptions,
}

struct OpenHub {
    /// None once it is being stopped.
    hub: Option<Hub>,
    service: TaskHubService,
}

/// The hubs of a data folder. A hub is opened by the first call for it.
#[derive(Clone)]
pub(crate) struct OpenHubs(Arc<Shared>);

struct Shared {
    folder: Arc<DataFolder>,
    settings: HubSettings,
    open: RwLock<HashMap<HubName, OpenHub>>,
    /// Held while a hub is opened, made or deleted, so that each folder is opened once; false when the server ends.
    changing: Mutex<bool>,
}

impl OpenHubs {
    pub(crate) fn new(folder: DataFolder, settings: HubSettings) -> Self {
        let folder = Arc::new(folder);
        let (open, changing) = (RwLock::default(), Mutex::new(true));
        Self(Arc::new(Shared { folder, settings, open, changing }))
    }

    /// Opens the default hub, and creates it if there is none.
    pub(crate) async fn open_default(&self) -> Result<(), HubsError> {
        let _changing = self.0.begin().await?;
        self.0.open(&self.0.settings.default_hub, "opened").await?;
        Ok(())
    }

    /// Stops all hubs. None is opened any more; those that were can still be found.
    pub(crate) async fn stop(&self) {
        *self.0.changing.lock().await = false;
        let open: Vec<_> = {
            let mut open = self.0.open.write();
            open.iter_mut().filter_map(|(name, it)| Some((name.clone(), it.hub.take()?))).collect()
        };
        let stops = open.into_iter().map(|(name, hub)| async move {
            if let Err(error) = hub.stop().await {
                // What was acknowledged is durable; the next start takes longer.
                let error = logs::chain(&error);
                tracing::error!(target: logs::TARGET, hub = %name, error, "task hub not stopped in good order");
            }
        });
        join_all(stops).await;
    }

    /// Does something to a hub's folder to its end, whether or not the caller is still there.
    async fn to_the_end<T: Send + 'static>(
        hub: &HubName,
        doing: &'static str,
        work: impl Future<Output = Result<T, HubsError>> + Send + 'static,
    ) -> Result<T, HubsError> {
        tokio::spawn(work).await.map_err(|error| failed(hub, doing, error))?
    }
}

impl Shared {
    fn service(&self, hub: &HubName) -> Option<TaskHubService> {
        self.open.read().get(hub).map(|it| it.service.clone())
    }

    async fn begin(&self) -> Result<tokio::sync::MutexGuard<'_, bool>, HubsError> {
        let changing = self.changing.lock().await;
        if *changing { Ok(changing) } else { Err(HubsError::Closed) }
    }

    /// Opens a hub that isn't open, and creates it if there is none.
    async fn open(&self, hub: &HubName, doing: &'static str) -> Result<TaskHubService, HubsError> {
        if self.open.read().len() >= self.settings.open_max {
            return Err(HubsError::TooMany { max: self.settings.open_max });
        }
        let (path, new) = (self.folder.hub(hub), !self.folder.exists(hub));
        let asked = new.then_some(self.settings.partitions);
        let builder = HubBuilder::new(move |_| {
            let options = SledOptions { partitions: asked, ..SledOptions::default() };
            Ok(Arc::new(SledStore::open(&path, options)?) as Arc<dyn Store>)
        });
        let builder = builder.options(self.settings.options.clone()).workers(self.settings.workers.clone());
        let started = builder.start().await;
        let started = started.map_err(|error| failed(hub, doing, error))?;
        tracing::info!(target: logs::TARGET, %hub, partitions = started.partitions(), new, "task hub open");
        let mut service = TaskHubService::new(started.client());
        if let Some(workers) = started.workers() {
            service = service.with_workers(workers.clone());
        }
        self.open.write().insert(hub.clone(), OpenHub { hub: Some(started), service: service.clone() });
        Ok(service)
    }

    /// Ends the hub, if it is open, and deletes it.
    async fn remove(&self, hub: &HubName) -> Result<(), HubsError> {
        let open = self.open.write().remove(hub);
        let (folder, name) = (self.folder.clone(), hub.clone());
        let removed = tokio::task::spawn_blocking(move || {
            // What is deleted need not be stopped in good order.
            drop(open);
            folder.delete(&name)
        });
        match removed.await {
            Ok(Ok(())) => {
                tracing::info!(target: logs::TARGET, %hub, "task hub deleted");
                Ok(())
            }
            Ok(Err(FolderError::NotFound { .. })) => Err(HubsError::NotFound { hub: hub.clone() }),
            Ok(Err(error)) => Err(failed(hub, "deleted", error)),
            Err(error) => Err(failed(hub, "deleted", error)),
        }
    }
}

fn failed(
    hub: &HubName,
    doing: &'static str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> HubsError {
    let text = logs::chain(&source);
    tracing::error!(target: logs::TARGET, %hub, error = text, "task hub not {doing}");
    HubsError::Failed { hub: hub.clone(), doing, source: Box::new(source) }
}

impl Hubs for OpenHubs {
    fn default_hub(&self) -> &HubName {
        &self.0.settings.default_hub
    }

    fn find<'a>(&'a self, hub: &'a HubName) -> BoxFuture<'a, Result<TaskHubService, HubsError>> {
        Box::pin(async move {
            if let Some(service) = self.0.service(hub) {
                return Ok(service);
            }
            let (shared, name) = (self.0.clone(), hub.clone());
            let work = async move {
                let _changing = shared.begin().await?;
                // Somebody else may have opened it meanwhile.
                if let Some(service) = shared.service(&name) {
                    return Ok(service);
                }
                if !shared.settings.create && !shared.folder.exists(&name) {
                    return Err(HubsError::NotFound { hub: name });
                }
                shared.open(&name, "opened").await
            };
            Self::to_the_end(hub, "opened", work).await
        })
    }

    fn create<'a>(&'a self, hub: &'a HubName, recreate: bool) -> BoxFuture<'a, Result<(), HubsError>> {
        let (shared, name) = (self.0.clone(), hub.clone());
        let work = async move {
            let _changing = shared.begin().await?;
            if shared.folder.exists(&name) {
                if !recreate {
                    return Err(HubsError::AlreadyExists { hub: name });
                }
                shared.remove(&name).await?;
            }
            shared.open(&name, "created").await?;
            Ok(())
        };
        Box::pin(Self::to_the_end(hub, "created", work))
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.stop())
    }

    fn delete<'a>(&'a self, hub: &'a HubName) -> BoxFuture<'a, Result<(), HubsError>> {
        let (shared, name) = (self.0.clone(), hub.clone());
        let work = async move {
            let _changing = shared.begin().await?;
            shared.remove(&name).await
        };
        Box::pin(Self::to_the_end(hub, "deleted", work))
    }
}
