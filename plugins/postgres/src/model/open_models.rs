//! The state that the store's calls share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use snaphook_driver::{DriverError, ErrorKind, Result};
use tokio::task::JoinSet;

use super::lanes::Lanes;
use super::registry::{Model, Registry};
use crate::connection::Database;

pub(super) struct OpenModels {
    pub(super) database: Arc<Database>,
    /// The registry as last read; calls that use it compare its number of changes.
    registry: RwLock<Arc<Registry>>,
    pub(super) lanes: Lanes,
    /// Identifies the prepared tables of this opened store.
    pub(super) owner: String,
    /// Tasks in the background; they end when the store is closed.
    background: Mutex<JoinSet<()>>,
    /// When abandoned tables were last looked for.
    looked: Mutex<Instant>,
    /// Whether the removal of tables is scheduled.
    clearing: AtomicBool,
    this: Weak<OpenModels>,
}

impl OpenModels {
    pub(super) fn new(database: Arc<Database>) -> Arc<OpenModels> {
        Arc::new_cyclic(|this| OpenModels {
            lanes: Lanes::new(database.pool_size()),
            database,
            registry: RwLock::new(Arc::new(Registry::unknown())),
            owner: snaphook_driver::new_log_identity(),
            background: Mutex::default(),
            looked: Mutex::new(Instant::now()),
            clearing: AtomicBool::new(false),
            this: Weak::clone(this),
        })
    }

    /// A reference to this, for tasks in the background.
    pub(super) fn this(&self) -> Option<Arc<OpenModels>> {
        self.this.upgrade()
    }

    /// Whether it is time to look for abandoned tables.
    pub(super) fn looks(&self, every: Duration) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = looked.elapsed() > every;
        if due {
            *looked = Instant::now();
        }
        due
    }

    /// Whether the caller must remove tables, because no removal is scheduled yet.
    pub(super) fn clears(&self) -> bool {
        !self.clearing.swap(true, Ordering::Relaxed)
    }

    /// The removal begins; later changes schedule another one.
    pub(super) fn cleared(&self) {
        self.clearing.store(false, Ordering::Relaxed);
    }

    /// Ends the tasks in the background.
    pub(super) async fn stop(&self) {
        let mut background = std::mem::take(&mut *self.background.lock().unwrap_or_else(PoisonError::into_inner));
        background.shutdown().await;
    }

    pub(super) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stores a registry that was read, unless a later one is known.
    pub(super) fn publish(&self, registry: Registry) -> Arc<Registry> {
        let registry = Arc::new(registry);
        let mut known = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        if known.changes < registry.changes {
            *known = Arc::clone(&registry);
        }
        registry
    }

    /// Reads the current registry.
    pub(super) async fn reload(&self, operation: &'static str) -> Result<Arc<Registry>> {
        let mut session = self.database.session(operation).await?;
        Ok(self.publish(Registry::load(&self.database, &mut session, operation).await?))
    }

    /// A model as last read; reads the registry again if it does not contain the model.
    pub(super) async fn model(&self, model: &str, operation: &'static str) -> Result<Option<(i64, Arc<Model>)>> {
        let mut registry = self.registry();
        if !registry.models.contains_key(model) {
            registry = self.reload(operation).await?;
        }
        Ok(registry.models.get(model).map(|found| (registry.changes, Arc::clone(found))))
    }

    /// Starts a task in the background.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let mut background = self.background.lock().unwrap_or_else(PoisonError::into_inner);
            while background.try_join_next().is_some() {}
            background.spawn_on(work, &runtime);
        }
    }
}

/// Whether a read failed because its table no longer exists: the model changed in the meantime.
pub(super) fn is_gone(error: &DriverError) -> bool {
    error.kind() == ErrorKind::Corrupt && error.context().any(|(key, value)| key == "SQLSTATE" && value == "42P01")
}
