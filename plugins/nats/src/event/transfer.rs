//! Exports and imports of the log.
//!
//! The progress of groups is read before the log, so that the copy contains every acknowledged event.

use std::time::Duration;

use async_trait::async_trait;
use snaphook_driver::{DriverError, ErrorKind, LogExport, LogRecord, Position, Result};
use snaphook_sqlite::replica::{ChangeOutcome, LogChange};
use std::sync::Arc;

use super::groups::Groups;
use super::lanes::Lane;
use super::log::Log;

/// How long to wait until this node's copy of the log has caught up with the groups.
const BEHIND_TIME: Duration = Duration::from_secs(30);

pub(super) struct Export {
    log: Box<dyn LogExport>,
    is_log_over: bool,
    groups: Vec<LogRecord>,
}

impl Export {
    pub(super) async fn begin(log: &Log, groups: &Groups) -> Result<Export> {
        let (groups, reached) = groups.export().await?;
        if tokio::time::timeout(BEHIND_TIME, log.replica.reached(reached)).await.is_err() {
            let message = format!("this node does not have the log up to event {reached} yet");
            return Err(DriverError::new(ErrorKind::Unavailable, "export", message));
        }
        // Including events that no group has acknowledged.
        let last = log.last_sequence("export").await?;
        log.judged_up_to("export", last, BEHIND_TIME).await?;
        Ok(Export { log: log.replica.export().await?, is_log_over: false, groups })
    }
}

#[async_trait]
impl LogExport for Export {
    fn head(&self) -> Position {
        self.log.head()
    }

    async fn next(&mut self) -> Result<Vec<LogRecord>> {
        if !self.is_log_over {
            let records = self.log.next().await?;
            if !records.is_empty() {
                return Ok(records);
            }
            self.is_log_over = true;
        }
        Ok(std::mem::take(&mut self.groups))
    }
}

/// See [`EventStore::import`](snaphook_driver::EventStore::import).
pub(super) async fn import(log: &Log, lane: &Arc<Lane>, groups: &Groups, records: &[LogRecord]) -> Result<()> {
    if !log.replica.is_importing()? && !groups.is_empty().await? {
        return Err(DriverError::new(ErrorKind::Conflict, "import", "the log already has consumer groups"));
    }
    let is_of_log = |record: &&LogRecord| !matches!(record, LogRecord::Group { .. } | LogRecord::Pending { .. });
    let of_log: Vec<LogRecord> = records.iter().filter(is_of_log).cloned().collect();
    match lane.change("import", LogChange::Import { records: &of_log }).await? {
        ChangeOutcome::Refused(why) => Err(DriverError::new(ErrorKind::Conflict, "import", why)),
        _ => groups.import(records).await,
    }
}
