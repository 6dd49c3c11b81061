//! Compares values of instances: this code defines the meaning of [`Operator`] and of sort orders.
//!
//! Drivers that evaluate in memory call it; drivers that pass queries to a database must agree with it, and the
//! conformance suite checks that they do.
//!
//! Invariant: [`compare`] is a total order over the results of [`InstanceView::find`]: booleans, then numbers, then
//! strings, then arrays and objects (all equal to each other here), then nothing.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use crate::event::Position;
use crate::filter::Operator;
pub use crate::fold::{fold_case, fold_char};
pub use crate::like::{Pattern, like};
use crate::model_store::{Instance, SortKey};
use crate::number::Decimal;
pub use crate::number::number_key;
use crate::path::{Meta, Path};
use crate::time::Millis;

/// The view of an instance for filters and sort orders.
#[derive(Clone, Copy, Debug)]
pub struct InstanceView<'a> {
    pub id: &'a str,
    pub created_at: Millis,
    pub updated_at: Millis,
    pub revision: u64,
    pub position: Position,
    pub data: &'a Value,
}

/// The value at a path, in the data or among the instance's other fields.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    Bool(bool),
    Integer(i64),
    Number(&'a Number),
    Text(&'a str),
    Array(&'a [Value]),
    Object,
    /// Treated as absent.
    Null,
}

impl<'a> InstanceView<'a> {
    /// An instance with its parsed data.
    pub fn new(instance: &'a Instance, data: &'a Value) -> Self {
        let Instance { id, created_at, updated_at, revision, position, .. } = instance;
        InstanceView {
            id,
            created_at: *created_at,
            updated_at: *updated_at,
            revision: *revision,
            position: *position,
            data,
        }
    }

    /// The value at a path; `None` if it is absent or null.
    pub fn find(&self, path: &Path) -> Option<Found<'a>> {
        // No store contains larger numbers.
        let whole = |number: u64| Found::Integer(i64::try_from(number).unwrap_or(i64::MAX));
        match path {
            Path::Data(names) => lookup(self.data, names).map(Found::from),
            Path::Meta(Meta::Id) => Some(Found::Text(self.id)),
            Path::Meta(Meta::CreatedAt) => Some(Found::Integer(self.created_at)),
            Path::Meta(Meta::UpdatedAt) => Some(Found::Integer(self.updated_at)),
            Path::Meta(Meta::Revision) => Some(whole(self.revision)),
            Path::Meta(Meta::Position) => Some(whole(self.position)),
        }
    }
}

impl<'a> From<&'a Value> for Found<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Found::Null,
            Value::Bool(value) => Found::Bool(*value),
            Value::Number(number) => Found::Number(number),
            Value::String(text) => Found::Text(text),
            Value::Array(items) => Found::Array(items),
            Value::Object(_) => Found::Object,
        }
    }
}

impl Found<'_> {
    /// JSON that compares equally: arrays and objects, which are all equal, become an empty array.
    pub fn to_value(self) -> Value {
        match self {
            Found::Bool(value) => Value::Bool(value),
            Found::Integer(number) => Value::from(number),
            Found::Number(number) => Value::Number(number.clone()),
            Found::Text(text) => Value::from(text),
            Found::Array(_) | Found::Object => Value::Array(Vec::new()),
            Found::Null => Value::Null,
        }
    }

    fn class(self) -> u8 {
        match self {
            Found::Bool(_) => 0,
            Found::Integer(_) | Found::Number(_) => 1,
            Found::Text(_) => 2,
            Found::Array(_) | Found::Object => 3,
            Found::Null => 4,
        }
    }

    /// Order of two values of one class.
    fn within_class(self, other: Found<'_>) -> Ordering {
        match (self, other) {
            (Found::Bool(left), Found::Bool(right)) => left.cmp(&right),
            (Found::Integer(left), Found::Integer(right)) => left.cmp(&right),
            (Found::Number(left), Found::Number(right)) => compare_numbers(left, right),
            (Found::Integer(left), Found::Number(right)) => compare_whole(left, right),
            (Found::Number(left), Found::Integer(right)) => compare_whole(right, left).reverse(),
            // UTF-8 bytes have the same order as code points.
            (Found::Text(left), Found::Text(right)) => left.cmp(right),
            _ => Ordering::Equal,
        }
    }

    /// Only scalars of one type compare; arrays and objects equal nothing.
    fn is(self, operand: &Value, wanted: fn(Ordering) -> bool) -> bool {
        let operand = Found::from(operand);
        self.class() == operand.class() && self.class() < 3 && wanted(self.within_class(operand))
    }
}

