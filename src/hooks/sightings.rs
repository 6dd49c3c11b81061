//! Which instances a call has read, in which version of their model.
//!
//! A hook says what it expects of an instance by position alone. A new version of the model changes an instance's data
//! without moving its position, so the session remembers in which form the call has seen it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use snaphook_driver::{Instance, Position};

/// Instances that one call remembers: 24 bytes each. A call that reads more forgets them all; then an instance that was
/// carried over has to be read again before it is changed.
const SIGHTINGS_MAX: usize = 4096;

/// Position and model version by a hash of the instance. Two instances with the same hash would also need the same
/// position, which belongs to one event.
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
