//! Masks secrets in the log lines and error messages of guests.
//!
//! Holds the secrets that guests have read since the server started. A guest's text is searched for the secrets that its grants
//! open: it cannot have read others, and text that happens to equal another secret stays readable.
//!
//! Unlike the vault, which wipes a value when it is dropped, this keeps the values until the server ends.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use arc_swap::ArcSwapOption;
use snaphook_identity::glob::any_matches;

use self::forms::{VALUE_BYTES_MAX, forms};
use crate::config::format_size;

mod forms;

/// The replacement of a secret. Never longer than what it replaces.
const MASK: &str = "***";

/// Values kept for each name: after a secret is replaced, a guest may still have the old value in memory.
const VALUES_MAX: usize = 4;

/// Limit for all forms together. The automaton takes about ten times as much memory.
const FORMS_BYTES_MAX: usize = 2 << 20;

/// The secrets that guests have read.
#[derive(Default)]
pub(super) struct Masks {
    /// Whether there are any. On a server without secrets, masking a text costs only this check.
    is_used: AtomicBool,
    given: Mutex<BTreeMap<String, VecDeque<String>>>,
    /// Built from `given` when a text is masked, dropped when `given` changes.
    finder: ArcSwapOption<Finder>,
}

impl Masks {
    /// Records that a guest is about to get this value.
    pub(super) fn give(&self, name: &str, value: &str) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let values = match given.get_mut(name) {
            Some(values) => values,
            None => given.entry(name.to_owned()).or_default(),
        };
        if value.len() > VALUE_BYTES_MAX || values.iter().any(|known| known == value) {
            return;
        }
        if values.len() == VALUES_MAX {
            values.pop_front();
        }
        values.push_back(value.to_owned());
        self.finder.store(None);
        // Release: pairs with the load in `mask`, so the value is visible under the lock.
        self.is_used.store(true, Ordering::Release);
    }

    /// Masks the known secrets with these names (globs).
    pub(super) fn mask<'a>(&self, text: &'a str, names: &[String]) -> Cow<'a, str> {
        if names.is_empty() || text.is_empty() || !self.is_used.load(Ordering::Acquire) {
            return Cow::Borrowed(text);
        }
        self.finder().mask(text, names)
    }

    /// The same in place.
    pub(super) fn mask_in(&self, text: &mut String, names: &[String]) {
        if let Cow::Owned(masked) = self.mask(text, names) {
            *text = masked;
        }
    }

    fn finder(&self) -> Arc<Finder> {
        if let Some(finder) = self.finder.load_full() {
            return finder;
        }
        // Held while the finder is built, so that it misses no value.
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(finder) = self.finder.load_full() {
            return finder;
        }
        let finder = Arc::new(Finder::new(&given));
        self.finder.store(Some(Arc::clone(&finder)));
        finder
    }
}

/// Finds all forms of all secrets in one pass.
struct Finder {
    /// `None`: the forms exceed [`FORMS_BYTES_MAX`].
    automaton: Option<AhoCorasick>,
    /// For each pattern, the name of its secret.
    names: Vec<Arc<str>>,
}

impl Finder {
    fn new(given: &BTreeMap<String, VecDeque<String>>) -> Finder {
        let (mut patterns, mut names) = (Vec::new(), Vec::new());
        for (name, values) in given {
            let name: Arc<str> = name.as_str().into();
            for form in values.iter().flat_map(|value| forms(value)) {
                patterns.push(form);
                names.push(Arc::clone(&name));
            }
        }
        let bytes: usize = patterns.iter().map(String::len).sum();
        let automaton = match bytes <= FORMS_BYTES_MAX {
            // The other kinds take more memory for many patterns.
            true => AhoCorasick::builder().kind(Some(AhoCorasickKind::ContiguousNFA)).build(patterns).ok(),
            false => None,
        };
        if automaton.is_none() {
            tracing::error!(
                "hooks have read too many or too large secrets (more than {} in all their forms) to search logs for them: until \
                 the next start, log lines and error messages of hooks with a grant for secrets are masked completely",
                format_size(FORMS_BYTES_MAX)
            );
        }
        Finder { automaton, names }
    }

