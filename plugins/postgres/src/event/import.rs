//! Imports of logs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use snaphook_driver::judge::{HolderRef, Tail};
use snaphook_driver::{DriverError, ErrorKind, Event, Group, LogRecord, PendingEvent, Position, Result, StreamRef};
use tokio_postgres::types::Type;

use super::blobs;
use super::claims::{Claims, Taken};
use super::groups::kinds;
use super::row::{self, Rows, signed};
use super::tails::{self, Tails};
use crate::connection::{Database, WHOLE_TIME};
use crate::session::{Begin, Session};
use crate::sql::Sql;
use crate::text::escape;

pub(super) struct Import {
    database: Arc<Database>,
    lock: Sql,
    is_empty: Sql,
    mark: Sql,
    unmark: Sql,
    events: Sql,
    streams: Sql,
    end: Sql,
    claims: Sql,
    blob: Sql,
    remove_group: Sql,
    group: Sql,
    pending: Sql,
}

/// The error for opening a log, or appending to it, before its import has finished.
pub(super) fn part_of_a_log(operation: &'static str) -> DriverError {
    DriverError::new(
        ErrorKind::Config,
        operation,
        "the schema contains part of a log, because a copy or a restore was interrupted; run `snaphook copy` again, or \
         drop the schema and restore again",
    )
}

