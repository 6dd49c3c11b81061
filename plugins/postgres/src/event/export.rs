//! Exports of a log: one transaction with one snapshot, on its own connection.
//!
//! While it is open, the server cannot remove deleted rows. So it ends with the export, or after half an hour in which
//! no further part is requested.

use std::sync::Arc;

use async_trait::async_trait;
use snaphook_driver::{
    DriverError, EXPORT_BYTES, ErrorKind, Group, LogExport, LogRecord, PENDING_MAX, PendingEvent, Position, Result,
};
use tokio_postgres::types::Type;

use super::claims;
use super::groups::filter;
use super::row::{COLUMNS, decode};
use crate::connection::{CALL_TIME, Database, WHOLE_TIME};
use crate::session::{Begin, Parameter, Session};
use crate::sql::Sql;
use crate::text::{escape, unescape};

/// Maximum number of rows in one step.
const ROWS_MAX: i64 = 2000;

pub(super) struct Export {
    head: Position,
    /// `None` after a step failed.
    session: Option<Session>,
    next: Next,
    sql: Statements,
}

struct Statements {
    events: Sql,
    claims: Sql,
    blob: Sql,
    group: Sql,
    pending: Sql,
}

/// What comes next: all records of one kind after a key.
enum Next {
    Events(i64),
    Claims(Option<String>),
    Blobs(String),
    Groups(Option<String>),
    Pending { number: i64, name: String, after: i64 },
    End,
}

impl Export {
    pub(super) async fn begin(database: &Arc<Database>) -> Result<Export> {
        let sql = |text: &str, types: &[Type]| database.sql(text, types);
        // As many rows as fit. Lengths are known without reading the values from TOAST storage.
        let some = |columns: &str, length: &str, rest: &str| {
            format!(
                "SELECT {columns} FROM (SELECT p.*, row_number() OVER w AS nth, sum(512 + {length}) OVER w AS total
                 FROM ({rest}) p WINDOW w AS (ORDER BY place ROWS UNBOUNDED PRECEDING)) q
                 WHERE nth = 1 OR total <= {EXPORT_BYTES} ORDER BY place"
            )
        };
        let statements = Statements {
            events: sql(
                &some(
                    COLUMNS,
                    "coalesce(octet_length(data), 0)",
                    &format!(
                        "SELECT {COLUMNS}, position AS place FROM @.events WHERE position > $1 ORDER BY position LIMIT $2"
                    ),
                ),
                &[Type::INT8, Type::INT8],
            ),
            claims: sql(
                &some(
                    "key, model, instance, position, expires, value",
                    "octet_length(key)",
                    "SELECT *, key AS place FROM @.claims
                     WHERE $1::text IS NULL OR (left(key, 500) >= left($1, 500) AND key > $1)
                     ORDER BY left(key, 500), key LIMIT $2",
                ),
                &[Type::TEXT, Type::INT8],
            ),
            blob: sql("SELECT sha256, bytes FROM @.blobs WHERE sha256 > $1 ORDER BY sha256 LIMIT 1", &[Type::TEXT]),
            group: sql(
                "SELECT number, name, filter, cursor FROM @.groups WHERE $1::text IS NULL OR name > $1
                 ORDER BY name LIMIT 1",
                &[Type::TEXT],
            ),
            // Leases end with their owner: a leased event has no delay, and neither has a due one.
            pending: sql(
                "SELECT position, attempt, note, CASE WHEN token = 0 AND due > statement_timestamp()
                     THEN ceil(extract(epoch FROM due) * 1000)::int8 ELSE 0 END
                 FROM @.pending WHERE group_number = $1 AND position > $2 ORDER BY position LIMIT $3",
                &[Type::INT8, Type::INT8, Type::INT8],
            ),
        };
        let mut session = database.own_session("export", WHOLE_TIME).await?;
        session.begin(Begin::SNAPSHOT).await?;
        // A transaction's snapshot is taken by its first statement.
        let head = session.one(&sql("SELECT head FROM @.log", &[]), &[]).await?.get::<_, i64>(0) as Position;
        Ok(Export { head, session: Some(session), next: Next::Events(0), sql: statements })
    }
}

#[async_trait]
impl LogExport for Export {
    fn head(&self) -> Position {
        self.head
    }

    async fn next(&mut self) -> Result<Vec<LogRecord>> {
        if matches!(self.next, Next::End) {
            return Ok(Vec::new());
        }
        let mut session = self
            .session
            .take()
            .ok_or_else(|| DriverError::new(ErrorKind::Unexpected, "export", "an earlier part of the export failed"))?;
        session.extend("export", CALL_TIME);
        loop {
            let (records, next) = self.sql.step(&mut session, &self.next).await?;
            self.next = next;
            if matches!(self.next, Next::End) {
                session.end().await;
                return Ok(records);
            }
            if !records.is_empty() {
                self.session = Some(session);
                return Ok(records);
            }
        }
    }
}

impl Statements {
    /// The next records, and what comes after them.
    async fn step(&self, session: &mut Session, next: &Next) -> Result<(Vec<LogRecord>, Next)> {
        match next {
            Next::Events(after) => {
                let rows = session.query(&self.events, &[after, &ROWS_MAX]).await?;
                let next = rows.last().map_or(Next::Claims(None), |row| Next::Events(row.get(0)));
                let events = rows.iter().map(|row| decode("export", row, 0).map(LogRecord::Event));
                Ok((events.collect::<Result<_>>()?, next))
            }
            Next::Claims(after) => {
                let rows = session.query(&self.claims, &[after, &ROWS_MAX]).await?;
                let next = rows.last().map_or(Next::Blobs(String::new()), |row| Next::Claims(Some(row.get(0))));
                let claims = rows.iter().map(claims::holder).map(|(key, holder)| LogRecord::Claim { key, holder });
                Ok((claims.collect(), next))
            }
            Next::Blobs(after) => {
                let rows = session.query(&self.blob, &[after]).await?;
                let next = rows.last().map_or(Next::Groups(None), |row| Next::Blobs(row.get(0)));
                let blobs = rows.iter().map(|row| LogRecord::Blob { sha256: row.get(0), bytes: row.get(1) });
                Ok((blobs.collect(), next))
            }
            Next::Groups(after) => {
                let rows = session.query(&self.group, &[&after.as_deref().map(escape)]).await?;
                let Some(row) = rows.first() else { return Ok((Vec::new(), Next::End)) };
                let group = Group { name: unescape(row.get(1)), filter: filter("export", row.get(2))? };
                let next = Next::Pending { number: row.get(0), name: group.name.clone(), after: 0 };
                Ok((vec![LogRecord::Group { group, cursor: row.get::<_, i64>(3) as Position }], next))
            }
            Next::Pending { number, name, after } => {
                let values: [Parameter<'_>; 3] = [number, after, &(PENDING_MAX as i64)];
                let rows = session.query(&self.pending, &values).await?;
                let Some(last) = rows.last() else { return Ok((Vec::new(), Next::Groups(Some(name.clone())))) };
                let next = Next::Pending { number: *number, name: name.clone(), after: last.get(0) };
                let events = rows.iter().map(|row| PendingEvent {
                    position: row.get::<_, i64>(0) as Position,
                    attempt: u32::try_from(row.get::<_, i64>(1)).unwrap_or(u32::MAX),
                    due: row.get(3),
                    note: row.get::<_, Option<String>>(2).map(unescape),
                });
                Ok((vec![LogRecord::Pending { group: name.clone(), events: events.collect() }], next))
            }
            Next::End => Ok((Vec::new(), Next::End)),
        }
    }
}
