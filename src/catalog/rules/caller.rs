//! Conditions on the caller: its values compared with constants.

use std::collections::BTreeSet;

use serde_json::Value;

use super::rule::{Class, Operand, Test};
use super::values::{Kind, OPERATORS, Result, comparison, constant, error, list, pattern, shown};

/// Constants to compare with the caller's value, all of one type.
pub(super) fn test_of_caller(operator: &str, value: &Value, pointer: &str) -> Result<Test> {
    let constant = |value: &Value, pointer: &str| match value {
        Value::String(text) if text.starts_with('$') && !text.starts_with("$$") => {
            error(pointer, "a value of the caller can only be compared with constants; put it on the other side")
        }
        value => constant(&Kind::Types(BTreeSet::new()), unescaped(value).as_ref().unwrap_or(value), pointer),
    };
    if let Some(comparison) = comparison(operator) {
        return Ok(Test::One(comparison, constant(value, pointer)?));
    }
    match operator {
        "in" | "nin" => {
            let items = list(value, pointer)?.map(|(item, pointer)| constant(item, &pointer));
            let items = items.collect::<Result<Vec<_>>>()?;
            let class = |item: &Operand| match item {
                Operand::Constant(value) => Class::of(value),
                _ => None,
            };
            let classes: BTreeSet<_> = items.iter().map(class).collect();
            match classes.len() {
                1 => Ok(Test::Among(operator == "in", items)),
                0 => error(pointer, "the list is empty"),
                _ => error(pointer, "the list has values of several types, expected one type"),
            }
        }
        "like" | "ilike" => pattern(operator, value, pointer),
        "has" => Ok(Test::Has(constant(value, pointer)?)),
        "exists" => error(
            pointer,
            "`exists` does not apply to the caller: an unknown value matches nothing; compare it with a value",
        ),
        other => error(pointer, format!("`{}` is not an operator, expected one of {OPERATORS}", shown(other))),
    }
}

fn unescaped(value: &Value) -> Option<Value> {
    value.as_str()?.strip_prefix('$').filter(|rest| rest.starts_with('$')).map(Value::from)
}
