//! The six phases around a change in which hooks run: one enum, one table.
//!
//! It is in the lowest layer because grants refer to phases.

use std::fmt;

use serde::{Deserialize, Serialize};

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    PreCreate,
    PostCreate,
    PreUpdate,
    PostUpdate,
    PreDelete,
    PostDelete,
}

impl Phase {
    /// Every phase, in the order of the documentation.
    pub const ALL: [Phase; 6] =
        [Phase::PreCreate, Phase::PostCreate, Phase::PreUpdate, Phase::PostUpdate, Phase::PreDelete, Phase::PostDelete];

    /// The name in paths, configuration and events, such as `preCreate`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::PreCreate => "preCreate",
            Phase::PostCreate => "postCreate",
            Phase::PreUpdate => "preUpdate",
            Phase::PostUpdate => "postUpdate",
            Phase::PreDelete => "preDelete",
            Phase::PostDelete => "postDelete",
        }
    }

    /// The phase with that name.
    pub fn from_name(name: &str) -> Option<Phase> {
        Phase::ALL.into_iter().find(|phase| phase.as_str() == name)
    }

    /// Pre phases run before the event exists: their hooks may reject the change, and amend it if granted. Post phases
    /// run from the log.
    pub const fn is_pre(self) -> bool {
        matches!(self, Phase::PreCreate | Phase::PreUpdate | Phase::PreDelete)
    }

    /// Whether there is data after the change that a hook could amend.
    pub const fn may_amend(self) -> bool {
        matches!(self, Phase::PreCreate | Phase::PreUpdate)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
