//! The records of a backup.

use std::fmt;

use serde::{Deserialize, Serialize};
use snaphook_driver::{ErrorRecord, LogRecord};

/// The number of records of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    pub events: u64,
    pub claims: u64,
    pub blobs: u64,
    pub groups: u64,
    pub errors: u64,
    pub secrets: u64,
}

/// One record of a backup, in the order of the file: the log's, the recorded errors by id, the secrets by name.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one record at a time is held")]
pub(crate) enum Record {
    Log(LogRecord),
    Error(ErrorRecord),
    /// Encrypted, as in the secure store.
    Secret {
        name: String,
        bytes: Vec<u8>,
    },
}

impl Counts {
    pub(super) fn add(&mut self, record: &Record) {
        let count = match record {
            Record::Log(LogRecord::Event(_)) => &mut self.events,
            Record::Log(LogRecord::Claim { .. }) => &mut self.claims,
            Record::Log(LogRecord::Blob { .. }) => &mut self.blobs,
            Record::Log(LogRecord::Group { .. }) => &mut self.groups,
            // Belongs to the group before it.
            Record::Log(LogRecord::Pending { .. }) => return,
            Record::Error(_) => &mut self.errors,
            Record::Secret { .. } => &mut self.secrets,
        };
        *count += 1;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { events, blobs, groups, errors, secrets, .. } = self;
        write!(
            f,
            "{events} events, the progress of {groups} consumer groups, {blobs} artifacts of hooks, {errors} recorded errors, \
             {secrets} secrets"
        )
    }
}
