//! Patterns of `like`: `%` matches any text, `_` one character, `\` escapes the next character.
//!
//! A pattern is cut at its `%` into segments. The first and the last are anchored at the ends of the text; the others
//! are searched from left to right, each at the first match, which is correct because `%` matches any text. A segment
//! without `_` is found in linear time; one with `_` takes at most the product of its length and the text's, which the
//! budget counts.

use crate::budget::{Budget, Exceeded, STEP_BYTES};
use crate::fold::fold_case;

/// A pattern, compiled for many texts.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// Never empty; a single segment means that there is no `%`.
    segments: Vec<Segment>,
    /// Whether case is ignored; then the pattern is case-folded, and so is each text.
    folded: bool,
}

#[derive(Clone, Debug)]
enum Segment {
    Literal(String),
    /// `None` matches any one character.
    Wild(Vec<Option<char>>),
}

/// Comparisons of one character that count as one step.
const CHARS_PER_STEP: usize = 8;

/// Bytes of text whose case-folding counts as one step.
const FOLDED_BYTES_PER_STEP: usize = 4;

/// Whether the whole of `text` matches `pattern` (a `\` at the very end stands for itself).
pub fn like(pattern: &str, text: &str) -> bool {
    Pattern::new(pattern).matches(text)
}

impl Pattern {
    pub fn new(pattern: &str) -> Self {
        let mut segments = vec![Vec::new()];
        let mut chars = pattern.chars();
        while let Some(char) = chars.next() {
            let part = match char {
                '%' => {
                    segments.push(Vec::new());
                    continue;
                }
                '_' => None,
                '\\' => Some(chars.next().unwrap_or('\\')),
                literal => Some(literal),
            };
            if let Some(segment) = segments.last_mut() {
                segment.push(part);
            }
        }
        Pattern { segments: segments.into_iter().map(Segment::new).collect(), folded: false }
    }

    /// A pattern of `ilike`: case does not matter, as [`fold_case`] says.
    pub fn ignoring_case(pattern: &str) -> Self {
        Pattern { folded: true, ..Pattern::new(&fold_case(pattern)) }
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        self.matches_charged(text, &mut |_| Ok::<(), Exceeded>(())) == Ok(true)
    }

    /// The same within a budget.
    pub fn matches_within(&self, text: &str, budget: &Budget) -> Result<bool, Exceeded> {
        self.matches_charged(text, &mut |steps| budget.charge(steps))
    }

    /// The same, with steps charged to `charge`, whose error ends the work.
    pub fn matches_charged<E>(&self, text: &str, charge: &mut impl FnMut(u64) -> Result<(), E>) -> Result<bool, E> {
        charge((text.len() / STEP_BYTES) as u64 + 1)?;
        if !self.folded {
            return self.fits(text, charge);
        }
        charge((text.len() / FOLDED_BYTES_PER_STEP) as u64)?;
        self.fits(&fold_case(text), charge)
    }

    fn fits<E>(&self, text: &str, charge: &mut impl FnMut(u64) -> Result<(), E>) -> Result<bool, E> {
        let [first, middle @ .., last] = self.segments.as_slice() else {
            return Ok(self.segments[0].prefix_of(text) == Some(""));
        };
        let Some(rest) = first.prefix_of(text) else { return Ok(false) };
        let Some(mut rest) = last.suffix_of(rest) else { return Ok(false) };
        for segment in middle {
            match segment.find(rest, charge)? {
                Some(behind) => rest = behind,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

impl Segment {
    fn new(parts: Vec<Option<char>>) -> Self {
        match parts.iter().copied().collect() {
            Some(literal) => Segment::Literal(literal),
            None => Segment::Wild(parts),
        }
    }

    /// The text after the segment, if the text begins with it.
    fn prefix_of<'a>(&self, text: &'a str) -> Option<&'a str> {
        match self {
            Segment::Literal(literal) => text.strip_prefix(literal.as_str()),
            Segment::Wild(parts) => {
                let mut chars = text.chars();
                let fits = parts.iter().all(|part| fits(*part, chars.next()));
                fits.then_some(chars.as_str())
            }
        }
    }

    /// The text before the segment, if the text ends with it.
    fn suffix_of<'a>(&self, text: &'a str) -> Option<&'a str> {
        match self {
            Segment::Literal(literal) => text.strip_suffix(literal.as_str()),
            Segment::Wild(parts) => {
                let mut chars = text.chars();
                let fits = parts.iter().rev().all(|part| fits(*part, chars.next_back()));
                fits.then_some(chars.as_str())
            }
        }
    }

