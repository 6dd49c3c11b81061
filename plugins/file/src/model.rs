//! The model store: a readable file per instance, in a folder per model, and all instances in memory, where queries
//! search them.
//!
//! A change is first a line in a journal, then a change in memory; a separate thread updates the files a moment later
//! ([`flush`]). Nothing is synced. Opening the store reads the files and the later entries of the journal ([`load`]).
//! As in the memory driver, memory contains both the text of the data and its parsed form: about ten times the size of
//! the text.

mod dirty;
mod files;
mod flush;
mod folders;
mod garbage;
mod journal;
mod load;
mod open_models;
mod state;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use snaphook_driver::files::FileLock;
use snaphook_driver::{
    Budget, Capabilities, CarryOver, DriverError, ErrorKind, Event, Filter, Instance, InstancePage, InstanceQuery,
    Instances, ModelShape, ModelStore, Position, Result, count_rows, moves_checkpoint, prepare_instances, query_rows,
};

use crate::fault::{closed, fault};
use crate::folder::LOCK;
use crate::marker;
use crate::task::{locked, off_thread};
use flush::Cycle;
use folders::{folder_name, number_of};
use open_models::OpenModels;
use writer::ModelWriter;

/// The store type in the folder's marker.
const STORE: &str = "model store";

/// See the crate's documentation.
pub struct FileModelStore {
    shared: Arc<OpenModels>,
    flusher: Mutex<Option<JoinHandle<()>>>,
    lock: Mutex<Option<FileLock>>,
}

impl FileModelStore {
    /// Opens the store in a folder, or creates it.
    pub fn open(folder: &Path) -> Result<Self> {
        let lock = FileLock::take(&folder.join(LOCK), folder)?;
        if marker::read(folder, STORE)?.is_none() {
            marker::write(folder, STORE, None)?;
        }
        let (instances, writer, garbage) = load::open(folder)?;
        let shared = Arc::new(OpenModels {
            folder: folder.to_owned(),
            instances: Mutex::new(instances),
            writer: Mutex::new(Some(writer)),
            garbage: Mutex::new(garbage),
            work: Condvar::new(),
            stopping: AtomicBool::new(false),
            closing: OnceLock::new(),
        });
        let flusher = std::thread::Builder::new().name("file-models".into()).spawn({
            let shared = Arc::clone(&shared);
            move || flush::run(&shared)
        });
        let flusher = flusher.map_err(|error| {
            DriverError::new(ErrorKind::Unavailable, "open", "a thread cannot be started").because(error)
        })?;
        Ok(FileModelStore { shared, flusher: Mutex::new(Some(flusher)), lock: Mutex::new(Some(lock)) })
    }

    /// Makes one change: `write` appends it to the journal and records which files must be written.
    fn change(
        &self,
        operation: &'static str,
        change: impl FnOnce(&mut ModelWriter, &Mutex<Instances>) -> Result<()>,
    ) -> Result<()> {
        let mut writer = locked(&self.shared.writer);
        change(writer.as_mut().ok_or_else(|| closed(operation))?, &self.shared.instances)?;
        drop(writer);
        self.shared.work.notify_all();
        Ok(())
    }
}

impl Drop for FileModelStore {
    fn drop(&mut self) {
        stop(&self.shared, &self.flusher);
    }
}

/// Stops the writing thread.
fn stop(shared: &OpenModels, flusher: &Mutex<Option<JoinHandle<()>>>) {
    {
        // Under the lock with which the thread waits, so that it does not miss the signal.
        let _writer = locked(&shared.writer);
        shared.stopping.store(true, Ordering::Release);
    }
    shared.work.notify_all();
    if let Some(thread) = locked(flusher).take() {
        let _ = thread.join();
    }
}

/// How long closing a store may write files. The journals contain the remaining changes, which the next start reads.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Writes all files and records that the store is closed.
fn close(shared: &OpenModels) -> Result<()> {
    let deadline = *shared.closing.get_or_init(|| Instant::now() + CLOSE_MAX);
    let Some(mut writer) = locked(&shared.writer).take() else { return Ok(()) };
    let mut cycle = Cycle::begin(&mut writer, &locked(&shared.instances))?;
    if let Err(error) = cycle.write(shared) {
        let is_late = Instant::now() >= deadline;
        return if is_late { Ok(()) } else { Err(error) };
    }
    cycle.state.closed = Some(load::summary(&locked(&shared.instances)));
    cycle.finish(shared)
}

