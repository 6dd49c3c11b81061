//! `store.json`, created with the store, identifies the type of the store and contains a log's identity.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use snaphook_driver::{DriverError, ErrorKind, Result, json};

use crate::fault::{fault, unusable, unwritable};
use crate::folder::write_durably;

pub(crate) const FILE: &str = "store.json";

/// Increased when the file format of a store changes.
const FORMAT: u32 = 1;

/// The contents of `store.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Marker {
    /// The type of the store, such as `event log`.
    store: String,
    format: u32,
    /// The identity of a log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<String>,
}

/// Reads the marker of a folder; `None` if there is none yet. An error if the folder contains another type of store.
pub(crate) fn read(folder: &Path, store: &str) -> Result<Option<Marker>> {
    let path = path(folder);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(&path)(error)),
    };
    let marker: Marker = json::typed_bytes(&bytes).map_err(|error| {
        DriverError::new(ErrorKind::Corrupt, "open", "the file is damaged").with("file", path.display()).because(error)
    })?;
    let refused =
        |message: String| Err(DriverError::new(ErrorKind::Config, "open", message).with("path", folder.display()));
    if marker.store != store {
        return refused(format!(
            "the folder belongs to another store ({}); give this one its own `path`",
            marker.store
        ));
    }
    if marker.format != FORMAT {
        return refused(format!(
            "the folder has format {}, this Snaphook supports {FORMAT}; use the Snaphook that wrote it, or a newer one",
            marker.format
        ));
    }
    Ok(Some(marker))
}

/// Marks a folder as a new store.
pub(crate) fn write(folder: &Path, store: &str, identity: Option<String>) -> Result<Marker> {
    let marker = Marker { store: store.to_owned(), format: FORMAT, identity };
    let mut text = serde_json::to_string_pretty(&marker).map_err(unwritable("open"))?;
    text.push('\n');
    write_durably(&path(folder), text.as_bytes()).map_err(fault("open", folder))?;
    Ok(marker)
}

fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}
