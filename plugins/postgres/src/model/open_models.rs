//! What the store's calls share.

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
    /// As it was last read; whoever uses it compares its number of changes.
    registry: RwLock<Arc<Registry>>,
    pub(super) lanes: Lanes,
    /// Tells this opened store from others, in what is prepared.
    pub(super) owner: String,
    /// Work that nobody waits for; ends when the store is closed.
    background: Mutex<JoinSet<()>>,
    /// When it was last looked for what is abandoned.
    looked: Mutex<Instant>,
    /// Whether tables are about to be removed.
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

    /// Itself, for work in the background.
    pub(super) fn this(&self) -> Option<Arc<OpenModels>> {
        self.this.upgrade()
    }

    /// Whether it is time to look for what is abandoned.
    pub(super) fn looks(&self, every: Duration) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = looked.elapsed() > every;
        if due {
            *looked = Instant::now();
        }
        due
    }

    /// Whether nobody else is about to remove tables.
    pub(super) fn clears(&self) -> bool {
        !self.clearing.swap(true, Ordering::Relaxed)
    }

    /// From now on there may be more of them.
    pub(super) fn cleared(&self) {
        self.clearing.store(false, Ordering::Relaxed);
    }

    /// Ends work in the background.
    pub(super) async fn stop(&self) {
        let mut background = std::mem::take(&mut *self.background.lock().unwrap_or_else(PoisonError::into_inner));
        background.shutdown().await;
    }

    pub(super) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps a registry that was read, unless a later one is known.
    pub(super) fn publish(&self, registry: Registry) -> Arc<Registry> {
        let registry = Arc::new(registry);
        let mut known = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        if known.changes < registry.changes {
            *known = Arc::clone(&registry);
        }
        registry
    }

    /// Reads the registry as it is now.
    pub(super) async fn reload(&self, operation: &'static str) -> Result<Arc<Registry>> {
        let mut session = self.database.session(operation).await?;
        Ok(self.publish(Registry::load(&self.database, &mut session, operation).await?))
    }

    /// A model as it was last read; reads the registry again if it was not there.
    pub(super) async fn model(&self, model: &str, operation: &'static str) -> Result<Option<(i64, Arc<Model>)>> {
        let mut registry = self.registry();
        if !registry.models.contains_key(model) {
            registry = self.reload(operation).await?;
        }
        Ok(registry.models.get(model).map(|found| (registry.changes, Arc::clone(found))))
    }

    /// Starts work that nobody waits for.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let mut background = self.background.lock().unwrap_or_else(PoisonError::into_inner);
            while background.try_join_next().is_some() {}
            background.spawn_on(work, &runtime);
        }
    }
}

/// Whether a read met a table that is there no more: its model was changed meanwhile.
pub(super) fn is_gone(error: &DriverError) -> bool {
    error.kind() == ErrorKind::Corrupt && error.context().any(|(key, value)| key == "SQLSTATE" && value == "42P01")
}
