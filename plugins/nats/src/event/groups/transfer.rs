//! Exports and imports of groups.

use snaphook_driver::{DriverError, ErrorKind, Group, LogRecord, PENDING_MAX, PendingEvent, Position, Result};

use super::group_values::{GroupValues, LOST_MAX, contended, key};
use super::record::{NOTE_INLINE_BYTES, Pending, Record};
use crate::bucket::Written;

/// All stored groups, by name, as records of an export, and the position up to which the log must be available.
pub(super) async fn export(kept: &GroupValues) -> Result<(Vec<LogRecord>, Position)> {
    let (mut records, mut reached) = (Vec::new(), 0);
    for record in kept.records("export").await? {
        let group = Group { name: record.name.clone(), filter: record.filter()? };
        reached = reached.max(record.cursor);
        records.push(LogRecord::Group { group, cursor: record.cursor });
        let mut events = Vec::new();
        for Pending { position, attempt, due, note, note_parts } in record.pending {
            let note = match note_parts {
                Some(parts) => Some(kept.note("export", &parts).await?.to_string()),
                None => note,
            };
            events.push(PendingEvent { position, attempt, due, note });
        }
        records.extend(
            events
                .chunks(PENDING_MAX)
                .map(|events| LogRecord::Pending { group: record.name.clone(), events: events.to_vec() }),
        );
    }
    Ok((records, reached))
}

/// Imports the groups of an export.
pub(super) async fn import(kept: &GroupValues, records: &[LogRecord]) -> Result<()> {
    for record in records {
        match record {
            LogRecord::Group { group, cursor } => {
                import_with(kept, &group.name, |record| {
                    *record = Record::new(kept.identity(), &group.name, &group.filter, *cursor);
                    Ok(())
                })
                .await?;
            }
            LogRecord::Pending { group, events } => {
                let mut pending = Vec::with_capacity(events.len());
                for event in events {
                    let long = event.note.as_deref().filter(|note| note.len() > NOTE_INLINE_BYTES);
                    let note_parts = match long {
                        Some(note) => Some(kept.put_note("import", note).await?),
                        None => None,
                    };
                    let note = event.note.clone().filter(|_| note_parts.is_none());
                    let PendingEvent { position, attempt, due, .. } = *event;
                    pending.push(Pending { position, attempt, due, note, note_parts });
                }
                import_with(kept, group, |record| {
                    if record.name.is_empty() {
                        let message = format!("pending events come before their group `{group}`");
                        return Err(DriverError::new(ErrorKind::Invalid, "import", message));
                    }
                    // A record that is imported again after an interruption is stored once.
                    let first = pending.first().map_or(0, |pending| pending.position);
                    record.pending.retain(|pending| pending.position < first);
                    record.pending.extend(pending.iter().cloned());
                    Ok(())
                })
                .await?;
            }
            _ => {}
        }
    }
    Ok(())
}

async fn import_with(kept: &GroupValues, name: &str, change: impl Fn(&mut Record) -> Result<()>) -> Result<()> {
    let key = key(name);
    for _ in 0..LOST_MAX {
        let (record, revision) = kept.value("import", &key).await?;
        let mut record = record.unwrap_or_default();
        change(&mut record)?;
        if let Written::At(_) = kept.set("import", &key, &record, revision).await? {
            return Ok(());
        }
    }
    Err(contended("import"))
}
