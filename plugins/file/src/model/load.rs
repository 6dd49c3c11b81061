//! Opens a model store: reads the files as of the state, then applies the journals.
//!
//! A file reflects the state at or after the checkpoint of `state.json`. Journal entries of an instance are applied
//! again unless the file already contains them.
//!
//! Everything here can be rebuilt from the log. So a store whose files are inconsistent (because somebody changed them,
//! the disk damaged them, or the system crashed before they were synced) starts empty, and the server rebuilds it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use snaphook_driver::{ErrorKind, Event, Instances, Position, Result, Row};

use super::dirty::Dirty;
use super::files;
use super::folders::{folder_of, number_of};
use super::garbage::Garbage;
use super::journal::{self, Journal, JournalEntry};
use super::state::{self, StoreState, Summary};
use super::writer::ModelWriter;
use crate::fault::unusable;
use crate::folder;

/// Opens the store of a folder. Also returns the garbage to remove in the background.
pub(super) fn open(store: &Path) -> Result<(Instances, ModelWriter, Garbage)> {
    let loaded = match load(store) {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            tracing::warn!("the files of instances are inconsistent and are rebuilt from the event log: {error}");
            state::remove(store).map_err(unusable(store))?;
            remove_journals(store, u64::MAX)?;
            Loaded::empty(store)?
        }
        loaded => loaded?,
    };
    let Loaded { instances, folders, next_folder, dirty, last_journal, garbage } = loaded;
    let journal = Journal::create(store, last_journal + 1)?;
    Ok((instances, ModelWriter { folder: store.to_owned(), journal, dirty, folders, next_folder }, garbage))
}

struct Loaded {
    instances: Instances,
    folders: BTreeMap<String, String>,
    next_folder: u64,
    dirty: Dirty,
    last_journal: u64,
    garbage: Garbage,
}

impl Loaded {
    /// An empty store, regardless of existing files.
    fn empty(store: &Path) -> Result<Loaded> {
        let garbage = Garbage::find(store, &[])?;
        let next_folder = garbage.next_folder();
        state::write(store, &StoreState { journal: 1, next_folder, boot: state::boot(), ..StoreState::default() })?;
        Ok(Loaded {
            instances: Instances::default(),
            folders: BTreeMap::new(),
            next_folder,
            dirty: Dirty::default(),
            last_journal: 0,
            garbage,
        })
    }
}

fn load(store: &Path) -> Result<Loaded> {
    let journals = journal::list(store)?;
    let Some(state) = state::read(store)? else {
        return match journals.is_empty() {
            true => Loaded::empty(store),
            false => Err(StoreState::doubtful(store, "`state.json` is missing")),
        };
    };
    let boot = state::boot();
    // If the boot is unknown, the system may have been restarted.
    if state.closed.is_none() && (boot.is_empty() || state.boot != boot) {
        return Err(StoreState::doubtful(store, "the system may have restarted before the store was closed"));
    }
    let journals: Vec<u64> = journals.into_iter().filter(|number| *number >= state.journal).collect();
    if !journals.iter().copied().eq(state.journal..state.journal + journals.len() as u64) {
        return Err(StoreState::doubtful(store, "a journal is missing"));
    }
    remove_journals(store, state.journal)?;
    let mut redo = Redo::begin(store, &state)?;
    for number in &journals {
        let grows = Some(number) == journals.last();
        journal::read(store, *number, grows, |entry| redo.entry(entry))?;
    }
    let last_journal = journals.last().copied().unwrap_or(state.journal - 1);
    // From here on, the files may be newer than the closed state.
    state::write(store, &StoreState { closed: None, boot, ..state })?;
    redo.end(last_journal)
}

/// Removes the journals before one.
fn remove_journals(store: &Path, before: u64) -> Result<()> {
    for number in journal::list(store)?.into_iter().filter(|number| *number < before) {
        journal::remove(store, number).map_err(unusable(store))?;
    }
    Ok(())
}

/// The files, while the journals are applied to them.
struct Redo {
    store: PathBuf,
    loaded: Loaded,
    /// The checkpoint of each instance's file, by model.
    applied: HashMap<String, HashMap<String, Position>>,
    /// Incomplete files. The journals contain their data.
    broken: HashSet<PathBuf>,
}

