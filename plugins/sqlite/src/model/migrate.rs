//! Changes a model's shape within the caller's transaction: in place if neither rows nor indexes change, otherwise with
//! a new table that receives the rows of the old one.

use std::collections::HashSet;

use rusqlite::Connection;
use snaphook_driver::{CarryOver, ModelShape, Result};

use super::names::Counter;
use super::rows::{self, Steps};
use super::table::Table;
use crate::fault::fault;

/// Whether a change needs no new table: the rows and the indexes stay as they are.
pub(super) fn is_in_place(old: &Table, new: &ModelShape, carry: &CarryOver) -> bool {
    // These numbers are only used for the comparison and never stored.
    let follower = Table::follow(Some(old), new, &mut Counter(u64::MAX / 2));
    let names = |table: &Table| table.index_definitions().into_iter().map(|(name, _)| name).collect::<HashSet<_>>();
    carry.is_empty() && names(old) == names(&follower)
}

/// Creates the table of a model with its indexes.
pub(super) fn create(connection: &Connection, table: &Table) -> Result<()> {
    connection.execute_batch(&table.create()).map_err(fault("define"))?;
    create_indexes(connection, table)
}

pub(super) fn create_indexes(connection: &Connection, table: &Table) -> Result<()> {
    let create = || table.index_definitions().iter().try_for_each(|(_, sql)| connection.execute_batch(sql));
    create().map_err(fault("define"))
}

/// Fills a new table with the rows of the old one, and builds its indexes at the end.
pub(super) fn refill(connection: &Connection, old: &Table, new: &Table, steps: &mut Steps) -> Result<()> {
    connection.execute_batch(&new.create()).map_err(fault("define"))?;
    rows::copy_all(connection, old, new, steps)?;
    create_indexes(connection, new)
}
