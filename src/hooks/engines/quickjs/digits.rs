//! Numbers that JavaScript cannot hold keep their digits.
//!
//! JavaScript reads 9007199254740993 as 9007199254740992 and writes 1.0 as 1. The data that a hook hands back is
//! compared with the data that it got: where a number is, for JavaScript, the one that was there, its text is put back. A
//! number that moved, into another property or another place of a list, gets its text back if only one text can be
//! meant.

use std::collections::HashMap;

use serde_json::{Number, Value};

/// The texts of the numbers that a call was given and that JavaScript changes.
#[derive(Debug, Default)]
pub(super) struct Digits {
    /// There is a number whose text changes, if only from `1.0` to `1`.
    reformatted: bool,
    /// By the number that JavaScript makes of them: those that lose digits. `None`: two texts become the same number.
    lossy: HashMap<u64, Option<Number>>,
}

impl Digits {
    /// Notes the numbers of one JSON text that the hook gets.
    pub(super) fn note(&mut self, json: &str) {
        for text in numbers(json) {
            if is_short_integer(text) {
                continue;
            }
            let value: f64 = text.parse().unwrap_or(f64::NAN);
            let written = written(value);
            if written == text {
                continue;
            }
            self.reformatted = true;
            if value.is_finite() && normal(&written) == normal(text) {
                continue;
            }
            let Ok(number) = serde_json::from_str::<Number>(text) else { continue };
            let known = self.lossy.entry(value.to_bits()).or_insert_with(|| Some(number.clone()));
            if known.as_ref().is_some_and(|known| *known != number) {
                *known = None;
            }
        }
    }

    /// Whether nothing needs to be put back.
    pub(super) fn is_plain(&self) -> bool {
        !self.reformatted
    }

    /// Whether there is a number that becomes infinite, which JSON cannot say.
    pub(super) fn has_infinite(&self) -> bool {
        [f64::INFINITY, f64::NEG_INFINITY].iter().any(|value| self.lossy.contains_key(&value.to_bits()))
    }

