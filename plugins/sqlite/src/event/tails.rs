//! The last event of a stream, for checking the conditions of appends.
//!
//! Definitions are few and every append needs one, so they are cached. For instances, only the greatest id of each
//! model is cached: ids of new instances increase (UUIDs of version 7 begin with the time), so an id greater than all
//! others of its model has no event, and no lookup is needed.
//!
//! Only this process writes, so the cache stays correct: it is updated with every committed batch.

use std::collections::HashMap;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, params};
use snaphook_driver::judge::Tail;
use snaphook_driver::{Position, Result};

use super::kind::kind_of;
use crate::fault::{corrupt, fault};
use crate::key::Key;

#[derive(Default)]
pub(super) struct Tails {
    /// By model number, as in `newest`.
    definitions: HashMap<i64, Tail>,
    /// The greatest UUID among the ids of a model's instances; `None`: no id is a UUID.
    newest: HashMap<i64, Option<[u8; 16]>>,
}

impl Tails {
    /// The last committed event of a stream.
    pub(super) fn find(&mut self, connection: &Connection, model: i64, instance: Option<Key<'_>>) -> Result<Tail> {
        match instance {
            None => self.of_definition(connection, model),
            Some(Key::Uuid(id)) if self.newest(connection, model)?.is_none_or(|newest| id > newest) => Ok(Tail::NONE),
            Some(key) => {
                let row = connection
                    .prepare_cached(
                        "SELECT position, kind FROM events INDEXED BY events_stream
                         WHERE model = ?1 AND instance = ?2 ORDER BY position DESC LIMIT 1",
                    )
                    .and_then(|mut statement| statement.query_row(params![model, key], position_and_kind).optional());
                tail(row.map_err(fault("append"))?)
            }
        }
    }

    /// Records the committed end of a stream.
    pub(super) fn moved(&mut self, model: i64, instance: Option<&Key<'_>>, tail: Tail) {
        match instance {
            None => drop(self.definitions.insert(model, tail)),
            Some(Key::Uuid(id)) => {
                if let Some(newest) = self.newest.get_mut(&model) {
                    *newest = Some(*id).max(*newest);
                }
            }
            Some(Key::Text(_)) => {}
        }
    }

    fn of_definition(&mut self, connection: &Connection, model: i64) -> Result<Tail> {
        if let Some(tail) = self.definitions.get(&model) {
            return Ok(*tail);
        }
        let row = connection
            .prepare_cached(
                "SELECT position, kind FROM events INDEXED BY events_stream
                 WHERE model = ?1 AND instance IS NULL ORDER BY position DESC LIMIT 1",
            )
            .and_then(|mut statement| statement.query_row([model], position_and_kind).optional());
        let tail = tail(row.map_err(fault("append"))?)?;
        self.definitions.insert(model, tail);
        Ok(tail)
    }

    fn newest(&mut self, connection: &Connection, model: i64) -> Result<Option<[u8; 16]>> {
        if let Some(newest) = self.newest.get(&model) {
            return Ok(*newest);
        }
        let newest = greatest(connection, model).map_err(fault("append"))?;
        self.newest.insert(model, newest);
        Ok(newest)
    }
}

/// The greatest UUID among a model's instances, from the end of the index: SQLite puts blobs after texts and compares
/// them byte by byte.
fn greatest(connection: &Connection, model: i64) -> rusqlite::Result<Option<[u8; 16]>> {
    connection
        .prepare_cached(
            "SELECT instance FROM events INDEXED BY events_stream WHERE model = ?1 ORDER BY instance DESC LIMIT 1",
        )?
        .query_row([model], |row| match row.get_ref(0)? {
            ValueRef::Blob(bytes) => Ok(bytes.try_into().ok()),
            _ => Ok(None),
        })
        .optional()
        .map(Option::flatten)
}

fn position_and_kind(row: &rusqlite::Row<'_>) -> rusqlite::Result<(i64, i64)> {
    Ok((row.get(0)?, row.get(1)?))
}

fn tail(row: Option<(i64, i64)>) -> Result<Tail> {
    let Some((position, kind)) = row else { return Ok(Tail::NONE) };
    let kind = kind_of(kind).ok_or_else(|| corrupt("append", format!("event kind `{kind}` is unknown")))?;
    Ok(Tail { position: position as Position, ended: kind.ends_stream() })
}

#[cfg(test)]
mod tests {
    use snaphook_driver::{Append, Appended, Conflict, EventKind, Expected};
    use snaphook_driver_testkit::sample::{any, create};

    use super::super::SqliteEventStore;

    fn uuid(number: u32) -> String {
        format!("0190a6c4-5f8b-7cde-8f01-2345{number:08x}")
    }

    fn append(
        store: &SqliteEventStore,
        batch: &[Append],
        atomic: bool,
    ) -> Vec<std::result::Result<Appended, Conflict>> {
        let shared = &store.shared;
        shared.writing("append", |writer| writer.append(batch, atomic, &shared.names)).unwrap()
    }

    /// Whether an instance can be created; the creation is rolled back.
    fn is_new(store: &SqliteEventStore, id: &str) -> bool {
        let undone = Append { expected: Expected::At(u64::MAX), ..any("m", "never") };
        let answers = append(store, &[create("m", id, "{}"), undone], true);
        matches!(answers[..], [Err(Conflict::Batch), Err(Conflict::Stream { .. })])
    }

    #[test]
    fn an_id_is_new_until_it_has_an_event() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("events.db");
        let store = SqliteEventStore::open(&path).unwrap();
        let batch = [5, 3, 9, 3, 9, 7].map(|number| create("m", &uuid(number), "{}"));
        let taken: Vec<bool> = append(&store, &batch, false).iter().map(std::result::Result::is_err).collect();
        assert_eq!(taken, [false, false, false, true, true, false]);
        append(&store, &[create("m", "text", "{}"), any("m", &uuid(20)), create("other", &uuid(30), "{}")], false);
        let check = |store: &SqliteEventStore| {
            for number in [3, 5, 7, 9, 20] {
                assert!(!is_new(store, &uuid(number)), "{number}");
            }
            assert!(!is_new(store, "text"));
            for number in [1, 4, 8, 10, 30, 99, 99] {
                assert!(is_new(store, &uuid(number)), "{number}");
            }
            assert!(is_new(store, "other text"));
        };
        check(&store);
        drop(store);
        let store = SqliteEventStore::open(&path).unwrap();
        check(&store);
        // The cache does not keep anything that was rolled back, even if the model was new.
        let undone = Append { expected: Expected::At(u64::MAX), ..any("m", "never") };
        append(&store, &[create("late", &uuid(50), "{}"), undone], true);
        let answers = append(&store, &[create("later", &uuid(40), "{}"), create("later", &uuid(50), "{}")], false);
        assert!(answers.iter().all(std::result::Result::is_ok), "{answers:?}");
        // An ended stream may begin again.
        let mut end = any("m", &uuid(99));
        end.event.kind = EventKind::InstanceDeleted;
        let again = [create("m", &uuid(99), "{}"), end, create("m", &uuid(99), "{}"), create("m", &uuid(99), "{}")];
        let taken: Vec<bool> = append(&store, &again, false).iter().map(std::result::Result::is_err).collect();
        assert_eq!(taken, [false, false, false, true]);
    }
}
