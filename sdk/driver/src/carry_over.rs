//! Converts instances from one version of a model to the next: pure code, the same for every driver.
//!
//! [`CarryOver`] is one step. [`CarryOvers`] composes the steps of many versions, so that a store that lags ten
//! versions behind rewrites an instance once. Applying the composition has the same result as applying the steps one by
//! one.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::json::named_trees;

/// The conversion of existing instances to the next version of a model.
///
/// Renames come first, all at once (so two properties may swap); then each absent property of `defaults` is added at
/// the end. The order of the other properties does not change. A renamed value replaces an existing value of the new
/// name, unless that one is renamed too; the server rejects a change that would lose a value in this way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CarryOver {
    /// Top-level properties, old name to new name; no old name and no new name twice.
    pub renames: Vec<(String, String)>,
    /// Top-level properties that instances without them get.
    #[serde(deserialize_with = "named_trees")]
    pub defaults: Vec<(String, Value)>,
}

impl CarryOver {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.renames.is_empty() && self.defaults.is_empty()
    }

    /// Converts one instance's data in place. Every driver uses this, so all of them agree. Returns whether anything
    /// changed.
    pub fn apply(&self, data: &mut Map<String, Value>) -> bool {
        let mut changed = false;
        if self.renames.iter().any(|(old, _)| data.contains_key(old)) {
            changed = true;
            let taken: HashSet<&str> =
                self.renames.iter().filter(|(old, _)| data.contains_key(old)).map(|(_, new)| new.as_str()).collect();
            *data = std::mem::take(data)
                .into_iter()
                .filter_map(|(name, value)| match self.renames.iter().find(|(old, _)| *old == name) {
                    Some((_, new)) => Some((new.clone(), value)),
                    None => (!taken.contains(name.as_str())).then_some((name, value)),
                })
                .collect();
        }
        for (name, value) in &self.defaults {
            if !data.contains_key(name) {
                data.insert(name.clone(), value.clone());
                changed = true;
            }
        }
        changed
    }
}

/// The steps of several versions as one.
#[derive(Clone, Debug, Default)]
pub struct CarryOvers {
    /// Names that any step mentions, as they are after the last step. Other names stay unchanged.
    sources: HashMap<String, Vec<Source>>,
    /// The number of defaults so far, each with its index in the order in which they would be added.
    defaults: usize,
}

/// A possible source of a name's value: the first one that an instance has is used.
#[derive(Clone, Debug)]
struct Source {
    from: From,
    /// Version of the last step that moved or added the value; 0 if none did.
    version: u64,
}

#[derive(Clone, Debug)]
enum From {
    Property(String),
    /// A default, which every instance has. Defaults are added in the order of their numbers.
    Default(usize, Value),
}

impl Source {
    fn is_default(&self) -> bool {
        matches!(self.from, From::Default(..))
    }
}

impl CarryOvers {
    /// Whether the steps change nothing.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Adds the step to `version` of the model. Versions increase.
    pub fn then(&mut self, step: &CarryOver, version: u64) {
        let before: Vec<Vec<Source>> = step.renames.iter().map(|(old, _)| self.sources_of(old)).collect();
        let stays = |name: &String| !step.renames.iter().any(|(old, _)| old == name);
        let mut after: Vec<(String, Vec<Source>)> = Vec::with_capacity(step.renames.len());
        for ((_, new), moved) in step.renames.iter().zip(before) {
            let mut sources: Vec<Source> = moved.into_iter().map(|source| Source { version, ..source }).collect();
            if stays(new) {
                sources.extend(self.sources_of(new));
            }
            after.push((new.clone(), sources));
        }
        for (old, _) in &step.renames {
            self.sources.insert(old.clone(), Vec::new());
        }
        self.sources.extend(after);
        for (name, value) in &step.defaults {
            let mut sources = self.sources_of(name);
            if !sources.iter().any(Source::is_default) {
                sources.push(Source { from: From::Default(self.defaults, value.clone()), version });
                self.defaults += 1;
            }
            self.sources.insert(name.clone(), sources);
        }
        for sources in self.sources.values_mut() {
            // Sources after a default are never used.
            if let Some(index) = sources.iter().position(Source::is_default) {
                sources.truncate(index + 1);
            }
        }
    }

    fn sources_of(&self, name: &str) -> Vec<Source> {
        self.sources
            .get(name)
            .cloned()
            .unwrap_or_else(|| vec![Source { from: From::Property(name.to_owned()), version: 0 }])
    }

