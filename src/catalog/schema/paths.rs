//! Looks up paths in a schema: whether the property exists, and its possible types.
//!
//! Schemas may refer to themselves and branch at each step, so every lookup visits a subschema at most once.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use snaphook_schema::{Limits, is_limited, step, within};

use super::Schema;
use super::found::Found;
use crate::catalog::document::NESTING_MAX;

/// A set of JSON types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Types(u8);

const NAMES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];

impl Types {
    fn of(name: &str) -> Types {
        Types(NAMES.iter().position(|known| *known == name).map_or(0, |bit| 1 << bit))
    }

    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().enumerate().filter(move |(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| name)
    }
}

impl Schema {
    /// Whether a top-level property is declared.
    pub fn has_property(&self, name: &str) -> bool {
        bounded(|| self.child(&self.tree, name).is_some()).unwrap_or(false)
    }

    /// The possible types of a top-level property; empty if the schema does not restrict them.
    pub fn types_of(&self, property: &str) -> Vec<&'static str> {
        let types = bounded(|| self.types(self.child(&self.tree, property)?));
        types.ok().flatten().unwrap_or_default().names().collect()
    }

    /// Finds a dotted path: names may contain dots, and the longest name wins. An error if the lookup takes too much
    /// work.
    pub fn find(&self, dotted: &str) -> Result<Option<Found>, String> {
        bounded(|| {
            let mut path = Vec::new();
            let node = self.walk(&self.tree, dotted, &mut path, &mut HashSet::new())?;
            Some(Found { path, types: self.types(node).unwrap_or_default().names().collect() })
        })
        .map_err(|excess| format!("`{}` cannot be looked up in the schema: {excess}", shown(dotted)))
    }

    /// Whether data may have a value at a dotted path: a declared property, or one below a property without declared
    /// members.
    pub fn may_have(&self, dotted: &str) -> Result<bool, String> {
        if self.find(dotted)?.is_some() {
            return Ok(true);
        }
        for (end, _) in dotted.rmatch_indices('.').take(NESTING_MAX) {
            let free = bounded(|| {
                let node = self.walk(&self.tree, &dotted[..end], &mut Vec::new(), &mut HashSet::new())?;
                Some(self.is_free(node))
            });
            let free =
                free.map_err(|excess| format!("`{}` cannot be looked up in the schema: {excess}", shown(dotted)))?;
            if let Some(free) = free {
                return Ok(free);
            }
        }
        Ok(false)
    }

    /// Whether objects are allowed there, without declared members.
    fn is_free(&self, node: &Value) -> bool {
        let Some(members) = node.as_object() else { return true };
        let says = [
            "properties",
            "patternProperties",
            "additionalProperties",
            "$ref",
            "$dynamicRef",
            "allOf",
            "anyOf",
            "oneOf",
            "then",
            "else",
        ];
        !says.iter().any(|keyword| members.contains_key(*keyword))
            && self.types(node).is_none_or(|types| types.names().any(|name| name == "object"))
    }

    /// A keyword's value, unless the schema is nothing but a reference.
    pub(super) fn own<'a>(&self, node: &'a Value, keyword: &str) -> Option<&'a Value> {
        let members = node.as_object()?;
        let ignored = self.references.ignores_siblings() && keyword != "$ref" && members.contains_key("$ref");
        if ignored { None } else { members.get(keyword) }
    }

    fn walk<'a>(
        &'a self,
        node: &'a Value,
        dotted: &str,
        path: &mut Vec<String>,
        failed: &mut HashSet<(usize, usize)>,
    ) -> Option<&'a Value> {
        step(1);
        if path.len() > NESTING_MAX || !failed.insert((address(node), dotted.len())) {
            return None;
        }
        if let Some(child) = self.child(node, dotted) {
            path.push(dotted.to_owned());
            return Some(child);
        }
        for (end, _) in dotted.rmatch_indices('.') {
            if let Some(child) = self.child(node, &dotted[..end]) {
                path.push(dotted[..end].to_owned());
                if let Some(found) = self.walk(child, &dotted[end + 1..], path, failed) {
                    return Some(found);
                }
                path.pop();
            }
        }
        None
    }

    fn child<'a>(&'a self, node: &'a Value, name: &str) -> Option<&'a Value> {
        self.child_once(node, name, &mut HashSet::new())
    }

    /// The schema of one property of a node, through references and combinations.
    fn child_once<'a>(&'a self, node: &'a Value, name: &str, seen: &mut HashSet<usize>) -> Option<&'a Value> {
        step(1);
        let object = node.as_object()?;
        if let Some(child) = self.own(node, "properties").and_then(|properties| properties.get(name)) {
            return Some(child);
        }
        let deeper = ["$ref", "allOf", "anyOf", "oneOf", "then", "else"];
        if deeper.iter().any(|keyword| object.contains_key(*keyword)) && seen.insert(address(node)) {
            if let Some(target) = self.target(node)
                && let Some(child) = self.child_once(target, name, seen)
            {
                return Some(child);
            }
            for keyword in ["allOf", "anyOf", "oneOf"] {
                for member in self.own(node, keyword).and_then(Value::as_array).into_iter().flatten() {
                    if let Some(child) = self.child_once(member, name, seen) {
                        return Some(child);
                    }
                }
            }
            for keyword in ["then", "else"] {
                if let Some(child) = self.own(node, keyword).and_then(|member| self.child_once(member, name, seen)) {
                    return Some(child);
                }
            }
        }
        self.own(node, "additionalProperties").filter(|additional| additional.is_object())
    }

    fn target<'a>(&'a self, node: &'a Value) -> Option<&'a Value> {
        self.references.resolve(&self.tree, node, node.get("$ref")?.as_str()?)
    }

    /// The types that a node allows; `None` if it does not restrict them.
    pub(super) fn types(&self, node: &Value) -> Option<Types> {
        bounded(|| self.types_once(node, &mut HashMap::new())).ok().flatten()
    }

    fn types_once(&self, node: &Value, known: &mut HashMap<usize, Option<Types>>) -> Option<Types> {
        step(1);
        match self.own(node, "type") {
            Some(Value::String(name)) => return Some(Types::of(name)),
            Some(Value::Array(names)) => {
                let names = names.iter().filter_map(Value::as_str);
                return Some(Types(names.fold(0, |all, name| all | Types::of(name).0)));
            }
            _ => {}
        }
        if let Some(values) = self.own(node, "enum").and_then(Value::as_array) {
            return Some(Types(values.iter().fold(0, |all, value| all | Types::of(json_type(value)).0)));
        }
        if let Some(value) = self.own(node, "const") {
            return Some(Types::of(json_type(value)));
        }
        if let Some(types) = known.get(&address(node)) {
            return *types;
        }
        // A circle says nothing.
        known.insert(address(node), None);
        let types = self.types_below(node, known);
        known.insert(address(node), types);
        types
    }

    fn types_below(&self, node: &Value, known: &mut HashMap<usize, Option<Types>>) -> Option<Types> {
        if let Some(target) = self.target(node) {
            return self.types_once(target, known);
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(members) = self.own(node, keyword).and_then(Value::as_array) {
                let mut all = 0;
                for member in members {
                    all |= self.types_once(member, known)?.0;
                }
                return Some(Types(all));
            }
        }
        None
    }
}

