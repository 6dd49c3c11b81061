//! Locks for definitions: one change of a model at a time on this node, and none during a rebuild of the model store.
//!
//! Changes of different models run concurrently, because a change of a large model takes long.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard, RwLock, RwLockWriteGuard};

type Lock = Arc<tokio::sync::Mutex<()>>;

#[derive(Default)]
pub(super) struct DefinitionLocks {
    /// By model; only locks that are held or waited for.
    models: Mutex<HashMap<String, Lock>>,
    /// Held for reading during a change of a model.
    all: Arc<RwLock<()>>,
}

/// The lock on one model. It moves with a change to the committer, because the change may outlive its caller.
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
        // In this order, so that a wait for the model does not block a rebuild.
        let one = lock.lock_owned().await;
        OneModel { _all: Arc::clone(&self.all).read_owned().await, _one: one }
    }

    /// Waits until nobody changes any model.
    pub(super) async fn all(&self) -> RwLockWriteGuard<'_, ()> {
        self.all.write().await
    }
}
