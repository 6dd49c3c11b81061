//! Builds the next table of a model, beside the one that is read.
//!
//! Rows are copied in small transactions. Meanwhile, every node writes the events that it applies to both tables, so
//! the new one is complete as soon as the last row is copied. `define` then only records that it is the model's table.

use std::time::{Duration, Instant};

use snaphook_driver::{CarryOver, DriverError, ErrorKind, ModelShape, Result};
use tokio_postgres::types::Type;

use super::define::{self, begin_table, carried, finish_table, is_in_place};
use super::entries::{Purpose, forget, save};
use super::garbage;
use super::open_models::{OpenModels, is_gone};
use super::registry::PreparedTable;
use super::table::Table;
use super::writing::Writing;
use crate::connection::CALL_TIME;

/// How long one step may block other writers.
const STEP_TIME: Duration = Duration::from_millis(2);
const ROWS_FIRST: usize = 16;
const ROWS_MAX: usize = 2000;

/// How often a node checks whether another one has prepared the table that it needs, and after how many seconds without
/// progress it prepares the table itself.
const LOOK: Duration = Duration::from_millis(100);
const STALLED_SECONDS: f64 = 10.0;

/// Removes the prepared table if the caller stops waiting for it.
struct Guard<'a> {
    shared: &'a OpenModels,
    table: Option<Table>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let (Some(table), Some(shared)) = (self.table.take(), self.shared.this()) {
            let work = shared.clone();
            shared.spawn(async move {
                let _ = discard(&work, &table.model, Some(table.number)).await;
            });
        }
    }
}

/// See [`snaphook_driver::ModelStore::prepare`].
pub(super) async fn prepare(shared: &OpenModels, new: &ModelShape, carry: &CarryOver) -> Result<u64> {
    let (from, to) = loop {
        let mut writing = Writing::begin(shared, "prepare", CALL_TIME).await?;
        let Some(known) = writing.registry.models.get(&new.model).cloned() else {
            writing.leave().await;
            return Ok(0);
        };
        if let Some(prepared) = &known.prepared {
            let is_same = prepared.shape.is_like(new) && prepared.carry == *carry && prepared.owner != shared.owner;
            if is_same && prepared.complete {
                writing.leave().await;
                return Ok(prepared.table.number);
            }
            // Another node is working on it.
            if is_same && idle(&mut writing, prepared.table.number).await? < STALLED_SECONDS {
                writing.leave().await;
                tokio::time::sleep(LOOK).await;
                continue;
            }
            forget(&mut writing, &new.model, true).await?;
            writing.changed();
        }
        if is_in_place(&known, new, carry) {
            writing.commit(&[], None).await?;
            garbage::start(shared);
            return Ok(0);
        }
        let to = begin_table(&mut writing, new).await?;
        finish_table(&mut writing, &to).await?;
        save(&mut writing, &to, new, Some(Purpose { carry, owner: &shared.owner })).await?;
        writing.changed();
        let from = known.table.clone();
        // From here on the table may exist, even if no response arrives.
        let mut guard = Guard { shared, table: Some(to.clone()) };
        writing.commit(&[], None).await?;
        break (from, guard.table.take().unwrap_or(to));
    };
    let mut guard = Guard { shared, table: Some(to.clone()) };
    let step = fill(shared, &from, &to, carry, new.version).await?;
    let mut writing = Writing::begin(shared, "prepare", CALL_TIME).await?;
    touch(&mut writing, &to, step, true).await?;
    writing.changed();
    writing.commit(&[], None).await?;
    guard.table = None;
    Ok(to.number)
}

/// Copies all rows; returns the time of the last step.
async fn fill(
    shared: &OpenModels,
    from: &Table,
    to: &Table,
    carry: &CarryOver,
    version: u64,
) -> Result<Option<StepTime>> {
    let database = &shared.database;
    let (mut after, mut count, mut checkpoint, mut step) = (Vec::new(), ROWS_FIRST, 0, None);
    loop {
        let began = Instant::now();
        // Rows are read and converted without the lock; a concurrent change is written to both tables.
        let mut session = database.session("prepare").await?;
        let read = define::read(database, &mut session, from, &after, count, "prepare").await;
        // Another node has defined the model meanwhile, and its old table was removed.
        let Some((rows, last)) = read.map_err(|error| if is_gone(&error) { gone() } else { error })? else {
            return Ok(step);
        };
        drop(session);
        let commands = carried(&rows, to, carry, version, "prepare")?.commands(database, from, false);
        let mut writing = Writing::begin(shared, "prepare", CALL_TIME).await?;
        let held = Instant::now();
        step = Some(touch(&mut writing, to, step, false).await?);
        let others = std::mem::replace(&mut checkpoint, writing.state.checkpoint) != writing.state.checkpoint;
        writing.commit(&commands, None).await?;
        let held = held.elapsed();
        if held > STEP_TIME {
            count = (count / 2).max(1);
        } else if held < STEP_TIME / 2 {
            count = (count * 2).min(ROWS_MAX);
        }
        after = last;
        // Leaves half of the time to others, if there are any.
        if others {
            tokio::time::sleep(began.elapsed()).await;
        }
    }
}

/// See [`snaphook_driver::ModelStore::discard`]; `None`: any prepared table.
pub(super) async fn discard(shared: &OpenModels, model: &str, ticket: Option<u64>) -> Result<()> {
    let mut writing = Writing::begin(shared, "discard", CALL_TIME).await?;
    let prepared = writing.registry.models.get(model).and_then(|known| known.prepared.as_ref());
    // Only the node that prepared a table may remove it by its ticket.
    let is_own = |prepared: &PreparedTable| prepared.owner == shared.owner;
    if prepared.is_none_or(|prepared| ticket.is_some_and(|ticket| ticket != prepared.table.number || !is_own(prepared)))
    {
        writing.leave().await;
        return Ok(());
    }
    forget(&mut writing, model, true).await?;
    writing.changed();
    writing.commit(&[], None).await?;
    garbage::start(shared);
    Ok(())
}

/// The time of a step, in microseconds.
type StepTime = i64;

/// Records that the work continues after an earlier step. Fails if the table was removed, or if the server crashed and
/// lost that step: steps do not wait for the disk, and a new connection does not reveal a crash.
async fn touch(writing: &mut Writing<'_>, table: &Table, before: Option<StepTime>, complete: bool) -> Result<StepTime> {
    let touched = writing
        .query(
            "UPDATE @.model_tables SET touched = clock_timestamp(), complete = $2 WHERE number = $1 AND prepared \
             AND ($3 IS NULL OR (extract(epoch FROM touched) * 1000000)::int8 = $3) \
             RETURNING (extract(epoch FROM touched) * 1000000)::int8",
            &[Type::INT8, Type::BOOL, Type::INT8],
            &[&(table.number as i64), &complete, &before],
        )
        .await?;
    touched.first().map_or_else(|| Err(gone()), |row| super::row::get(row, 0, "prepare"))
}

/// Seconds since the last work on a table.
async fn idle(writing: &mut Writing<'_>, number: u64) -> Result<f64> {
    let rows = writing
        .query(
            "SELECT extract(epoch FROM clock_timestamp() - touched)::float8 FROM @.model_tables WHERE number = $1",
            &[Type::INT8],
            &[&(number as i64)],
        )
        .await?;
    rows.first().map_or(Ok(f64::MAX), |row| super::row::get(row, 0, "prepare"))
}

fn gone() -> DriverError {
    DriverError::new(
        ErrorKind::Unavailable,
        "prepare",
        "another node has defined the model, or the prepared table lost rows in a crash of the server; try again",
    )
}