    /// The text after the first match of the segment.
    fn find<'a, E>(&self, text: &'a str, charge: &mut impl FnMut(u64) -> Result<(), E>) -> Result<Option<&'a str>, E> {
        match self {
            // Two-way search: linear in text and segment.
            Segment::Literal(literal) => Ok(text.find(literal.as_str()).map(|at| &text[at + literal.len()..])),
            Segment::Wild(parts) => {
                let mut from = text.chars();
                loop {
                    charge((parts.len() / CHARS_PER_STEP) as u64 + 1)?;
                    if let Some(behind) = self.prefix_of(from.as_str()) {
                        return Ok(Some(behind));
                    }
                    if from.next().is_none() {
                        return Ok(None);
                    }
                }
            }
        }
    }
}

fn fits(part: Option<char>, found: Option<char>) -> bool {
    found.is_some_and(|found| part.is_none_or(|wanted| wanted == found))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::budget::Limits;

    #[test]
    fn like_patterns() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("%", "", true),
            ("%", "anything", true),
            ("a%", "abc", true),
            ("a%", "Abc", false),
            ("%c", "abc", true),
            ("%b%", "abc", true),
            ("a_c", "abc", true),
            ("a_c", "ac", false),
            ("_", "é", true),
            ("__", "é", false),
            (r"100\%", "100%", true),
            (r"100\%", "1000", false),
            (r"a\_b", "a_b", true),
            (r"a\_b", "axb", false),
            (r"a\\b", r"a\b", true),
            (r"a\", r"a\", true),
            ("%a%b%c", "xxaxxbxxc", true),
            ("%a%b%c", "xxaxxcxxb", false),
            ("%aab", "aaaab", true),
            ("a%%b", "ab", true),
        ] {
            assert_eq!(like(pattern, text), expected, "`{text}` like `{pattern}`");
        }
    }

    #[test]
    fn patterns_without_case() {
        for (pattern, text, expected) in [
            ("A%", "abc", true),
            ("a%C", "ABc", true),
            ("%Ä_%", "xäY", true),
            (r"\A\%", "a%", true),
            (r"\%", "A", false),
            ("ς", "Σ", true),
            ("ß", "SS", false),
            ("_", "İ", true),
            ("é", "E\u{301}", false),
        ] {
            assert_eq!(Pattern::ignoring_case(pattern).matches(text), expected, "`{text}` ilike `{pattern}`");
        }
    }

    /// The definition, implemented without regard to speed.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['%', rest @ ..] => (0..=text.len()).any(|skip| naive(rest, &text[skip..])),
            ['_', rest @ ..] => !text.is_empty() && naive(rest, &text[1..]),
            ['\\', wanted, rest @ ..] | [wanted, rest @ ..] => text.first() == Some(wanted) && naive(rest, &text[1..]),
        }
    }

    #[test]
    fn short_patterns_and_texts_as_the_meaning_says() {
        let words = |letters: &[char], most: usize| -> Vec<Vec<char>> {
            let mut all = vec![Vec::new()];
            let mut last = all.clone();
            for _ in 0..most {
                last = last
                    .iter()
                    .flat_map(|word| letters.iter().map(move |letter| [word.as_slice(), &[*letter]].concat()))
                    .collect();
                all.extend(last.clone());
            }
            all
        };
        let texts = words(&['a', 'é'], 5);
        for pattern in words(&['a', 'é', '%', '_'], 5) {
            let written: String = pattern.iter().collect();
            for text in &texts {
                let found = like(&written, &text.iter().collect::<String>());
                assert_eq!(found, naive(&pattern, text), "{text:?} like {written}");
            }
        }
    }

    #[test]
    fn segments_without_an_underscore_take_linear_time() {
        let budget =
            Budget::new(Limits { steps: 2_000_000, time: Duration::from_secs(3600), memory: 0, wait: Duration::ZERO });
        let text = "a".repeat(1 << 20);
        let started = Instant::now();
        for pattern in
            [format!("%{}b%", "a".repeat(1 << 10)), format!("%{}b", "a%".repeat(200)), "%a%a%b%a%".to_owned()]
        {
            assert_eq!(Pattern::new(&pattern).matches_within(&text, &budget), Ok(false));
        }
        // The product of the lengths would be 10^9 comparisons each.
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }

    #[test]
    fn a_segment_with_underscores_ends_with_the_budget() {
        let limits = Limits { steps: 100_000, time: Duration::from_secs(3600), memory: 0, wait: Duration::ZERO };
        let budget = Budget::new(limits);
        let pattern = format!("%{}_b%", "a".repeat(400));
        let text = "a".repeat(1 << 20);
        assert_eq!(Pattern::new(&pattern).matches_within(&text, &budget), Err(Exceeded::Steps(100_000)));
        assert!(budget.steps() < 101_000, "{}", budget.steps());
    }
}
