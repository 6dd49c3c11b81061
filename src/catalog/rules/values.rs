//! Values in rules: constants, patterns, lists and references to the caller, checked against the types that they are
//! compared with.

use std::collections::BTreeSet;

use serde_json::Value;
use snaphook_driver::time;

use super::rule::{Class, Comparison, Operand, Source, Test};
use crate::catalog::definition_error::DefinitionError;
use crate::catalog::document::type_name;
use crate::catalog::path_target::PATTERN_BYTES_MAX;

pub(super) const OPERATORS: &str = "eq ne lt lte gt gte in nin like ilike has exists";

/// Values of one list.
const VALUES_MAX: usize = 200;

/// Bytes of the path of a claim.
const CLAIM_BYTES_MAX: usize = 256;

pub(super) const SCALARS: [&str; 4] = ["string", "number", "integer", "boolean"];

pub(super) type Result<T> = std::result::Result<T, DefinitionError>;

/// The possible values of a record's place.
pub(super) enum Kind {
    /// Types of JSON; empty: any.
    Types(BTreeSet<&'static str>),
    /// Milliseconds in the store, RFC 3339 outside.
    Time,
}

pub(super) fn error<T>(pointer: &str, message: impl Into<String>) -> Result<T> {
    Err(fault(pointer, message.into()))
}

pub(super) fn fault(pointer: &str, message: String) -> DefinitionError {
    DefinitionError { pointer: pointer.to_owned(), message, too_complex: false }
}

/// Parses the rest of `$actor.…`.
pub(super) fn source(name: &str, pointer: &str) -> Result<Source> {
    match (name, name.strip_prefix("claims.")) {
        ("id", _) => Ok(Source::Id),
        ("kind", _) => Ok(Source::Kind),
        (_, Some(claim)) if !claim.is_empty() && claim.len() <= CLAIM_BYTES_MAX => Ok(Source::Claim(claim.to_owned())),
        (_, Some(claim)) => {
            error(pointer, format!("the name of the claim has {} bytes, expected 1 to {CLAIM_BYTES_MAX}", claim.len()))
        }
        _ => error(
            pointer,
            format!("an actor has no `{}`, expected `$actor.id`, `$actor.kind` or `$actor.claims.…`", shown(name)),
        ),
    }
}

pub(super) fn comparison(operator: &str) -> Option<Comparison> {
    Some(match operator {
        "eq" => Comparison::Eq,
        "ne" => Comparison::Ne,
        "lt" => Comparison::Lt,
        "lte" => Comparison::Lte,
        "gt" => Comparison::Gt,
        "gte" => Comparison::Gte,
        _ => return None,
    })
}

pub(super) fn constant(kind: &Kind, value: &Value, pointer: &str) -> Result<Operand> {
    let Some(class) = Class::of(value) else {
        return error(pointer, format!("it is {}, expected a string, number or boolean", type_name(value)));
    };
    match (kind, value) {
        (Kind::Time, Value::String(text)) => match time::parse(text) {
            Some(millis) => Ok(Operand::Constant(Value::from(millis))),
            None => error(
                pointer,
                format!("`{}` is not a time, expected RFC 3339 such as 2026-01-31T12:00:00.000Z", shown(text)),
            ),
        },
        (Kind::Time, other) => error(pointer, format!("it is {}, expected a time", type_name(other))),
        (Kind::Types(types), _) => {
            let names: &[&str] = match class {
                Class::Text => &["string"],
                Class::Bool => &["boolean"],
                Class::Number => &["number", "integer"],
            };
            if !types.is_empty() && !types.iter().any(|name| SCALARS.contains(name)) {
                return no_scalar(kind, pointer);
            }
            if !types.is_empty() && !names.iter().any(|name| types.contains(name)) {
                let wanted: Vec<&str> = types.iter().copied().filter(|name| *name != "null").collect();
                return error(
                    pointer,
                    format!("it is {}, but the property is {}", type_name(value), wanted.join(" or ")),
                );
            }
            Ok(Operand::Constant(value.clone()))
        }
    }
}

pub(super) fn no_scalar<T>(kind: &Kind, pointer: &str) -> Result<T> {
    let is_array = matches!(kind, Kind::Types(types) if types.contains("array"));
    let with = if is_array { "`has` and `exists`" } else { "`exists`" };
    error(pointer, format!("the property is an array or an object, which supports only {with}"))
}

pub(super) fn allows(kind: &Kind, name: &str, pointer: &str) -> Result<()> {
    match kind {
        Kind::Types(types) if types.is_empty() || types.contains(name) => Ok(()),
        Kind::Types(types) => {
            let found: Vec<&str> = types.iter().copied().filter(|name| *name != "null").collect();
            error(pointer, format!("this needs a property of type {name}, but it is {}", found.join(" or ")))
        }
        Kind::Time => error(pointer, format!("this needs a property of type {name}, but it is a time")),
    }
}

/// A constant: `%` of a caller's value would match everything.
pub(super) fn pattern(operator: &str, value: &Value, pointer: &str) -> Result<Test> {
    match value {
        Value::String(text) if text.starts_with('$') && !text.starts_with("$$") => {
            error(pointer, "a pattern must be a constant: a value of the caller could match everything")
        }
        Value::String(text) if text.len() > PATTERN_BYTES_MAX => {
            error(pointer, format!("a pattern of {} bytes, at most {} are allowed", text.len(), PATTERN_BYTES_MAX))
        }
        Value::String(text) => Ok(Test::Like {
            pattern: text.strip_prefix('$').unwrap_or(text).to_owned(),
            ignoring_case: operator == "ilike",
        }),
        other => error(pointer, format!("it is {}, expected a string", type_name(other))),
    }
}

pub(super) fn list<'v>(value: &'v Value, pointer: &str) -> Result<impl Iterator<Item = (&'v Value, String)> + use<'v>> {
    let Value::Array(items) = value else {
        return error(pointer, format!("it is {}, expected a list or a claim", type_name(value)));
    };
    if items.len() > VALUES_MAX {
        return error(pointer, format!("{} values, at most {VALUES_MAX} are allowed", items.len()));
    }
    let pointer = pointer.to_owned();
    Ok(items.iter().enumerate().map(move |(at, item)| (item, format!("{pointer}/{at}"))))
}

pub(super) fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}
