//! Consumer groups and their progress.
//!
//! A group consists of its cursor, and one row for each stream with unacknowledged events at or before the cursor: the
//! oldest of them. So a backlog of a million unclaimed events is one number. Every change of a group's progress locks
//! the group's row, on any node. Times are those of the database's clock.

use std::sync::Arc;

use snaphook_driver::{DriverError, ErrorKind, EventFilter, Group, Position, Result, Stream, StreamRef};
use tokio_postgres::types::Type;

use super::plan::Plan;
use super::row::signed;
use crate::connection::{Database, WHOLE_TIME};
use crate::fault::corrupt;
use crate::session::{Begin, Parameter};
use crate::sql::Sql;
use crate::text::{escape, instance, instance_id, unescape};

pub(super) struct Groups {
    database: Arc<Database>,
    create: Sql,
    find: Sql,
    refilter: Sql,
    remove: Sql,
    names: Sql,
    is_done: Sql,
    lag: Sql,
    state: Sql,
}

/// The next event of a stream after `done` that matches the group's filter, at or before its cursor. Refers to rows
/// `done` and `g`.
pub(super) const FOLLOWING: &str = "(SELECT e.position FROM @.events e
     WHERE e.model = done.model AND e.instance = done.instance
       AND (e.position * 1) > done.position AND (e.position * 1) <= g.cursor
       AND (cardinality(g.kinds) = 0 OR e.kind = ANY(g.kinds))
     ORDER BY (e.position * 1) LIMIT 1)";

