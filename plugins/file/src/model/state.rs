//! `state.json`: the log and the checkpoint from which the files of instances are derived.
//!
//! It is replaced as a whole when all files are as of its checkpoint or later; later changes are in the journals,
//! starting with the one that it names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use snaphook_driver::{DriverError, Json, ModelShape, Position, Result, json};

use crate::fault::{unusable, unwritable};
use crate::folder::TEMPORARY;
use crate::line;
use crate::text::{join, present, split};

const FILE: &str = "state.json";

/// The contents of `state.json`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct StoreState {
    pub(super) log: Option<String>,
    pub(super) checkpoint: Position,
    /// Number of the first journal to read.
    pub(super) journal: u64,
    /// Models with their folders.
    pub(super) models: Vec<(ModelShape, String)>,
    /// Greater than the number of any folder.
    pub(super) next_folder: u64,
    /// A summary of all instances, if the store was closed and the journals are empty.
    pub(super) closed: Option<Summary>,
    /// Identifies the boot of the system in which it was written.
    pub(super) boot: String,
}

/// A summary of all instances: their number, and the sum of their checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Summary {
    pub(super) instances: u64,
    pub(super) digest: u64,
}

#[derive(Serialize)]
struct Out<'a> {
    log: Option<&'a str>,
    checkpoint: Position,
    journal: u64,
    next_folder: u64,
    closed: Option<Summary>,
    boot: &'a str,
    models: Vec<ModelOut<'a>>,
}

#[derive(Serialize)]
struct ModelOut<'a> {
    folder: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    shape: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shape_text: Option<&'a str>,
}

#[derive(Deserialize)]
struct In {
    log: Option<String>,
    checkpoint: Position,
    journal: u64,
    next_folder: u64,
    closed: Option<Summary>,
    boot: String,
    models: Vec<ModelIn>,
}

#[derive(Deserialize)]
struct ModelIn {
    folder: String,
    #[serde(default, deserialize_with = "present")]
    shape: Option<Json>,
    shape_text: Option<String>,
}

/// Reads the state of a folder; `None` if there is none.
pub(super) fn read(folder: &Path) -> Result<Option<StoreState>> {
    let path = path(folder);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(&path)(error)),
    };
    let mut read = None;
    line::walk(&path, &bytes, line::Tail::Whole, |line| {
        read = Some(json::typed_bytes::<In>(line.bytes).map_err(|error| error.to_string())?);
        Ok(true)
    })?;
    let damaged = |fault: &str| line::damaged(&path, 1, 0, fault);
    let read = read.ok_or_else(|| damaged("expected a line, found none"))?;
    let model = |model: ModelIn| -> Result<(ModelShape, String)> {
        let shape = join(model.shape, model.shape_text).ok_or_else(|| damaged("expected a shape, found none"))?;
        Ok((json::typed(&shape).map_err(|error| damaged(&error.to_string()))?, model.folder))
    };
    Ok(Some(StoreState {
        log: read.log,
        checkpoint: read.checkpoint,
        journal: read.journal,
        next_folder: read.next_folder,
        closed: read.closed,
        boot: read.boot,
        models: read.models.into_iter().map(model).collect::<Result<_>>()?,
    }))
}

/// Replaces the state of a folder.
pub(super) fn write(folder: &Path, state: &StoreState) -> Result<()> {
    let texts: Vec<Json> = state
        .models
        .iter()
        .map(|(shape, _)| shape_text(shape))
        .collect::<Result<_, _>>()
        .map_err(unwritable("flush"))?;
    let mut models = Vec::with_capacity(texts.len());
    for (text, (_, folder)) in texts.iter().zip(&state.models) {
        let (shape, shape_text) = split(Some(text));
        models.push(ModelOut { folder, shape, shape_text });
    }
    let mut bytes = Vec::new();
    let out = Out {
        log: state.log.as_deref(),
        checkpoint: state.checkpoint,
        journal: state.journal,
        next_folder: state.next_folder,
        closed: state.closed,
        boot: &state.boot,
        models,
    };
    line::push(&mut bytes, &out).map_err(unwritable("flush"))?;
    let path = path(folder);
    let temporary = folder.join(format!("{FILE}{TEMPORARY}"));
    let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, &path));
    written.map_err(crate::fault::fault("flush", &path))
}

/// A shape as text for a line.
pub(super) fn shape_text(shape: &ModelShape) -> serde_json::Result<Json> {
    serde_json::to_string(shape).map(Json::trusted)
}

/// Identifies this boot of the system: unsynced writes survive the end of a program, but not a crash of the system.
/// Empty if the system does not provide it.
pub(super) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Removes the state, so that a newly created store does not find it.
pub(super) fn remove(folder: &Path) -> std::io::Result<()> {
    crate::folder::remove_if_there(&path(folder)).map(drop)
}

fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

impl StoreState {
    /// An error that makes the store start empty.
    pub(super) fn doubtful(folder: &Path, message: &str) -> DriverError {
        DriverError::new(snaphook_driver::ErrorKind::Corrupt, "open", message).with("path", folder.display())
    }
}