#[async_trait]
impl ModelStore for FileModelStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, ..Capabilities::LEAST }
    }

    async fn health(&self) -> Result<()> {
        let folder = &self.shared.folder;
        std::fs::metadata(folder).map(drop).map_err(fault("health", folder))
    }

    async fn close(&self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let flusher = locked(&self.flusher).take();
        let closed = off_thread("close", move || {
            stop(&shared, &Mutex::new(flusher));
            close(&shared)
        })
        .await;
        locked(&self.lock).take();
        closed
    }

    async fn define(
        &self,
        after: Position,
        _old: Option<&ModelShape>,
        new: &ModelShape,
        carry: &CarryOver,
        position: Position,
    ) -> Result<()> {
        self.change("define", |writer, instances| {
            if !moves_checkpoint("define", locked(instances).checkpoint(), after, position)? {
                return Ok(());
            }
            let folder = match writer.folders.get(&new.model) {
                Some(folder) => folder.clone(),
                None => folder_name(&new.model, writer.next_folder),
            };
            writer.journal.define(new, &folder, carry, position)?;
            writer.next_folder = writer.next_folder.max(number_of(&folder) + 1);
            writer.folders.insert(new.model.clone(), folder);
            if locked(instances).define(new, carry, position) {
                writer.dirty.carried(&new.model, new.version);
            }
            Ok(())
        })
    }

    async fn prepare(&self, new: &ModelShape, carry: &CarryOver) -> Result<u64> {
        Ok(prepare_instances(&self.shared.instances, new, carry).await)
    }

    async fn discard(&self, model: &str, ticket: u64) -> Result<()> {
        locked(&self.shared.instances).discard(model, ticket);
        Ok(())
    }

    async fn drop_model(&self, after: Position, model: &str, position: Position) -> Result<()> {
        self.change("drop_model", |writer, instances| {
            if !moves_checkpoint("drop_model", locked(instances).checkpoint(), after, position)? {
                return Ok(());
            }
            writer.journal.drop_model(model, position)?;
            locked(instances).drop_model(model, position);
            if let Some(folder) = writer.folders.remove(model) {
                writer.dirty.gone(model, folder);
            }
            Ok(())
        })
    }

    async fn apply(&self, after: Position, events: &[Event], to: Position) -> Result<()> {
        self.change("apply", |writer, instances| {
            // No other code changes the data that this reads, so the lock is not needed while the journal is written.
            let Some(changes) = locked(instances).check(after, events, to)? else { return Ok(()) };
            writer.journal.apply(&changes, to)?;
            for event in changes.events() {
                if let Some(id) = &event.instance {
                    writer.dirty.row(&event.model, id);
                }
            }
            locked(instances).apply(changes);
            Ok(())
        })
    }

    async fn log(&self) -> Result<Option<String>> {
        Ok(locked(&self.shared.instances).log().map(str::to_owned))
    }

    async fn checkpoint(&self) -> Result<Position> {
        Ok(locked(&self.shared.instances).checkpoint())
    }

    async fn definitions(&self) -> Result<Vec<ModelShape>> {
        Ok(locked(&self.shared.instances).definitions().cloned().collect())
    }

    async fn get(&self, model: &str, id: &str) -> Result<Option<Instance>> {
        Ok(locked(&self.shared.instances).row(model, id).map(|row| row.instance().clone()))
    }

    async fn query(&self, model: &str, query: &InstanceQuery, budget: &Budget) -> Result<InstancePage> {
        let rows = locked(&self.shared.instances).rows(model).unwrap_or_default();
        query_rows(&rows, model, query, budget).await
    }

    async fn count(&self, model: &str, filter: &Filter, budget: &Budget) -> Result<u64> {
        let rows = locked(&self.shared.instances).rows(model).unwrap_or_default();
        count_rows(&rows, filter, budget).await
    }

    async fn reset(&self, log: &str) -> Result<()> {
        self.change("reset", |writer, instances| {
            writer.journal.reset(log)?;
            locked(instances).reset(log);
            for (model, folder) in std::mem::take(&mut writer.folders) {
                writer.dirty.gone(&model, folder);
            }
            Ok(())
        })
    }
}
