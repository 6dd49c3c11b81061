//! Equality as JSON Schema defines it: numbers by value, objects without order. Linear in the size of the values.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher};

use serde_json::{Number, Value};

use crate::budget::{enter, spend, text_steps};

/// A value with this equality and a matching hash.
#[derive(Clone, Copy)]
pub(crate) struct Meaning<'a>(pub(crate) &'a Value);

impl PartialEq for Meaning<'_> {
    fn eq(&self, other: &Self) -> bool {
        equal(self.0, other.0)
    }
}

impl Eq for Meaning<'_> {}

impl Hash for Meaning<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        enter();
        match self.0 {
            Value::Null => state.write_u8(0),
            Value::Bool(value) => state.write_u8(1 + u8::from(*value)),
            Value::Number(number) => Decimal::of(number).hash(state),
            Value::String(text) => {
                spend(text_steps(text.len()));
                state.write_u8(4);
                text.hash(state);
            }
            Value::Array(items) => {
                state.write_u8(5);
                state.write_usize(items.len());
                for item in items {
                    Meaning(item).hash(state);
                }
            }
            Value::Object(members) => {
                // The sum does not depend on the order. The keys of the inner hasher are random, so nobody can
                // choose members whose sums are equal.
                let sum = members.iter().fold(0u64, |sum, (name, value)| {
                    spend(text_steps(name.len()));
                    sum.wrapping_add(KEYS.with(|keys| keys.hash_one((name, Meaning(value)))))
                });
                state.write_u8(6);
                state.write_u64(sum);
            }
        }
    }
}

thread_local! {
    static KEYS: std::hash::RandomState = std::hash::RandomState::new();
}

/// Whether no two items are equal.
pub(crate) fn is_unique(items: &[Value]) -> bool {
    let mut seen = HashSet::with_capacity(items.len().min(1024));
    items.iter().all(|item| seen.insert(Meaning(item)))
}

pub(crate) fn equal(left: &Value, right: &Value) -> bool {
    enter();
    match (left, right) {
        (Value::String(left), Value::String(right)) => {
            spend(text_steps(left.len().min(right.len())));
            left == right
        }
        (Value::Number(left), Value::Number(right)) => Decimal::of(left) == Decimal::of(right),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, left)| right.get(name).is_some_and(|right| equal(left, right)))
        }
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Null, Value::Null) => true,
        _ => false,
    }
}

/// `[-] digits × 10^exponent` with no zeros at either end: exact, whatever the size.
struct Decimal<'a> {
    negative: bool,
    /// Digits before and after the point.
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i128,
}

impl PartialEq for Decimal<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.negative == other.negative && self.exponent == other.exponent && self.digits().eq(other.digits())
    }
}

impl Decimal<'_> {
    fn digits(&self) -> impl Iterator<Item = &u8> {
        self.whole.iter().chain(self.fraction)
    }

    fn of(number: &Number) -> Decimal<'_> {
        let text = number.as_str();
        spend(text_steps(text.len()) + text.len() as u64 / 16);
        let (negative, text) = match text.strip_prefix('-') {
            Some(text) => (true, text),
            None => (false, text),
        };
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let written =
            exponent.parse::<i128>().unwrap_or(if exponent.starts_with('-') { i128::MIN / 2 } else { i128::MAX / 2 });
        let fraction_length = fraction.len() as i128;
        let whole = whole.trim_start_matches('0');
        let mut fraction = fraction.trim_end_matches('0');
        if whole.is_empty() {
            fraction = fraction.trim_start_matches('0');
        }
        let mut exponent = written - fraction_length;
        let mut kept = whole;
        if fraction.is_empty() {
            kept = whole.trim_end_matches('0');
            exponent += fraction_length + (whole.len() - kept.len()) as i128;
        } else {
            let trailing = mantissa.len() - mantissa.trim_end_matches('0').len();
            exponent += trailing as i128;
        }
        if kept.is_empty() && fraction.is_empty() {
            return Decimal { negative: false, whole: &[], fraction: &[], exponent: 0 };
        }
        Decimal { negative, whole: kept.as_bytes(), fraction: fraction.as_bytes(), exponent }
    }
}

impl Hash for Decimal<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(3);
        state.write_u8(u8::from(self.negative));
        state.write_i128(self.exponent);
        // The digits as one text: the position of the decimal point is part of the exponent.
        self.digits().for_each(|digit| state.write_u8(*digit));
        state.write_u8(b'.');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    fn hash(text: &str) -> u64 {
        KEYS.with(|keys| keys.hash_one(Meaning(&value(text))))
    }

    #[test]
    fn what_is_equal_is_hashed_alike() {
        let classes: &[&[&str]] = &[
            &["0", "-0", "0.0", "0e5", "-0.000e-3"],
            &["1", "1.0", "10e-1", "0.1e1", "100E-2", "0.0001e4"],
            &["-1", "-1.00", "-10e-1"],
            &["10", "1e1", "1.0e1", "10.0"],
            &["123.45", "12345e-2", "1.2345e2", "123.4500", "0.12345e3"],
            &["9007199254740993", "9007199254740993.0", "9.007199254740993e15"],
            &["9007199254740992"],
            &["1e400", "10e399", "0.1e401"],
            &["1e401"],
            &["1e999999999", "10e999999998"],
            &["1e-999999999"],
            &["12345678901234567890123", "12345678901234567890123.0", "1234567890123456789012.3e1"],
            &["12345678901234567890124"],
            &["\"1\""],
            &["true"],
            &["null"],
            &["[]"],
            &["{}"],
            &["[1,2]", "[1.0,2.0]"],
            &["[2,1]"],
            &[r#"{"a":1,"b":[1e400]}"#, r#"{"b":[10e399],"a":1.0}"#],
            &[r#"{"a":[1e400],"b":1}"#],
        ];
        for (row, class) in classes.iter().enumerate() {
            for (other, others) in classes.iter().enumerate() {
                for (left, right) in class.iter().flat_map(|left| others.iter().map(move |right| (left, right))) {
                    assert_eq!(equal(&value(left), &value(right)), row == other, "{left} and {right}");
                    assert_eq!(hash(left) == hash(right), row == other, "{left} and {right}");
                }
            }
        }
    }

    #[test]
    fn many_items_that_only_differ_beyond_floats_take_no_time() {
        let items: Vec<Value> = (0..100_000).map(|n| value(&format!("123456789012345678901{n:06}"))).collect();
        let started = crate::budget::thread_time();
        assert!(is_unique(&items));
        assert!(crate::budget::thread_time() - started < std::time::Duration::from_secs(1));
        assert!(!is_unique(&[items, vec![value("123456789012345678901000000.0")]].concat()));
    }
}
