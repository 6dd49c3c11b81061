//! Stored groups: one value each in a bucket, plus separate parts that are too large for one message.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use snaphook_driver::{DriverError, ErrorKind, Position, Result};
use tokio::time::Instant;

use super::record::{INLINE_BYTES, Pending, Record, RecordLocation, Wrapped};
use crate::bucket::{Bucket, WRITE_TIME, Written};
use crate::connection::Link;
use crate::event::log::locked;
use crate::fault::corrupt;
use crate::parts::{Parts, Reference};
use crate::streams::Kind;

/// After this many lost races a call gives up.
pub(super) const LOST_MAX: usize = 100;

/// The values of all groups of one log.
pub(super) struct GroupValues {
    bucket: Bucket,
    parts: Parts,
    /// The log's identity.
    identity: String,
    name: String,
    /// The parts of each key's value, by key.
    places: Mutex<HashMap<String, String>>,
}

/// Notes that are stored separately from their group, with their locations.
pub(super) type Notes = BTreeMap<Position, (Arc<str>, Reference)>;

impl GroupValues {
    pub(super) async fn open(link: &Arc<Link>, identity: &str) -> Result<GroupValues> {
        let bucket = Bucket::open(link, "groups", Kind::Bucket).await?;
        let parts = Parts::open(link, "group_parts", Kind::Parts).await?;
        let (identity, name) = (identity.to_owned(), link.config.name.clone());
        Ok(GroupValues { bucket, parts, identity, name, places: Mutex::default() })
    }

    /// The log's identity.
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    /// Reads the value of a group and its revision.
    pub(super) async fn value(&self, operation: &'static str, key: &str) -> Result<(Option<Record>, u64)> {
        // A value in parts may be replaced while it is being read.
        for _ in 0..3 {
            let value = self.bucket.get(operation, key).await?;
            let Some(bytes) = value.bytes else { return Ok((None, value.revision)) };
            let record = match Wrapped::read(bytes)? {
                RecordLocation::Here(record) => {
                    self.note_place(key, None);
                    record
                }
                RecordLocation::Parts(parts) => match self.parts.get(operation, &parts).await {
                    Ok(bytes) => {
                        self.note_place(key, Some(parts.id));
                        Record::decode(bytes)
                            .map_err(|error| corrupt(operation, "a group cannot be read back").because(error))?
                    }
                    Err(error) if error.kind() == ErrorKind::Corrupt => continue,
                    Err(error) => return Err(error),
                },
            };
            if record.log != self.identity {
                return Err(DriverError::new(
                    ErrorKind::Config,
                    operation,
                    format!(
                        "the bucket `{}_groups` contains the progress of consumer groups of the log `{}`, expected the \
                         log `{}`; remove the bucket (the post hooks of all events then run again)",
                        self.name, record.log, self.identity
                    ),
                ));
            }
            return Ok((Some(record), value.revision));
        }
        Err(corrupt(operation, "the parts of a group's progress are missing"))
    }

    /// Records the current parts of a group's value, if any; returns the previous ones.
    fn note_place(&self, key: &str, id: Option<String>) -> Option<String> {
        let mut places = locked(&self.places);
        match id {
            Some(id) => places.insert(key.to_owned(), id),
            None => places.remove(key),
        }
    }

    pub(super) async fn read(&self, operation: &'static str, key: &str) -> Result<Option<(Record, u64)>> {
        let (record, revision) = self.value(operation, key).await?;
        Ok(record.map(|record| (record, revision)))
    }

    /// Writes the value of a group.
    pub(super) async fn set(
        &self,
        operation: &'static str,
        key: &str,
        record: &Record,
        revision: u64,
    ) -> Result<Written> {
        let mut parts = None;
        if record.encoded_len() > INLINE_BYTES {
            let deadline = Instant::now() + WRITE_TIME;
            parts = Some(self.parts.put(operation, record.encode_to_vec().into(), deadline).await?);
        }
        let place = parts.clone().map_or_else(|| RecordLocation::Here(record.clone()), RecordLocation::Parts);
        let kept = Wrapped { place: Some(place) }.encode_to_vec();
        let written = self.bucket.set(operation, key, Some(kept.into()), revision).await;
        let id = parts.map(|parts| parts.id);
        let obsolete = match &written {
            Ok(Written::At(_)) => self.note_place(key, id),
            Ok(Written::Conflict) => id,
            // The write may have happened or may still happen.
            Err(_) => None,
        };
        if let Some(id) = obsolete {
            self.parts.remove(&id).await;
        }
        written
    }

    pub(super) async fn remove(&self, operation: &'static str, key: &str, revision: u64) -> Result<Written> {
        self.bucket.set(operation, key, None, revision).await
    }

    /// All groups, by name.
    pub(super) async fn records(&self, operation: &'static str) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for key in self.bucket.keys(operation).await? {
            records.extend(self.value(operation, &key).await?.0);
        }
        records.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(records)
    }

    /// Pending events with their separately stored long notes.
    pub(super) async fn with_notes(
        &self,
        operation: &'static str,
        mut pending: Vec<Pending>,
        long: &BTreeMap<Position, Arc<str>>,
        known: &Notes,
    ) -> Result<(Vec<Pending>, Notes)> {
        let mut notes = BTreeMap::new();
        for pending in &mut pending {
            let Some(note) = long.get(&pending.position) else { continue };
            let parts = match known.get(&pending.position) {
                Some((kept, parts)) if kept == note => parts.clone(),
                _ => self.put_note(operation, note).await?,
            };
            pending.note_parts = Some(parts.clone());
            notes.insert(pending.position, (Arc::clone(note), parts));
        }
        Ok((pending, notes))
    }

    pub(super) async fn put_note(&self, operation: &'static str, note: &str) -> Result<Reference> {
        let deadline = Instant::now() + WRITE_TIME;
        self.parts.put(operation, note.as_bytes().to_vec().into(), deadline).await
    }

    pub(super) async fn note(&self, operation: &'static str, parts: &Reference) -> Result<Arc<str>> {
        let bytes = self.parts.get(operation, parts).await?;
        match std::str::from_utf8(&bytes) {
            Ok(note) => Ok(note.into()),
            Err(error) => Err(corrupt(operation, "a note cannot be read back").because(error)),
        }
    }

    pub(super) async fn forget_notes(&self, notes: impl Iterator<Item = Reference>) {
        for note in notes {
            self.parts.remove(&note.id).await;
        }
    }
}

/// A valid key for any name.
pub(super) fn key(name: &str) -> String {
    format!("{:x}", Sha256::digest(name))
}

pub(super) fn contended(operation: &'static str) -> DriverError {
    DriverError::new(ErrorKind::Unavailable, operation, "other nodes keep changing the same group; try again")
}
