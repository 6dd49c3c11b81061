//! Finds `secret:NAME` in settings, and replaces it with the value of the secret.

use serde_json::{Map, Value};

/// The names of the secrets used in settings, with repetitions.
pub(crate) fn references(settings: &Map<String, Value>) -> Vec<String> {
    let mut settings = Value::Object(settings.clone());
    let mut names = Vec::new();
    each_string(&mut settings, &mut |text| names.extend(text.strip_prefix("secret:").map(str::to_owned)));
    names
}

/// The settings with the values of their [`references`], in that order.
pub(crate) fn with_values(settings: &Map<String, Value>, values: &[String]) -> Map<String, Value> {
    let mut settings = Value::Object(settings.clone());
    let mut next = values.iter();
    each_string(&mut settings, &mut |text| {
        if text.starts_with("secret:")
            && let Some(value) = next.next()
        {
            value.clone_into(text);
        }
    });
    match settings {
        Value::Object(settings) => settings,
        _ => Map::new(),
    }
}

/// Visits the strings of a tree, always in the same order.
fn each_string(value: &mut Value, visit: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter_mut().for_each(|item| each_string(item, visit)),
        Value::Object(entries) => entries.values_mut().for_each(|entry| each_string(entry, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