    fn mask<'a>(&self, text: &'a str, names: &[String]) -> Cow<'a, str> {
        // Fail closed: without an automaton the whole text is masked.
        let Some(automaton) = &self.automaton else { return Cow::Owned(MASK.to_owned()) };
        // Sorted by their ends, merged where they touch.
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for found in automaton.find_overlapping_iter(text) {
            if !any_matches(names, &self.names[found.pattern()]) {
                continue;
            }
            let mut start = found.start();
            while let Some((before, _)) = spans.pop_if(|(_, end)| start <= *end) {
                start = start.min(before);
            }
            spans.push((start, found.end()));
        }
        if spans.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut masked = String::with_capacity(text.len());
        let mut rest = 0;
        for (start, end) in spans {
            masked.push_str(&text[rest..start]);
            masked.push_str(MASK);
            rest = end;
        }
        masked.push_str(&text[rest..]);
        Cow::Owned(masked)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

    use super::*;

    const KEY: &str = "s3cret/+ü\"key";

    fn masks(values: &[(&str, &str)]) -> Masks {
        let masks = Masks::default();
        values.iter().for_each(|(name, value)| masks.give(name, value));
        masks
    }

    fn all() -> Vec<String> {
        vec!["*".to_owned()]
    }

    #[track_caller]
    fn is_hidden(masks: &Masks, text: &str) {
        let masked = masks.mask(text, &all());
        assert!(masked.contains(MASK), "{text} became {masked}");
    }

    #[test]
    fn every_form_is_masked() {
        let masks = masks(&[("key", &format!("{KEY}\n"))]);
        assert_eq!(masks.mask(&format!("a {KEY} b {KEY}"), &all()), "a *** b ***");
        for text in [
            serde_json::json!({ "key": KEY }).to_string(),
            format!("{KEY:?}"),
            "Zs3cret%2F%2B%C3%BC%22key".to_owned(),
            KEY.bytes().map(|byte| format!("{byte:02x}")).collect(),
            KEY.bytes().map(|byte| format!("{byte:02X}")).collect(),
            url::form_urlencoded::byte_serialize(KEY.as_bytes()).collect(),
        ] {
            is_hidden(&masks, &text);
        }
        // Wherever it stands in what is encoded, and whatever follows.
        for before in ["", "u", "us", "user:"] {
            for after in ["", "!", "!!", ":x"] {
                let text = format!("{before}{KEY}{after}");
                for encoded in [BASE64_STANDARD.encode(&text), BASE64_URL_SAFE_NO_PAD.encode(&text)] {
                    is_hidden(&masks, &encoded);
                    let masked = masks.mask(&encoded, &all()).replace(MASK, "");
                    assert!(masked.len() <= before.len() * 2 + after.len() * 2 + 8, "{encoded} became {masked}");
                }
            }
        }
    }

    #[test]
    fn lines_of_a_key_are_masked_one_by_one() {
        let masks = masks(&[("pem", "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0B\n-----END KEY-----\n")]);
        assert_eq!(masks.mask("line: kqhkiG9w0B.", &all()), "line: ***.");
    }

    #[test]
    fn what_is_no_secret_stays() {
        let masks = masks(&[("short", "abc"), ("key", "hunter2"), ("other", "correct horse")]);
        for text in ["", "abc", "hunter", "unter2", "hunter\n2", "correct", "***"] {
            assert_eq!(masks.mask(text, &all()), text);
        }
        // The secrets of others are none of this guest's.
        assert_eq!(masks.mask("hunter2, correct horse", &["k*".to_owned()]), "***, correct horse");
        assert_eq!(masks.mask("hunter2", &[]), "hunter2");
        assert_eq!(Masks::default().mask("hunter2", &all()), "hunter2");
    }

    #[test]
    fn secrets_in_secrets_and_those_that_overlap() {
        let masks = masks(&[("a", "abcdef"), ("b", "xabcdefx"), ("c", "efghij")]);
        assert_eq!(masks.mask("1xabcdefx2", &all()), "1***2");
        assert_eq!(masks.mask("1abcdefghij2", &all()), "1***2");
        assert_eq!(masks.mask("abcdef abcdef", &all()), "*** ***");
    }

    #[test]
    fn where_secrets_cannot_be_found_nothing_is_kept() {
        let masks = Masks::default();
        (0..400).for_each(|n| masks.give(&format!("key-{n}"), &format!("{n:04}").repeat(200)));
        let names = vec!["key-1".to_owned()];
        assert_eq!(masks.mask("a text", &names), MASK);
        let mut text = "a text".to_owned();
        masks.mask_in(&mut text, &names);
        assert_eq!(text, MASK);
        assert_eq!(masks.mask("a text", &[]), "a text");
        // One that no log has room for is left out.
        let masks = Masks::default();
        masks.give("large", &"x".repeat(VALUE_BYTES_MAX + 1));
        masks.give("key", KEY);
        assert_eq!(masks.mask(&format!("xxxxxxxx {KEY}"), &all()), "xxxxxxxx ***");
    }

    #[test]
    fn a_secret_that_was_replaced_is_still_one() {
        let masks = Masks::default();
        for value in ["first-value", "second-value", "first-value", "third-value"] {
            masks.give("key", value);
            assert_eq!(masks.mask("first-value", &all()), MASK);
        }
        (0..VALUES_MAX).for_each(|n| masks.give("key", &format!("later-value-{n}")));
        assert_eq!(masks.mask("first-value later-value-0", &all()), "first-value ***");
    }
}
