//! Names in the database: numbers that the store assigns, never names that a client chose.
//!
//! A model's table is `m<number>`, an index `i<number>`. All numbers come from one counter and none is used twice. So
//! no model id or property name can collide with another one, with a name of SQLite (`json_each`, `rowid`,
//! `sqlite_master`) or with a name of this store. A reader with an outdated definition finds that a name no longer
//! exists, but never that it means something else.

use serde::{Deserialize, Serialize};
use snaphook_driver::SortKey;

/// The stored numbers of one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Names {
    pub(super) table: u64,
    pub(super) indexes: Vec<(Vec<SortKey>, u64)>,
}

/// Assigns numbers that were never used in this file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Counter(pub(super) u64);

impl Counter {
    pub(super) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}