impl Groups {
    pub(super) fn new(database: &Arc<Database>) -> Groups {
        let sql = |text: &str, types: &[Type]| database.sql(text, types);
        Groups {
            database: Arc::clone(database),
            create: sql(
                "INSERT INTO @.groups(name, filter, kinds, cursor) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (name) DO UPDATE SET filter = $2, kinds = $3 RETURNING number",
                &[Type::TEXT, Type::TEXT, Type::INT2_ARRAY, Type::INT8],
            ),
            find: sql("SELECT number FROM @.groups WHERE name = $1 FOR UPDATE", &[Type::TEXT]),
            // Drops pending events that the new filter excludes. The next event of such a stream becomes pending only
            // if the filter includes the stream.
            refilter: sql(
                &format!(
                    "WITH g AS (SELECT number, cursor, kinds FROM @.groups WHERE number = $1),
                     done AS (DELETE FROM @.pending p USING @.events e
                         WHERE p.group_number = $1 AND e.position = p.position AND NOT (
                             ($2::text IS NULL OR e.model = $2) AND ($3::text IS NULL OR e.instance = $3)
                             AND (NOT $4 OR e.instance = '') AND (cardinality($5::int2[]) = 0 OR e.kind = ANY($5)))
                         RETURNING p.model, p.instance, p.position),
                     next AS (SELECT done.model, done.instance, {FOLLOWING} AS position FROM done, g
                         WHERE ($2::text IS NULL OR done.model = $2) AND ($3::text IS NULL OR done.instance = $3)
                           AND (NOT $4 OR done.instance = ''))
                     INSERT INTO @.pending(group_number, position, due, token, owner, attempt, model, instance)
                     SELECT $1, position, statement_timestamp(), 0, 0, 0, model, instance FROM next
                     WHERE position IS NOT NULL"
                ),
                &[Type::INT8, Type::TEXT, Type::TEXT, Type::BOOL, Type::INT2_ARRAY],
            ),
            remove: sql("DELETE FROM @.groups WHERE name = $1", &[Type::TEXT]),
            names: sql("SELECT name FROM @.groups ORDER BY name", &[]),
            is_done: sql(
                "SELECT $4 <= g.cursor AND NOT EXISTS (SELECT 1 FROM @.pending p WHERE p.group_number = g.number
                     AND p.model = $2 AND p.instance = $3 AND p.position <= $4)
                 FROM @.groups g WHERE g.name = $1",
                &[Type::TEXT, Type::TEXT, Type::TEXT, Type::INT8],
            ),
            state: sql(
                "SELECT number, cursor, filter, (SELECT head FROM @.log) FROM @.groups WHERE name = $1",
                &[Type::TEXT],
            ),
            lag: sql(
                "SELECT count(*), min(p.position), coalesce(sum((SELECT count(*) FROM @.events e
                     WHERE e.model = p.model AND e.instance = p.instance
                       AND (e.position * 1) > p.position AND (e.position * 1) <= g.cursor
                       AND (cardinality(g.kinds) = 0 OR e.kind = ANY(g.kinds)))), 0)::int8
                 FROM @.pending p JOIN @.groups g ON g.number = p.group_number WHERE p.group_number = $1",
                &[Type::INT8],
            ),
        }
    }

    /// See [`snaphook_driver::EventStore::create_group`].
    pub(super) async fn create(&self, group: &Group, start: Position) -> Result<()> {
        let filter = serde_json::to_string(&group.filter).map_err(|error| {
            DriverError::new(ErrorKind::Invalid, "create_group", "the filter cannot be written as JSON").because(error)
        })?;
        let kinds = kinds(&group.filter);
        let name = escape(&group.name);
        let mut session = self.database.session_within("create_group", WHOLE_TIME).await?;
        session.begin(Begin::DURABLE).await?;
        // An existing group is locked before its filter changes.
        session.query(&self.find, &[&name]).await?;
        let row = session.one(&self.create, &[&name, &filter, &kinds, &signed(start)]).await?;
        let number: i64 = row.get(0);
        let model = group.filter.model.as_deref().map(escape);
        let id = group.filter.instance.as_deref().map(instance_id);
        session.execute(&self.refilter, &[&number, &model, &id, &group.filter.definitions_only, &kinds]).await?;
        session.commit().await
    }

    /// See [`snaphook_driver::EventStore::drop_group`].
    pub(super) async fn remove(&self, name: &str) -> Result<()> {
        let mut session = self.database.session_within("drop_group", WHOLE_TIME).await?;
        session.begin(Begin::DURABLE).await?;
        session.execute(&self.remove, &[&escape(name)]).await?;
        session.commit().await
    }

    /// See [`snaphook_driver::EventStore::groups`].
    pub(super) async fn names(&self) -> Result<Vec<String>> {
        let rows = self.database.session("groups").await?.query(&self.names, &[]).await?;
        Ok(rows.iter().map(|row| unescape(row.get(0))).collect())
    }

    /// See [`snaphook_driver::EventStore::is_done`].
    pub(super) async fn is_done(&self, name: &str, stream: &Stream, position: Position) -> Result<bool> {
        let stream = StreamRef::from(stream);
        let values: [Parameter<'_>; 4] = [&escape(name), &escape(stream.model), &instance(stream), &signed(position)];
        let rows = self.database.session("is_done").await?.query(&self.is_done, &values).await?;
        rows.first().map(|row| row.get(0)).ok_or_else(|| unknown("is_done", name))
    }

    /// See [`snaphook_driver::EventStore::lag`].
    pub(super) async fn lag(&self, name: &str) -> Result<(u64, Position)> {
        let mut session = self.database.session("lag").await?;
        session.begin(Begin::SNAPSHOT).await?;
        let rows = session.query(&self.state, &[&escape(name)]).await?;
        let state = rows.first().ok_or_else(|| unknown("lag", name))?;
        let (number, cursor, head): (i64, i64, i64) = (state.get(0), state.get(1), state.get(3));
        let filter = filter("lag", state.get(2))?;
        let row = session.one(&self.lag, &[&number]).await?;
        let (mut count, oldest): (i64, Option<i64>) = (row.get::<_, i64>(0) + row.get::<_, i64>(2), row.get(1));
        if let Some(plan) = Plan::new(&filter, 2) {
            let Plan { place, conditions, rest, .. } = &plan;
            let text =
                format!("SELECT count(*) FROM @.events e WHERE {place} > $1 AND {place} <= $2{conditions}{rest}");
            let types = [&[Type::INT8; 2][..], &plan.types(true)].concat();
            let values: [Parameter<'_>; 2] = [&cursor, &head];
            let values: Vec<_> = values.into_iter().chain(plan.parameters(true)).collect();
            count += session.one(&self.database.sql(&text, &types), &values).await?.get::<_, i64>(0);
        }
        session.end().await;
        let floor = match (count, oldest) {
            // All matching events are acknowledged, so progress reaches the end of the log.
            (0, _) => head,
            (_, Some(oldest)) => oldest - 1,
            (_, None) => cursor,
        };
        Ok((count as u64, floor as Position))
    }
}

pub(super) fn kinds(filter: &EventFilter) -> Vec<i16> {
    filter.kinds.iter().map(|kind| *kind as i16).collect()
}

/// Decodes a stored filter.
pub(super) fn filter(operation: &'static str, text: &str) -> Result<EventFilter> {
    snaphook_driver::json::typed(text)
        .map_err(|error| corrupt(operation, "a group's filter cannot be read back").because(error))
}

pub(super) fn unknown(operation: &'static str, name: &str) -> DriverError {
    DriverError::new(ErrorKind::Invalid, operation, format!("there is no group `{name}`, create it first"))
}
