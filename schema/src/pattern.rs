//! Regular expressions whose work is counted.
//!
//! A pattern that a finite automaton can decide runs on a lazily built automaton, byte by byte, in linear time.
//! Look-around and back-references require backtracking, which reads the text through a counting view, so that each of
//! its steps is a step of the document's budget.

use std::cell::Cell;
use std::sync::Mutex;

use fancy_regex::{Input, Regex, RegexBuilder};
use regex_automata::Input as Search;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;

use crate::budget::{Excess, give_up, look_at_clock, spend};

/// Maximum size in bytes of a pattern.
pub(crate) const PATTERN_BYTES_MAX: usize = 10_000;
/// Maximum size in bytes of one compiled pattern.
const AUTOMATON_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Maximum size in bytes of the states that a search builds.
const CACHE_BYTES: usize = 64 * 1024;
/// A cache that grew beyond this is not kept.
const CACHE_KEPT_BYTES: usize = 32 * 1024;
/// Maximum product of states and bytes of a text that the library searches without interruption.
const STATES_TIMES_BYTES_MAX: usize = 100_000_000;
/// Maximum size in bytes of a property's name that is matched by backtracking patterns.
const BACKTRACKED_NAME_BYTES_MAX: usize = 512;
/// Maximum number of the library's backtracking steps per property name.
pub(crate) const NAME_BACKTRACKS_MAX: usize = 5_000;
/// Maximum number of backtracking patterns among the `patternProperties` of one schema.
pub(crate) const BACKTRACKED_NAMES_MAX: usize = 16;

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    engine: RegexEngine,
    /// States of the automaton; for a backtracking pattern, its size in bytes.
    pub(crate) states: usize,
    /// Size in bytes of the compiled pattern.
    pub(crate) memory: usize,
}

#[derive(Debug)]
enum RegexEngine {
    Linear {
        automaton: Box<DFA>,
        caches: Mutex<Vec<Cache>>,
    },
    /// Also linear, but the library searches without interruption: Unicode word boundaries.
    AtOnce(Regex),
    Backtracking(Regex),
}

impl Pattern {
    /// Compiles an ECMA-262 pattern; the error is one sentence.
    pub(crate) fn compile(pattern: &str) -> Result<Pattern, String> {
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(format!("the pattern has {} bytes, at most {PATTERN_BYTES_MAX} are allowed", pattern.len()));
        }
        spend(100 + pattern.len() as u64);
        let not_a_pattern = || format!("`{}` is not a regular expression of ECMA-262", shown(pattern));
        let translated = jsonschema_regex::to_rust_regex(pattern).map_err(|()| not_a_pattern())?;
        spend(translated.len() as u64);
        let mut builder = DFA::builder();
        builder
            .configure(
                DFA::config()
                    .cache_capacity(CACHE_BYTES)
                    .skip_cache_capacity_check(true)
                    .minimum_cache_clear_count(None),
            )
            .thompson(
                thompson::Config::new()
                    .nfa_size_limit(Some(AUTOMATON_BYTES_MAX))
                    .which_captures(thompson::WhichCaptures::None),
            );
        if let Ok(automaton) = builder.build(&translated) {
            let states = automaton.get_nfa().states().len();
            spend(states as u64);
            let memory = automaton.memory_usage() + automaton.get_nfa().memory_usage();
            let engine = RegexEngine::Linear { automaton: Box::new(automaton), caches: Mutex::new(Vec::new()) };
            return Ok(Pattern { engine, states, memory });
        }
        let regex = RegexBuilder::new(&translated)
            .delegate_size_limit(AUTOMATON_BYTES_MAX)
            .delegate_dfa_size_limit(CACHE_BYTES)
            .backtrack_limit(usize::MAX)
            .build()
            .map_err(|error| match error {
                fancy_regex::Error::ParseError(..) => not_a_pattern(),
                _ => format!("`{}` cannot be compiled, it is too large or not supported", shown(pattern)),
            })?;
        let nfa = thompson::NFA::compiler()
            .configure(thompson::Config::new().nfa_size_limit(Some(AUTOMATON_BYTES_MAX)))
            .build(&translated);
        let (engine, states) = match nfa {
            Ok(nfa) => (RegexEngine::AtOnce(regex), nfa.states().len()),
            Err(_) => (RegexEngine::Backtracking(regex), translated.len()),
        };
        spend(states as u64);
        Ok(Pattern { engine, states, memory: states * 64 })
    }

    pub(crate) fn is_backtracking(&self) -> bool {
        matches!(self.engine, RegexEngine::Backtracking(_))
    }

    /// Whether the pattern matches anywhere in a text.
    pub(crate) fn is_match(&self, text: &str) -> bool {
        match &self.engine {
            RegexEngine::Linear { automaton, caches } => {
                let kept = caches.try_lock().ok().and_then(|mut caches| caches.pop());
                let mut cache = kept.unwrap_or_else(|| automaton.create_cache());
                let found = search(automaton, &mut cache, text.as_bytes(), self.states);
                if cache.memory_usage() <= CACHE_KEPT_BYTES
                    && let Ok(mut caches) = caches.try_lock()
                    && caches.len() < 4
                {
                    caches.push(cache);
                }
                found
            }
            RegexEngine::AtOnce(regex) => {
                let max = STATES_TIMES_BYTES_MAX / self.states.max(1);
                if text.len() > max {
                    give_up(Excess::Text(text.len(), max));
                }
                spend((text.len() * self.states) as u64 / 256);
                regex.is_match(text).unwrap_or_else(|_| give_up(Excess::Text(text.len(), max)))
            }
            RegexEngine::Backtracking(regex) => {
                let text = Counted { text, read: Cell::new(0) };
                // The search can only fail for lack of memory, because it has no limit of its own.
                regex.is_match(&text).unwrap_or_else(|_| give_up(Excess::Text(text.text.len(), 0)))
            }
        }
    }
}

