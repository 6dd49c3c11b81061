//! Filters of clients and hooks, checked against the schema: conditions, combined with `and`, `or` and `not`.

use std::collections::BTreeSet;

use serde_json::Value;
use snaphook_driver::{Condition, Filter, Meta, Operator, Path, json, time};

use super::document::type_name;
use super::model::Model;
use super::path_target::{PATTERN_BYTES_MAX, PathTarget, place};
use super::schema::Found;

/// Conditions of one filter.
pub const CONDITIONS_MAX: usize = 64;
/// How deep `and`, `or` and `not` may be nested.
pub const DEPTH_MAX: usize = 8;
/// Values of one `in` or `nin`.
const VALUES_MAX: usize = 1000;
/// Values of all conditions together. Stores limit the number of parameters, for example to 32,766 or 65,535.
const ALL_VALUES_MAX: usize = 5000;

/// The names of all operators.
pub const OPERATORS: &str = "eq ne lt lte gt gte in nin like ilike has exists";

/// A requested filter.
#[derive(Clone, Debug)]
pub enum FilterInput {
    Condition {
        /// Dotted, or a name with a leading `$`.
        path: String,
        operator: String,
        value: FilterValue,
    },
    And(Vec<FilterInput>),
    Or(Vec<FilterInput>),
    Not(Box<FilterInput>),
}

/// A value of a filter: text from a URL, parsed as the type in the schema, or JSON from a hook.
#[derive(Clone, Debug)]
pub enum FilterValue {
    Text(String),
    Json(Value),
}

impl Default for FilterInput {
    fn default() -> Self {
        FilterInput::And(Vec::new())
    }
}

impl FilterInput {
    fn conditions(&self) -> usize {
        match self {
            FilterInput::Condition { .. } => 1,
            FilterInput::And(parts) | FilterInput::Or(parts) => parts.iter().map(FilterInput::conditions).sum(),
            FilterInput::Not(part) => part.conditions(),
        }
    }
}

/// Checks a filter; the error is one sentence.
pub(super) fn check(model: &Model, input: &FilterInput) -> Result<Filter, String> {
    let conditions = input.conditions();
    if conditions > CONDITIONS_MAX {
        return Err(format!("the filter has {conditions} conditions, at most {CONDITIONS_MAX} are allowed"));
    }
    let filter = checked(model, input)?;
    let values = filter.size().values;
    if values > ALL_VALUES_MAX {
        return Err(format!("the filter has {values} values, at most {ALL_VALUES_MAX} are allowed"));
    }
    Ok(filter)
}

fn checked(model: &Model, input: &FilterInput) -> Result<Filter, String> {
    let all = |parts: &[FilterInput]| parts.iter().map(|part| checked(model, part)).collect::<Result<Vec<_>, _>>();
    match input {
        FilterInput::Condition { path, operator, value } => condition(model, path, operator, value),
        FilterInput::And(parts) => all(parts).map(Filter::And),
        FilterInput::Or(parts) => all(parts).map(Filter::Or),
        FilterInput::Not(part) => checked(model, part).map(|part| Filter::Not(Box::new(part))),
    }
}

/// Reads a JSON filter: `{path: {op: value}}`, whose members must all match. `and` and `or` with an array of filters,
/// and `not` with a filter, combine filters; with any other value they are property names.
pub(super) fn from_json(value: Value) -> Result<FilterInput, String> {
    object(value, "filter", DEPTH_MAX)
}

fn object(value: Value, place: &str, depth: usize) -> Result<FilterInput, String> {
    let members = match value {
        Value::Object(members) => members,
        other => return Err(format!("`{place}` is {}, expected an object of paths", type_name(&other))),
    };
    let mut parts = Vec::new();
    for (name, value) in members {
        let deeper = || {
            depth
                .checked_sub(1)
                .ok_or_else(|| format!("the filter is nested more than {DEPTH_MAX} levels deep, which is not allowed"))
        };
        match (name.as_str(), value) {
            ("and" | "or", Value::Array(items)) => {
                let depth = deeper()?;
                let filters = items.into_iter().enumerate();
                let filters = filters.map(|(index, item)| object(item, &format!("{place}.{name}.{index}"), depth));
                let filters = filters.collect::<Result<Vec<_>, _>>()?;
                parts.push(if name == "or" { FilterInput::Or(filters) } else { FilterInput::And(filters) });
            }
            ("not", Value::Object(members)) if !is_of_operators(&members) => {
                let part = object(Value::Object(members), &format!("{place}.not"), deeper()?)?;
                parts.push(FilterInput::Not(Box::new(part)));
            }
            (_, Value::Object(operators)) => {
                for (operator, value) in operators {
                    let value = FilterValue::Json(value);
                    parts.push(FilterInput::Condition { path: name.clone(), operator, value });
                }
            }
            _ => {
                return Err(format!("{place} `{name}` must be an object of operators, such as {{\"eq\": 1}}"));
            }
        }
    }
    Ok(FilterInput::And(parts))
}

