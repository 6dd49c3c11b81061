//! Changes in memory that are not in the files yet.

use std::collections::{BTreeMap, HashSet};

/// Changes that are not in the files yet.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) models: BTreeMap<String, DirtyModel>,
    /// Folders of dropped models.
    pub(super) gone: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct DirtyModel {
    pub(super) ids: HashSet<String>,
    /// Set if a change of the model converted instances: rows with this version or a later one must be written.
    pub(super) from_version: Option<u64>,
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

    /// Merges changes that could not be written.
    pub(super) fn merge(&mut self, older: Dirty, folders: &BTreeMap<String, String>) {
        for (model, older) in older.models.into_iter().filter(|(model, _)| folders.contains_key(model)) {
            let newer = self.models.entry(model).or_default();
            newer.ids.extend(older.ids);
            newer.from_version = newer.from_version.into_iter().chain(older.from_version).min();
        }
        self.gone.extend(older.gone);
    }
}