/// A lookup within the limits for any thread, or the caller's.
fn bounded<T>(question: impl FnOnce() -> T) -> Result<T, String> {
    if is_limited() {
        return Ok(question());
    }
    within(&Limits { steps: 50_000, ..Limits::inline() }, question).map_err(|excess| excess.to_string())
}

fn address(node: &Value) -> usize {
    std::ptr::from_ref(node) as usize
}

fn shown(path: &str) -> String {
    path.chars().take(100).collect()
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::schema;
    use super::*;
    use serde_json::json;

    #[test]
    fn paths() {
        let schema = schema(
            json!({"type": "object", "$defs": {"p": {"type": "object", "properties": {"name": {"type": "string"}}}},
            "properties": {"a.b": {"type": "integer"}, "a": {"type": "object", "properties": {"c": {"type": ["number", "null"]}}},
            "customer": {"$ref": "#/$defs/p"}, "map": {"additionalProperties": {"type": "boolean"}}, "any": {}}}),
        );
        let find = |path: &str| {
            let found = schema.find(path).unwrap()?;
            Some((found.path.join("|"), found.types.into_iter().collect::<Vec<_>>().join(",")))
        };
        assert_eq!(find("a.b"), Some(("a.b".into(), "integer".into())));
        assert_eq!(find("a.c"), Some(("a|c".into(), "null,number".into())));
        assert_eq!(find("customer.name"), Some(("customer|name".into(), "string".into())));
        assert_eq!(find("map.x"), Some(("map|x".into(), "boolean".into())));
        assert_eq!(find("any"), Some(("any".into(), String::new())));
        assert_eq!(find("nope"), None);
        assert_eq!(find("a.nope"), None);
        for (path, expected) in
            [("a.c", true), ("any", true), ("any.x.y", true), ("nope", false), ("a.nope", false), ("a.c.d", false)]
        {
            assert_eq!(schema.may_have(path), Ok(expected), "{path}");
        }
    }

    #[test]
    fn looking_up_a_path_ends() {
        let branching = json!({"anyOf": [{"$ref": "#/$defs/n"}, {"$ref": "#/$defs/n"}, {"allOf": [{"$ref": "#/$defs/n"}]}],
            "properties": {"a": {"$ref": "#/$defs/n"}, "a.a": {"$ref": "#/$defs/n"}, "a.a.a": {"$ref": "#/$defs/n"}}});
        let recursive = schema(json!({"type": "object", "$ref": "#/$defs/n", "$defs": {"n": branching}}));
        let doubling: serde_json::Map<String, Value> = (0..200)
            .map(|n| {
                let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
                (
                    format!("d{n}"),
                    if n == 199 { json!({}) } else { json!({"anyOf": [next, next], "oneOf": [next, next]}) },
                )
            })
            .collect();
        let doubling = schema(json!({"type": "object", "$ref": "#/$defs/d0", "$defs": doubling,
            "properties": {"p": {"$ref": "#/$defs/d0"}}}));
        let started = std::time::Instant::now();
        for path in [format!("{}b", "a.".repeat(100)), format!("{}b", "a.".repeat(4_000)), "b".to_owned()] {
            for schema in [&recursive, &doubling] {
                assert!(!matches!(schema.find(&path), Ok(Some(_))), "{path}");
                let _ = schema.may_have(&path);
            }
        }
        assert_eq!(doubling.columns(), []);
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
    }
}