/// Whether an object contains operators: `{"not": {"eq": 1}}` refers to a property named `not`.
fn is_of_operators(members: &serde_json::Map<String, Value>) -> bool {
    !members.is_empty()
        && members
            .iter()
            .all(|(name, value)| !value.is_object() && OPERATORS.split(' ').any(|operator| operator == name.as_str()))
}

pub(super) fn unknown_path(model: &Model, what: &str, path: &str) -> String {
    format!("{what}: the schema of `{}` has no property `{path}`", model.record.id)
}

fn condition(model: &Model, written: &str, name: &str, value: &FilterValue) -> Result<Filter, String> {
    let (path, kind) = match place("filter", written)? {
        PathTarget::Meta(meta) => {
            let kind = match meta {
                Meta::Id => Kind::Types(BTreeSet::from(["string"])),
                Meta::CreatedAt | Meta::UpdatedAt => Kind::Time,
                Meta::Revision | Meta::Position => Kind::Types(BTreeSet::from(["integer"])),
            };
            (Path::Meta(meta), kind)
        }
        PathTarget::Dotted(dotted) => {
            let found = model.schema.find(dotted)?;
            let Found { path, types } = found.ok_or_else(|| unknown_path(model, "filter", dotted))?;
            (Path::Data(path), Kind::Types(types))
        }
    };
    let place = format!("filter[{written}][{name}]");
    let one = || scalar(&kind, value, &place);
    let operator = match name {
        "eq" => match one()? {
            Scalar::One(value) => Operator::Eq(value),
            Scalar::Either(values) => Operator::In(values),
        },
        "ne" => match one()? {
            Scalar::One(value) => Operator::Ne(value),
            Scalar::Either(values) => Operator::Nin(values),
        },
        "lt" => Operator::Lt(one()?.first()),
        "lte" => Operator::Lte(one()?.first()),
        "gt" => Operator::Gt(one()?.first()),
        "gte" => Operator::Gte(one()?.first()),
        "in" => Operator::In(list(&kind, value, &place)?),
        "nin" => Operator::Nin(list(&kind, value, &place)?),
        "like" => Operator::Like(pattern(value, &place)?),
        "ilike" => Operator::Ilike(pattern(value, &place)?),
        "has" => return has(path, &kind, value, &place),
        "exists" => match value {
            FilterValue::Json(Value::Bool(exists)) => Operator::Exists(*exists),
            FilterValue::Text(text) if text == "true" => Operator::Exists(true),
            FilterValue::Text(text) if text == "false" => Operator::Exists(false),
            _ => return Err(format!("{place}: `true` or `false` is expected")),
        },
        other => {
            return Err(format!("filter[{written}]: unknown operator `{other}`, expected one of {OPERATORS}"));
        }
    };
    Ok(Condition { path, operator }.into())
}

/// How a value is parsed.
enum Kind {
    /// Types of JSON; empty: any.
    Types(BTreeSet<&'static str>),
    /// RFC 3339, in milliseconds for the store.
    Time,
}

fn pattern(value: &FilterValue, place: &str) -> Result<String, String> {
    match value {
        FilterValue::Text(text) | FilterValue::Json(Value::String(text)) if text.len() > PATTERN_BYTES_MAX => {
            let bytes = text.len();
            Err(format!("{place}: a pattern of {bytes} bytes, at most {PATTERN_BYTES_MAX} are allowed"))
        }
        FilterValue::Text(text) | FilterValue::Json(Value::String(text)) => Ok(text.clone()),
        FilterValue::Json(_) => Err(format!("{place}: a string is expected")),
    }
}

/// Text may represent any type of element.
fn has(path: Path, kind: &Kind, value: &FilterValue, place: &str) -> Result<Filter, String> {
    let may_be_array = matches!(kind, Kind::Types(types) if types.is_empty() || types.contains("array"));
    if !may_be_array {
        return Err(format!("{place}: `has` tests the elements of an array, but the property is not an array"));
    }
    let is = |value| Filter::from(Condition { path: path.clone(), operator: Operator::Has(value) });
    Ok(match scalar(&Kind::Types(BTreeSet::new()), value, place)? {
        Scalar::One(value) => is(value),
        Scalar::Either(values) => Filter::Or(values.into_iter().map(is).collect()),
    })
}

/// A value from a URL may represent more than one type if the schema allows several.
enum Scalar {
    One(Value),
    Either(Vec<Value>),
}

impl Scalar {
    fn first(self) -> Value {
        match self {
            Scalar::One(value) => value,
            Scalar::Either(values) => values.into_iter().next().unwrap_or(Value::Null),
        }
    }
}

fn scalar(kind: &Kind, value: &FilterValue, place: &str) -> Result<Scalar, String> {
    match (kind, value) {
        (Kind::Time, FilterValue::Text(text) | FilterValue::Json(Value::String(text))) => {
            let millis = time::parse(text).ok_or_else(|| {
                format!("{place}: `{}` is not a time, expected RFC 3339 such as 2026-01-31T12:00:00.000Z", shown(text))
            })?;
            Ok(Scalar::One(Value::from(millis)))
        }
        (Kind::Time, FilterValue::Json(_)) => {
            Err(format!("{place}: a time is expected, a string such as \"2026-01-31T12:00:00.000Z\""))
        }
        (Kind::Types(_), FilterValue::Json(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_)))) => {
            Ok(Scalar::One(value.clone()))
        }
        (Kind::Types(_), FilterValue::Json(_)) => Err(format!("{place}: a string, number or boolean is expected")),
        (Kind::Types(types), FilterValue::Text(text)) => read(types, text, place),
    }
}

