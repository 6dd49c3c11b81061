//! The error store: a file per failed run, synced before it is acknowledged.
//!
//! Memory contains the searchable fields of records: id, model, hook, and the size of the event's data. A file is one
//! line with a checksum; it is written under a temporary name and renamed, so that every file is always complete.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use snaphook_driver::files::{FileLock, sync_folder};
use snaphook_driver::{
    Capabilities, DriverError, ErrorKind, ErrorPage, ErrorQuery, ErrorRecord, ErrorStore, Json, PAGE_BYTES_MAX, Result,
    json,
};

use crate::fault::{closed, fault, unusable, unwritable};
use crate::folder::{LOCK, clear, names_in, remove_if_there, write_durably};
use crate::line;
use crate::marker;
use crate::names::stem_of_any;
use crate::task::{locked, off_thread};
use crate::text::{join, split};

/// The store type in the folder's marker.
const STORE: &str = "error store";

/// Suffix of the names of records' files.
const SUFFIX: &str = ".error.json";

/// See the crate's documentation.
pub struct FileErrorStore {
    records: Arc<Records>,
    lock: Mutex<Option<FileLock>>,
}

struct Records {
    folder: PathBuf,
    /// Locked while a file is written or removed; `false` once closed.
    writing: Mutex<bool>,
    index: RwLock<BTreeMap<String, Found>>,
}

/// The searchable fields of a record.
struct Found {
    model: String,
    hook: String,
    /// Size of the event's data.
    bytes: usize,
}

impl Found {
    fn of(record: &ErrorRecord) -> Found {
        let bytes = record.event.data.as_ref().map_or(0, |data| data.len());
        Found { model: record.model.clone(), hook: record.hook.clone(), bytes }
    }

    fn matches(&self, query: &ErrorQuery) -> bool {
        query.model.as_ref().is_none_or(|model| *model == self.model)
            && query.hook.as_ref().is_none_or(|hook| *hook == self.hook)
    }
}

/// The line of a file: the record without the event's data, whose text is preserved.
#[derive(Serialize)]
struct Out<'a> {
    record: &'a ErrorRecord,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_text: Option<&'a str>,
}

#[derive(Deserialize)]
struct In {
    record: ErrorRecord,
    #[serde(default, deserialize_with = "crate::text::present")]
    data: Option<Json>,
    data_text: Option<String>,
}

impl FileErrorStore {
    /// Opens the store in a folder, or creates it.
    pub fn open(folder: &Path) -> Result<Self> {
        let lock = FileLock::take(&folder.join(LOCK), folder)?;
        if marker::read(folder, STORE)?.is_none() {
            marker::write(folder, STORE, None)?;
        }
        clear(folder, |name| name == marker::FILE || name.ends_with(SUFFIX)).map_err(unusable(folder))?;
        let mut index = BTreeMap::new();
        for name in names_in(folder).map_err(unusable(folder))?.iter().filter(|name| name.ends_with(SUFFIX)) {
            let path = folder.join(name);
            let record = read("open", &path, &std::fs::read(&path).map_err(unusable(&path))?)?;
            index.insert(record.id.clone(), Found::of(&record));
        }
        let records = Records { folder: folder.to_owned(), writing: Mutex::new(true), index: RwLock::new(index) };
        Ok(FileErrorStore { records: Arc::new(records), lock: Mutex::new(Some(lock)) })
    }

    /// Runs file work off the async threads.
    async fn work<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Records) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let records = Arc::clone(&self.records);
        off_thread(operation, move || work(&records)).await
    }
}