/// One pass over the bytes. Each new state costs as many steps as the pattern has states.
fn search(automaton: &DFA, cache: &mut Cache, text: &[u8], states: usize) -> bool {
    const BLOCK: usize = 64;
    // No byte is a quit byte, and the cache is cleared whenever necessary, so no step can fail.
    let failed = |_| give_up(Excess::Text(text.len(), 0));
    let mut state = automaton
        .start_state_forward(cache, &Search::new(text))
        .unwrap_or_else(|_| give_up(Excess::Text(text.len(), 0)));
    for block in text.chunks(BLOCK) {
        let before = (cache.memory_usage(), cache.clear_count());
        for byte in block {
            state = automaton.next_state(cache, state, *byte).unwrap_or_else(failed);
            if state.is_tagged() {
                if state.is_match() {
                    return true;
                }
                if state.is_dead() {
                    return false;
                }
            }
        }
        let grown = before != (cache.memory_usage(), cache.clear_count());
        spend(if grown { 4 + 4 * states as u64 } else { 4 });
    }
    automaton.next_eoi_state(cache, state).unwrap_or_else(failed).is_match()
}

/// A text that counts accesses.
struct Counted<'a> {
    text: &'a str,
    /// Bytes that may have been read since the last check of the clock.
    read: Cell<usize>,
}

impl Input for Counted<'_> {
    type Match<'t>
        = ()
    where
        Self: 't;

    fn len(&self) -> usize {
        self.text.len()
    }

    /// The library may read the text to its end without returning.
    fn as_bytes(&self) -> &[u8] {
        const UNWATCHED_BYTES: usize = 4 * 1024 * 1024;
        spend(1);
        let read = self.read.get() + self.text.len();
        if read > UNWATCHED_BYTES {
            look_at_clock();
            self.read.set(0);
        } else {
            self.read.set(read);
        }
        self.text.as_bytes()
    }

    fn is_char_boundary(&self, ix: usize) -> bool {
        self.text.is_char_boundary(ix)
    }

    fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }

    fn prev_codepoint_ix(&self, i: usize) -> usize {
        spend(1);
        self.text.floor_char_boundary(i.saturating_sub(1))
    }

    fn make_match(&self, _: usize, _: usize) {}

    fn advance_position(&self, i: usize) -> usize {
        spend(1);
        self.text.ceil_char_boundary(i + 1).max(i + 1)
    }
}

/// The cost per name of a schema's `patternProperties`, which the library matches itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NameCost {
    /// States of all patterns.
    pub(crate) states: usize,
    /// The number of backtracking patterns.
    pub(crate) backtracking: usize,
}

thread_local! {
    static NAMES: Cell<NameCost> = const { Cell::new(NameCost { states: 0, backtracking: 0 }) };
}

/// Sets the cost of names for the validation that begins on this thread.
pub(crate) fn charge_names(cost: NameCost) {
    NAMES.set(cost);
}

/// Counts a visited member, whose name patterns may match.
#[inline]
pub(crate) fn spend_name(name: &str) {
    spend(1 + name.len() as u64 / 64);
    let cost = NAMES.get();
    if cost.states > 0 {
        spend_matched_name(name, cost);
    }
}

fn spend_matched_name(name: &str, cost: NameCost) {
    let max = match cost.backtracking {
        0 => STATES_TIMES_BYTES_MAX / cost.states,
        _ => BACKTRACKED_NAME_BYTES_MAX,
    };
    if name.len() > max {
        give_up(Excess::Text(name.len(), max));
    }
    spend((name.len() * cost.states) as u64 / 256);
    if cost.backtracking > 0 {
        spend(name.len() as u64);
        if name.len() > 64 {
            look_at_clock();
        }
    }
}

