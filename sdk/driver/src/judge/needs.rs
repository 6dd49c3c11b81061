//! The data that a batch needs from the log, for stores that look it up at once.

use std::collections::{BTreeMap, BTreeSet};

use super::state::{LogState, Tail};
use crate::append::{Append, Expected, Holder};
use crate::error::Result;
use crate::event::{Position, StreamRef};

/// Everything that [`judge`](super::judge) may request from a [`LogState`] for a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs<'a> {
    /// Streams whose last events are needed.
    pub streams: BTreeSet<StreamRef<'a>>,
    /// Keys whose holders are needed.
    pub keys: BTreeSet<&'a str>,
    /// Models whose last instance event is needed, if it is after this position.
    pub quiet: BTreeMap<&'a str, Position>,
}

impl<'a> Needs<'a> {
    /// The needs of a batch.
    pub fn of(batch: &'a [Append]) -> Self {
        let mut needs = Needs::default();
        for append in batch {
            if append.expected != Expected::Any {
                needs.streams.insert(StreamRef::of(&append.event));
            }
            needs.streams.extend(append.requires.iter().map(|require| StreamRef::from(&require.stream)));
            needs.keys.extend(append.claims.iter().map(|claim| claim.key.as_str()));
            if let Some(quiet) = &append.quiet {
                let since = needs.quiet.entry(&quiet.model).or_insert(quiet.since);
                *since = quiet.since.min(*since);
            }
        }
        needs
    }
}

/// A [`LogState`] that was loaded in advance according to [`Needs`]. Whatever it lacks is not in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known<'a> {
    pub tails: BTreeMap<StreamRef<'a>, Tail>,
    pub holders: BTreeMap<&'a str, Holder>,
    /// Position of the last instance event of each model; only those of [`Needs::quiet`] are needed.
    pub instances: BTreeMap<&'a str, Position>,
}

impl LogState for Known<'_> {
    fn tail(&mut self, stream: StreamRef<'_>) -> Result<Tail> {
        Ok(self.tails.get(&stream).copied().unwrap_or(Tail::NONE))
    }

    fn last_of_instances(&mut self, model: &str, _since: Position) -> Result<Position> {
        Ok(self.instances.get(model).copied().unwrap_or(0))
    }

    fn holder(&mut self, key: &str) -> Result<Option<Holder>> {
        Ok(self.holders.get(key).cloned())
    }
}
