//! The in-memory store does what every store does.
#![cfg(feature = "suite")]

use std::sync::Arc;

use steadfast_store::suite::Harness;
use steadfast_store::{MemoryStore, Store, store_behaviour_suite};

struct InMemory(MemoryStore);

impl Harness for InMemory {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }

    fn reopen(&mut self) {
        self.0 = self.0.reopen();
    }
}

store_behaviour_suite!(InMemory(MemoryStore::new(4)));
