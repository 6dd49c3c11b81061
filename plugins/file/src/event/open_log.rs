//! The state shared by all calls of the store, and how they change the log.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use snaphook_driver::judge::judge;
use snaphook_driver::{Append, Appended, Conflict, Holder, Position, Result, Stream};
use tokio::sync::watch;

use super::blobs::Blobs;
use super::index::Span;
use super::log::Log;
use super::record::LineBody;
use super::segment::Tail;
use super::writer::LogWriter;
use crate::fault::{closed, fault};
use crate::task::locked;

/// The data that work on other threads needs.
pub(super) struct OpenLog {
    pub(super) folder: PathBuf,
    /// `None` once closed. Taken before `log`.
    pub(super) writer: Mutex<Option<LogWriter>>,
    pub(super) log: RwLock<Log>,
    pub(super) blobs: Blobs,
    /// Position of the last durable event; a change wakes waiting readers.
    pub(super) head: watch::Sender<Position>,
    /// An append is running, or the last one failed.
    pub(super) failed: AtomicBool,
}

impl OpenLog {
    pub(super) fn head(&self) -> Position {
        *self.head.borrow()
    }

    pub(super) fn publish(&self, head: Position) {
        self.head.send_if_modified(|last| std::mem::replace(last, head) != head);
    }

    pub(super) fn log(&self) -> RwLockReadGuard<'_, Log> {
        self.log.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn log_mut(&self) -> RwLockWriteGuard<'_, Log> {
        self.log.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn writing<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&mut LogWriter) -> Result<T>,
    ) -> Result<T> {
        locked(&self.writer).as_mut().map_or_else(|| Err(closed(operation)), work)
    }

    pub(super) fn append(&self, batch: &[Append], atomic: bool) -> Result<Vec<Result<Appended, Conflict>>> {
        self.writing("append", |writer| {
            let log = self.log();
            let judged = judge(log.end(), batch, atomic, &mut &*log)?;
            drop(log);
            if !judged.accepted.is_empty() {
                let spans = self.write(writer, "append", judged.accepted.iter().map(LineBody::of).collect())?;
                self.log_mut().commit(&judged, &spans);
                self.publish(judged.end.position);
            }
            Ok(judged.answers)
        })
    }

    pub(super) fn write(
        &self,
        writer: &mut LogWriter,
        operation: &'static str,
        bodies: Vec<LineBody<'_>>,
    ) -> Result<Vec<Span>> {
        let after = self.head();
        writer.write(operation, after, bodies, |tail| self.begin(tail))
    }

    /// Writes the changes that wait for a batch if they are large.
    fn flush(&self, writer: &mut LogWriter, operation: &'static str) -> Result<()> {
        if writer.is_full() { writer.flush(operation, self.head(), |tail| self.begin(tail)) } else { Ok(()) }
    }

    fn begin(&self, tail: &Tail) {
        let mut log = self.log_mut();
        let first = log.index.count();
        log.index.add_segment(first, tail.path.clone(), Some(Arc::clone(&tail.file)));
    }

    pub(super) fn reserve(&self, keys: Vec<(String, Stream)>) -> Result<Vec<(usize, Holder)>> {
        self.writing("reserve", |writer| {
            let (mut taken, mut held) = (Vec::new(), Vec::new());
            let mut log = self.log_mut();
            let position = log.index.head();
            for (index, (key, stream)) in keys.into_iter().enumerate() {
                match log.claims.get(&key) {
                    Some(holder) if holder.stream != stream => taken.push((index, Holder::clone(holder))),
                    _ => {
                        let holder = Holder::new(stream, position);
                        log.claims.put(&key, holder.clone());
                        held.push((key, holder));
                    }
                }
            }
            drop(log);
            if !held.is_empty() {
                writer.hold(held);
            }
            self.flush(writer, "reserve")?;
            Ok(taken)
        })
    }

    pub(super) fn forget_claims(&self, prefix: &str, limit: u32) -> Result<u64> {
        self.writing("forget_claims", |writer| {
            let mut log = self.log_mut();
            let keys = log.claims.from(prefix).take_while(|key| key.starts_with(prefix)).take(limit as usize);
            let keys: Vec<String> = keys.map(str::to_owned).collect();
            keys.iter().for_each(|key| log.claims.remove(key));
            drop(log);
            let count = keys.len() as u64;
            if count > 0 {
                writer.forget(keys);
            }
            self.flush(writer, "forget_claims")?;
            Ok(count)
        })
    }

    pub(super) fn health(&self) -> Result<()> {
        std::fs::metadata(&self.folder).map_err(fault("health", &self.folder))?;
        if self.failed.load(Ordering::Acquire) {
            // Under the writer's lock: an append that fails later sets this later.
            self.writing("health", |writer| {
                writer.recover()?;
                self.failed.store(false, Ordering::Release);
                Ok(())
            })?;
        }
        Ok(())
    }

    pub(super) fn close(&self) -> Result<()> {
        let Some(mut writer) = locked(&self.writer).take() else { return Ok(()) };
        writer.flush("close", self.head(), |tail| self.begin(tail))
    }
}
