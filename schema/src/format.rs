//! `format`, asserted in every draft for all known formats.

use std::collections::HashMap;
use std::sync::Arc;

use jsonschema::{Draft, Validator};
use serde_json::{Value, json};

use crate::budget::{Excess, give_up, look_at_clock, spend};
use crate::metered::{Metered, Seen};
use crate::pattern::PATTERN_BYTES_MAX;

/// Maximum length in bytes of a host name, or of a text with one; longer texts are invalid.
const HOST_BYTES_MAX: usize = 4096;

/// Maximum length in bytes of a regular expression that any thread may parse.
const DEEP_BYTES: usize = 500;

/// The formats that are asserted. Others are annotations.
pub const FORMATS: [&str; 17] = [
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "iri",
    "iri-reference",
    "json-pointer",
    "regex",
    "relative-json-pointer",
    "time",
    "uri",
    "uri-reference",
    "uri-template",
    "uuid",
];

/// One format as one draft defines it.
pub(crate) struct Format {
    pub(crate) name: &'static str,
    validator: Validator<Metered>,
}

/// The formats created for one schema.
pub(crate) struct Formats {
    draft: Draft,
    known: HashMap<&'static str, Arc<Format>>,
}

impl Formats {
    pub(crate) fn new(draft: Draft) -> Self {
        let draft = if draft == Draft::Unknown { Draft::Draft202012 } else { draft };
        Formats { draft, known: HashMap::new() }
    }

    /// `None` if the format is unknown.
    pub(crate) fn get(&mut self, name: &str) -> Option<Arc<Format>> {
        let name = *FORMATS.iter().find(|known| **known == name)?;
        if let Some(format) = self.known.get(name) {
            return Some(Arc::clone(format));
        }
        // If a draft is older than the format, the format's current definition applies.
        let options = jsonschema::options_for::<Metered>();
        let draft = if options.is_known_format(self.draft, name) { self.draft } else { Draft::Draft202012 };
        let validator =
            options.with_draft(draft).should_validate_formats(true).build(&json!({ "format": name })).ok()?;
        let format = Arc::new(Format { name, validator });
        self.known.insert(name, Arc::clone(&format));
        Some(format)
    }
}

impl Format {
    /// Whether a value matches the format; values other than strings match every format.
    pub(crate) fn is_valid(&self, value: &Value) -> bool {
        let Value::String(text) = value else { return true };
        match self.name {
            "regex" if text.len() > PATTERN_BYTES_MAX => give_up(Excess::Text(text.len(), PATTERN_BYTES_MAX)),
            "regex" => {
                spend(16 * text.len() as u64);
                if text.len() > DEEP_BYTES {
                    // The parser needs a large stack.
                    look_at_clock();
                }
            }
            "email" | "hostname" if text.len() > HOST_BYTES_MAX => return false,
            _ => spend(text.len() as u64 / 8),
        }
        self.validator.is_valid(Seen(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_asserted_in_every_draft() {
        let drafts = [Draft::Draft4, Draft::Draft6, Draft::Draft7, Draft::Draft201909, Draft::Draft202012];
        for draft in drafts {
            let mut formats = Formats::new(draft);
            for name in FORMATS {
                let format = formats.get(name).unwrap();
                // This text is invalid in every format.
                assert!(!format.is_valid(&json!("[\\ {\u{0}\u{7f}")), "{name} in {draft:?}");
                assert!(format.is_valid(&json!(1)), "{name} in {draft:?}");
            }
            assert!(formats.get("phone").is_none());
        }
    }

    #[test]
    fn no_format_takes_long() {
        let mut formats = Formats::new(Draft::Draft202012);
        for name in FORMATS {
            let format = formats.get(name).unwrap();
            for part in ["a", "1", "/", "%41", "{a}", ":", ".", "-", "xn--a", "[", "(", "P1", "@", "~", "é"] {
                let text = json!(part.repeat(9_000 / part.len()));
                let started = crate::budget::thread_time();
                let _ = format.is_valid(&text);
                let took = crate::budget::thread_time() - started;
                assert!(took < std::time::Duration::from_millis(200), "{name}: {part} took {took:?}");
            }
        }
    }
}
