//! The files of instances: one JSON object each, with a checksum and its checkpoint.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use snaphook_driver::time::{self, Millis};
use snaphook_driver::{Instance, Json, Position, Row, json};

use crate::folder::{TEMPORARY, remove_if_there};
use crate::line;
use crate::names::stem_of_any;
use crate::text::{join, present, split};

/// Suffix of the names of instances' files.
const SUFFIX: &str = ".json";

#[derive(Serialize)]
struct Out<'a> {
    /// The file reflects every event, and every change of the model, up to this position.
    applied: Position,
    id: &'a str,
    model: &'a str,
    model_version: u64,
    revision: u64,
    position: Position,
    #[serde(with = "time")]
    created_at: Millis,
    #[serde(with = "time")]
    updated_at: Millis,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_text: Option<&'a str>,
}

#[derive(Deserialize)]
struct In {
    applied: Position,
    id: String,
    model: String,
    model_version: u64,
    revision: u64,
    position: Position,
    #[serde(with = "time")]
    created_at: Millis,
    #[serde(with = "time")]
    updated_at: Millis,
    #[serde(default, deserialize_with = "present")]
    data: Option<Json>,
    data_text: Option<String>,
}

/// The file of an instance in its model's folder.
pub(super) fn path(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{}{SUFFIX}", stem_of_any(id)))
}

/// Whether a file of that name contains an instance.
pub(super) fn is_instance(name: &str) -> bool {
    name.ends_with(SUFFIX)
}

/// Writes the file of an instance as of a checkpoint.
pub(super) fn write(folder: &Path, row: &Row, applied: Position, bytes: &mut Vec<u8>) -> io::Result<()> {
    let instance = row.instance();
    let (data, data_text) = split(Some(&instance.data));
    bytes.clear();
    let out = Out {
        applied,
        id: &instance.id,
        model: &instance.model,
        model_version: instance.model_version,
        revision: instance.revision,
        position: instance.position,
        created_at: instance.created_at,
        updated_at: instance.updated_at,
        data,
        data_text,
    };
    line::push(bytes, &out)?;
    let path = path(folder, &instance.id);
    // A new file may be left incomplete, because the journal contains everything. An existing one is replaced
    // atomically.
    match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(mut file) => file.write_all(bytes),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mut temporary = path.clone().into_os_string();
            temporary.push(TEMPORARY);
            fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, &path))
        }
        Err(error) => Err(error),
    }
}

/// Removes the file of an instance, if there is one.
pub(super) fn remove(folder: &Path, id: &str) -> io::Result<()> {
    remove_if_there(&path(folder, id)).map(drop)
}

/// Reads an instance and its checkpoint from its file.
pub(super) fn read(bytes: &[u8], model: &str) -> Result<(Row, Position), String> {
    let line = bytes.strip_suffix(b"\n").ok_or("expected a newline at the end, found none")?;
    line::check(line).map_err(|mismatch| mismatch.to_string())?;
    let read: In = json::typed_bytes(line).map_err(|error| error.to_string())?;
    if read.model != model {
        return Err(format!("expected an instance of `{model}`, found one of `{}`", read.model));
    }
    let instance = Instance {
        id: read.id,
        model: read.model,
        model_version: read.model_version,
        revision: read.revision,
        position: read.position,
        created_at: read.created_at,
        updated_at: read.updated_at,
        data: join(read.data, read.data_text).ok_or("expected data, found none")?,
    };
    Ok((Row::new(instance).map_err(|error| error.to_string())?, read.applied))
}

/// The sum of the instances' checksums.
pub(super) fn digest<'a>(rows: impl Iterator<Item = &'a Arc<Row>>) -> u64 {
    let one = |row: &Arc<Row>| {
        let instance = row.instance();
        let mut hasher = crc32fast::Hasher::new();
        for number in [instance.model_version, instance.revision, instance.position] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&instance.created_at.to_le_bytes());
        hasher.update(&instance.updated_at.to_le_bytes());
        hasher.update(&(instance.id.len() as u64).to_le_bytes());
        hasher.update(instance.id.as_bytes());
        hasher.update(instance.data.as_bytes());
        u64::from(hasher.finalize())
    };
    rows.fold(0, |sum, row| sum.wrapping_add(one(row)))
}