impl Import {
    pub(super) fn new(database: &Arc<Database>, claims: &Claims) -> Import {
        let sql = |text: &str, types: &[Type]| database.sql(text, types);
        Import {
            database: Arc::clone(database),
            lock: sql("SELECT head, importing FROM @.log FOR UPDATE", &[]),
            is_empty: sql(
                "SELECT NOT (EXISTS (SELECT 1 FROM @.events) OR EXISTS (SELECT 1 FROM @.claims)
                     OR EXISTS (SELECT 1 FROM @.blobs) OR EXISTS (SELECT 1 FROM @.groups))",
                &[],
            ),
            mark: sql("UPDATE @.log SET importing = true", &[]),
            unmark: sql("UPDATE @.log SET importing = false WHERE importing", &[]),
            events: sql(&row::insert(), row::TYPES),
            streams: tails::write(database),
            end: sql("UPDATE @.log SET head = $1, time = $2", &[Type::INT8, Type::INT8]),
            claims: claims.take.clone(),
            blob: blobs::put(database),
            remove_group: sql("DELETE FROM @.groups WHERE name = $1", &[Type::TEXT]),
            group: sql(
                "INSERT INTO @.groups(name, filter, kinds, cursor) VALUES ($1, $2, $3, $4)",
                &[Type::TEXT, Type::TEXT, Type::INT2_ARRAY, Type::INT8],
            ),
            pending: sql(
                "INSERT INTO @.pending(group_number, position, due, token, owner, attempt, note, model, instance)
                 SELECT g.number, p.position,
                     CASE p.due WHEN 0 THEN statement_timestamp() ELSE to_timestamp(p.due / 1000.0) END,
                     0, 0, p.attempt, p.note, e.model, e.instance
                 FROM unnest($2, $3, $4, $5) AS p(position, attempt, due, note)
                 JOIN @.events e ON e.position = p.position JOIN @.groups g ON g.name = $1",
                &[Type::TEXT, Type::INT8_ARRAY, Type::INT8_ARRAY, Type::INT8_ARRAY, Type::TEXT_ARRAY],
            ),
        }
    }

    /// See [`snaphook_driver::EventStore::import`].
    pub(super) async fn import(&self, records: &[LogRecord]) -> Result<()> {
        let mut session = self.database.session_within("import", WHOLE_TIME).await?;
        session.begin(Begin::DURABLE).await?;
        let row = session.one(&self.lock, &[]).await?;
        let (mut head, is_importing): (i64, bool) = (row.get(0), row.get(1));
        if !is_importing {
            if !session.one(&self.is_empty, &[]).await?.get::<_, bool>(0) {
                return Err(DriverError::new(ErrorKind::Conflict, "import", "the log already contains data"));
            }
            session.execute(&self.mark, &[]).await?;
        }
        // In an export, records of the same kind are adjacent.
        for part in records.chunk_by(|one, next| std::mem::discriminant(one) == std::mem::discriminant(next)) {
            match part {
                [LogRecord::Event(_), ..] => head = self.events(&mut session, part, head).await?,
                [LogRecord::Claim { .. }, ..] => self.claims(&mut session, part).await?,
                _ => self.others(&mut session, part).await?,
            }
        }
        session.commit().await
    }

    /// See [`snaphook_driver::EventStore::finish_import`].
    pub(super) async fn finish(&self) -> Result<()> {
        let mut session = self.database.session_within("finish_import", WHOLE_TIME).await?;
        session.begin(Begin::DURABLE).await?;
        let was_part = session.execute(&self.unmark, &[]).await? > 0;
        session.commit().await?;
        if was_part {
            // Updates the planner's statistics. If that fails, queries are only slower.
            let analyze = self.database.qualified("ANALYZE @.events, @.streams, @.claims, @.pending");
            if let Err(error) = session.batch(&analyze).await {
                tracing::warn!(%error, "the tables of the log were not analyzed after the import; run ANALYZE");
            }
        }
        Ok(())
    }

    async fn events(&self, session: &mut Session, records: &[LogRecord], head: i64) -> Result<i64> {
        let (mut rows, mut last, mut time) = (Rows::default(), head, 0);
        let mut tails = BTreeMap::new();
        for event in records.iter().filter_map(event) {
            let position = signed(event.position);
            if position <= last {
                let message = format!("an event at {position} after the one at {last}");
                return Err(DriverError::new(ErrorKind::Conflict, "import", message));
            }
            rows.add(event, event.position, event.time)?;
            tails.insert(StreamRef::of(event), Tail { position: event.position, ended: event.kind.ends_stream() });
            (last, time) = (position, event.time);
        }
        session.execute(&self.events, &rows.parameters()).await?;
        session.execute(&self.streams, &Tails::new(&tails).parameters()).await?;
        session.execute(&self.end, &[&last, &time]).await?;
        Ok(last)
    }

    async fn claims(&self, session: &mut Session, records: &[LogRecord]) -> Result<()> {
        // One claim per key, even if the records repeat a key.
        let claims: BTreeMap<&str, HolderRef<'_>> = records
            .iter()
            .filter_map(|record| match record {
                LogRecord::Claim { key, holder } => Some((key.as_str(), HolderRef::from(holder))),
                _ => None,
            })
            .collect();
        let mut taken = Taken::default();
        claims.into_iter().for_each(|(key, holder)| taken.add(key, holder));
        session.execute(&self.claims, &taken.parameters()).await.map(drop)
    }

    async fn others(&self, session: &mut Session, records: &[LogRecord]) -> Result<()> {
        for record in records {
            match record {
                LogRecord::Blob { sha256, bytes } => drop(session.execute(&self.blob, &[sha256, bytes]).await?),
                LogRecord::Group { group, cursor } => self.group(session, group, *cursor).await?,
                LogRecord::Pending { group, events } => self.pending(session, group, events).await?,
                // `import` handles these.
                LogRecord::Event(_) | LogRecord::Claim { .. } => {}
            }
        }
        Ok(())
    }

    async fn group(&self, session: &mut Session, group: &Group, cursor: Position) -> Result<()> {
        let filter = serde_json::to_string(&group.filter).map_err(|error| {
            DriverError::new(ErrorKind::Invalid, "import", "a filter cannot be written as JSON").because(error)
        })?;
        let name = escape(&group.name);
        // Removes what an interrupted import stored of the group.
        session.execute(&self.remove_group, &[&name]).await?;
        session.execute(&self.group, &[&name, &filter, &kinds(&group.filter), &signed(cursor)]).await.map(drop)
    }

    async fn pending(&self, session: &mut Session, group: &str, events: &[PendingEvent]) -> Result<()> {
        let positions: Vec<_> = events.iter().map(|event| signed(event.position)).collect();
        let attempts: Vec<_> = events.iter().map(|event| i64::from(event.attempt)).collect();
        let due: Vec<_> = events.iter().map(|event| event.due).collect();
        let notes: Vec<Option<Cow<'_, str>>> = events.iter().map(|event| event.note.as_deref().map(escape)).collect();
        session.execute(&self.pending, &[&escape(group), &positions, &attempts, &due, &notes]).await.map(drop)
    }
}

fn event(record: &LogRecord) -> Option<&Event> {
    match record {
        LogRecord::Event(event) => Some(event),
        _ => None,
    }
}
