//! Copies rows from one table of a model to the next.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::Value;
use snaphook_driver::{CarryOver, CarryOvers, DriverError, ErrorKind, Result};

use super::table::Table;
use crate::fault::fault;

/// The columns of a row.
const OWN: &str = "_id, _model_version, _revision, _position, _created_at, _updated_at, _data";
/// The columns that [`Carried::read`] needs.
const READ: &str = "rowid, _id, _position, _model_version, _data";
/// How many bytes of data are in memory at once.
const BYTES_MAX: usize = 1 << 20;

/// The conversion steps of several versions, each with its target version.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps {
    steps: Vec<(u64, CarryOver)>,
    /// The remaining steps for rows of a version.
    composed: HashMap<u64, CarryOvers>,
}

impl Steps {
    pub(super) fn new(steps: Vec<(u64, CarryOver)>) -> Steps {
        Steps { steps, composed: HashMap::new() }
    }

    pub(super) fn one(carry: &CarryOver, version: u64) -> Steps {
        Steps::new(if carry.is_empty() { Vec::new() } else { vec![(version, carry.clone())] })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The remaining steps for a row that was last written or converted under this version.
    fn ahead_of(&mut self, version: u64) -> &CarryOvers {
        let steps = &self.steps;
        self.composed.entry(version).or_insert_with(|| {
            let mut ahead = CarryOvers::default();
            steps.iter().filter(|(to, _)| *to > version).for_each(|(to, step)| ahead.then(step, *to));
            ahead
        })
    }
}

/// A row and its converted data.
pub(super) struct Carried {
    row: i64,
    position: i64,
    /// The new data and the version that changed it; `None` if it is unchanged.
    data: Option<(String, u64)>,
}

impl Carried {
    fn read(table: &Table, row: &Row<'_>, steps: &mut Steps) -> Result<Carried> {
        let columns = || -> rusqlite::Result<(i64, i64, i64)> { Ok((row.get(0)?, row.get(2)?, row.get(3)?)) };
        let (number, position, version) = columns().map_err(fault("define"))?;
        let ahead = steps.ahead_of(version as u64);
        if ahead.is_empty() {
            return Ok(Carried { row: number, position, data: None });
        }
        let text: String = row.get(4).map_err(fault("define"))?;
        let broken = || {
            let id: String = row.get(1).unwrap_or_default();
            DriverError::new(ErrorKind::Corrupt, "define", "an instance's data is not a JSON object")
                .with("instance", format!("{}/{id}", table.model))
        };
        let Ok(Value::Object(mut data)) = snaphook_driver::json::parse(&text) else { return Err(broken()) };
        let data = ahead.apply(&mut data).map(|version| (Value::Object(data).to_string(), version));
        Ok(Carried { row: number, position, data })
    }

    /// Writes the row to the table `to`, unless it has changed in `from` since it was read.
    fn write(&self, connection: &Connection, from: &Table, to: &Table, word: &str) -> rusqlite::Result<()> {
        let mut put = connection.prepare_cached(&format!(
            "INSERT OR {word} INTO {}(rowid, {OWN}) SELECT rowid, _id, coalesce(?3, _model_version), _revision, _position, \
             _created_at, _updated_at, coalesce(?4, _data) FROM {} \
             WHERE rowid = ?1 AND _position = ?2",
            to.name, from.name
        ))?;
        let (version, data) = self.data.as_ref().map(|(text, version)| (*version as i64, text)).unzip();
        put.execute(params![self.row, self.position, version, data]).map(drop)
    }
}

/// Reads rows after the number `after`, up to `limit` of them; `None` if there are none.
pub(super) fn read(
    connection: &Connection,
    from: &Table,
    after: i64,
    limit: usize,
    steps: &mut Steps,
) -> Result<Option<(Vec<Carried>, i64)>> {
    let sql = format!("SELECT {READ} FROM {} WHERE rowid > ?1 ORDER BY rowid LIMIT ?2", from.name);
    let mut statement = connection.prepare_cached(&sql).map_err(fault("define"))?;
    let mut rows = statement.query(params![after, limit as i64]).map_err(fault("define"))?;
    let (mut found, mut last, mut bytes) = (Vec::new(), after, 0);
    while let Some(row) = rows.next().map_err(fault("define"))? {
        let carried = Carried::read(from, row, steps)?;
        last = carried.row;
        bytes += carried.data.as_ref().map_or(0, |(text, _)| text.len());
        found.push(carried);
        if bytes > BYTES_MAX {
            break;
        }
    }
    Ok((!found.is_empty()).then_some((found, last)))
}

/// Writes rows to the table `to`. Existing rows there are newer and stay.
pub(super) fn put(connection: &Connection, from: &Table, to: &Table, rows: &[Carried]) -> Result<()> {
    rows.iter().try_for_each(|row| row.write(connection, from, to, "IGNORE")).map_err(fault("define"))
}

/// Copies up to `limit` rows after the number `after` as they are; returns the last one's number.
pub(super) fn copy(connection: &Connection, from: &Table, to: &Table, after: i64, limit: usize) -> Result<Option<i64>> {
    let copy = || -> rusqlite::Result<Option<i64>> {
        let last: Option<i64> = connection
            .prepare_cached(&format!(
                "SELECT max(rowid) FROM (SELECT rowid FROM {} WHERE rowid > ?1 ORDER BY rowid LIMIT ?2)",
                from.name
            ))?
            .query_row(params![after, limit as i64], |row| row.get(0))?;
        if let Some(last) = last {
            connection
                .prepare_cached(&format!(
                    "INSERT OR IGNORE INTO {}(rowid, {OWN}) SELECT rowid, {OWN} FROM {} WHERE rowid > ?1 AND rowid <= ?2",
                    to.name, from.name
                ))?
                .execute([after, last])?;
        }
        Ok(last)
    };
    copy().map_err(fault("define"))
}

/// Copies all rows, within the caller's transaction.
pub(super) fn copy_all(connection: &Connection, from: &Table, to: &Table, steps: &mut Steps) -> Result<()> {
    const ROWS: usize = 1000;
    let mut after = i64::MIN;
    if steps.is_empty() {
        while let Some(last) = copy(connection, from, to, after, ROWS)? {
            after = last;
        }
        return Ok(());
    }
    while let Some((rows, last)) = read(connection, from, after, ROWS, steps)? {
        put(connection, from, to, &rows)?;
        after = last;
    }
    Ok(())
}

/// Makes one instance in `to` equal to the one in `from`.
pub(super) fn mirror(connection: &Connection, from: &Table, to: &Table, id: &str, steps: &mut Steps) -> Result<()> {
    let sql = format!("SELECT {READ} FROM {} WHERE _id = ?1", from.name);
    let mut statement = connection.prepare_cached(&sql).map_err(fault("apply"))?;
    let found = statement.query_row([id], |row| Ok(Carried::read(from, row, steps))).optional();
    match found.map_err(fault("apply"))? {
        Some(carried) => carried?.write(connection, from, to, "REPLACE").map_err(fault("apply")),
        None => connection
            .prepare_cached(&format!("DELETE FROM {} WHERE _id = ?1", to.name))
            .and_then(|mut delete| delete.execute([id]))
            .map(drop)
            .map_err(fault("apply")),
    }
}