#[async_trait]
impl ErrorStore for FileErrorStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { readable: true, durable: true, ..Capabilities::LEAST }
    }

    async fn health(&self) -> Result<()> {
        self.work("health", |records| {
            std::fs::metadata(&records.folder).map(drop).map_err(fault("health", &records.folder))
        })
        .await
    }

    async fn close(&self) -> Result<()> {
        self.work("close", |records| {
            *locked(&records.writing) = false;
            Ok(())
        })
        .await?;
        locked(&self.lock).take();
        Ok(())
    }

    async fn record(&self, record: &ErrorRecord) -> Result<()> {
        let record = record.clone();
        self.work("record", move |records| {
            let bytes = write(&record)?;
            records.writing("record", |folder| {
                let path = path(folder, &record.id);
                write_durably(&path, &bytes).map_err(fault("record", &path))?;
                records.index_mut().insert(record.id.clone(), Found::of(&record));
                Ok(())
            })
        })
        .await
    }

    async fn list(&self, query: &ErrorQuery) -> Result<ErrorPage> {
        let query = query.clone();
        self.work("list", move |records| records.list(&query)).await
    }

    async fn count(&self, query: &ErrorQuery) -> Result<u64> {
        Ok(self.records.index().values().filter(|found| found.matches(query)).count() as u64)
    }

    async fn get(&self, id: &str) -> Result<Option<ErrorRecord>> {
        let id = id.to_owned();
        self.work("get", move |records| records.get("get", &id)).await
    }

    async fn remove(&self, id: &str) -> Result<bool> {
        let id = id.to_owned();
        self.work("remove", move |records| {
            records.writing("remove", |folder| {
                let path = path(folder, &id);
                let there = remove_if_there(&path).map_err(fault("remove", &path))?;
                sync_folder(folder).map_err(fault("remove", folder))?;
                records.index_mut().remove(&id);
                Ok(there)
            })
        })
        .await
    }
}

impl Records {
    fn index(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Found>> {
        self.index.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn index_mut(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<String, Found>> {
        self.index.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn writing<T>(&self, operation: &'static str, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let is_open = locked(&self.writing);
        if *is_open { work(&self.folder) } else { Err(closed(operation)) }
    }

    fn list(&self, query: &ErrorQuery) -> Result<ErrorPage> {
        let mut query = query.clone();
        loop {
            let (ids, full) = self.ids(&query);
            let mut page = ErrorPage { full, ..ErrorPage::default() };
            for id in &ids {
                // A record that was removed in the meantime is skipped.
                page.records.extend(self.get("list", id)?);
            }
            if !page.records.is_empty() || !full {
                return Ok(page);
            }
            query.after = ids.into_iter().next_back();
        }
    }

    /// The ids of the records of a page, and whether the page ends because of a limit.
    fn ids(&self, query: &ErrorQuery) -> (Vec<String>, bool) {
        let after = query.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let (mut ids, mut bytes) = (Vec::new(), 0);
        for (id, found) in self.index().range::<String, _>((after, Bound::Unbounded)) {
            if !found.matches(query) {
                continue;
            }
            bytes += found.bytes;
            if ids.len() >= query.limit.max(1) as usize || bytes > PAGE_BYTES_MAX && !ids.is_empty() {
                return (ids, true);
            }
            ids.push(id.clone());
        }
        (ids, false)
    }

    fn get(&self, operation: &'static str, id: &str) -> Result<Option<ErrorRecord>> {
        let path = path(&self.folder, id);
        match std::fs::read(&path) {
            Ok(bytes) => read(operation, &path, &bytes).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fault(operation, &path)(error)),
        }
    }
}

fn path(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{}{SUFFIX}", stem_of_any(id)))
}

fn write(record: &ErrorRecord) -> Result<Vec<u8>> {
    let mut record = record.clone();
    let text = record.event.data.take();
    let (data, data_text) = split(text.as_ref());
    let mut bytes = Vec::new();
    line::push(&mut bytes, &Out { record: &record, data, data_text }).map_err(unwritable("record"))?;
    Ok(bytes)
}

fn read(operation: &'static str, path: &Path, bytes: &[u8]) -> Result<ErrorRecord> {
    let parse = || -> Result<ErrorRecord, String> {
        let line = bytes.strip_suffix(b"\n").ok_or("expected a newline at the end, found none")?;
        line::check(line).map_err(|mismatch| mismatch.to_string())?;
        let mut read: In = json::typed_bytes(line).map_err(|error| error.to_string())?;
        read.record.event.data = join(read.data, read.data_text);
        Ok(read.record)
    };
    parse().map_err(|fault| {
        let message = format!("the record of a failed run is damaged: {fault}");
        DriverError::new(ErrorKind::Corrupt, operation, message).with("file", path.display())
    })
}
