//! Bringing the files of instances up to date, beside the changes of others: only the last of many changes to an
//! instance is written.
//!
//! A cycle begins a journal, writes what changed before that, then the state, and then the older journals are not needed
//! any more. It may fail or be killed at any point: until the state is replaced, the journals have everything.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use snaphook_driver::{DriverError, ErrorKind, Instances, Position, Result, Row};

use super::journal::{self, Journal};
use super::state::{self, State};
use super::{Shared, Writer, files, number_of};
use crate::fault::fault;
use crate::folder::names_in;
use crate::task::locked;

/// How long changes are let come before they are written.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a cycle that failed is not tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Files that are removed before looking for something better to do.
const FILES_AT_ONCE: usize = 256;

/// Instances that are looked up at once.
const ROWS_AT_ONCE: usize = 256;

/// Models that have a folder in the store's are in this one.
const INSTANCES: &str = "instances";

/// What is not in the files yet.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    models: BTreeMap<String, DirtyModel>,
    /// Folders of models that are gone.
    gone: Vec<String>,
}

#[derive(Debug, Default)]
struct DirtyModel {
    ids: HashSet<String>,
    /// A change of the model brought instances over to a version from this one on.
    from_version: Option<u64>,
}

impl Dirty {
    pub(super) fn is_empty(&self) -> bool {
        self.models.is_empty() && self.gone.is_empty()
    }

    pub(super) fn row(&mut self, model: &str, id: &str) {
        if !self.models.contains_key(model) {
            self.models.insert(model.to_owned(), DirtyModel::default());
        }
        if let Some(model) = self.models.get_mut(model)
            && !model.ids.contains(id)
        {
            model.ids.insert(id.to_owned());
        }
    }

    pub(super) fn carried(&mut self, model: &str, version: u64) {
        let model = self.models.entry(model.to_owned()).or_default();
        model.from_version = Some(model.from_version.map_or(version, |from| from.min(version)));
    }

    pub(super) fn gone(&mut self, model: &str, folder: String) {
        self.models.remove(model);
        self.gone.push(folder);
    }

    /// Takes back what was not written.
    fn merge(&mut self, older: Dirty, folders: &BTreeMap<String, String>) {
        for (model, older) in older.models.into_iter().filter(|(model, _)| folders.contains_key(model)) {
            let newer = self.models.entry(model).or_default();
            newer.ids.extend(older.ids);
            newer.from_version = newer.from_version.into_iter().chain(older.from_version).min();
        }
        self.gone.extend(older.gone);
    }
}

/// The folder of a model's instances.
pub(super) fn folder_of(store: &Path, folder: &str) -> PathBuf {
    store.join(INSTANCES).join(folder)
}

/// Folders that no model has. Removing many files takes long, so it is done beside everything else.
#[derive(Debug, Default)]
pub(super) struct Garbage(Vec<PathBuf>);

impl Garbage {
    /// Finds what is there besides the folders that models have.
    pub(super) fn find(store: &Path, wanted: &[&str]) -> Result<Garbage> {
        let folder = store.join(INSTANCES);
        let names = fs::create_dir_all(&folder).and_then(|()| names_in(&folder)).map_err(fault("open", &folder))?;
        // Only what looks like ours.
        let is_garbage = |name: &&String| number_of(name) > 0 && !wanted.contains(&name.as_str());
        Ok(Garbage(names.iter().filter(is_garbage).map(|name| folder.join(name)).collect()))
    }

    /// Greater than the number of any of these folders.
    pub(super) fn next_folder(&self) -> u64 {
        let names = self.0.iter().filter_map(|path| path.file_name()?.to_str());
        names.map(|name| number_of(name) + 1).max().unwrap_or(1)
    }

    /// Removes some files. An error costs the folder its removal until the store is opened again.
    fn remove_some(&mut self) -> io::Result<()> {
        let Some(folder) = self.0.last() else { return Ok(()) };
        let mut entries = match fs::read_dir(folder) {
            Ok(entries) => entries.take(FILES_AT_ONCE).peekable(),
            Err(error) => {
                self.0.pop();
                return if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
            }
        };
        let removed = match entries.peek() {
            Some(_) => entries.try_for_each(|entry| fs::remove_file(entry?.path())),
            None => fs::remove_dir(folder),
        };
        removed.inspect_err(|_| drop(self.0.pop()))
    }
}

/// The thread that writes. It ends when the store is closed or dropped.
pub(super) fn run(shared: &Shared) {
    let mut failed = false;
    while !shared.is_stopping() {
        if let Err(error) = remove_garbage(shared) {
            tracing::warn!(
                "what is left of a model cannot be removed, which is tried again at the next start: {error}"
            );
        }
        {
            let idle = |writer: &mut Option<Writer>| !shared.is_stopping() && !is_dirty(writer.as_ref());
            let writer = shared.work.wait_while(locked(&shared.writer), idle);
            let writer = writer.unwrap_or_else(PoisonError::into_inner);
            let pause = if failed { RETRY } else { PAUSE };
            drop(shared.work.wait_timeout_while(writer, pause, |_| !shared.is_stopping()));
        }
        if shared.is_stopping() {
            return;
        }
        let result = cycle(shared);
        if let Err(error) = &result
            && !failed
        {
            tracing::warn!("the files of instances cannot be brought up to date, which is tried again: {error}");
        }
        failed = result.is_err();
    }
}

