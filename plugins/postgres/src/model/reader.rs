//! One snapshot of the store for one read. Rows come in batches from a cursor, and the read's budget counts each batch.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_postgres::{Row, types::Type};

use super::condition::Where;
use super::lanes::{Halt, Meter};
use super::open_models::OpenModels;
use super::registry::{Model, Registry};
use super::row::get;
use super::table::{OWN, Table};
use super::writing::within;
use crate::connection::{CALL_TIME, WHOLE_TIME};
use crate::fault::fault;
use crate::session::{Begin, Session};

/// Data up to this size comes with its row; larger data is fetched when it is needed.
const INLINE_MAX: usize = 16 * 1024;

/// The index of the first key in a row: after the instance and the size of its data.
pub(super) const KEYS_FROM: usize = 8;

pub(super) struct Reader<'a> {
    shared: &'a OpenModels,
    session: Session,
    meter: &'a Meter,
    registry: Arc<Registry>,
    cursors: usize,
}

impl<'a> Reader<'a> {
    pub(super) async fn begin(shared: &'a OpenModels, meter: &'a Meter) -> Result<Reader<'a>, Halt> {
        let operation = meter.operation();
        let mut session = shared.database.session_within(operation, WHOLE_TIME).await?;
        let begin = Begin::SNAPSHOT.text(session.deadline().saturating_duration_since(Instant::now()));
        let changes = shared.database.qualified("SELECT changes FROM @.model_state");
        session.sending();
        let client = session.client()?;
        let both = async { tokio::join!(client.batch_execute(&begin), client.query_typed(&changes, &[])) };
        let (begun, rows) = within(Instant::now() + CALL_TIME, operation, both).await?;
        begun.map_err(fault(operation))?;
        let rows = rows.map_err(fault(operation))?;
        let changes: i64 = rows.first().map_or(Ok(-1), |row| get(row, 0, operation))?;
        session.sent(true);
        let mut registry = shared.registry();
        if registry.changes != changes {
            registry = shared.publish(Registry::load(&shared.database, &mut session, operation).await?);
        }
        Ok(Reader { shared, session, meter, registry, cursors: 0 })
    }

    /// A model in this snapshot.
    pub(super) fn model(&self, model: &str) -> Option<Arc<Model>> {
        self.registry.models.get(model).cloned()
    }

    /// Opens a cursor over rows of a table and fetches the first ones. `order` is the text after `ORDER BY`, which
    /// matches an index; empty: any order.
    pub(super) async fn open(
        &mut self,
        table: &Table,
        rows: &Where,
        order: &str,
        keys: &[usize],
        with_data: bool,
        count: usize,
    ) -> Result<Vec<Row>, Halt> {
        self.cursors += 1;
        let select = self.shared.database.qualified(&select(table, rows, order, keys, with_data));
        let declare = format!("DECLARE c{} NO SCROLL CURSOR FOR {select}", self.cursors);
        let fetch = self.fetch(count);
        let operation = self.meter.operation();
        let parameters = rows.typed();
        self.session.sending();
        let client = self.session.client()?;
        let all = async {
            tokio::join!(
                client.batch_execute(settings(order)),
                client.execute_typed(&declare, &parameters),
                client.query_typed(&fetch, &[])
            )
        };
        let (set, declared, found) = self.meter.wait(self.session.deadline(), all).await?;
        set.map_err(fault(operation))?;
        declared.map_err(fault(operation))?;
        let found = found.map_err(fault(operation))?;
        self.session.sent(true);
        Ok(found)
    }

    /// The next rows of the last opened cursor.
    pub(super) async fn next(&mut self, count: usize) -> Result<Vec<Row>, Halt> {
        let fetch = self.fetch(count);
        self.query(&fetch, &[]).await
    }

    fn fetch(&self, count: usize) -> String {
        format!("FETCH {count} FROM c{}", self.cursors)
    }

    /// Instances by their ids.
    pub(super) async fn instances(&mut self, table: &Table, ids: &[&[u8]]) -> Result<Vec<Row>, Halt> {
        let select = format!("SELECT {OWN} FROM @.{} WHERE id = ANY($1)", table.name());
        let select = self.shared.database.qualified(&select);
        self.query(&select, &[(&ids, Type::BYTEA_ARRAY)]).await
    }

    /// Counts rows, up to `most`.
    pub(super) async fn count(&mut self, table: &Table, rows: &Where, most: i64) -> Result<i64, Halt> {
        let count =
            format!("SELECT count(*) FROM (SELECT FROM @.{}{} LIMIT {most}) AS rows", table.name(), rows.clause());
        let count = self.shared.database.qualified(&count);
        let found = self.query(&count, &rows.typed()).await?;
        Ok(found.first().map_or(Ok(0), |row| get(row, 0, self.meter.operation()))?)
    }

    async fn query(
        &mut self,
        sql: &str,
        parameters: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Halt> {
        self.session.sending();
        let found =
            self.meter.wait(self.session.deadline(), self.session.client()?.query_typed(sql, parameters)).await?;
        let found = found.map_err(fault(self.meter.operation()))?;
        self.session.sent(true);
        Ok(found)
    }

    /// Returns the connection.
    pub(super) async fn end(mut self) {
        self.session.end().await;
    }
}

/// Without statistics, and for a cursor whose rows are fetched in steps, PostgreSQL chooses badly between an index and
/// a sort. With an order, these settings leave it no choice.
pub(super) fn settings(order: &str) -> &'static str {
    match order {
        "" => "SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on; SET LOCAL enable_sort = on",
        _ => "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off",
    }
}

pub(super) fn select(table: &Table, rows: &Where, order: &str, keys: &[usize], with_data: bool) -> String {
    let data = match with_data {
        true => format!("CASE WHEN octet_length(data) <= {INLINE_MAX} THEN data END"),
        false => "NULL::text".to_owned(),
    };
    let own = OWN.strip_suffix("data").unwrap_or(OWN);
    let keys: String = keys.iter().map(|column| format!(", k{column}")).collect();
    let order = if order.is_empty() { String::new() } else { format!(" ORDER BY {order}") };
    format!("SELECT {own}{data}, octet_length(data){keys} FROM @.{}{}{order}", table.name(), rows.clause())
}
