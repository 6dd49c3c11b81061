//! A property that a schema knows.

use std::collections::BTreeSet;

/// Where a path ends.
pub struct Found {
    /// Names from the outside in.
    pub path: Vec<String>,
    /// The types that the schema allows there; empty: any.
    pub types: BTreeSet<&'static str>,
}