fn is_dirty(writer: Option<&Writer>) -> bool {
    writer.is_some_and(|writer| !writer.dirty.is_empty())
}

/// Removes garbage while there is nothing else to do.
fn remove_garbage(shared: &Shared) -> io::Result<()> {
    while !shared.is_stopping() && !is_dirty(locked(&shared.writer).as_ref()) {
        let mut garbage = locked(&shared.garbage);
        if garbage.0.is_empty() {
            break;
        }
        garbage.remove_some()?;
    }
    Ok(())
}

fn cycle(shared: &Shared) -> Result<()> {
    let mut cycle = match locked(&shared.writer).as_mut() {
        Some(writer) => Cycle::begin(writer, &locked(&shared.instances))?,
        None => return Ok(()),
    };
    let written = cycle.write(shared).and_then(|()| cycle.finish(shared));
    if written.is_err()
        && let Some(writer) = locked(&shared.writer).as_mut()
    {
        writer.dirty.merge(std::mem::take(&mut cycle.dirty), &writer.folders);
    }
    written
}

/// What one cycle writes.
pub(super) struct Cycle {
    dirty: Dirty,
    pub(super) state: State,
}

impl Cycle {
    /// Takes what is to be written. What comes from now on goes into another journal.
    pub(super) fn begin(writer: &mut Writer, instances: &Instances) -> Result<Cycle> {
        // One that is empty serves again, so that cycles which fail leave no more of them.
        if !writer.journal.is_empty() {
            writer.journal = Journal::create(&writer.folder, writer.journal.number + 1)?;
        }
        Ok(Cycle { dirty: std::mem::take(&mut writer.dirty), state: writer.state(instances) })
    }

    /// Writes the files.
    pub(super) fn write(&self, shared: &Shared) -> Result<()> {
        let mut bytes = Vec::new();
        for (model, dirty) in &self.dirty.models {
            let Some((_, folder)) = self.state.models.iter().find(|(shape, _)| shape.model == *model) else { continue };
            let folder = folder_of(&shared.folder, folder);
            fs::create_dir_all(&folder).map_err(fault("flush", &folder))?;
            let ids: Vec<&String> = dirty.ids.iter().collect();
            for ids in ids.chunks(ROWS_AT_ONCE) {
                let (rows, checkpoint) = shared.look(|instances| {
                    ids.iter().map(|id| instances.row(model, id).cloned()).collect::<Vec<Option<Arc<Row>>>>()
                })?;
                for (id, row) in ids.iter().zip(rows) {
                    let written = match row {
                        Some(row) => files::write(&folder, &row, checkpoint, &mut bytes),
                        None => files::remove(&folder, id),
                    };
                    written.map_err(fault("flush", &folder))?;
                }
            }
            if let Some(version) = dirty.from_version {
                self.write_carried(shared, model, &folder, version, &mut bytes)?;
            }
        }
        Ok(())
    }

    fn write_carried(
        &self,
        shared: &Shared,
        model: &str,
        folder: &Path,
        version: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<()> {
        let mut after = String::new();
        loop {
            let (rows, checkpoint) = shared.look(|instances| instances.rows_after(model, &after, ROWS_AT_ONCE))?;
            let Some(last) = rows.last() else { return Ok(()) };
            after.clone_from(&last.instance().id);
            for row in rows.iter().filter(|row| row.instance().model_version >= version) {
                files::write(folder, row, checkpoint, bytes).map_err(fault("flush", folder))?;
            }
        }
    }

    /// Replaces the state, and removes the journals before it.
    pub(super) fn finish(&mut self, shared: &Shared) -> Result<()> {
        let store = &shared.folder;
        state::write(store, &self.state)?;
        locked(&shared.garbage).0.extend(self.dirty.gone.drain(..).map(|folder| folder_of(store, &folder)));
        for number in journal::list(store)?.into_iter().filter(|number| *number < self.state.journal) {
            // One that stays is removed at the next start.
            let _ = journal::remove(store, number);
        }
        Ok(())
    }
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Looks something up, with the checkpoint that it is as of. An error once nothing more is to be written.
    fn look<T>(&self, look: impl FnOnce(&Instances) -> T) -> Result<(T, Position)> {
        let may_write = self.closing.get().map_or(!self.is_stopping(), |deadline| Instant::now() < *deadline);
        if !may_write {
            return Err(DriverError::new(ErrorKind::Unavailable, "flush", "the store is about to be closed"));
        }
        let instances = locked(&self.instances);
        Ok((look(&instances), instances.checkpoint()))
    }
}