    /// Puts texts back into `data`. `original`: what stood there. `marker`: the word that stands for an infinite number.
    pub(super) fn restore(&self, data: &mut Value, original: Option<&Value>, marker: &str) {
        match data {
            Value::Number(number) => {
                let value = value_of(number);
                match original {
                    Some(Value::Number(before)) if value_of(before) == value => *number = before.clone(),
                    _ => {
                        if let Some(Some(known)) = self.lossy.get(&value.to_bits()) {
                            *number = known.clone();
                        }
                    }
                }
            }
            Value::String(text) => {
                let infinite = match text.strip_prefix(marker).filter(|_| !marker.is_empty()) {
                    Some("+") => f64::INFINITY,
                    Some("-") => f64::NEG_INFINITY,
                    _ => return,
                };
                *data = match original {
                    Some(Value::Number(before)) if value_of(before) == infinite => Value::Number(before.clone()),
                    // Like JSON.stringify, if it is the hook's own.
                    _ => self.lossy.get(&infinite.to_bits()).cloned().flatten().map_or(Value::Null, Value::Number),
                };
            }
            Value::Object(members) => {
                for (name, member) in members {
                    self.restore(member, original.and_then(|original| original.get(name)), marker);
                }
            }
            Value::Array(items) => {
                let originals = original.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let pairs = pair(items, originals);
                for (item, pair) in items.iter_mut().zip(pairs) {
                    self.restore(item, pair.map(|index| &originals[index]), marker);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }
}

/// For each item the original that it was: the same place if it is the same there, the same item elsewhere, or the same
/// place if nothing else claims it.
fn pair(items: &[Value], originals: &[Value]) -> Vec<Option<usize>> {
    let mut pairs = vec![None; items.len()];
    let mut free: Vec<bool> = vec![true; originals.len()];
    for (index, (item, original)) in items.iter().zip(originals).enumerate() {
        if same(item, original) {
            pairs[index] = Some(index);
            free[index] = false;
        }
    }
    if free.iter().all(|free| !free) {
        return pairs;
    }
    let mut elsewhere: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, original) in originals.iter().enumerate().rev().filter(|(index, _)| free[*index]) {
        elsewhere.entry(projected(original)).or_default().push(index);
    }
    for (index, item) in items.iter().enumerate().filter(|(index, _)| pairs[*index].is_none()).collect::<Vec<_>>() {
        if let Some(found) = elsewhere.get_mut(&projected(item)).and_then(Vec::pop) {
            pairs[index] = Some(found);
            free[found] = false;
        }
    }
    for (index, pair) in pairs.iter_mut().enumerate() {
        if pair.is_none() && free.get(index) == Some(&true) {
            *pair = Some(index);
        }
    }
    pairs
}

/// Equal as JavaScript sees it.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => value_of(a) == value_of(b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// The text that JavaScript would make of it.
fn projected(value: &Value) -> String {
    fn project(value: &mut Value) {
        match value {
            Value::Number(number) => {
                let text = written(value_of(number));
                *value = serde_json::from_str(&text).map_or(Value::Null, Value::Number);
            }
            Value::Array(items) => items.iter_mut().for_each(project),
            Value::Object(members) => members.values_mut().for_each(project),
            _ => {}
        }
    }
    let mut value = value.clone();
    project(&mut value);
    value.to_string()
}

/// As JavaScript reads it: out of range is infinite. Minus zero is zero, as it is written.
fn value_of(number: &Number) -> f64 {
    let value: f64 = number.as_str().parse().unwrap_or(f64::NAN);
    if value == 0.0 { 0.0 } else { value }
}

/// `Number.prototype.toString`.
fn written(value: f64) -> String {
    if !value.is_finite() {
        return "null".into();
    }
    if value == 0.0 {
        return "0".into();
    }
    // Rust gives the shortest digits that lead back, as JavaScript does, and the exponent of the first.
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

/// A number's digits and the place of its point, the same for all ways to write the same number.
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

/// JavaScript holds and writes these as they are.
fn is_short_integer(text: &str) -> bool {
    text.len() <= 15 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The texts of all numbers in a JSON text.
fn numbers(json: &str) -> impl Iterator<Item = &str> {
    let bytes = json.as_bytes();
    let mut index = 0;
    std::iter::from_fn(move || {
        while index < bytes.len() {
            match bytes[index] {
                b'"' => index = end_of_text(bytes, index),
                b'-' | b'0'..=b'9' => {
                    let start = index;
                    while index < bytes.len() && matches!(bytes[index], b'-' | b'+' | b'.' | b'0'..=b'9' | b'e' | b'E')
                    {
                        index += 1;
                    }
                    return Some(&json[start..index]);
                }
                _ => index += 1,
            }
        }
        None
    })
}

fn end_of_text(bytes: &[u8], start: usize) -> usize {
    let mut index = start + 1;
    while index < bytes.len() && bytes[index] != b'"' {
        index += if bytes[index] == b'\\' { 2 } else { 1 };
    }
    index + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(original: &str, returned: &str, expected: &str) {
        let mut digits = Digits::default();
        digits.note(original);
        let mut value: Value = serde_json::from_str(returned).unwrap();
        digits.restore(&mut value, Some(&serde_json::from_str(original).unwrap()), "#");
        assert_eq!(value.to_string(), expected);
    }

    #[test]
    fn untouched_numbers_keep_their_text() {
        let original = r#"{"a":9007199254740993,"b":12345678901234567890.123456789,"c":1.0,"d":[1e400,-1E-400,{"e":0.10}],"t":"x"}"#;
        let returned = r##"{"a":9007199254740992,"b":12345678901234567000,"c":1,"d":["#+",0,{"e":0.1}],"t":"y"}"##;
        // serde_json writes the exponent its own way; the digits are the author's.
        let expected = r#"{"a":9007199254740993,"b":12345678901234567890.123456789,"c":1.0,"d":[1e+400,-1e-400,{"e":0.10}],"t":"y"}"#;
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
        digits.note(r#"{"a":1,"b":-2.5,"c":"9007199254740993","d":[0.1,1e+21]}"#);
        assert!(digits.is_plain());
        digits.note(r#"{"a":"\"1.0","b":1.0}"#);
        assert!(!digits.is_plain());
    }
}
