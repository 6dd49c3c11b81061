//! Brings a model from one shape to the next, within the caller's transaction: in place where that is a matter of a few
//! statements, else by a new table, which takes the rows of the old one.

use std::collections::HashSet;

use rusqlite::Connection;
use snaphook_driver::{CarryOver, ModelShape, Result};

use super::names::Counter;
use super::rows::{self, Steps};
use super::table::Table;
use crate::fault::fault;

/// Columns that are added and dropped one by one at most: each of them makes SQLite read the whole schema again.
const ALTERS_MAX: usize = 8;

/// Whether a change needs no new table.
pub(super) fn is_in_place(old: &Table, new: &ModelShape, carry: &CarryOver) -> bool {
    // The numbers are not used, and none is in use.
    let follower = Table::follow(Some(old), new, &mut Counter(u64::MAX / 2));
    let names = |definitions: Vec<(String, String)>| definitions.into_iter().map(|(name, _)| name).collect();
    let (before, after): (HashSet<String>, HashSet<String>) =
        (names(old.column_definitions()), names(follower.column_definitions()));
    let (indexes_before, indexes_after): (HashSet<String>, HashSet<String>) =
        (names(old.index_definitions()), names(follower.index_definitions()));
    carry.is_empty() && indexes_before == indexes_after && before.symmetric_difference(&after).count() <= ALTERS_MAX
}

/// Makes the table of a model with its indexes.
pub(super) fn create(connection: &Connection, table: &Table) -> Result<()> {
    connection.execute_batch(&table.create()).map_err(fault("define"))?;
    create_indexes(connection, table)
}

pub(super) fn create_indexes(connection: &Connection, table: &Table) -> Result<()> {
    let create = || table.index_definitions().iter().try_for_each(|(_, sql)| connection.execute_batch(sql));
    create().map_err(fault("define"))
}

/// Changes the columns of a table; see [`is_in_place`]. `new` follows `old`.
pub(super) fn alter(connection: &Connection, old: &Table, new: &Table) -> Result<()> {
    let (before, after) = (old.column_definitions(), new.column_definitions());
    let has = |definitions: &[(String, String)], name: &String| definitions.iter().any(|(other, _)| other == name);
    let alter = || -> rusqlite::Result<()> {
        for (name, _) in before.iter().filter(|(name, _)| !has(&after, name)) {
            connection.execute_batch(&format!("ALTER TABLE {} DROP COLUMN {name}", new.name))?;
        }
        for (_, sql) in after.iter().filter(|(name, _)| !has(&before, name)) {
            connection.execute_batch(&format!("ALTER TABLE {} ADD COLUMN {sql}", new.name))?;
        }
        Ok(())
    };
    alter().map_err(fault("define"))
}

/// Fills a new table with the rows of the old one, and builds its indexes at the end.
pub(super) fn refill(connection: &Connection, old: &Table, new: &Table, steps: &mut Steps) -> Result<()> {
    connection.execute_batch(&new.create()).map_err(fault("define"))?;
    rows::copy_all(connection, old, new, steps)?;
    create_indexes(connection, new)
}
