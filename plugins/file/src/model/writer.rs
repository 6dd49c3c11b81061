//! The state that only writing calls use.

use std::collections::BTreeMap;
use std::path::PathBuf;

use snaphook_driver::Instances;

use super::dirty::Dirty;
use super::journal::Journal;
use super::state::{self, StoreState};

/// See the head of this file.
pub(super) struct ModelWriter {
    pub(super) folder: PathBuf,
    pub(super) journal: Journal,
    pub(super) dirty: Dirty,
    /// The folder of each model.
    pub(super) folders: BTreeMap<String, String>,
    pub(super) next_folder: u64,
}

impl ModelWriter {
    /// The state up to the beginning of the journal.
    pub(super) fn state(&self, instances: &Instances) -> StoreState {
        let folder = |model: &str| self.folders.get(model).cloned().unwrap_or_default();
        StoreState {
            log: instances.log().map(str::to_owned),
            checkpoint: instances.checkpoint(),
            journal: self.journal.number,
            models: instances.definitions().map(|shape| (shape.clone(), folder(&shape.model))).collect(),
            next_folder: self.next_folder,
            closed: None,
            boot: state::boot(),
        }
    }
}
