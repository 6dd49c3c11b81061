//! Keeps the digits of numbers that JavaScript cannot represent.
//!
//! JavaScript reads 9007199254740993 as 9007199254740992 and writes 1.0 as 1. The returned data is compared with the
//! original data: where a part is the same to JavaScript, its original text is restored. A number that moved to another
//! property or another place in a list gets its text back if that is unambiguous. This takes one pass over each text
//! (nodes.rs), regardless of their shape.

use std::collections::HashMap;

use super::nodes::{Kind, Nodes, Token, tokens};
use super::numbers::{infinite, value_of};
use crate::hooks::context::Failure;
use crate::hooks::host_memory::HostMemory;

/// The texts of a run's numbers that JavaScript changes.
#[derive(Debug, Default)]
pub(in crate::hooks::engines) struct Digits {
    /// Whether the text of any number changes, even just from `1.0` to `1`.
    reformatted: bool,
    /// Numbers that lose digits, by their value in JavaScript. `None`: two texts have the same value.
    lossy: HashMap<u64, Option<Box<str>>>,
}

/// Approximate memory of a number in the map.
const ENTRY_BYTES: usize = 48;
/// Memory is reserved in steps of this size.
const STEP_BYTES: usize = 64 << 10;

/// The result of restoring digits.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Restored {
    /// It equals the hook's input.
    Unchanged,
    Changed(String),
    /// It has too many values to match each number's place, and a number whose digits depend on its place.
    TooMany,
}

impl Digits {
    /// Records the numbers of one JSON text for the hook, and reserves memory of its run for them.
    pub(super) fn note(&mut self, json: &str, memory: &HostMemory) -> Result<(), Failure> {
        let mut kept = 0;
        for (token, start, end) in tokens(json) {
            let text = &json[start..end];
            if token != Token::Number || is_short_integer(text) {
                continue;
            }
            let value = value_of(text);
            let written = written(value);
            if written == text {
                continue;
            }
            self.reformatted = true;
            if value.is_finite() && normal(&written) == normal(text) {
                continue;
            }
            let known = self.lossy.entry(value.to_bits()).or_insert_with(|| {
                kept += ENTRY_BYTES + text.len();
                Some(text.into())
            });
            if known.as_ref().is_some_and(|known| **known != *text && normal(known) != normal(text)) {
                *known = None;
            }
            // In steps, so that a text with few such numbers costs nothing and one with many cannot exceed the limit by
            // much.
            if kept > STEP_BYTES {
                memory.keep(std::mem::take(&mut kept))?;
            }
        }
        memory.keep(kept)
    }

    /// Whether nothing needs to be restored.
    pub(super) fn is_plain(&self) -> bool {
        !self.reformatted
    }

    /// Whether there is a number that becomes infinite, which JSON cannot express.
    pub(super) fn has_infinite(&self) -> bool {
        [f64::INFINITY, f64::NEG_INFINITY].iter().any(|value| self.lossy.contains_key(&value.to_bits()))
    }

    /// Restores texts in valid JSON that the hook derived from `original`. `marker`: the marker for an infinite number.
    pub(super) fn restore(&self, text: &str, original: Option<&str>, marker: &str) -> Restored {
        let nodes = original.and_then(|original| Some((Nodes::read(text, marker)?, Nodes::read(original, "")?)));
        let Some((answer, original)) = nodes else {
            let (text, lost) = self.restore_moved(text, marker);
            return if lost && original.is_some() { Restored::TooMany } else { Restored::Changed(text) };
        };
        if answer.print(0) == original.print(0) {
            return Restored::Unchanged;
        }
        let mut restoring =
            Restoring { digits: self, answer: &answer, original: &original, patched: Patched::new(text) };
        restoring.node(0, Some(0));
        Restored::Changed(restoring.patched.finish())
    }

