//! The validator's view of data: a `serde_json` tree in which every access is a step of the budget.
//!
//! The library only reads values through [`Node`], so no validation can continue without spending steps.

use std::borrow::Cow;

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, Node, NodeIdentity, Object};
use serde_json::{Map, Number, Value};

use crate::budget::{enter, enter_name, spend, spend_error, text_steps};
use crate::canonical;
use crate::pattern::spend_name;

/// The representation of data for the library.
pub(crate) struct Metered;

/// One value.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a>(pub(crate) &'a Value);

pub(crate) struct Members<'a>(&'a Map<String, Value>);
pub(crate) struct Items<'a>(&'a [Value]);
pub(crate) struct MembersIter<'a>(serde_json::map::Iter<'a>);
pub(crate) struct ItemsIter<'a>(std::slice::Iter<'a, Value>);

/// Steps for exact arithmetic on a number: the number of digits when it is written out, but not more than the library
/// uses.
fn digits(text: &str) -> u64 {
    const DIGITS_MAX: u64 = 10_000;
    let exponent = match text.find(['e', 'E']) {
        None if text.len() <= 18 => return 0,
        None => 0,
        Some(at) => text[at + 1..].parse::<i64>().map_or(DIGITS_MAX, i64::unsigned_abs),
    };
    (text.len() as u64).saturating_add(exponent).min(DIGITS_MAX.max(text.len() as u64))
}

impl Json for Metered {
    type Node<'a> = Seen<'a>;
    type PreparedKey = String;
    type StringBuffer = Value;

    const KEYS_PER_LOOKUP: usize = 2;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(buffer: &mut Value, string: &str, f: impl FnOnce(Seen<'_>) -> T) -> T {
        if let Value::String(existing) = buffer {
            existing.clear();
            existing.push_str(string);
        } else {
            *buffer = Value::String(string.to_owned());
        }
        f(Seen(buffer))
    }
}

impl<'a> Node<'a, Metered> for Seen<'a> {
    type Object = Members<'a>;
    type Array = Items<'a>;
    type Number = &'a Number;

    fn as_object(&self) -> Option<Members<'a>> {
        enter();
        self.0.as_object().map(Members)
    }

    fn as_array(&self) -> Option<Items<'a>> {
        enter();
        self.0.as_array().map(|items| Items(items))
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        enter();
        let text = self.0.as_str()?;
        spend(text_steps(text.len()));
        Some(Cow::Borrowed(text))
    }

    fn as_number(&self) -> Option<&'a Number> {
        enter();
        let Value::Number(number) = self.0 else { return None };
        spend(digits(number.as_str()));
        Some(number)
    }

    fn as_boolean(&self) -> Option<bool> {
        enter();
        self.0.as_bool()
    }

    fn is_null(&self) -> bool {
        enter();
        self.0.is_null()
    }

    fn is_number(&self) -> bool {
        enter();
        self.0.is_number()
    }

    fn json_type(&self) -> JsonType {
        enter();
        match self.0 {
            Value::Null => JsonType::Null,
            Value::Bool(_) => JsonType::Boolean,
            Value::Number(_) => JsonType::Number,
            Value::String(_) => JsonType::String,
            Value::Array(_) => JsonType::Array,
            Value::Object(_) => JsonType::Object,
        }
    }

    fn string_length(&self) -> Option<u64> {
        self.as_string().map(|text| text.chars().count() as u64)
    }

    fn equals_value(&self, expected: &Value) -> bool {
        canonical::equal(self.0, expected)
    }

    /// The library only calls this when it creates an error.
    fn to_value(&self) -> Cow<'a, Value> {
        spend_error();
        Cow::Borrowed(self.0)
    }

    fn identity(&self) -> Option<NodeIdentity> {
        enter();
        Some(NodeIdentity::new(std::ptr::from_ref(self.0) as usize))
    }
}

impl<'a> Object<'a, Metered> for Members<'a> {
    type Node = Seen<'a>;
    type MemberName = &'a str;
    type MembersIter = MembersIter<'a>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, key: &String) -> Option<Seen<'a>> {
        spend(1);
        let value = self.0.get(key.as_str())?;
        enter_name(key.len());
        Some(Seen(value))
    }

    fn members(&self) -> MembersIter<'a> {
        MembersIter(self.0.iter())
    }
}

impl<'a> Iterator for MembersIter<'a> {
    type Item = (&'a str, Seen<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.0.next()?;
        enter_name(name.len());
        spend_name(name);
        Some((name, Seen(value)))
    }
}

impl<'a> Array<'a, Metered> for Items<'a> {
    type Node = Seen<'a>;
    type ElementsIter = ItemsIter<'a>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn elements(&self) -> ItemsIter<'a> {
        ItemsIter(self.0.iter())
    }

    fn is_unique(&self) -> bool {
        canonical::is_unique(self.0)
    }
}

impl<'a> Iterator for ItemsIter<'a> {
    type Item = Seen<'a>;

    fn next(&mut self) -> Option<Seen<'a>> {
        spend(1);
        self.0.next().map(Seen)
    }
}
