//! What the calls of the store and the thread that writes files share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::Instant;

use snaphook_driver::{DriverError, ErrorKind, Instances, Position, Result};

use super::garbage::Garbage;
use super::writer::Writer;
use crate::task::locked;

/// What work on other threads needs.
pub(super) struct Shared {
    pub(super) folder: PathBuf,
    /// Never locked while a file is written.
    pub(super) instances: Mutex<Instances>,
    /// `None` once closed. Taken before `instances`.
    pub(super) writer: Mutex<Option<Writer>>,
    pub(super) garbage: Mutex<Garbage>,
    /// Tells the thread that writes files that there is something to do.
    pub(super) work: Condvar,
    /// That thread is to end.
    pub(super) stopping: AtomicBool,
    /// What is left is written by whoever closes the store, until then.
    pub(super) closing: OnceLock<Instant>,
}

impl Shared {
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Looks something up, with the checkpoint that it is as of. An error once nothing more is to be written.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Instances) -> T) -> Result<(T, Position)> {
        let may_write = self.closing.get().map_or(!self.is_stopping(), |deadline| Instant::now() < *deadline);
        if !may_write {
            return Err(DriverError::new(ErrorKind::Unavailable, "flush", "the store is about to be closed"));
        }
        let instances = locked(&self.instances);
        Ok((look(&instances), instances.checkpoint()))
    }
}