    /// Restores unambiguous texts at any place; also returns whether there were ambiguous ones.
    pub(super) fn restore_moved(&self, text: &str, marker: &str) -> (String, bool) {
        let mut patched = Patched::new(text);
        let mut lost = false;
        for (token, start, end) in tokens(text) {
            let part = &text[start..end];
            let (value, otherwise) = match token {
                Token::Number => (value_of(part), None),
                // An infinite number that the hook computed becomes `null`, as with JSON.stringify.
                Token::Text => match infinite(part, marker) {
                    Some(value) => (value, Some("null")),
                    None => continue,
                },
            };
            let known = self.lossy.get(&value.to_bits());
            lost |= matches!(known, Some(None));
            if let Some(known) = known.and_then(Option::as_deref).or(otherwise) {
                patched.put(start, end, known);
            }
        }
        (patched.finish(), lost)
    }
}

/// One pass over an answer and its original.
struct Restoring<'a> {
    digits: &'a Digits,
    answer: &'a Nodes<'a>,
    original: &'a Nodes<'a>,
    patched: Patched<'a>,
}

impl<'a> Restoring<'a> {
    /// `before`: the original part at this place. No part is used twice, so the pass is linear.
    fn node(&mut self, index: usize, before: Option<usize>) {
        let (answer, original) = (self.answer, self.original);
        let (start, end) = answer.range(index);
        if let Some(before) = before
            && answer.print(index) == original.print(before)
        {
            self.patched.put(start, end, original.text(before));
            return;
        }
        match answer.kind(index) {
            Kind::Number(bits) => {
                let known = self.digits.lossy.get(&bits).and_then(Option::as_deref);
                let infinite = answer.text(index).starts_with('"').then_some("null");
                if let Some(text) = known.or(infinite) {
                    self.patched.put(start, end, text);
                }
            }
            Kind::Object => {
                let members: HashMap<u64, usize> = match before.filter(|before| original.kind(*before) == Kind::Object)
                {
                    Some(before) => original.members(before).collect(),
                    None => HashMap::new(),
                };
                for (name, value) in answer.members(index) {
                    self.node(value, members.get(&name).copied());
                }
            }
            Kind::List => {
                let before = before.filter(|before| original.kind(*before) == Kind::List);
                let originals: Vec<usize> = before.map(|before| original.items(before).collect()).unwrap_or_default();
                let items: Vec<usize> = answer.items(index).collect();
                for (item, before) in items.iter().zip(self.pair(&items, &originals)) {
                    self.node(*item, before);
                }
            }
            Kind::Other => {}
        }
    }

    /// Finds the original of each item: the item at the same place if it is equal, an equal item elsewhere, or the item
    /// at the same place if nothing else claims it.
    fn pair(&self, items: &[usize], originals: &[usize]) -> Vec<Option<usize>> {
        let mut pairs = vec![None; items.len()];
        let mut free = vec![true; originals.len()];
        for (place, (item, original)) in items.iter().zip(originals).enumerate() {
            if self.answer.print(*item) == self.original.print(*original) {
                pairs[place] = Some(*original);
                free[place] = false;
            }
        }
        let mut elsewhere: HashMap<u64, Vec<usize>> = HashMap::new();
        for (place, original) in originals.iter().enumerate().rev().filter(|(place, _)| free[*place]) {
            elsewhere.entry(self.original.print(*original)).or_default().push(place);
        }
        for (item, pair) in items.iter().zip(&mut pairs).filter(|(_, pair)| pair.is_none()) {
            if let Some(place) = elsewhere.get_mut(&self.answer.print(*item)).and_then(Vec::pop) {
                *pair = Some(originals[place]);
                free[place] = false;
            }
        }
        for (place, pair) in pairs.iter_mut().enumerate() {
            if pair.is_none() && free.get(place) == Some(&true) {
                *pair = Some(originals[place]);
            }
        }
        pairs
    }
}

/// A text with replaced parts, built from start to end.
struct Patched<'a> {
    text: &'a str,
    done: String,
    /// `text` was copied to `done` up to here.
    upto: usize,
}