/// The value at a path of property names; `None` if it is absent or null.
pub fn lookup<'a>(data: &'a Value, names: &[String]) -> Option<&'a Value> {
    names.iter().try_fold(data, |value, name| value.get(name.as_str())).filter(|value| !value.is_null())
}

/// Order of two instances under sort keys; equal if no key distinguishes them.
pub fn order(left: &InstanceView<'_>, right: &InstanceView<'_>, sort: &[SortKey]) -> Ordering {
    sort.iter()
        .map(|key| compare(left.find(&key.path), right.find(&key.path), key.descending))
        .find(|ordering| ordering.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Order of two values under one sort key. Types keep their order and nothing comes last in either direction.
pub fn compare(left: Option<Found<'_>>, right: Option<Found<'_>>, descending: bool) -> Ordering {
    let (left, right) = (left.unwrap_or(Found::Null), right.unwrap_or(Found::Null));
    left.class().cmp(&right.class()).then_with(|| {
        let ordering = left.within_class(right);
        if descending { ordering.reverse() } else { ordering }
    })
}

/// Whether a value (`None`: absent or null) meets an operator.
pub fn holds(value: Option<Found<'_>>, operator: &Operator) -> bool {
    let Some(value) = value else {
        return matches!(operator, Operator::Exists(false));
    };
    match operator {
        Operator::Eq(operand) => value.is(operand, Ordering::is_eq),
        Operator::Ne(operand) => !value.is(operand, Ordering::is_eq),
        Operator::Lt(operand) => value.is(operand, Ordering::is_lt),
        Operator::Lte(operand) => value.is(operand, Ordering::is_le),
        Operator::Gt(operand) => value.is(operand, Ordering::is_gt),
        Operator::Gte(operand) => value.is(operand, Ordering::is_ge),
        Operator::In(operands) => operands.iter().any(|operand| value.is(operand, Ordering::is_eq)),
        Operator::Nin(operands) => !operands.iter().any(|operand| value.is(operand, Ordering::is_eq)),
        Operator::Like(pattern) => matches!(value, Found::Text(text) if like(pattern, text)),
        Operator::Ilike(pattern) => matches!(value, Found::Text(text) if Pattern::ignoring_case(pattern).matches(text)),
        Operator::Has(operand) => {
            matches!(value, Found::Array(items) if items.iter().any(|item| Found::from(item).is(operand, Ordering::is_eq)))
        }
        Operator::Exists(wanted) => *wanted,
    }
}

/// Compares two JSON numbers by value, however many digits they have.
pub fn compare_numbers(left: &Number, right: &Number) -> Ordering {
    if let (Some(left), Some(right)) = (left.as_i64(), right.as_i64()) {
        return left.cmp(&right);
    }
    Decimal::parse(left.as_str()).cmp(&Decimal::parse(right.as_str()))
}

fn compare_whole(left: i64, right: &Number) -> Ordering {
    match right.as_i64() {
        Some(right) => left.cmp(&right),
        None => Decimal::parse(&left.to_string()).cmp(&Decimal::parse(right.as_str())),
    }
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
        let number = |text: &str| text.parse::<Number>().unwrap();
        for (i, left) in sorted.iter().enumerate() {
            for (j, right) in sorted.iter().enumerate() {
                assert_eq!(compare_numbers(&number(left), &number(right)), i.cmp(&j), "{left} to {right}");
            }
        }
        for (left, right) in [("1", "1.0"), ("100", "1e2"), ("0", "-0.0"), ("0.001", "1E-3"), ("120", "1.2e+2")] {
            assert_eq!(compare_numbers(&number(left), &number(right)), Ordering::Equal, "{left} and {right}");
        }
    }
}
