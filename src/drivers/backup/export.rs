//! Exports the stores to a file while others use them.
//!
//! The log is copied first, as of one moment. Errors and secrets are read after it, so events that had failed
//! permanently by then have their records. Records of later events are omitted, like these events.

use std::sync::Arc;
use std::time::Duration;

use snaphook_driver::{ErrorQuery, ErrorStore, Event, EventStore, LogExport, LogRecord, Position, SecureStore};
use tokio::sync::mpsc;

use super::archive::{self, BlockWriter, End, Header, Kind, PROGRESS_MAX, Tally};
use super::error::BackupError;
use super::record::Record;
use crate::config::Config;
use crate::drivers::stores::{BareStores, Sealed};
use crate::memory::{Lease, MemoryBudget, Share};

/// How long one block waits for its reader. Until the end of an export the stores keep data that others overwrite.
const STALL_MAX: Duration = Duration::from_secs(60);
/// Error records per page: each contains an event.
const ERRORS_AT_ONCE: u32 = 8;

/// A record besides its data.
const RECORD_BYTES: usize = 512;
/// Delay before asking again for memory.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);

/// A piece of the file, and its memory.
pub struct Piece {
    bytes: Vec<u8>,
    _memory: Lease<Arc<Share>>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Where records go.
pub(super) trait Sink {
    async fn take(&mut self, record: Record, progress: u32) -> Result<(), BackupError>;

    /// Called when this many bytes of records were read, before they are written.
    async fn hold(&mut self, _bytes: usize) -> Result<(), BackupError> {
        Ok(())
    }
}

/// The stores copied besides the log. Secrets are copied encrypted, so no key is needed.
pub(super) struct Sources {
    pub(super) error: Arc<dyn ErrorStore>,
    pub(super) secure: Arc<dyn SecureStore>,
}

/// Begins a backup of this moment. The future writes the file to the channel, in pieces. Records and pieces count
/// against `memory` as long as they exist.
pub async fn export(
    event: Arc<dyn EventStore>,
    error: Arc<dyn ErrorStore>,
    secure: Arc<dyn SecureStore>,
    memory: Arc<Share>,
    out: mpsc::Sender<Piece>,
) -> Result<impl Future<Output = Result<(), BackupError>> + Send + use<>, BackupError> {
    let log = event.export().await.map_err(|error| BackupError::Store("event", error))?;
    let header = Header::new(event.identity(), log.head());
    let sources = Sources { error, secure };
    Ok(async move {
        let held = Lease::of(Arc::clone(&memory));
        let mut file =
            Blocks { out, memory, held, writer: BlockWriter::default(), raw: Vec::new(), tally: Tally::default() };
        file.send(Kind::Header, 0, &to_json(&header)?).await?;
        copy(log, &sources, &mut file).await?;
        file.finish().await
    })
}

/// The same for stores that no server uses; they are closed at the end.
pub async fn export_stored(config: &Config, out: mpsc::Sender<Piece>) -> Result<(), BackupError> {
    let stores =
        BareStores::open(config, Sealed::Stored).await.map_err(|error| BackupError::Refused(error.to_string()))?;
    let (event, error, secure) = (stores.event.clone(), stores.error.clone(), stores.secure.clone());
    // This process does nothing else, and its channel has a small capacity.
    let memory = Arc::new(MemoryBudget::new(usize::MAX / 2).whole());
    let exported = match export(event, error, secure, memory, out).await {
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
        sink.hold(records.iter().map(weight).sum()).await?;
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
        sink.hold(records.iter().map(|record| event_weight(&record.event)).sum()).await?;
        for record in records {
            if record.event.position <= head {
                sink.take(Record::Error(record), PROGRESS_MAX).await?;
            }
        }
    }
    let failed = |error| BackupError::Store("secure", error);
    for name in sources.secure.list("").await.map_err(failed)? {
        // A secret that was removed meanwhile is skipped.
        if let Some(sealed) = sources.secure.get(&name).await.map_err(failed)? {
            sink.take(Record::Secret { name, bytes: sealed.bytes }, PROGRESS_MAX).await?;
        }
    }
    Ok(())
}

/// Gathers records into blocks.
struct Blocks {
    out: mpsc::Sender<Piece>,
    memory: Arc<Share>,
    /// Memory for the records that were read, and those in `raw`.
    held: Lease<Arc<Share>>,
    writer: BlockWriter,
    raw: Vec<u8>,
    tally: Tally,
}

impl Sink for Blocks {
    async fn take(&mut self, record: Record, progress: u32) -> Result<(), BackupError> {
        tally(&mut self.tally, &mut self.raw, &record)?;
        if archive::is_block(self.raw.len()) {
            let raw = std::mem::take(&mut self.raw);
            self.send(Kind::Data, progress, &raw).await?;
        }
        Ok(())
    }

    async fn hold(&mut self, bytes: usize) -> Result<(), BackupError> {
        // They are already in memory, and are copied into `raw` as well; wait for memory before reading more.
        let bytes = 2 * bytes + self.raw.len();
        let waited = tokio::time::timeout(STALL_MAX, async {
            while self.held.resize(bytes).is_err_and(|shortage| shortage.can_fit()) {
                tokio::time::sleep(MEMORY_PAUSE).await;
            }
        });
        waited.await.map_err(|_| BackupError::Memory)?;
        // Larger than the whole budget allows, such as the code of a hook: it is still counted.
        self.held.resize_anyway(bytes);
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
        // Takes one or two milliseconds per mebibyte.
        let block = self.writer.block(kind, progress, raw).map_err(BackupError::File)?;
        let mut memory = Lease::of(Arc::clone(&self.memory));
        memory.resize_anyway(block.capacity());
        let piece = Piece { bytes: block, _memory: memory };
        match tokio::time::timeout(STALL_MAX, self.out.send(piece)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(BackupError::Unread),
        }
    }
}

/// Approximate memory of a record.
fn weight(record: &LogRecord) -> usize {
    match record {
        LogRecord::Event(event) => event_weight(event),
        LogRecord::Blob { bytes, .. } => bytes.len(),
        _ => RECORD_BYTES,
    }
}

fn event_weight(event: &Event) -> usize {
    RECORD_BYTES + event.text_bytes()
}

/// Only counts and computes digests, to compare stores with a file.
#[derive(Default)]
pub(super) struct Digest {
    tally: Tally,
    buffer: Vec<u8>,
}

impl Digest {
    pub(super) fn add(&mut self, record: &Record) -> Result<(), BackupError> {
        self.buffer.clear();
        tally(&mut self.tally, &mut self.buffer, record)
    }

    pub(super) fn end(self) -> End {
        self.tally.end()
    }
}

impl Sink for Digest {
    async fn take(&mut self, record: Record, _progress: u32) -> Result<(), BackupError> {
        self.add(&record)
    }
}

fn tally(tally: &mut Tally, out: &mut Vec<u8>, record: &Record) -> Result<(), BackupError> {
    let start = out.len();
    tally.count(record);
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
