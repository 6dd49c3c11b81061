//! The journal: the changes since the state was written, one line for each call of the four methods that change
//! something.
//!
//! A call takes effect when its line is completely written. The files are changed later, and again when the store is
//! opened after a crash.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use snaphook_driver::{CarryOver, Changes, Event, EventKind, Json, ModelShape, Position, Result, json, time::Millis};

use super::state::shape_text;
use crate::fault::{fault, unusable, unwritable};
use crate::folder::{names_in, remove_if_there};
use crate::line;
use crate::text::{join, present, split};

const PREFIX: &str = "journal-";
const SUFFIX: &str = ".jsonl";

/// An open journal.
pub(super) struct Journal {
    folder: PathBuf,
    pub(super) number: u64,
    file: File,
    bytes: u64,
    /// Whether bytes of a failed write may follow its end.
    torn: bool,
}

/// The contents of a line.
pub(super) enum JournalEntry {
    Apply { to: Position, events: Vec<Event> },
    Define { shape: Box<ModelShape>, folder: String, carry: CarryOver, position: Position },
    Drop { model: String, position: Position },
    Reset { log: String },
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Out<'a> {
    Apply {
        to: Position,
        events: Vec<EventOut<'a>>,
    },
    Define {
        #[serde(skip_serializing_if = "Option::is_none")]
        shape: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        shape_text: Option<&'a str>,
        folder: &'a str,
        carry: &'a CarryOver,
        position: Position,
    },
    Drop {
        model: &'a str,
        position: Position,
    },
    Reset {
        log: &'a str,
    },
}

#[derive(Serialize)]
struct EventOut<'a> {
    position: Position,
    #[serde(rename = "type")]
    kind: EventKind,
    model: &'a str,
    instance: Option<&'a str>,
    revision: u64,
    model_version: u64,
    time: Millis,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_text: Option<&'a str>,
}

impl<'a> EventOut<'a> {
    fn new(event: &'a Event) -> Self {
        let (data, data_text) = split(event.data.as_ref());
        EventOut {
            position: event.position,
            kind: event.kind,
            model: &event.model,
            instance: event.instance.as_deref(),
            revision: event.revision,
            model_version: event.model_version,
            time: event.time,
            data,
            data_text,
        }
    }
}

#[derive(Deserialize)]
struct In {
    apply: Option<ApplyIn>,
    define: Option<DefineIn>,
    drop: Option<DropIn>,
    reset: Option<ResetIn>,
}

#[derive(Deserialize)]
struct ApplyIn {
    to: Position,
    events: Vec<EventIn>,
}

#[derive(Deserialize)]
struct EventIn {
    position: Position,
    #[serde(rename = "type")]
    kind: EventKind,
    model: String,
    instance: Option<String>,
    revision: u64,
    model_version: u64,
    time: Millis,
    #[serde(default, deserialize_with = "present")]
    data: Option<Json>,
    data_text: Option<String>,
}

#[derive(Deserialize)]
struct DefineIn {
    #[serde(default, deserialize_with = "present")]
    shape: Option<Json>,
    shape_text: Option<String>,
    folder: String,
    carry: CarryOver,
    position: Position,
}

#[derive(Deserialize)]
struct DropIn {
    model: String,
    position: Position,
}

#[derive(Deserialize)]
struct ResetIn {
    log: String,
}

