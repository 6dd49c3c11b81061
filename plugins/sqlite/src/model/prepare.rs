//! Builds the next table of a model beside the current one.
//!
//! Rows are copied in small transactions. An event that is applied in the meantime is written to both tables, so the
//! new table is correct as soon as the last row is copied. `define` then only records that it is the model's table.
//! Nothing refers to it before that, so if the work is interrupted, the table is removed by
//! [`garbage`](super::garbage).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use snaphook_driver::{CarryOver, DriverError, ErrorKind, Event, ModelShape, Result};

use super::open_models::{ModelWriter, OpenModels};
use super::pace::{Pace, Rest};
use super::rows::{self, Steps};
use super::shadow::Shadow;
use super::table::Table;
use super::{garbage, migrate};
use crate::database::locked;

/// Builds the next table of a model; returns its ticket, or 0 if the change needs none.
pub(super) fn build(
    shared: &Arc<OpenModels>,
    new: &ModelShape,
    carry: &CarryOver,
    abandoned: &Arc<AtomicBool>,
) -> Result<u64> {
    let gone = || DriverError::new(ErrorKind::Unavailable, "prepare", "the caller no longer waits");
    // Checked under the writer's lock, here and below: if this call was abandoned and another caller has prepared a
    // table since then, that table must stay.
    if !discard_unless(shared, &new.model, abandoned) {
        return Err(gone());
    }
    let Some(from) = shared.table(&new.model) else { return Ok(0) };
    if migrate::is_in_place(&from, new, carry) {
        return Ok(0);
    }
    let mut made = None;
    let begun = shared.transaction("prepare", |writer| {
        if abandoned.load(Ordering::Relaxed) {
            return Err(gone());
        }
        let to = Arc::new(Table::follow(None, new, &mut writer.state.names));
        migrate::create(&writer.connection, &to)?;
        writer.save_names("prepare")?;
        let shadow = Shadow {
            from: Arc::clone(&from),
            to: Arc::clone(&to),
            steps: Steps::one(carry, new.version),
            shape: new.clone(),
            carry: carry.clone(),
            complete: false,
            abandoned: Arc::clone(abandoned),
        };
        writer.shadows.insert(new.model.clone(), shadow);
        made = Some(to);
        Ok(None)
    });
    let filled = begun.and_then(|()| match &made {
        Some(to) => fill(shared, &from, to, Steps::one(carry, new.version), abandoned).map(|()| to.names().table),
        None => Ok(0),
    });
    let own = made.as_ref().map(|to| to.names().table);
    let ticket = filled.inspect_err(|_| {
        if own.is_some() {
            discard(shared, &new.model, own);
        }
    })?;
    let mut writer = locked(&shared.writer);
    match writer.as_mut().and_then(|writer| writer.shadows.get_mut(&new.model)) {
        Some(shadow) if shadow.ticket() == ticket => {
            shadow.complete = true;
            Ok(ticket)
        }
        // The store was reset or closed, or the table could not be kept up to date.
        _ => Err(DriverError::new(ErrorKind::Unavailable, "prepare", "the prepared table no longer exists; try again")),
    }
}

fn fill(shared: &OpenModels, from: &Table, to: &Table, mut steps: Steps, abandoned: &AtomicBool) -> Result<()> {
    let mut pace = Pace::new(&shared.writes, Rest::Change);
    let mut after = i64::MIN;
    loop {
        if abandoned.load(Ordering::Relaxed) {
            return Err(DriverError::new(ErrorKind::Unavailable, "prepare", "the caller no longer waits"));
        }
        let began = Instant::now();
        let mut held = Duration::ZERO;
        let mut last = None;
        if steps.is_empty() {
            held = shared.step("prepare", |connection| {
                last = rows::copy(connection, from, to, after, pace.rows)?;
                Ok(())
            })?;
        } else if let Some((rows, end)) =
            // Read and converted without the writer; changes in the meantime are made to both tables.
            shared
                .readers
                .with(|connection| rows::read(connection, from, after, pace.rows, &mut steps))?
        {
            held = shared.step("prepare", |connection| rows::put(connection, from, to, &rows))?;
            last = Some(end);
        }
        match last {
            Some(last) => after = last,
            None => return Ok(()),
        }
        pace.rest(began, held);
    }
}

/// Discards any table prepared for a model, for a caller that prepares another one; `false` if that caller is gone.
fn discard_unless(shared: &Arc<OpenModels>, model: &str, abandoned: &AtomicBool) -> bool {
    let mut writer = locked(&shared.writer);
    if abandoned.load(Ordering::Relaxed) {
        return false;
    }
    if let Some(shadow) = writer.as_mut().and_then(|writer| writer.shadows.remove(model)) {
        garbage::clear(shared, vec![shadow.to.name.clone()]);
    }
    true
}

/// Discards the table prepared for a model: the one with this ticket, or any.
pub(super) fn discard(shared: &Arc<OpenModels>, model: &str, ticket: Option<u64>) {
    let mut writer = locked(&shared.writer);
    let Some(writer) = writer.as_mut() else { return };
    if writer.shadows.get(model).is_some_and(|shadow| ticket.is_none_or(|ticket| ticket == shadow.ticket()))
        && let Some(shadow) = writer.shadows.remove(model)
    {
        garbage::clear(shared, vec![shadow.to.name.clone()]);
    }
}

/// Applies the effects of events to the prepared tables.
pub(super) fn follow<'a>(shared: &Arc<OpenModels>, writer: &mut ModelWriter, events: impl Iterator<Item = &'a Event>) {
    for event in events {
        let Some(shadow) = writer.shadows.get_mut(&event.model) else { continue };
        if !shadow.follow(&writer.connection, event)
            && let Some(shadow) = writer.shadows.remove(&event.model)
        {
            garbage::clear(shared, vec![shadow.to.name.clone()]);
        }
    }
}
