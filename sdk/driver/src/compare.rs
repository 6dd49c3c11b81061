//! How values of instances compare: the one meaning of [`Operator`] and of sort orders.
//!
//! Drivers that evaluate in memory call this; drivers that hand queries to a database must agree with it, and the
//! conformance suite checks that they do.
//!
//! Invariant: [`compare`] is a total order over what [`lookup`] can give: booleans, then numbers, then strings,
//! then arrays and objects (all equal to each other here), then nothing.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use crate::budget::{Budget, Exceeded};
pub use crate::like::{Pattern, like};
use crate::model_store::{Condition, Operator, SortKey};
use crate::number::Decimal;
pub use crate::number::number_key;

/// The value at a path of property names; `None` if it is absent or null.
pub fn lookup<'a>(data: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(data, |value, name| value.get(name.as_str())).filter(|value| !value.is_null())
}

/// Whether an instance's data meets every condition.
pub fn matches(data: &Value, filter: &[Condition]) -> bool {
    filter.iter().all(|condition| holds(lookup(data, &condition.path), &condition.operator))
}

/// The same within a budget: conditions, list items and the text that patterns look at are counted.
pub fn matches_within(data: &Value, filter: &[Condition], budget: &Budget) -> Result<bool, Exceeded> {
    for condition in filter {
        let value = lookup(data, &condition.path);
        budget.charge(1 + condition.path.len() as u64)?;
        let holds = match (&condition.operator, value) {
            (Operator::Like(pattern), Some(Value::String(text))) => {
                Pattern::new(pattern).matches_within(text, budget)?
            }
            (Operator::In(operands) | Operator::Nin(operands), Some(_)) => {
                budget.charge(operands.len() as u64)?;
                holds(value, &condition.operator)
            }
            _ => holds(value, &condition.operator),
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
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
