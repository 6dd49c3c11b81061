//! `expand=customer,customer.country`: adds the referenced instances to instances.

use sha2::{Digest, Sha256};
use snaphook_driver::Instance;

use super::problem::Result;
use super::request::Call;
use super::{identify, json};
use crate::engine::{Expand, Expanded};

/// The id that a property refers to.
type TargetOf<'t> = dyn Fn(&str) -> Option<&'t str> + 't;

/// The referenced instances, ready to be written.
pub(super) struct Expansion {
    expands: Vec<Expand>,
    expanded: Expanded,
}

impl Expansion {
    /// Reads the referenced instances that the caller may read.
    pub(super) async fn read(call: &Call, expands: Vec<Expand>, instances: &[Instance]) -> Result<Expansion> {
        let right = call.right();
        let seen = call.engine().history.seen_by(&right);
        let hold = |bytes| Ok(call.memory.grow(bytes)?);
        let expanded = seen.expand(instances, &expands, |model| identify::may_read(call, model), hold).await?;
        let expansion = Expansion { expands, expanded };
        // A page may show one instance many times.
        let bytes = (0..instances.len())
            .map(|index| expansion.bytes(&expansion.expands, &|name| expansion.expanded.target(index, name)))
            .sum();
        call.hold(bytes)?;
        Ok(expansion)
    }

    /// Adds `expand` to the instance with this index, which was just written.
    pub(super) fn write(&self, out: &mut Vec<u8>, index: usize) {
        self.write_below(out, &self.expands, &|name| self.expanded.target(index, name));
    }

    /// A digest of everything shown for the instance with this index besides itself.
    pub(super) fn digest(&self, index: usize) -> u64 {
        let mut text = String::new();
        self.describe(&mut text, &self.expands, &|name| self.expanded.target(index, name));
        let digest = Sha256::digest(text.as_bytes());
        digest.iter().take(8).fold(0, |bytes, byte| bytes << 8 | u64::from(*byte))
    }

    fn write_below(&self, out: &mut Vec<u8>, expands: &[Expand], target: &TargetOf<'_>) {
        // The end of the instance.
        out.pop();
        out.extend_from_slice(b",\"expand\":{");
        for (index, expand) in expands.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            json::write_string(out, &expand.property);
            out.push(b':');
            match target(&expand.property).and_then(|id| self.expanded.get(&expand.model, id)) {
                None => out.extend_from_slice(b"null"),
                Some(found) => {
                    json::write_instance(out, &found.instance);
                    if !expand.below.is_empty() {
                        self.write_below(out, &expand.below, &|name| found.target(name));
                    }
                }
            }
        }
        out.extend_from_slice(b"}}");
    }

    fn describe(&self, text: &mut String, expands: &[Expand], target: &TargetOf<'_>) {
        for expand in expands {
            text.push_str(&expand.property);
            match target(&expand.property).and_then(|id| self.expanded.get(&expand.model, id)) {
                None => text.push('-'),
                Some(found) => {
                    let Instance { id, position, model_version, .. } = &found.instance;
                    text.push_str(&format!(" {id} {position} {model_version} ("));
                    self.describe(text, &expand.below, &|name| found.target(name));
                    text.push(')');
                }
            }
        }
    }

    fn bytes(&self, expands: &[Expand], target: &TargetOf<'_>) -> usize {
        let of = |expand: &Expand| {
            let found = self.expanded.get(&expand.model, target(&expand.property)?)?;
            let below = self.bytes(&expand.below, &|name| found.target(name));
            Some(json::ENVELOPE_BYTES + expand.property.len() + found.instance.data.len() + below)
        };
        expands.iter().filter_map(of).sum()
    }
}
