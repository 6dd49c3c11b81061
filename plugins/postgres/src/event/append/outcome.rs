//! The outcome of a batch whose commit was not acknowledged.
//!
//! The batch's transaction holds the lock on the log's row until it ends, no matter how it ends or on which side the
//! connection broke. So this acquires the lock first, then looks for the batch at its position.

use std::time::Duration;

use snaphook_driver::{DriverError, ErrorKind, Position, Result};
use tokio_postgres::types::Type;

use super::super::row::signed;
use crate::connection::Database;
use crate::session::{Begin, Session};
use crate::sql::Sql;
use crate::text::unescape;

pub(super) struct OutcomeSql {
    lock: Sql,
    at: Sql,
    touch: Sql,
}

/// Timeout of one attempt: connecting, acquiring the lock, and looking.
const TIME: Duration = Duration::from_secs(20);

impl OutcomeSql {
    pub(super) fn new(database: &Database) -> OutcomeSql {
        OutcomeSql {
            lock: database.sql("SELECT head, identity FROM @.log FOR UPDATE", &[]),
            at: database.sql("SELECT id FROM @.events WHERE position = $1", &[Type::INT8]),
            touch: database.sql("UPDATE @.log SET head = head", &[]),
        }
    }

    /// Whether the log has this event at this position.
    pub(super) async fn find(&self, database: &Database, position: Position, id: &str, log: &str) -> Result<bool> {
        let (mut session, _, identity) = self.locked(database, "append").await?;
        if identity != log {
            let message = "the schema contains a different log than when it was opened; restart Snaphook";
            return Err(DriverError::new(ErrorKind::Config, "append", message));
        }
        let rows = session.query(&self.at, &[&signed(position)]).await?;
        let is_there = rows.first().is_some_and(|row| unescape(row.get(0)) == id);
        session.end().await;
        Ok(is_there)
    }

    pub(super) async fn probe(&self, database: &Database) -> Result<Position> {
        let (mut session, head, _) = self.locked(database, "health").await?;
        session.execute(&self.touch, &[]).await?;
        // It changes nothing, so the outcome does not matter.
        session.commit().await.map_err(|error| error.as_kind(ErrorKind::Unavailable))?;
        Ok(head)
    }

    async fn locked(&self, database: &Database, operation: &'static str) -> Result<(Session, Position, String)> {
        let mut session = database.session_within(operation, TIME).await?;
        session.begin(Begin::DURABLE).await?;
        let row = session.one(&self.lock, &[]).await?;
        Ok((session, row.get::<_, i64>(0) as Position, row.get(1)))
    }
}
