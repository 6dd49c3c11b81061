//! Restores a file to empty stores. The file is read twice: first verified as a whole, then written. Afterwards the
//! content of the stores is read back and compared with the file.
//!
//! Until the end the event store is marked as incomplete, so an interrupted restore is detected when the stores are
//! opened.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use snaphook_driver::{DriverError, ErrorKind, ErrorQuery, LogRecord};

use super::archive::{self, Header};
use super::error::BackupError;
use super::export::{Digest, Sources, copy};
use super::record::{Counts, Record};
use crate::config::Config;
use crate::drivers::stores::{BareStores, Sealed, secrets_of_settings};

/// Bytes of records per write to the log.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_RECORDS: usize = 4096;

/// The result of a restore.
#[derive(Clone, Debug)]
pub struct Restored {
    pub header: Header,
    pub counts: Counts,
    /// Identity of the new log.
    pub log: String,
}

/// Fills the stores of a configuration. `progress` gets the name of a step and its progress, from 0 to 1.
pub async fn restore(
    path: &Path,
    config: &Config,
    mut progress: impl FnMut(&'static str, f64),
) -> Result<Restored, BackupError> {
    let size = std::fs::metadata(path).map_err(BackupError::File)?.len().max(1);
    let open = || File::open(path).map_err(BackupError::File);
    let part = |read: u64| read as f64 / size as f64;
    archive::verify(open()?, |read| progress("check", part(read)))?;

    let names = secrets_of_settings(config).map_err(|error| BackupError::Refused(error.to_string()))?;
    let sealed = Sealed::InBackup(sealed(&names, open()?)?);
    let stores = BareStores::open(config, sealed).await.map_err(|error| BackupError::Refused(error.to_string()))?;
    let restored = fill(&stores, open()?, |word, read| progress(word, part(read))).await;
    stores.close().await;
    restored
}

/// The requested secrets in the file, encrypted: settings may need them before any store can be opened.
fn sealed(names: &[String], file: File) -> Result<HashMap<String, Vec<u8>>, BackupError> {
    let mut found = HashMap::new();
    if names.is_empty() {
        return Ok(found);
    }
    let mut records = archive::Records::open(file)?;
    while let Some(record) = records.next()? {
        if let Record::Secret { name, bytes } = record
            && names.contains(&name)
        {
            found.insert(name, bytes);
        }
    }
    Ok(found)
}

async fn fill(
    stores: &BareStores,
    file: File,
    mut progress: impl FnMut(&'static str, u64),
) -> Result<Restored, BackupError> {
    check_empty(stores).await?;
    let mut target = RestoreTarget::new(stores);
    // Reading the file needs no runtime, but the stores do.
    let mut records = archive::Records::open(file)?;
    while let Some(record) = records.next()? {
        progress("restore", records.offset());
        target.take(record).await?;
    }
    target.flush().await?;
    let (header, end) = records.end()?;

    progress("compare", 0);
    let failed = |error| BackupError::Store("event", error);
    let log = stores.event.export().await.map_err(failed)?;
    let mut found = Digest::default();
    let sources = Sources { error: stores.error.clone(), secure: stores.secure.clone() };
    copy(log, &sources, &mut found).await?;
    let found = found.end();
    if found != end {
        return Err(BackupError::Different(format!(
            "the stores do not contain the same data as the backup: {} instead of {}; do not use them",
            found.counts, end.counts
        )));
    }
    stores.event.finish_import().await.map_err(failed)?;
    let log = stores.event.identity().to_owned();
    Ok(Restored { header, counts: end.counts, log })
}

/// A restore never mixes with existing data.
async fn check_empty(stores: &BareStores) -> Result<(), BackupError> {
    if !stores.event.capabilities().durable {
        let message =
            "the event storage loses its data when this command ends; name another driver in the configuration";
        return Err(BackupError::Refused(message.to_owned()));
    }
    let mut full = with_data(stores).await?;
    if stores.event.head().await.map_err(|error| BackupError::Store("event", error))? > 0 {
        full.insert(0, "event");
    }
    if full.is_empty() {
        return Ok(());
    }
    Err(BackupError::Refused(format!(
        "the {} storage that the configuration names contains data; a backup is restored into empty stores only: move \
         the data away, or name other places",
        full.join(" and the ")
    )))
}

/// The stores besides the log that contain data.
pub(super) async fn with_data(stores: &BareStores) -> Result<Vec<&'static str>, BackupError> {
    let query = ErrorQuery { limit: 1, ..ErrorQuery::default() };
    let mut full = Vec::new();
    let mut look = |store: &'static str, holds_data: Result<bool, DriverError>| -> Result<(), BackupError> {
        if holds_data.map_err(|error| BackupError::Store(store, error))? {
            full.push(store);
        }
        Ok(())
    };
    look("model", stores.model.checkpoint().await.map(|checkpoint| checkpoint > 0))?;
    look("error", stores.error.list(&query).await.map(|page| !page.records.is_empty()))?;
    look("secure", stores.secure.list("").await.map(|names| !names.is_empty()))?;
    Ok(full)
}

/// Writes records to the stores; those of the log in batches.
pub(super) struct RestoreTarget<'a> {
    stores: &'a BareStores,
    batch: Vec<LogRecord>,
    bytes: usize,
}

impl<'a> RestoreTarget<'a> {
    pub(super) fn new(stores: &'a BareStores) -> Self {
        RestoreTarget { stores, batch: Vec::new(), bytes: 0 }
    }

    pub(super) async fn has_error(&self, id: &str) -> Result<bool, BackupError> {
        if !self.stores.error.capabilities().readable {
            return Ok(false);
        }
        let found = self.stores.error.get(id).await;
        found.map(|found| found.is_some()).map_err(|error| BackupError::Store("error", error))
    }

    pub(super) async fn has_secret(&self, name: &str, bytes: &[u8]) -> Result<bool, BackupError> {
        let found = self.stores.secure.get(name).await.map_err(|error| BackupError::Store("secure", error))?;
        Ok(found.is_some_and(|found| found.bytes == bytes))
    }

    pub(super) async fn take(&mut self, record: Record) -> Result<(), BackupError> {
        match record {
            Record::Log(record) => {
                self.bytes += match &record {
                    LogRecord::Event(event) => event.data.as_ref().map_or(0, |data| data.len()),
                    LogRecord::Blob { bytes, .. } => bytes.len(),
                    _ => 0,
                };
                self.batch.push(record);
                if self.bytes >= BATCH_BYTES || self.batch.len() >= BATCH_RECORDS {
                    self.flush().await?;
                }
                Ok(())
            }
            Record::Error(record) => {
                self.flush().await?;
                if !self.stores.error.capabilities().readable {
                    let message = "there are recorded errors, but the error storage of the configuration only forwards \
                                   them; name one that keeps them, such as driver `sqlite`";
                    return Err(BackupError::Refused(message.to_owned()));
                }
                self.stores.error.record(&record).await.map_err(|error| BackupError::Store("error", error))
            }
            Record::Secret { name, bytes } => {
                self.flush().await?;
                let put = self.stores.secure.put(&name, &bytes, Some(0)).await;
                put.map(drop).map_err(|error| BackupError::Store("secure", error))
            }
        }
    }

    pub(super) async fn flush(&mut self) -> Result<(), BackupError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        self.stores.event.import(&batch).await.map_err(|error| match error.kind() {
            ErrorKind::Conflict => BackupError::NotEmpty(error),
            _ => BackupError::Store("event", error),
        })
    }
}
