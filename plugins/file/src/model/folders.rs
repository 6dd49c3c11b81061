//! The folders of models: their names and paths.

use std::path::{Path, PathBuf};

use crate::names::stem_of_any;

/// The folder inside the store's folder that contains the models' folders.
pub(super) const INSTANCES: &str = "instances";

/// A folder name that no model had before: a new model never gets the files of a dropped one.
pub(super) fn folder_name(model: &str, number: u64) -> String {
    let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    match !model.is_empty() && model.len() <= 128 && model.bytes().all(is_plain) {
        true => format!("{model}={number}"),
        false => format!("{}={number}", stem_of_any(model)),
    }
}

/// The number in the name of a folder.
pub(super) fn number_of(folder: &str) -> u64 {
    folder.rsplit_once('=').and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
}

/// The folder of a model's instances.
pub(super) fn folder_of(store: &Path, folder: &str) -> PathBuf {
    store.join(INSTANCES).join(folder)
}