impl Journal {
    /// Begins an empty journal.
    pub(super) fn create(folder: &Path, number: u64) -> Result<Journal> {
        let path = path(folder, number);
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(fault("apply", &path))?;
        Ok(Journal { folder: folder.to_owned(), number, file, bytes: 0, torn: false })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(super) fn apply(&mut self, changes: &Changes<'_>, to: Position) -> Result<()> {
        self.write("apply", &Out::Apply { to, events: changes.events().map(EventOut::new).collect() })
    }

    pub(super) fn define(
        &mut self,
        shape: &ModelShape,
        folder: &str,
        carry: &CarryOver,
        position: Position,
    ) -> Result<()> {
        let text = shape_text(shape).map_err(unwritable("define"))?;
        let (shape, shape_text) = split(Some(&text));
        self.write("define", &Out::Define { shape, shape_text, folder, carry, position })
    }

    pub(super) fn drop_model(&mut self, model: &str, position: Position) -> Result<()> {
        self.write("drop_model", &Out::Drop { model, position })
    }

    pub(super) fn reset(&mut self, log: &str) -> Result<()> {
        self.write("reset", &Out::Reset { log })
    }

    /// If this fails, the line is removed, at the latest before the next write.
    fn write(&mut self, operation: &'static str, out: &Out<'_>) -> Result<()> {
        let mut bytes = Vec::new();
        line::push(&mut bytes, out).map_err(unwritable(operation))?;
        let path = path(&self.folder, self.number);
        self.cut().map_err(fault(operation, &path))?;
        self.torn = true;
        if let Err(error) = self.file.write_all(&bytes) {
            let _ = self.cut();
            return Err(fault(operation, &path)(error));
        }
        self.torn = false;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn cut(&mut self) -> io::Result<()> {
        if self.torn {
            io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.bytes))?;
            self.file.set_len(self.bytes)?;
            self.torn = false;
        }
        Ok(())
    }
}

/// The numbers of a folder's journals.
pub(super) fn list(folder: &Path) -> Result<Vec<u64>> {
    let names = names_in(folder).map_err(unusable(folder))?;
    let number = |name: &String| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok();
    Ok(names.iter().filter_map(number).collect())
}

/// Passes the entries of a journal to `each`. `grows` tells whether it is the last journal.
pub(super) fn read(
    folder: &Path,
    number: u64,
    grows: bool,
    mut each: impl FnMut(JournalEntry) -> Result<()>,
) -> Result<()> {
    let path = path(folder, number);
    let bytes = fs::read(&path).map_err(unusable(&path))?;
    let mut failed = None;
    let tail = if grows { line::Tail::LastWrite } else { line::Tail::Whole };
    let end = line::walk(&path, &bytes, tail, |line| {
        let entry = entry(json::typed_bytes(line.bytes).map_err(|error| error.to_string())?)?;
        if failed.is_none() {
            failed = each(entry).err();
        }
        Ok(true)
    })?;
    if end.torn > 0 {
        // Later entries go into another journal.
        let cut = OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(end.bytes));
        cut.map_err(unusable(&path))?;
    }
    failed.map_or(Ok(()), Err)
}

/// Removes a journal whose changes are all in the files.
pub(super) fn remove(folder: &Path, number: u64) -> io::Result<()> {
    remove_if_there(&path(folder, number)).map(drop)
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{number:020}{SUFFIX}"))
}

fn entry(read: In) -> Result<JournalEntry, String> {
    let event = |event: EventIn| Event {
        position: event.position,
        id: String::new(),
        kind: event.kind,
        model: event.model,
        model_version: event.model_version,
        instance: event.instance,
        revision: event.revision,
        data: join(event.data, event.data_text),
        actor: None,
        cause: None,
        hooks: Vec::new(),
        request_id: None,
        trace: None,
        time: event.time,
    };
    match read {
        In { apply: Some(apply), .. } => {
            Ok(JournalEntry::Apply { to: apply.to, events: apply.events.into_iter().map(event).collect() })
        }
        In { define: Some(define), .. } => {
            let shape = join(define.shape, define.shape_text).ok_or("expected a shape, found none")?;
            let shape = Box::new(json::typed(&shape).map_err(|error| error.to_string())?);
            Ok(JournalEntry::Define { shape, folder: define.folder, carry: define.carry, position: define.position })
        }
        In { drop: Some(DropIn { model, position }), .. } => Ok(JournalEntry::Drop { model, position }),
        In { reset: Some(ResetIn { log }), .. } => Ok(JournalEntry::Reset { log }),
        _ => Err("expected a change of the store, found none".into()),
    }
}
