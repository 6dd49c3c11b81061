//! The state shared by the store's calls and the writing thread.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::Instant;

use snaphook_driver::{DriverError, ErrorKind, Instances, Position, Result};

use super::garbage::Garbage;
use super::writer::ModelWriter;
use crate::task::locked;

/// The data that work on other threads needs.
pub(super) struct OpenModels {
    pub(super) folder: PathBuf,
    /// Never locked while a file is written.
    pub(super) instances: Mutex<Instances>,
    /// `None` once closed. Taken before `instances`.
    pub(super) writer: Mutex<Option<ModelWriter>>,
    pub(super) garbage: Mutex<Garbage>,
    /// Notifies the writing thread of work.
    pub(super) work: Condvar,
    /// Tells that thread to end.
    pub(super) stopping: AtomicBool,
    /// Deadline until which closing the store writes the remaining changes.
    pub(super) closing: OnceLock<Instant>,
}

impl OpenModels {
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Looks something up, together with its checkpoint. Fails once nothing more may be written.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Instances) -> T) -> Result<(T, Position)> {
        let may_write = self.closing.get().map_or(!self.is_stopping(), |deadline| Instant::now() < *deadline);
        if !may_write {
            return Err(DriverError::new(ErrorKind::Unavailable, "flush", "the store is closing"));
        }
        let instances = locked(&self.instances);
        Ok((look(&instances), instances.checkpoint()))
    }
}
