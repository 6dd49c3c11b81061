//! Builds serde_json's trees.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

use super::reader::Build;

/// Digits that always fit 64 bits.
const SHORT_DIGITS_MAX: usize = 18;

pub(super) struct Trees;

impl Build for Trees {
    type Value = Value;
    type List = Vec<Value>;
    type Object = Map<String, Value>;

    fn null(&mut self) -> Value {
        Value::Null
    }

    fn boolean(&mut self, value: bool) -> Value {
        Value::Bool(value)
    }

    fn number(&mut self, text: &str) -> Value {
        Value::Number(number(text))
    }

    fn string(&mut self, text: Cow<'_, str>) -> Value {
        Value::String(text.into_owned())
    }

    fn item(&mut self, list: &mut Vec<Value>, item: Value) {
        list.push(item);
    }

    fn list(&mut self, list: Vec<Value>) -> Value {
        Value::Array(list)
    }

    fn member(&mut self, object: &mut Map<String, Value>, name: Cow<'_, str>, value: Value) -> bool {
        object.insert(name.into_owned(), value).is_none()
    }

    fn object(&mut self, object: Map<String, Value>) -> Value {
        Value::Object(object)
    }
}

/// The text is a JSON number.
fn number(text: &str) -> Number {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_short = digits.len() <= SHORT_DIGITS_MAX && text != "-0" && digits.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<i64>() {
        Ok(number) if is_short => number.into(),
        _ => text.parse().unwrap_or_else(|_| Number::from(0)),
    }
}
