//! A property in a schema.

use std::collections::BTreeSet;

/// The target of a path.
pub struct Found {
    /// Names from the outside in.
    pub path: Vec<String>,
    /// The types that the schema allows there; empty: any.
    pub types: BTreeSet<&'static str>,
}
