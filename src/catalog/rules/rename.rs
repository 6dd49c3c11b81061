//! Adapts rules to renamed properties of their model.

use std::borrow::Cow;

use serde_json::{Map, Value};
use snaphook_driver::Json;

/// The rules with the new names: in paths, and in values such as `$before.owner`. Only names of top-level properties
/// are renamed.
pub fn renamed(rules: &Json, renames: &[(String, String)]) -> Json {
    let Ok(Value::Object(rules)) = rules.to_value() else { return rules.clone() };
    let rules = rules.into_iter().map(|(name, rule)| {
        let is_read = name == "read";
        (name, filter(rule, &Names { renames, is_read }))
    });
    Json::from_value(&Value::Object(rules.collect()))
}

struct Names<'a> {
    renames: &'a [(String, String)],
    is_read: bool,
}

fn filter(value: Value, names: &Names<'_>) -> Value {
    let Value::Object(mut members) = value else { return value };
    if let Some(Value::String(path)) = members.get("path") {
        let path = names.path(path).into_owned();
        let mut members = operators(members, names);
        members.insert("path".to_owned(), Value::from(path));
        return Value::Object(members);
    }
    let keys: Vec<String> = members.keys().cloned().collect();
    let mut renamed = Map::with_capacity(keys.len());
    for key in keys {
        let Some(value) = members.remove(&key) else { continue };
        match (key.as_str(), value) {
            ("and" | "or", Value::Array(items)) => {
                let items = items.into_iter().map(|item| filter(item, names)).collect();
                renamed.insert(key, Value::Array(items));
            }
            ("not", value) => {
                renamed.insert(key, filter(value, names));
            }
            (path, Value::Object(inner)) => {
                renamed.insert(names.path(path).into_owned(), Value::Object(operators(inner, names)));
            }
            (_, value) => {
                renamed.insert(key, value);
            }
        }
    }
    Value::Object(renamed)
}

/// The values of a condition that refer to the record.
fn operators(members: Map<String, Value>, names: &Names<'_>) -> Map<String, Value> {
    let one = |value: Value| match value {
        Value::String(text) => match text.strip_prefix('$') {
            Some(place) if !names.is_read && (place.starts_with("before.") || place.starts_with("after.")) => {
                Value::from(format!("${}", names.path(place)))
            }
            _ => Value::String(text),
        },
        other => other,
    };
    let each = |value: Value| match value {
        Value::Array(items) => Value::Array(items.into_iter().map(one).collect()),
        other => one(other),
    };
    members.into_iter().map(|(operator, value)| (operator, each(value))).collect()
}

impl Names<'_> {
    /// A path with the new name of its property. A property whose own name contains a dot may match several parts of a
    /// path; the longest matching name counts.
    fn path<'p>(&self, written: &'p str) -> Cow<'p, str> {
        let (side, rest) = match written.split_once('.') {
            Some((side @ ("before" | "after"), rest)) if !self.is_read => (Some(side), rest),
            _ => (None, written),
        };
        if rest.starts_with('$') && !rest.starts_with("$$") {
            return Cow::Borrowed(written);
        }
        // A leading `$` of a property's own name is doubled.
        let bare = rest.strip_prefix('$').unwrap_or(rest);
        let is_of = |old: &str| bare.strip_prefix(old).is_some_and(|below| below.is_empty() || below.starts_with('.'));
        let found = self.renames.iter().filter(|(old, _)| is_of(old)).max_by_key(|(old, _)| old.len());
        let Some((old, new)) = found else { return Cow::Borrowed(written) };
        let escape = if new.starts_with('$') { "$" } else { "" };
        let side = side.map_or_else(String::new, |side| format!("{side}."));
        Cow::Owned(format!("{side}{escape}{new}{}", &bare[old.len()..]))
    }
}