/// Reads text as each type that the schema allows, numbers first.
fn read(types: &BTreeSet<&str>, text: &str, place: &str) -> Result<Scalar, String> {
    let any = types.is_empty();
    let mut values = Vec::new();
    if (any || types.contains("number") || types.contains("integer"))
        && let Some(number) = number(text)
    {
        values.push(number);
    }
    if any || types.contains("boolean") {
        match text {
            "true" => values.push(Value::Bool(true)),
            "false" => values.push(Value::Bool(false)),
            _ => {}
        }
    }
    if any || types.contains("string") {
        values.push(Value::String(text.to_owned()));
    }
    match values.len() {
        0 => {
            let wanted: Vec<&str> = types.iter().copied().filter(|name| *name != "null").collect();
            let wanted = wanted.join(" or ");
            match wanted.as_str() {
                "array" => Err(format!("{place}: the property is array, which supports only `has` and `exists`")),
                "object" | "array or object" | "" => {
                    Err(format!("{place}: the property is {wanted}, which supports only `exists`"))
                }
                _ => Err(format!("{place}: `{}` is not of type {wanted}", shown(text))),
            }
        }
        1 => Ok(Scalar::One(values.remove(0))),
        _ => Ok(Scalar::Either(values)),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Digits stay as they are.
fn number(text: &str) -> Option<Value> {
    match json::parse(text) {
        Ok(value @ Value::Number(_)) if !text.starts_with(char::is_whitespace) => Some(value),
        _ => None,
    }
}

fn list(kind: &Kind, value: &FilterValue, place: &str) -> Result<Vec<Value>, String> {
    let mut values = Vec::new();
    let mut add = |scalar| match scalar {
        Scalar::One(value) => values.push(value),
        Scalar::Either(all) => values.extend(all),
    };
    match value {
        FilterValue::Text(text) => {
            for part in split(text) {
                add(scalar(kind, &FilterValue::Text(part), place)?);
            }
        }
        FilterValue::Json(Value::Array(items)) => {
            for item in items {
                add(scalar(kind, &FilterValue::Json(item.clone()), place)?);
            }
        }
        FilterValue::Json(_) => return Err(format!("{place}: a list is expected")),
    }
    if values.len() > VALUES_MAX {
        return Err(format!("{place}: {} values, at most {VALUES_MAX} are allowed", values.len()));
    }
    Ok(values)
}

/// Splits at commas. `\,` stands for a comma and `\\` for a backslash; any other backslash is literal.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        let literal = match char {
            ',' => {
                parts.push(String::new());
                continue;
            }
            '\\' => chars.next_if(|next| matches!(next, ',' | '\\')).unwrap_or('\\'),
            other => other,
        };
        if let Some(part) = parts.last_mut() {
            part.push(literal);
        }
    }
    parts
}

/// Escapes a value for a comma-separated list in a URL.
pub fn list_item(text: &str) -> String {
    text.replace('\\', "\\\\").replace(',', "\\,")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn commas_within_values() {
        for (text, expected) in [
            ("a,b", &["a", "b"][..]),
            ("", &[""]),
            (r"a\,b,c", &["a,b", "c"]),
            (r"a\\,b", &[r"a\", "b"]),
            (r"\x,\", &[r"\x", r"\"]),
        ] {
            assert_eq!(split(text), expected, "{text}");
        }
        for text in ["a,b", r"\", r"\\,", ",", "x"] {
            assert_eq!(split(&list_item(text)), [text]);
        }
    }

    #[test]
    fn operators_and_properties_of_the_same_name() {
        let read = |value: Value| from_json(value).map(|filter| format!("{filter:?}"));
        let is_joined = |value: Value, word: &str| read(value).unwrap().contains(word);
        assert!(is_joined(json!({"or": [{"a": {"eq": 1}}, {"b": {"eq": 2}}]}), "Or("));
        assert!(is_joined(json!({"not": {"a": {"eq": 1}}}), "Not("));
        assert!(!is_joined(json!({"not": {"eq": 1}}), "Not("));
        assert!(!is_joined(json!({"or": {"eq": 1}}), "Or("));
        assert!(read(json!({"a": 1})).unwrap_err().contains("object of operators"));
        assert!(
            read(json!({"or": [1]})).unwrap_err().contains("`filter.or.0` is a number"),
            "{:?}",
            read(json!({"or": [1]}))
        );
        let nested = |depth: usize| (0..depth).fold(json!({}), |inner, _| json!({"not": {"or": [inner]}}));
        assert!(from_json(nested(DEPTH_MAX / 2)).is_ok());
        assert!(read(nested(DEPTH_MAX / 2 + 1)).unwrap_err().contains("nested more than"));
    }
}
