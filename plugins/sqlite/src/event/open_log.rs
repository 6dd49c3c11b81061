//! One open file of a log, shared by the threads that use it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use snaphook_driver::{DriverError, ErrorKind, Position, Result};
use tokio::sync::{Semaphore, watch};

use super::names::Names;
use super::writer::LogWriter;
use crate::database::{Readers, locked};

/// The data that work on other threads needs.
pub(super) struct OpenLog {
    /// `None` once closed. Readers never take it.
    pub(super) writer: Mutex<Option<LogWriter>>,
    pub(super) readers: Readers,
    /// The committed names; replaced as a whole with the first event of a new model.
    pub(super) names: RwLock<Arc<Names>>,
    /// Position of the last committed event; a change wakes waiting readers.
    pub(super) head: watch::Sender<Position>,
    /// An append is running, or the last one failed.
    pub(super) failed: AtomicBool,
    /// Permits for pages that scan many events: at most one per core at a time.
    pub(super) scans: Arc<Semaphore>,
}

impl OpenLog {
    /// Shares the file at `path`, which `writer` has open.
    pub(super) fn new(path: &Path, writer: LogWriter) -> Arc<OpenLog> {
        let (head, names) = (writer.head(), Arc::clone(writer.names()));
        Arc::new(OpenLog {
            writer: Mutex::new(Some(writer)),
            readers: Readers::new(path),
            names: RwLock::new(names),
            head: watch::Sender::new(head),
            failed: AtomicBool::new(false),
            scans: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))),
        })
    }

    /// The current numbers of the models.
    pub(super) fn names(&self) -> Arc<Names> {
        Arc::clone(&self.names.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn head(&self) -> Position {
        *self.head.borrow()
    }

    pub(super) fn publish(&self, head: Position) {
        self.head.send_if_modified(|last| std::mem::replace(last, head) != head);
    }

    /// See [`LogWriter::recover`].
    pub(super) fn recover(&self) -> Result<()> {
        self.writing("health", |writer| {
            self.recover_with(writer)?;
            self.failed.store(false, Ordering::Release);
            Ok(())
        })
    }

    pub(super) fn recover_with(&self, writer: &mut LogWriter) -> Result<()> {
        let recovered = writer.recover();
        // Even if it failed: the contents of the file may be known again.
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(writer.names());
        self.publish(writer.head());
        recovered
    }

    pub(super) fn writing<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&mut LogWriter) -> Result<T>,
    ) -> Result<T> {
        match locked(&self.writer).as_mut() {
            Some(writer) => {
                if writer.is_unknown() {
                    self.recover_with(writer)?;
                }
                work(writer)
            }
            None => Err(DriverError::new(ErrorKind::Unavailable, operation, "the store is closed")),
        }
    }
}
