//! All four stores in memory: for tests, and for trying things out. All data is lost when the process ends.
//!
//! Each store is one lock around plain collections; calls are short. Filters, sorts and consumer groups use the modules
//! of `snaphook-driver`, so this driver is also the reference for other drivers.

mod config;
mod error;
mod event;
mod model;
mod secure;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use snaphook_driver::{Driver, ErrorStore, EventStore, ModelStore, OpenContext, OpenFuture, SecureStore};

pub use config::MemoryConfig;
pub use error::MemoryErrorStore;
pub use event::MemoryEventStore;
pub use model::MemoryModelStore;
pub use secure::MemorySecureStore;

/// The driver `memory`.
pub const DRIVER: Driver = Driver {
    name: "memory",
    settings: &[],
    connection: &[],
    secure: Some(|context: OpenContext| -> OpenFuture<dyn SecureStore> {
        Box::pin(async move { MemoryConfig::check(&context).map(|()| Arc::new(MemorySecureStore::default()) as _) })
    }),
    event: Some(|context: OpenContext| -> OpenFuture<dyn EventStore> {
        Box::pin(async move { MemoryConfig::check(&context).map(|()| Arc::new(MemoryEventStore::default()) as _) })
    }),
    model: Some(|context: OpenContext| -> OpenFuture<dyn ModelStore> {
        Box::pin(async move { MemoryConfig::check(&context).map(|()| Arc::new(MemoryModelStore::default()) as _) })
    }),
    error: Some(|context: OpenContext| -> OpenFuture<dyn ErrorStore> {
        Box::pin(async move { MemoryConfig::check(&context).map(|()| Arc::new(MemoryErrorStore::default()) as _) })
    }),
};

/// Locks a mutex. A panic of an earlier holder never leaves the state inconsistent: each change is made last, in one
/// step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
