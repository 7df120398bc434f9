//! The store on sled does what every store does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use steadfast_store::suite::Harness;
use steadfast_store::{Store, store_behaviour_suite};
use steadfast_store_sled::{SledOptions, SledStore};
use tempfile::TempDir;

struct OnSled {
    folder: TempDir,
    store: Option<Arc<SledStore>>,
}

impl OnSled {
    fn new() -> Self {
        let mut harness = Self { folder: tempfile::tempdir().unwrap(), store: None };
        harness.reopen();
        harness
    }
}

impl Harness for OnSled {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().unwrap()
    }

    fn reopen(&mut self) {
        if let Some(store) = self.store.take() {
            assert_eq!(Arc::strong_count(&store), 1, "somebody still holds the store");
        }
        self.store = Some(Arc::new(SledStore::open(self.folder.path(), SledOptions::default()).unwrap()));
    }
}

store_behaviour_suite!(OnSled::new());
