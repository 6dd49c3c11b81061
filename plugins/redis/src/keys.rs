//! The keys of a store.

/// Names of keys. All have the same hash tag, so that a cluster keeps them on one node, where one script may use them.
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

    /// A sorted set of all names, each with the score 0: sorted by their bytes.
    pub(crate) fn names(&self) -> String {
        format!("{{{}}}:secrets", self.prefix)
    }

    /// What became of a change, for a while.
    pub(crate) fn outcome(&self, change: &str) -> String {
        format!("{{{}}}:change:{change}", self.prefix)
    }
}
