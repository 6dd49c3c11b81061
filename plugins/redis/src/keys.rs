//! The keys of a store.

/// The names of keys. All have the same hash tag, so that a cluster keeps them on one node, where one script can use
/// them.
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Keys {
        Keys { prefix: prefix.to_owned() }
    }

    /// A hash with `version` and `bytes`.
    pub(crate) fn secret(&self, name: &str) -> String {
        format!("{{{}}}:secret:{name}", self.prefix)
    }

    /// A sorted set of all names, each with score 0, so that they are sorted by their bytes.
    pub(crate) fn names(&self) -> String {
        format!("{{{}}}:secrets", self.prefix)
    }

    /// The outcome of a change; it expires.
    pub(crate) fn outcome(&self, change: &str) -> String {
        format!("{{{}}}:change:{change}", self.prefix)
    }
}