/// The beginning of a pattern, for messages.
fn shown(pattern: &str) -> String {
    match pattern.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &pattern[..end]),
        None => pattern.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::budget::{Limits, thread_time, within};

    fn limits() -> Limits {
        Limits {
            steps: 20_000_000,
            time: Some(Duration::from_millis(250)),
            until: None,
            stack: 1024 * 1024,
            errors: 10,
            cancelled: None,
        }
    }

    /// Matches like the reference engine.
    #[test]
    fn patterns_match_what_they_mean() {
        for (pattern, yes, no) in [
            ("", &["", "x"][..], &[][..]),
            ("a", &["a", "bab"], &["", "b"]),
            ("^a+$", &["a", "aaa"], &["", "ab", "a\n"]),
            ("^\\d{2,3}$", &["12", "123"], &["1", "1234", "١٢"]),
            ("^\\w+\\s\\S$", &["ab c"], &["ab", "äb c"]),
            ("^[\\u00e4ö]$", &["ä", "ö"], &["a", "äö"]),
            ("^\\p{L}{1,4}$", &["äöü", "a"], &["", "1", "abcde"]),
            ("a|b$", &["a", "xab", "xb"], &["xbx"]),
            ("\\bfoo\\b", &["a foo b"], &["afoo"]),
            ("^(?=.*\\d)(?=.*[a-z]).{8,}$", &["abcdefg1"], &["abcdefgh", "a1"]),
            ("^(?!foo)", &["bar"], &["foo"]),
            ("(a)\\1", &["aa"], &["ab"]),
            ("^(?:(ä+)b)+\\1$", &["ääbää"], &["ääb"]),
            ("(?<=\\$)\\d", &["$1"], &["1", "€1"]),
            ("^.$", &["a", "ä", "🦀"], &["", "ab", "\n"]),
        ] {
            let compiled = Pattern::compile(pattern).unwrap();
            for text in yes {
                assert!(compiled.is_match(text), "{pattern} should match {text:?}");
            }
            for text in no {
                assert!(!compiled.is_match(text), "{pattern} should not match {text:?}");
            }
        }
    }

    #[test]
    fn only_what_needs_it_backtracks() {
        let is_backtracking = |pattern| Pattern::compile(pattern).unwrap().is_backtracking();
        for pattern in ["^(a+)+$", "(x|x)*y", "\\bword\\b", "^\\p{L}+$", "(.*)*=.*"] {
            assert!(!is_backtracking(pattern), "{pattern}");
        }
        for pattern in ["(?=a)b", "(?!a)b", "(?<!a)b", "(a)\\1"] {
            assert!(is_backtracking(pattern), "{pattern}");
        }
    }

    #[test]
    fn no_pattern_burns() {
        let long = "a".repeat(100_000);
        let ends = format!("{long}!");
        let mixed = "ab".repeat(500_000);
        for (pattern, text) in [
            ("^(a+)+$", &ends),
            ("(?=(a+)+$)b", &ends),
            ("(?:(?=.*x)a)*$", &ends),
            ("^(?=.*b)(a|aa)+$", &ends),
            ("(a*)*\\1c", &ends),
            ("(?!.*(.+)\\1{9}z)(x|y)*a$", &ends),
            ("^(([a-z])+.)+[A-Z]([a-z])+$", &long),
            ("(?=[ab]*c)", &mixed),
            ("[ab]*a[ab]{1000}c", &mixed),
            ("(?<=a.*)b$", &ends),
        ] {
            let compiled = Pattern::compile(pattern).unwrap();
            let started = thread_time();
            let _ = within(&limits(), || compiled.is_match(text));
            let took = thread_time() - started;
            assert!(took < Duration::from_secs(1), "{pattern} took {took:?}");
        }
    }

    #[test]
    fn linear_patterns_take_long_texts() {
        let text = format!("{}b", "a".repeat(1_000_000));
        for pattern in ["^(a+)+b$", "(a|b)*$", "^(?:(?:a*)*)*b$"] {
            let compiled = Pattern::compile(pattern).unwrap();
            assert_eq!(within(&limits(), || compiled.is_match(&text)), Ok(true), "{pattern}");
        }
    }

    #[test]
    fn what_is_no_pattern_or_too_large_is_said() {
        for (pattern, message) in [
            ("(".to_owned(), "is not a regular expression"),
            ("[z-a]".to_owned(), "is not a regular expression"),
            ("(".repeat(5_000), "is not a regular expression"),
            ("a".repeat(PATTERN_BYTES_MAX + 1), "at most"),
            ("((a{100}){100}){100}".to_owned(), "too large"),
            ("(?=((a{100}){100}){100})".to_owned(), "too large"),
        ] {
            let error = Pattern::compile(&pattern).unwrap_err();
            assert!(error.contains(message), "{}: {error}", shown(&pattern));
        }
    }
}
