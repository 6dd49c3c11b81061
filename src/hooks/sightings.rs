//! Remembers which instances a call has read, and in which version of their model.
//!
//! A hook states its expectation of an instance by position only. A new version of the model changes an instance's data
//! without changing its position, so the session remembers the form in which the call has read it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use snaphook_driver::{Instance, Position};

/// How many instances are remembered per call, 24 bytes each. If a call reads more, all are forgotten; a converted
/// instance must then be read again before it is changed.
const SIGHTINGS_MAX: usize = 4096;

/// Position and model version by a hash of the instance. A hash collision does no harm, because the position, which
/// belongs to one event, would also have to match.
#[derive(Debug, Default)]
pub(super) struct Sightings(HashMap<u64, (Position, u64)>);

impl Sightings {
    pub(super) fn add(&mut self, instance: &Instance) {
        if self.0.len() >= SIGHTINGS_MAX {
            self.0.clear();
        }
        self.0.insert(hash(&instance.model, &instance.id), (instance.position, instance.model_version));
    }

    /// The model version in which the instance was read at this position.
    pub(super) fn model_version(&self, model: &str, id: &str, position: Position) -> Option<u64> {
        self.0.get(&hash(model, id)).filter(|(seen, _)| *seen == position).map(|(_, version)| *version)
    }
}

fn hash(model: &str, id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (model, id).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use snaphook_driver::Json;

    use super::*;

    fn instance(id: &str, position: Position, model_version: u64) -> Instance {
        Instance {
            id: id.to_owned(),
            model: "m".to_owned(),
            model_version,
            revision: 1,
            position,
            created_at: 0,
            updated_at: 0,
            data: Json::trusted("{}"),
        }
    }

    #[test]
    fn the_last_form_counts_and_memory_is_bounded() {
        let mut sightings = Sightings::default();
        sightings.add(&instance("a", 5, 1));
        sightings.add(&instance("a", 5, 2));
        assert_eq!(sightings.model_version("m", "a", 5), Some(2));
        assert_eq!(sightings.model_version("m", "a", 4), None);
        assert_eq!(sightings.model_version("n", "a", 5), None);
        for number in 0..10 * SIGHTINGS_MAX {
            sightings.add(&instance(&number.to_string(), 1, 1));
        }
        assert!(sightings.0.len() <= SIGHTINGS_MAX);
    }
}
