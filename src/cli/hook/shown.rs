//! What the server says of hooks, as commands show it and send it back.

use serde_json::{Map, Value, json};

/// A text; empty if there is none.
pub(super) fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A digest as people see it: twelve digits tell artifacts apart, and the server accepts them.
pub(super) fn artifact(hook: &Value) -> String {
    text(hook, "artifact").chars().take("sha256:".len() + 12).collect()
}

/// Engine, mode and artifact of a hook.
pub(super) fn summary(hook: &Value) -> String {
    let mode = if text(hook, "mode") == "shadow" { ", shadow" } else { "" };
    let right = if text(hook, "as") == "actor" { ", as the actor" } else { "" };
    format!("{}{mode}{right}, {}", text(hook, "engine"), artifact(hook))
}

/// A chain by names: `check (quickjs, sha256:0123456789ab)`.
pub(super) fn chain(hooks: &[Value]) -> String {
    match hooks {
        [] => "none".to_owned(),
        hooks => hooks
            .iter()
            .map(|hook| format!("{} ({})", text(hook, "name"), summary(hook)))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// The body that binds hooks as the server told of them, by their artifacts.
pub(super) fn bindings(hooks: &[Value]) -> Value {
    let binding = |hook: &Value| {
        let code = if hook.get("library").is_some() { "library" } else { "artifact" };
        let members = ["name", "engine", "mode", "as", "language", code];
        members.into_iter().filter_map(|name| Some((name.to_owned(), hook.get(name)?.clone()))).collect::<Map<_, _>>()
    };
    json!({ "chain": hooks.iter().map(binding).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_goes_back_as_it_came() {
        let hook = json!({"name": "a", "engine": "quickjs", "artifact": "sha256:0123456789abcdef", "size": 3,
            "mode": "shadow", "origin": "rest", "language": "typescript"});
        let library = json!({"name": "b", "engine": "native", "artifact": "sha256:00", "mode": "enforce", "as": "actor",
            "library": "libb.so"});
        let chain = [hook, library];
        assert_eq!(
            bindings(&chain),
            json!({"chain": [
                {"name": "a", "engine": "quickjs", "mode": "shadow", "language": "typescript",
                    "artifact": "sha256:0123456789abcdef"},
                {"name": "b", "engine": "native", "mode": "enforce", "as": "actor", "library": "libb.so"},
            ]})
        );
        assert_eq!(
            super::chain(&chain),
            "a (quickjs, shadow, sha256:0123456789ab), b (native, as the actor, sha256:00)"
        );
        assert_eq!(super::chain(&[]), "none");
    }
}
