//! One change of a model's definition at a time on this node, and none while the model store is rebuilt.
//!
//! Changes of different models go on side by side: one may take as long as its model is large.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard, RwLock, RwLockWriteGuard};

type Lock = Arc<tokio::sync::Mutex<()>>;

#[derive(Default)]
pub(super) struct DefinitionLocks {
    /// By model; without those that nobody holds or waits for.
    models: Mutex<HashMap<String, Lock>>,
    /// Read by whoever changes a model.
    all: Arc<RwLock<()>>,
}

/// The right to change one model. It goes along with a change that the committer has, which may outlive its caller.
pub(super) struct OneModel {
    _all: OwnedRwLockReadGuard<()>,
    _one: OwnedMutexGuard<()>,
}

impl DefinitionLocks {
    /// Waits until nobody else changes this model.
    pub(super) async fn of(&self, model: &str) -> OneModel {
        let lock = {
            let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
            models.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(models.entry(model.to_owned()).or_default())
        };
        // In this order: whoever waits for the model keeps no rebuild waiting.
        let one = lock.lock_owned().await;
        OneModel { _all: Arc::clone(&self.all).read_owned().await, _one: one }
    }

    /// Waits until nobody changes any model.
    pub(super) async fn all(&self) -> RwLockWriteGuard<'_, ()> {
        self.all.write().await
    }
}
