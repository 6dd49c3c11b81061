//! How values of instances compare: the one meaning of [`Operator`] and of sort orders.
//!
//! Drivers that evaluate in memory call this; drivers that hand queries to a database must agree with it, and the
//! conformance suite checks that they do.
//!
//! Invariant: [`compare`] is a total order over what [`lookup`] can give: booleans, then numbers, then strings,
//! then arrays and objects (all equal to each other here), then nothing.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use crate::model_store::{Condition, Operator, SortKey};

/// The value at a path of property names; `None` if it is absent or null.
pub fn lookup<'a>(data: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(data, |value, name| value.get(name.as_str())).filter(|value| !value.is_null())
}

/// Whether an instance's data meets every condition.
pub fn matches(data: &Value, filter: &[Condition]) -> bool {
    filter.iter().all(|condition| holds(lookup(data, &condition.path), &condition.operator))
}

/// Order of two instances' data under sort keys; equal if no key tells them apart.
pub fn order(left: &Value, right: &Value, sort: &[SortKey]) -> Ordering {
    sort.iter()
        .map(|key| compare(lookup(left, &key.path), lookup(right, &key.path), key.descending))
        .find(|ordering| ordering.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Order of two values under one sort key. Types keep their order and nothing comes last in either direction.
pub fn compare(left: Option<&Value>, right: Option<&Value>, descending: bool) -> Ordering {
    class(left).cmp(&class(right)).then_with(|| {
        let ordering = match (left, right) {
            (Some(left), Some(right)) => within_class(left, right),
            _ => Ordering::Equal,
        };
        if descending { ordering.reverse() } else { ordering }
    })
}

/// Whether a value (`None`: absent or null) meets an operator.
pub fn holds(value: Option<&Value>, operator: &Operator) -> bool {
    let Some(value) = value else {
        return matches!(operator, Operator::Exists(false));
    };
    let is = |operand: &Value, wanted: fn(Ordering) -> bool| {
        comparable(value, operand) && wanted(within_class(value, operand))
    };
    match operator {
        Operator::Eq(operand) => is(operand, Ordering::is_eq),
        Operator::Ne(operand) => !is(operand, Ordering::is_eq),
        Operator::Lt(operand) => is(operand, Ordering::is_lt),
        Operator::Lte(operand) => is(operand, Ordering::is_le),
        Operator::Gt(operand) => is(operand, Ordering::is_gt),
        Operator::Gte(operand) => is(operand, Ordering::is_ge),
        Operator::In(operands) => operands.iter().any(|operand| is(operand, Ordering::is_eq)),
        Operator::Nin(operands) => !operands.iter().any(|operand| is(operand, Ordering::is_eq)),
        Operator::Like(pattern) => value.as_str().is_some_and(|text| like(pattern, text)),
        Operator::Exists(wanted) => *wanted,
    }
}

/// Whether the whole of `text` fits `pattern`: `%` is any text, `_` one character, `\` takes the next character
/// literally (a `\` at the very end is itself).
pub fn like(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Where to go on after a mismatch: behind the last `%`, one character of text further. Only the last one
    // matters, so the time is at most the product of the two lengths.
    let mut retry: Option<(&str, &str)> = None;
    loop {
        let mut rest = pattern.chars();
        let matched = match rest.next() {
            Some('%') => {
                retry = Some((rest.as_str(), text));
                pattern = rest.as_str();
                continue;
            }
            None if text.is_empty() => return true,
            None => None,
            Some(wanted) => {
                let wanted = match wanted {
                    '_' => None,
                    '\\' => Some(rest.next().unwrap_or('\\')),
                    literal => Some(literal),
                };
                let mut chars = text.chars();
                chars.next().filter(|found| wanted.is_none_or(|wanted| wanted == *found)).map(|_| chars.as_str())
            }
        };
        match (matched, retry) {
            (Some(remaining), _) => (pattern, text) = (rest.as_str(), remaining),
            (None, Some((behind, from))) => {
                let mut chars = from.chars();
                if chars.next().is_none() {
                    return false;
                }
                retry = Some((behind, chars.as_str()));
                (pattern, text) = (behind, chars.as_str());
            }
            (None, None) => return false,
        }
    }
}

/// Compares two JSON numbers by value, however many digits they have.
pub fn compare_numbers(left: &Number, right: &Number) -> Ordering {
    if let (Some(left), Some(right)) = (left.as_i64(), right.as_i64()) {
        return left.cmp(&right);
    }
    Decimal::parse(&left.to_string()).cmp(&Decimal::parse(&right.to_string()))
}

fn class(value: Option<&Value>) -> u8 {
    match value {
        Some(Value::Bool(_)) => 0,
        Some(Value::Number(_)) => 1,
        Some(Value::String(_)) => 2,
        Some(Value::Array(_) | Value::Object(_)) => 3,
        Some(Value::Null) | None => 4,
    }
}

/// Only scalars of one type compare; arrays and objects equal nothing.
fn comparable(left: &Value, right: &Value) -> bool {
    class(Some(left)) == class(Some(right)) && class(Some(left)) < 3
}

fn within_class(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Number(left), Value::Number(right)) => compare_numbers(left, right),
        // The bytes of UTF-8 order like its code points.
        (Value::String(left), Value::String(right)) => left.cmp(right),
        _ => Ordering::Equal,
    }
}