impl<'a> Patched<'a> {
    fn new(text: &'a str) -> Self {
        Patched { text, done: String::with_capacity(text.len()), upto: 0 }
    }

    fn put(&mut self, start: usize, end: usize, part: &str) {
        self.done.push_str(&self.text[self.upto..start]);
        self.done.push_str(part);
        self.upto = end;
    }

    fn finish(mut self) -> String {
        self.done.push_str(&self.text[self.upto..]);
        self.done
    }
}

/// `Number.prototype.toString`.
fn written(value: f64) -> String {
    if !value.is_finite() {
        return "null".into();
    }
    if value == 0.0 {
        return "0".into();
    }
    // Rust writes the shortest digits that round-trip, as JavaScript does, and the exponent of the first digit.
    let scientific = format!("{:e}", value.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits = mantissa.replace('.', "");
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let point = exponent + 1;
    let count = digits.len() as i32;
    let text = if count <= point && point <= 21 {
        format!("{digits}{}", "0".repeat((point - count) as usize))
    } else if 0 < point && point <= 21 {
        format!("{}.{}", &digits[..point as usize], &digits[point as usize..])
    } else if -6 < point && point <= 0 {
        format!("0.{}{digits}", "0".repeat(-point as usize))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        let rest = if digits.len() > 1 { format!(".{}", &digits[1..]) } else { String::new() };
        format!("{}{rest}e{sign}{}", &digits[..1], exponent.abs())
    };
    if value < 0.0 { format!("-{text}") } else { text }
}

/// A number's digits and the position of its point, the same for all spellings of the same number.
fn normal(text: &str) -> (bool, String, i64) {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent: i64 = exponent.parse().unwrap_or(i64::MAX / 2);
    let digits = format!("{whole}{fraction}");
    let leading = digits.len() - digits.trim_start_matches('0').len();
    let point = exponent.saturating_add(whole.len() as i64 - leading as i64);
    let digits = digits.trim_matches('0').to_owned();
    if digits.is_empty() { (false, digits, 0) } else { (negative, digits, point) }
}

/// JavaScript reads and writes these unchanged.
fn is_short_integer(text: &str) -> bool {
    text.len() <= 15 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> HostMemory {
        HostMemory::new(1 << 30)
    }

    #[track_caller]
    fn check(original: &str, returned: &str, expected: &str) {
        let mut digits = Digits::default();
        digits.note(original, &memory()).unwrap();
        match digits.restore(returned, Some(original), "#") {
            Restored::Changed(text) => assert_eq!(text, expected),
            Restored::Unchanged => assert_eq!(original, expected),
            Restored::TooMany => panic!("too many"),
        }
    }

    #[test]
    fn untouched_numbers_keep_their_text() {
        let original = r#"{"a":9007199254740993,"b":12345678901234567890.123456789,"c":1.0,"d":[1e400,-1E-400,{"e":0.10}],"t":"x"}"#;
        let returned = r##"{"a":9007199254740992,"b":12345678901234567000,"c":1,"d":["#+",0,{"e":0.1}],"t":"y"}"##;
        let expected = r#"{"a":9007199254740993,"b":12345678901234567890.123456789,"c":1.0,"d":[1e400,-1E-400,{"e":0.10}],"t":"y"}"#;
        check(original, returned, expected);
    }

    #[test]
    fn changed_numbers_are_the_hooks() {
        check(
            r#"{"a":9007199254740993,"b":1.0}"#,
            r#"{"a":9007199254740994,"b":2}"#,
            r#"{"a":9007199254740994,"b":2}"#,
        );
        check(r#"{"a":1e400}"#, r#"{"a":null}"#, r#"{"a":null}"#);
        check(r#"{"a":1e400}"#, r##"{"a":"#-"}"##, r#"{"a":null}"#);
    }

    #[test]
    fn moved_numbers_keep_their_text_if_only_one_can_be_meant() {
        check(r#"{"a":9007199254740993}"#, r#"{"b":9007199254740992}"#, r#"{"b":9007199254740993}"#);
        check(r#"{"a":1.0}"#, r#"{"b":1}"#, r#"{"b":1}"#);
        let two = r#"{"a":9007199254740993,"b":9007199254740992.5}"#;
        check(two, r#"{"c":9007199254740992}"#, r#"{"c":9007199254740992}"#);
    }

    #[test]
    fn lists_are_followed_through_reordering_and_removal() {
        let original = r#"[{"id":1,"n":9007199254740993},{"id":2,"n":9007199254740992.5},{"id":3,"n":7}]"#;
        let reversed = r#"[{"id":3,"n":7},{"id":2,"n":9007199254740992},{"id":1,"n":9007199254740992}]"#;
        let expected = r#"[{"id":3,"n":7},{"id":2,"n":9007199254740992.5},{"id":1,"n":9007199254740993}]"#;
        check(original, reversed, expected);
        check(original, r#"[{"id":2,"n":9007199254740992}]"#, r#"[{"id":2,"n":9007199254740992.5}]"#);
    }

    #[test]
    fn what_came_back_as_it_was_is_unchanged() {
        let mut digits = Digits::default();
        let original = r#"{"a":[1.0,{"b":9007199254740993}],"c":1e400}"#;
        digits.note(original, &memory()).unwrap();
        let returned = r##"{"c":"#+","a":[1,{"b":9007199254740992}]}"##;
        assert_eq!(digits.restore(returned, Some(original), "#"), Restored::Unchanged);
    }

    #[test]
    fn deep_lists_take_one_pass() {
        // 120 lists in each other, the innermost with 30,000 numbers, and one of them changed: comparing each level's
        // content anew would take minutes.
        let inner = |first: &str| format!("{first}{}", ",1.0".repeat(30_000));
        let nested = |first: &str| format!("{}{}{}", "[1,".repeat(120), inner(first), "]".repeat(120));
        let (original, returned) = (nested("7.0"), nested("8").replace("1.0", "1"));
        let mut digits = Digits::default();
        digits.note(&original, &memory()).unwrap();
        let start = std::time::Instant::now();
        let restored = digits.restore(&returned, Some(&original), "#");
        assert_eq!(restored, Restored::Changed(nested("8")));
        assert!(start.elapsed().as_secs() < 2, "{:?}", start.elapsed());
    }

    #[test]
    fn beyond_the_budget_only_what_is_certain_is_put_back() {
        let many = format!("[{}1.0]", "0,".repeat(super::super::nodes::NODES_MAX));
        let mut digits = Digits::default();
        digits.note(&many, &memory()).unwrap();
        digits.note("[9007199254740993]", &memory()).unwrap();
        let returned = many.replace("1.0", "9007199254740992");
        let expected = many.replace("1.0", "9007199254740993");
        assert_eq!(digits.restore(&returned, Some(&many), "#"), Restored::Changed(expected));
        digits.note("[9007199254740992.5]", &memory()).unwrap();
        assert_eq!(digits.restore(&returned, Some(&many), "#"), Restored::TooMany);
        assert_eq!(digits.restore("[9007199254740992]", None, "#"), Restored::Changed("[9007199254740992]".into()));
    }

    #[test]
    fn writes_numbers_as_javascript_does() {
        let cases = [
            (1.0, "1"),
            (-1.5, "-1.5"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (1.25e-7, "1.25e-7"),
            (0.000001, "0.000001"),
            (123456.789, "123456.789"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
        ];
        for (value, text) in cases {
            assert_eq!(written(value), text);
        }
    }

    #[test]
    fn ordinary_data_needs_no_work() {
        let mut digits = Digits::default();
        digits.note(r#"{"a":1,"b":-2.5,"c":"9007199254740993","d":[0.1,1e+21]}"#, &memory()).unwrap();
        assert!(digits.is_plain());
        digits.note(r#"{"a":"\"1.0","b":1.0}"#, &memory()).unwrap();
        assert!(!digits.is_plain());
    }
}
