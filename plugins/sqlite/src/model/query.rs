//! Pages and counts as SQL.

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, Row, params_from_iter};
use serde_json::Value;
use snaphook_driver::{
    Cursor, DriverError, ErrorKind, Filter, Instance, InstancePage, InstanceQuery, PAGE_BYTES_MAX, Result,
};

use super::condition::{fixed_paths, where_clause};
use super::order::{Order, pack};
use super::statement::Statement;
use super::table::{COLUMNS, Table};
use crate::fault::fault;

/// Pages up to this size that an index serves are read on the caller's thread.
const PAGE_INLINE_MAX: u32 = 100;

/// Maximum number of values in one statement; SQLite accepts slightly more.
const PARAMETERS_MAX: usize = 32_000;

/// Whether the query is expected to read about as many rows as it returns. Its turn is limited in any case.
pub(super) fn is_short(table: &Table, query: &InstanceQuery) -> bool {
    query.limit <= PAGE_INLINE_MAX && is_served(table, query)
}

/// Whether an index returns exactly these rows, in this order.
fn is_served(table: &Table, query: &InstanceQuery) -> bool {
    let mut fixed = fixed_paths(table, query);
    fixed.dedup();
    fixed.len() == query.filter.conjuncts().len()
        && table.given(&fixed, &query.sort).is_some_and(|given| given.whole && given.by_id && given.lead == fixed.len())
}

/// One page; see [`snaphook_driver::ModelStore::query`].
pub(super) fn page(connection: &Connection, table: &Table, query: &InstanceQuery) -> Result<InstancePage> {
    let cursor = Cursor::decode(&table.model, query)?;
    let order = Order::new(table, query);
    let filter = where_clause(table, &query.filter, order.bounded(query));
    check_size("query", &filter)?;
    let limit = query.limit.max(1) as usize;
    let parts = order.parts(cursor.as_ref())?;
    // All statements must see the same state.
    let transaction = connection.unchecked_transaction().map_err(fault("query"))?;
    // SQLite sorts in memory, so in that case it only selects the keys, and the rows are read one by one.
    let mut reader = if is_served(table, query) {
        PageReader::whole(connection, table, order.keys.len())
    } else {
        PageReader::by_number(connection, table, order.keys.len()).map_err(fault("query"))?
    };
    for part in parts {
        // One more than the page, to know whether there is a next page.
        let wanted = limit + 1 - reader.rows.len();
        let (sql, parameters) = order.statement(table, reader.columns, &filter, part, wanted);
        reader.read(&sql, &parameters).map_err(fault("query"))?;
        if reader.rows.len() > limit || reader.is_large() {
            break;
        }
    }
    let held = if reader.is_large() { limit.min(reader.rows.len() - 1) } else { limit };
    let mut rows = reader.rows;
    drop(transaction);
    let more = rows.len() > held;
    rows.truncate(held);
    let next = match rows.last() {
        Some((instance, keys)) if more => {
            let cursor = Cursor { keys: keys.clone(), id: instance.id.clone() };
            Some(cursor.encode(&table.model, query)?)
        }
        _ => None,
    };
    Ok(InstancePage { items: rows.into_iter().map(|(instance, _)| instance).collect(), next })
}

/// See [`snaphook_driver::ModelStore::count`].
pub(super) fn count(connection: &Connection, table: &Table, filter: &Filter) -> Result<u64> {
    let statement = where_clause(table, filter, &[]);
    check_size("count", &statement)?;
    let sql = format!("SELECT count(*) FROM {}{}", table.name, statement.clause());
    let count = || -> rusqlite::Result<i64> {
        connection.prepare_cached(&sql)?.query_row(params_from_iter(&statement.parameters), |row| row.get(0))
    };
    Ok(count().map_err(fault("count"))? as u64)
}

fn check_size(operation: &'static str, filter: &Statement) -> Result<()> {
    match filter.parameters.len() {
        0..=PARAMETERS_MAX => Ok(()),
        count => Err(DriverError::new(
            ErrorKind::Invalid,
            operation,
            format!("the filter has {count} values, at most {PARAMETERS_MAX} are allowed"),
        )),
    }
}

/// Reads an instance from the first columns of a row.
pub(super) fn decode(row: &Row<'_>, model: &str) -> rusqlite::Result<Instance> {
    Ok(Instance {
        id: row.get(0)?,
        model: model.to_owned(),
        model_version: row.get::<_, i64>(1)? as u64,
        revision: row.get::<_, i64>(2)? as u64,
        position: row.get::<_, i64>(3)? as u64,
        created_at: row.get(4)?,
        updated_at: row.get(5)?,
        data: snaphook_driver::Json::trusted(row.get_ref(6)?.as_str()?),
    })
}

/// Collects the rows of a page, up to its size.
struct PageReader<'a> {
    connection: &'a Connection,
    model: &'a str,
    /// The columns that the statements select before the keys.
    columns: &'static str,
    /// Reads a row by its number, if the statements only select the number.
    by_number: Option<rusqlite::CachedStatement<'a>>,
    keys: usize,
    rows: Vec<(Instance, Vec<Value>)>,
    bytes: usize,
}

impl<'a> PageReader<'a> {
    fn whole(connection: &'a Connection, table: &'a Table, keys: usize) -> Self {
        PageReader {
            connection,
            model: &table.model,
            columns: COLUMNS,
            by_number: None,
            keys,
            rows: Vec::new(),
            bytes: 0,
        }
    }

    fn by_number(connection: &'a Connection, table: &'a Table, keys: usize) -> rusqlite::Result<Self> {
        let sql = format!("SELECT {COLUMNS} FROM {} WHERE rowid = ?1", table.name);
        let statement = connection.prepare_cached(&sql)?;
        let reader = PageReader::whole(connection, table, keys);
        Ok(PageReader { columns: "rowid", by_number: Some(statement), ..reader })
    }

    /// Whether the last of these rows exceeds the page's size.
    fn is_large(&self) -> bool {
        self.bytes > PAGE_BYTES_MAX && self.rows.len() > 1
    }

    fn read(&mut self, sql: &str, parameters: &[Sql]) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut found = statement.query(params_from_iter(parameters))?;
        while let Some(row) = found.next()? {
            let (first_key, instance) = match &mut self.by_number {
                None => (7, decode(row, self.model)?),
                Some(by_number) => {
                    let number: i64 = row.get(0)?;
                    (1, by_number.query_row([number], |row| decode(row, self.model))?)
                }
            };
            let keys = (0..self.keys)
                .map(|key| Ok(pack(row.get(first_key + 2 * key)?, row.get(first_key + 1 + 2 * key)?)))
                .collect::<rusqlite::Result<_>>()?;
            self.bytes += instance.data.len();
            self.rows.push((instance, keys));
            // The extra row shows that there is a next page.
            if self.is_large() {
                break;
            }
        }
        Ok(())
    }
}