/// A number as sign, magnitude and digits: `0.DIGITS × 10^magnitude`, digits without zeros at either end.
///
/// Invariant: zero has no digits, is not negative and has magnitude 0.
#[derive(PartialEq, Eq)]
struct Decimal {
    negative: bool,
    magnitude: i64,
    digits: Vec<u8>,
}

impl Decimal {
    /// Takes the text of a JSON number.
    fn parse(text: &str) -> Decimal {
        let (negative, text) = match text.strip_prefix('-') {
            Some(text) => (true, text),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], parse_exponent(&text[at + 1..])),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let leading = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..leading);
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.is_empty() {
            return Decimal { negative: false, magnitude: 0, digits };
        }
        let magnitude = exponent.saturating_add(whole.len() as i64).saturating_sub(leading as i64);
        Decimal { negative, magnitude, digits }
    }

    /// Order by distance from zero.
    fn cmp_size(&self, other: &Decimal) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.magnitude.cmp(&other.magnitude).then_with(|| self.digits.cmp(&other.digits)),
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.cmp_size(other),
            (true, true) => other.cmp_size(self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// An exponent that does not fit is so far out that its sign decides.
fn parse_exponent(text: &str) -> i64 {
    text.strip_prefix('+').unwrap_or(text).parse().unwrap_or(if text.starts_with('-') { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_by_value_whatever_their_digits() {
        let sorted = [
            "-1e400",
            "-12345678901234567890.5",
            "-12345678901234567890",
            "-1",
            "-1e-400",
            "0",
            "1e-400",
            "0.1",
            "0.10000000000000000001",
            "1",
            "9007199254740992",
            "9007199254740993",
            "9223372036854775807",
            "9223372036854775808",
            "12345678901234567890.123456789",
            "12345678901234567890.123456790",
            "1e400",
            "1e99999999999999999999",
        ];
        let number = |text: &str| serde_json::from_str::<Number>(text).unwrap();
        for (i, left) in sorted.iter().enumerate() {
            for (j, right) in sorted.iter().enumerate() {
                assert_eq!(compare_numbers(&number(left), &number(right)), i.cmp(&j), "{left} to {right}");
            }
        }
        for (left, right) in [("1", "1.0"), ("100", "1e2"), ("0", "-0.0"), ("0.001", "1E-3"), ("120", "1.2e+2")] {
            assert_eq!(compare_numbers(&number(left), &number(right)), Ordering::Equal, "{left} and {right}");
        }
    }

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
}
