//! From the stores to the file, while others work on them.
//!
//! The log's copy is taken first and is of one moment. Errors and secrets are read after it: an event that was given
//! up by then has its record. Records of later events are left out, since their events are.

use std::sync::Arc;
use std::time::Duration;

use snaphook_driver::{ErrorQuery, ErrorStore, EventStore, LogExport, LogRecord, Position, SecureStore};
use tokio::sync::mpsc;

use super::archive::{self, End, Header, Kind, PROGRESS_MAX, Tally, Writer};
use super::{BackupError, Record};
use crate::config::Config;
use crate::drivers::stores::BareStores;

/// How long one block waits for its reader. Until the end of an export the stores keep what others write beside it.
const STALL_MAX: Duration = Duration::from_secs(60);
/// Records of errors that are read at once: each has an event in it.
const ERRORS_AT_ONCE: u32 = 8;

/// Where records go.
pub(super) trait Sink {
    async fn take(&mut self, record: Record, progress: u32) -> Result<(), BackupError>;
}

/// What is copied beside the log. Secrets are read as they are, so no key is needed.
pub(super) struct Sources {
    pub(super) error: Arc<dyn ErrorStore>,
    pub(super) secure: Arc<dyn SecureStore>,
}

/// Begins a backup; from here on it is of this moment. The future writes the file to the channel, in pieces.
pub async fn export(
    event: Arc<dyn EventStore>,
    error: Arc<dyn ErrorStore>,
    secure: Arc<dyn SecureStore>,
    out: mpsc::Sender<Vec<u8>>,
) -> Result<impl Future<Output = Result<(), BackupError>> + Send + use<>, BackupError> {
    let log = event.export().await.map_err(|error| BackupError::Store("event", error))?;
    let header = Header::new(event.identity(), log.head());
    let sources = Sources { error, secure };
    Ok(async move {
        let mut file = Blocks { out, writer: Writer::default(), raw: Vec::new(), tally: Tally::default() };
        file.send(Kind::Header, 0, &to_json(&header)?).await?;
        copy(log, &sources, &mut file).await?;
        file.finish().await
    })
}

/// The same for stores that no server has open; they are closed at the end.
pub async fn export_stored(config: &Config, out: mpsc::Sender<Vec<u8>>) -> Result<(), BackupError> {
    let stores = BareStores::open(config).await.map_err(|error| BackupError::Refused(error.to_string()))?;
    let (event, error, secure) = (stores.event.clone(), stores.error.clone(), stores.secure.clone());
    let exported = match export(event, error, secure, out).await {
        Ok(work) => work.await,
        Err(error) => Err(error),
    };
    stores.close().await;
    exported
}

/// Every record, in the order of the file.
pub(super) async fn copy(
    mut log: Box<dyn LogExport>,
    sources: &Sources,
    sink: &mut impl Sink,
) -> Result<(), BackupError> {
    let head = log.head();
    // The log is most of it.
    let progress = |position: Position| {
        let parts = u128::from(position) * u128::from(PROGRESS_MAX) / u128::from(head.max(1));
        u32::try_from(parts).unwrap_or(PROGRESS_MAX)
    };
    let mut done = 0;
    loop {
        let records = log.next().await.map_err(|error| BackupError::Store("event", error))?;
        if records.is_empty() {
            break;
        }
        for record in records {
            if let LogRecord::Event(event) = &record {
                done = progress(event.position);
            }
            sink.take(Record::Log(record), done).await?;
        }
    }
    drop(log);
    let mut query = ErrorQuery { limit: ERRORS_AT_ONCE, ..ErrorQuery::default() };
    loop {
        let page = sources.error.list(&query).await.map_err(|error| BackupError::Store("error", error))?;
        let records = page.records;
        let Some(last) = records.last() else { break };
        query.after = Some(last.id.clone());
        for record in records {
            if record.event.position <= head {
                sink.take(Record::Error(record), PROGRESS_MAX).await?;
            }
        }
    }
    let failed = |error| BackupError::Store("secure", error);
    for name in sources.secure.list("").await.map_err(failed)? {
        // One that was removed meanwhile is no secret any more.
        if let Some(sealed) = sources.secure.get(&name).await.map_err(failed)? {
            sink.take(Record::Secret { name, bytes: sealed.bytes }, PROGRESS_MAX).await?;
        }
    }
    Ok(())
}

/// Gathers records into blocks.
struct Blocks {
    out: mpsc::Sender<Vec<u8>>,
    writer: Writer,
    raw: Vec<u8>,
    tally: Tally,
}

impl Sink for Blocks {
    async fn take(&mut self, record: Record, progress: u32) -> Result<(), BackupError> {
        tally(&mut self.tally, &mut self.raw, record)?;
        if archive::is_block(self.raw.len()) {
            let raw = std::mem::take(&mut self.raw);
            self.send(Kind::Data, progress, &raw).await?;
        }
        Ok(())
    }
}

impl Blocks {
    async fn finish(mut self) -> Result<(), BackupError> {
        if !self.raw.is_empty() {
            let raw = std::mem::take(&mut self.raw);
            self.send(Kind::Data, PROGRESS_MAX, &raw).await?;
        }
        let end = to_json(&std::mem::take(&mut self.tally).end())?;
        self.send(Kind::End, PROGRESS_MAX, &end).await
    }

    async fn send(&mut self, kind: Kind, progress: u32, raw: &[u8]) -> Result<(), BackupError> {
        // A millisecond or two for each mebibyte.
        let block = self.writer.block(kind, progress, raw).map_err(BackupError::File)?;
        match tokio::time::timeout(STALL_MAX, self.out.send(block)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(BackupError::Unread),
        }
    }
}

/// Only counts and digests: to compare stores with a file.
#[derive(Default)]
pub(super) struct Digest {
    tally: Tally,
    buffer: Vec<u8>,
}

impl Digest {
    pub(super) fn end(self) -> End {
        self.tally.end()
    }
}

impl Sink for Digest {
    async fn take(&mut self, record: Record, _progress: u32) -> Result<(), BackupError> {
        self.buffer.clear();
        tally(&mut self.tally, &mut self.buffer, record)
    }
}

fn tally(tally: &mut Tally, out: &mut Vec<u8>, record: Record) -> Result<(), BackupError> {
    let start = out.len();
    tally.count(&record);
    archive::write_record(out, record).map_err(unwritable)?;
    tally.digest(&out[start..]);
    Ok(())
}

fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>, BackupError> {
    serde_json::to_vec(value).map_err(unwritable)
}

fn unwritable(error: serde_json::Error) -> BackupError {
    BackupError::File(error.into())
}
