//! Members of what the server says of hooks.

use serde_json::Value;

/// A text; empty if there is none.
pub(super) fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}
