//! Changes of definitions: a new table receives the rows of the old one, unless neither rows nor indexes change.

use snaphook_driver::{CarryOver, DriverError, ErrorKind, ModelShape, Position, Result, json, moves_checkpoint};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::apply::Carried;
use super::entries::{forget, save};
use super::open_models::OpenModels;
use super::registry::Model;
use super::row::get;
use super::table::{Layout, Table};
use super::writing::Writing;
use crate::connection::{Database, WHOLE_TIME};
use crate::session::Session;

/// How many bytes of data, and rows, are carried over at once.
const BYTES_MAX: usize = 4 << 20;
const ROWS_MAX: usize = 1000;

/// See [`snaphook_driver::ModelStore::define`].
pub(super) async fn define(
    shared: &OpenModels,
    after: Position,
    known: Option<&ModelShape>,
    new: &ModelShape,
    carry: &CarryOver,
    position: Position,
) -> Result<()> {
    let mut writing = Writing::begin(shared, "define", WHOLE_TIME).await?;
    if !moves_checkpoint("define", writing.state.checkpoint, after, position)? {
        writing.leave().await;
        return Ok(());
    }
    // The stored definition decides, not the caller's: they differ only after a crash.
    let old = writing.registry.models.get(&new.model).cloned();
    let prepared = old.as_ref().and_then(|old| old.prepared.as_ref());
    let table = match (&old, prepared) {
        (None, _) => {
            let table = begin_table(&mut writing, new).await?;
            finish_table(&mut writing, &table).await?;
            table
        }
        (Some(_), Some(prepared)) if prepared.complete && prepared.shape.is_like(new) && prepared.carry == *carry => {
            prepared.table.clone()
        }
        (Some(old), _) if is_in_place(old, new, carry) => old.table.clone(),
        (Some(old), _) => {
            let table = begin_table(&mut writing, new).await?;
            refill(shared, &mut writing, &old.table, &table, carry, new.version).await?;
            finish_table(&mut writing, &table).await?;
            table
        }
    };
    // Unless the change only records a definition, a prepared table is now used or obsolete.
    let is_record = carry.is_empty() && known.is_some_and(|known| known.is_like(new));
    if prepared.is_some() && !is_record {
        forget(&mut writing, &new.model, true).await?;
    }
    save(&mut writing, &table, new, None).await?;
    writing.changed();
    writing.commit(&[], Some(position)).await?;
    if old.is_some_and(|old| old.table != table || old.prepared.is_some()) {
        super::garbage::start(shared);
    }
    Ok(())
}

/// Whether a change needs no new table.
pub(super) fn is_in_place(old: &Model, new: &ModelShape, carry: &CarryOver) -> bool {
    carry.is_empty() && old.table.layout == Layout::of(new)
}

/// Creates the table of a shape, without indexes.
pub(super) async fn begin_table(writing: &mut Writing<'_>, shape: &ModelShape) -> Result<Table> {
    let table = Table { model: shape.model.clone(), number: writing.number(), layout: Layout::of(shape) };
    writing.batch(&table.create()).await?;
    Ok(table)
}

pub(super) async fn finish_table(writing: &mut Writing<'_>, table: &Table) -> Result<()> {
    for statement in table.create_indexes() {
        writing.batch(&statement).await?;
    }
    Ok(())
}

/// Fills a new table with the rows of the old one.
async fn refill(
    shared: &OpenModels,
    writing: &mut Writing<'_>,
    old: &Table,
    new: &Table,
    carry: &CarryOver,
    version: u64,
) -> Result<()> {
    let mut after = Vec::new();
    while let Some((rows, last)) = read(&shared.database, &mut writing.session, old, &after, ROWS_MAX, "define").await?
    {
        for command in carried(&rows, new, carry, version, "define")?.commands(&shared.database, old, false) {
            writing.run(&command).await?;
        }
        after = last;
    }
    Ok(())
}

/// Reads the next rows after an id, ordered by id, with the id of the last one; `None` at the end. The columns are id,
/// position and data.
pub(super) async fn read(
    database: &Database,
    session: &mut Session,
    table: &Table,
    after: &[u8],
    limit: usize,
    operation: &'static str,
) -> Result<Option<(Vec<Row>, Vec<u8>)>> {
    let name = table.name();
    let sizes = format!("SELECT id, octet_length(data) FROM @.{name} WHERE id > $1 ORDER BY id LIMIT $2");
    let sizes = database.sql(&sizes, &[Type::BYTEA, Type::INT8]);
    let rows = session.query(&sizes, &[&after, &(limit as i64)]).await?;
    let (mut last, mut bytes) = (None, 0);
    for row in &rows {
        bytes += usize::try_from(get::<i32>(row, 1, operation)?).unwrap_or(0);
        if last.is_some() && bytes > BYTES_MAX {
            break;
        }
        last = Some(get::<Vec<u8>>(row, 0, operation)?);
    }
    let Some(last) = last else { return Ok(None) };
    let rows = format!("SELECT id, position, data FROM @.{name} WHERE id > $1 AND id <= $2 ORDER BY id");
    let rows = session.query(&database.sql(&rows, &[Type::BYTEA, Type::BYTEA]), &[&after, &last]).await?;
    Ok(Some((rows, last)))
}

/// Converts rows for the new table.
pub(super) fn carried<'t>(
    rows: &[Row],
    to: &'t Table,
    carry: &CarryOver,
    version: u64,
    operation: &'static str,
) -> Result<Carried<'t>> {
    let mut carried = Carried::new(to);
    for row in rows {
        let id: &[u8] = get(row, 0, operation)?;
        let tree = json::parse(get(row, 2, operation)?).map_err(|error| {
            DriverError::new(ErrorKind::Corrupt, operation, "an instance's data is not valid JSON")
                .with("instance", format!("{}/{}", to.model, String::from_utf8_lossy(id)))
                .because(error)
        })?;
        carried.add(id, get(row, 1, operation)?, tree, carry, version);
    }
    Ok(carried)
}
