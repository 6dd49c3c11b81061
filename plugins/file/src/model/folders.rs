//! The folders that models have: their names, and where they are.

use std::path::{Path, PathBuf};

use crate::names::stem_of_any;

/// Models that have a folder in the store's are in this one.
pub(super) const INSTANCES: &str = "instances";

/// The name of a folder that no model had: files of a model that was dropped are never those of the next one.
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