impl Redo {
    fn begin(store: &Path, state: &StoreState) -> Result<Redo> {
        let mut redo = Redo {
            store: store.to_owned(),
            loaded: Loaded {
                instances: Instances::new(state.log.clone(), state.checkpoint),
                folders: BTreeMap::new(),
                next_folder: state.next_folder,
                dirty: Dirty::default(),
                last_journal: 0,
                garbage: Garbage::default(),
            },
            applied: HashMap::new(),
            broken: HashSet::new(),
        };
        for (shape, folder) in &state.models {
            redo.loaded.instances.put_model(shape.clone());
            redo.loaded.folders.insert(shape.model.clone(), folder.clone());
            redo.read_files(&shape.model, &folder_of(store, folder))?;
        }
        let found = summary(&redo.loaded.instances);
        match state.closed {
            Some(closed) if closed != found || !redo.broken.is_empty() => {
                let message =
                    format!("expected {} instances, found {} or different ones", closed.instances, found.instances);
                Err(StoreState::doubtful(store, &message))
            }
            _ => Ok(redo),
        }
    }

    fn read_files(&mut self, model: &str, folder: &Path) -> Result<()> {
        if !folder.exists() {
            return Ok(());
        }
        folder::clear(folder, files::is_instance).map_err(unusable(folder))?;
        let applied = self.applied.entry(model.to_owned()).or_default();
        for name in folder::names_in(folder).map_err(unusable(folder))?.iter().filter(|name| files::is_instance(name)) {
            let path = folder.join(name);
            let bytes = fs::read(&path).map_err(unusable(&path))?;
            match files::read(&bytes, model) {
                Ok((row, position)) if files::path(folder, &row.instance().id) == path => {
                    applied.insert(row.instance().id.clone(), position);
                    self.loaded.instances.put_row(row);
                }
                _ => drop(self.broken.insert(path)),
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: JournalEntry) -> Result<()> {
        let Redo { store, loaded, applied, broken } = self;
        let Loaded { instances, folders, next_folder, dirty, .. } = loaded;
        match entry {
            JournalEntry::Apply { to, mut events } => {
                let is_new = |event: &Event| {
                    let file = applied.get(&event.model).and_then(|model| model.get(event.instance.as_ref()?));
                    file.is_none_or(|position| *position < event.position)
                };
                for event in &events {
                    if let (Some(id), Some(folder)) = (&event.instance, folders.get(&event.model)) {
                        dirty.row(&event.model, id);
                        broken.remove(&files::path(&folder_of(store, folder), id));
                    }
                }
                events.retain(is_new);
                let changes = instances.changes(&events, to).map_err(|error| {
                    StoreState::doubtful(store, "a journal does not match the files").because(error)
                })?;
                instances.apply(changes);
            }
            JournalEntry::Define { shape, folder, carry, position } => {
                *next_folder = (*next_folder).max(number_of(&folder) + 1);
                folders.entry(shape.model.clone()).or_insert(folder);
                let newer: Vec<Row> = applied
                    .get(&shape.model)
                    .into_iter()
                    .flatten()
                    .filter(|(_, file)| **file >= position)
                    .filter_map(|(id, _)| instances.row(&shape.model, id))
                    .map(|row| Row::clone(row))
                    .collect();
                if instances.define(&shape, &carry, position) {
                    dirty.carried(&shape.model, shape.version);
                }
                newer.into_iter().for_each(|row| instances.put_row(row));
            }
            JournalEntry::Drop { model, position } => {
                instances.drop_model(&model, position);
                applied.remove(&model);
                if let Some(folder) = folders.remove(&model) {
                    broken.retain(|path| !path.starts_with(folder_of(store, &folder)));
                    dirty.gone(&model, folder);
                }
            }
            JournalEntry::Reset { log } => {
                instances.reset(&log);
                applied.clear();
                broken.clear();
                for (model, folder) in std::mem::take(folders) {
                    dirty.gone(&model, folder);
                }
            }
        }
        Ok(())
    }

    fn end(self, last_journal: u64) -> Result<Loaded> {
        if let Some(path) = self.broken.iter().next() {
            return Err(StoreState::doubtful(path, "the file of an instance is damaged"));
        }
        let Loaded { instances, folders, next_folder, .. } = &self.loaded;
        let checkpoint = instances.checkpoint();
        if self.applied.values().flat_map(HashMap::values).any(|file| *file > checkpoint) {
            return Err(StoreState::doubtful(&self.store, "the file of an instance is newer than the journals"));
        }
        let wanted: Vec<&str> = folders.values().map(String::as_str).collect();
        let garbage = Garbage::find(&self.store, &wanted)?;
        let next_folder = garbage.next_folder().max(*next_folder);
        Ok(Loaded { last_journal, garbage, next_folder, ..self.loaded })
    }
}

/// The summary of all instances.
pub(super) fn summary(instances: &Instances) -> Summary {
    let mut summary = Summary { instances: 0, digest: 0 };
    for rows in instances.definitions().filter_map(|shape| instances.rows(&shape.model)) {
        summary.instances += rows.len() as u64;
        summary.digest = summary.digest.wrapping_add(files::digest(rows.values()));
    }
    summary
}
