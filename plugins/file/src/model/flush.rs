//! Updates the files of instances in the background. If an instance changes often, only its last state is written.
//!
//! A cycle starts a new journal, writes the files for all earlier changes, then the state, and then removes the older
//! journals, which are no longer needed. It may fail or be killed at any point: until the state is replaced, the
//! journals contain all changes.

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use snaphook_driver::files::make_folder;
use snaphook_driver::{Instances, Result, Row};

use super::dirty::Dirty;
use super::files;
use super::folders::folder_of;
use super::journal::{self, Journal};
use super::open_models::OpenModels;
use super::state::{self, StoreState};
use super::writer::ModelWriter;
use crate::fault::fault;
use crate::task::locked;

/// How long changes are collected before they are written.
const PAUSE: Duration = Duration::from_millis(100);

/// The pause after a failed cycle.
const RETRY: Duration = Duration::from_secs(1);

/// How many instances are looked up at once.
const ROWS_AT_ONCE: usize = 256;

/// The writing thread. It ends when the store is closed or dropped.
pub(super) fn run(shared: &OpenModels) {
    let mut failed = false;
    while !shared.is_stopping() {
        if let Err(error) = remove_garbage(shared) {
            tracing::warn!("the files of a removed model cannot be deleted, the next start retries: {error}");
        }
        {
            let idle = |writer: &mut Option<ModelWriter>| !shared.is_stopping() && !is_dirty(writer.as_ref());
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
            tracing::warn!("the files of instances cannot be updated, retrying: {error}");
        }
        failed = result.is_err();
    }
}

fn is_dirty(writer: Option<&ModelWriter>) -> bool {
    writer.is_some_and(|writer| !writer.dirty.is_empty())
}

/// Removes garbage while nothing needs to be written.
fn remove_garbage(shared: &OpenModels) -> io::Result<()> {
    while !shared.is_stopping() && !is_dirty(locked(&shared.writer).as_ref()) {
        let mut garbage = locked(&shared.garbage);
        if garbage.is_empty() {
            break;
        }
        garbage.remove_some()?;
    }
    Ok(())
}

fn cycle(shared: &OpenModels) -> Result<()> {
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

/// The changes that one cycle writes.
pub(super) struct Cycle {
    dirty: Dirty,
    pub(super) state: StoreState,
}

impl Cycle {
    /// Takes the changes to write. Later changes go into another journal.
    pub(super) fn begin(writer: &mut ModelWriter, instances: &Instances) -> Result<Cycle> {
        // Reuse an empty journal, so that failed cycles do not leave more and more journals.
        if !writer.journal.is_empty() {
            writer.journal = Journal::create(&writer.folder, writer.journal.number + 1)?;
        }
        Ok(Cycle { dirty: std::mem::take(&mut writer.dirty), state: writer.state(instances) })
    }

    /// Writes the files.
    pub(super) fn write(&self, shared: &OpenModels) -> Result<()> {
        let mut bytes = Vec::new();
        for (model, dirty) in &self.dirty.models {
            let Some((_, folder)) = self.state.models.iter().find(|(shape, _)| shape.model == *model) else { continue };
            let folder = folder_of(&shared.folder, folder);
            make_folder(&folder).map_err(fault("flush", &folder))?;
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
        shared: &OpenModels,
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
    pub(super) fn finish(&mut self, shared: &OpenModels) -> Result<()> {
        let store = &shared.folder;
        state::write(store, &self.state)?;
        locked(&shared.garbage).add(self.dirty.gone.drain(..).map(|folder| folder_of(store, &folder)));
        for number in journal::list(store)?.into_iter().filter(|number| *number < self.state.journal) {
            // A journal that cannot be removed is removed at the next start.
            let _ = journal::remove(store, number);
        }
        Ok(())
    }
}