    /// Converts one instance's data in place. Returns the version of the last step that changed anything.
    pub fn apply(&self, data: &mut Map<String, Value>) -> Option<u64> {
        let mut last = 0;
        // Maps old names to new names; `added` has the added values by number.
        let mut moves: HashMap<&str, &str> = HashMap::with_capacity(self.sources.len());
        let mut added: Vec<(usize, &str, &Value)> = Vec::new();
        for (name, sources) in &self.sources {
            let winner = sources.iter().find(|source| match &source.from {
                From::Property(property) => data.contains_key(property),
                From::Default(..) => true,
            });
            let Some(winner) = winner else { continue };
            last = last.max(winner.version);
            match &winner.from {
                From::Property(property) => drop(moves.insert(property, name)),
                From::Default(number, value) => added.push((*number, name, value)),
            }
        }
        if last == 0 {
            return None;
        }
        *data = std::mem::take(data)
            .into_iter()
            .filter_map(|(name, value)| match moves.get(name.as_str()) {
                Some(new) => Some(((*new).to_owned(), value)),
                // A name that steps mention and that is no longer a source was replaced.
                None => (!self.mentions(&name)).then_some((name, value)),
            })
            .collect();
        added.sort_unstable_by_key(|(number, ..)| *number);
        data.extend(added.into_iter().map(|(_, name, value)| (name.to_owned(), value.clone())));
        Some(last)
    }

    fn mentions(&self, name: &str) -> bool {
        self.sources.contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    fn step(renames: &[(&str, &str)], defaults: &[(&str, i64)]) -> CarryOver {
        CarryOver {
            renames: renames.iter().map(|(old, new)| ((*old).to_owned(), (*new).to_owned())).collect(),
            defaults: defaults.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect(),
        }
    }

    /// Compares the data after all steps one by one with that after their composition, as text, because the order
    /// matters.
    #[track_caller]
    fn check(steps: &[CarryOver], data: &Map<String, Value>) -> String {
        let (mut one_by_one, mut last) = (data.clone(), None);
        let mut composed = CarryOvers::default();
        for (version, step) in (2..).zip(steps) {
            if step.apply(&mut one_by_one) {
                last = Some(version);
            }
            composed.then(step, version);
        }
        let mut at_once = data.clone();
        let version = composed.apply(&mut at_once);
        let (one_by_one, at_once) = (Value::Object(one_by_one).to_string(), Value::Object(at_once).to_string());
        assert_eq!(at_once, one_by_one, "{steps:?} on {data:?}");
        assert_eq!(version, last, "{steps:?} on {data:?}");
        at_once
    }

    #[test]
    fn steps_follow_each_other() {
        let data = object(json!({"a": 1, "x": 0, "b": 2}));
        let swap = step(&[("a", "b"), ("b", "a")], &[]);
        let chain = step(&[("a", "b"), ("b", "c")], &[]);
        for (steps, expected) in [
            (vec![swap.clone()], r#"{"b":1,"x":0,"a":2}"#),
            (vec![swap.clone(), swap.clone()], r#"{"a":1,"x":0,"b":2}"#),
            (vec![chain.clone()], r#"{"b":1,"x":0,"c":2}"#),
            (vec![swap, chain], r#"{"c":1,"x":0,"b":2}"#),
            (vec![step(&[("a", "x")], &[])], r#"{"x":1,"b":2}"#),
            (
                vec![step(&[], &[("d", 4)]), step(&[("d", "e")], &[("d", 5), ("a", 6)])],
                r#"{"a":1,"x":0,"b":2,"e":4,"d":5}"#,
            ),
            (vec![step(&[], &[("d", 4)]), step(&[("d", "x")], &[])], r#"{"a":1,"b":2,"x":4}"#),
            (vec![step(&[("q", "r")], &[])], r#"{"a":1,"x":0,"b":2}"#),
        ] {
            assert_eq!(check(&steps, &data), expected, "{steps:?}");
        }
    }

    #[test]
    fn a_composition_is_its_steps() {
        const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |bound: usize| {
            // xorshift64, with the same numbers in every run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) as usize % bound
        };
        for _ in 0..20_000 {
            let steps: Vec<CarryOver> = (0..1 + below(6))
                .map(|_| {
                    let mut targets = NAMES.to_vec();
                    let mut renames = Vec::new();
                    for old in NAMES {
                        // Each old and each new name once: this produces swaps, chains and a rename of a name to
                        // itself.
                        if below(3) == 0 {
                            renames.push((old, targets.swap_remove(below(targets.len()))));
                        }
                    }
                    let defaults: Vec<(&str, i64)> =
                        NAMES.iter().filter_map(|name| (below(5) == 0).then_some((*name, below(100) as i64))).collect();
                    step(&renames, &defaults)
                })
                .collect();
            let mut data = Map::new();
            for _ in 0..below(7) {
                data.insert(NAMES[below(NAMES.len())].to_owned(), json!(below(100) + 100));
            }
            check(&steps, &data);
        }
    }
}
