//! One model's JSON Schema, compiled once per version.

use std::collections::BTreeSet;

use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value};
use snaphook_driver::{Column, ColumnKind, Json};

use super::FieldError;
use super::document::{NESTING_MAX, repeated};

/// Errors of one document that are reported at most.
const ERRORS_MAX: usize = 100;
/// Values in a document of which all errors are looked for: the validator makes them all before it gives the first, so
/// of a larger document only the first is reported.
const VALUES_MAX: usize = 10_000;
/// Steps that a pattern may take back before a value counts as not matching: clients choose the values.
const PATTERN_BACKTRACKS_MAX: usize = 50_000;
/// How far references are followed when a path is looked up; a schema may refer to itself.
const REFERENCES_MAX: usize = 16;

/// A compiled schema and what is derived from it.
#[derive(Debug)]
pub struct Schema {
    pub text: Json,
    tree: Value,
    validator: Validator,
    defaults: Defaults,
}

/// Defaults of properties, nested as the properties are.
#[derive(Debug, Default)]
struct Defaults(Vec<(String, Option<Value>, Defaults)>);

impl Schema {
    /// Compiles; the error is one sentence.
    pub fn compile(text: &Json) -> Result<Schema, String> {
        let tree: Value = serde_json::from_str(text).map_err(|error| format!("schema is not JSON: {error}"))?;
        let Some(object) = tree.as_object() else {
            return Err("schema must be a JSON object".to_owned());
        };
        if let Some(name) = repeated(text, &tree) {
            return Err(format!("schema has `{name}` twice in one object"));
        }
        if object.get("type").and_then(Value::as_str) != Some("object") {
            return Err("schema must have `\"type\": \"object\"`: an instance's data is an object".to_owned());
        }
        if let Some(reference) = foreign_reference(&tree) {
            return Err(format!(
                "schema refers to `{reference}`: references to files or the network are never followed; put what it means into `$defs` and refer to it with `#/$defs/…`"
            ));
        }
        let validator = jsonschema::options()
            .offline()
            .should_validate_formats(true)
            .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(PATTERN_BACKTRACKS_MAX))
            .build(&tree)
            .map_err(|error| match error.instance_path().as_str() {
                "" => format!("schema cannot be used: {error}"),
                path => format!("schema cannot be used at `{path}`: {error}"),
            })?;
        let defaults = Defaults::of(&tree);
        Ok(Schema { text: text.clone(), tree, validator, defaults })
    }

    /// Errors of data against the schema; pointers start with `prefix`.
    pub fn validate(&self, data: &Value, prefix: &str) -> Result<(), Vec<FieldError>> {
        if self.validator.is_valid(data) {
            return Ok(());
        }
        let row = |error: ValidationError<'_>| FieldError {
            pointer: format!("{prefix}{}", error.instance_path().as_str()),
            message: shorten(&error.to_string()),
        };
        if has_more_values(data, VALUES_MAX) {
            return match self.validator.validate(data) {
                Ok(()) => Ok(()),
                Err(error) => Err(vec![row(error)]),
            };
        }
        Err(self.validator.iter_errors(data).take(ERRORS_MAX).map(row).collect())
    }

    /// Fills in the defaults of properties that are absent; answers whether anything changed.
    pub fn fill_defaults(&self, data: &mut Value) -> bool {
        self.defaults.fill(data)
    }

    /// Defaults of top-level properties.
    pub fn top_level_defaults(&self) -> Vec<(String, Value)> {
        self.defaults
            .0
            .iter()
            .filter_map(|(name, default, _)| default.clone().map(|default| (name.clone(), default)))
            .collect()
    }

    /// Whether any property has a default.
    pub fn has_defaults(&self) -> bool {
        !self.defaults.0.is_empty()
    }

    /// Top-level scalar properties, in the schema's order.
    pub fn columns(&self) -> Vec<Column> {
        let Some(properties) = self.tree.get("properties").and_then(Value::as_object) else { return Vec::new() };
        properties
            .iter()
            .filter_map(|(name, node)| {
                let types = self.types(node, 0)?;
                column_kind(&types).map(|kind| Column { name: name.clone(), kind })
            })
            .collect()
    }

    /// Whether a top-level property is declared.
    pub fn has_property(&self, name: &str) -> bool {
        self.children(&self.tree, name, 0).is_some()
    }

    /// Finds a dotted path: names may hold dots themselves, the longest name wins. Gives the names from the outside
    /// in, and the types that the schema allows there (empty: any).
    pub fn find(&self, dotted: &str) -> Option<(Vec<String>, BTreeSet<&str>)> {
        let mut path = Vec::new();
        let node = self.walk(&self.tree, dotted, &mut path)?;
        Some((path, self.types(node, 0).unwrap_or_default()))
    }

    fn walk<'a>(&'a self, node: &'a Value, dotted: &str, path: &mut Vec<String>) -> Option<&'a Value> {
        if path.len() > NESTING_MAX {
            return None;
        }
        if let Some(child) = self.children(node, dotted, 0) {
            path.push(dotted.to_owned());
            return Some(child);
        }
        for (end, _) in dotted.rmatch_indices('.') {
            if let Some(child) = self.children(node, &dotted[..end], 0) {
                path.push(dotted[..end].to_owned());
                if let Some(found) = self.walk(child, &dotted[end + 1..], path) {
                    return Some(found);
                }
                path.pop();
            }
        }
        None
    }

    /// The schema of one property of a node, through references and combinations.
    fn children<'a>(&'a self, node: &'a Value, name: &str, followed: usize) -> Option<&'a Value> {
        let object = node.as_object()?;
        if let Some(child) = object.get("properties").and_then(|properties| properties.get(name)) {
            return Some(child);
        }
        if followed < REFERENCES_MAX {
            if let Some(target) = object.get("$ref").and_then(Value::as_str).and_then(|target| self.resolve(target))
                && let Some(child) = self.children(target, name, followed + 1)
            {
                return Some(child);
            }
            for keyword in ["allOf", "anyOf", "oneOf"] {
                for member in object.get(keyword).and_then(Value::as_array).into_iter().flatten() {
                    if let Some(child) = self.children(member, name, followed + 1) {
                        return Some(child);
                    }
                }
            }
            for keyword in ["then", "else"] {
                if let Some(child) = object.get(keyword).and_then(|member| self.children(member, name, followed + 1)) {
                    return Some(child);
                }
            }
        }
        object.get("additionalProperties").filter(|additional| additional.is_object())
    }

    fn resolve(&self, reference: &str) -> Option<&Value> {
        let pointer = reference.strip_prefix('#')?;
        if pointer.is_empty() { Some(&self.tree) } else { self.tree.pointer(pointer) }
    }

    /// Types that a node allows; `None` if it does not say.
    fn types<'a>(&'a self, node: &'a Value, followed: usize) -> Option<BTreeSet<&'a str>> {
        let object = node.as_object()?;
        match object.get("type") {
            Some(Value::String(name)) => return Some(BTreeSet::from([name.as_str()])),
            Some(Value::Array(names)) => return Some(names.iter().filter_map(Value::as_str).collect()),
            _ => {}
        }
        if let Some(values) = object.get("enum").and_then(Value::as_array) {
            return Some(values.iter().map(json_type).collect());
        }
        if let Some(value) = object.get("const") {
            return Some(BTreeSet::from([json_type(value)]));
        }
        if followed >= REFERENCES_MAX {
            return None;
        }
        if let Some(target) = object.get("$ref").and_then(Value::as_str).and_then(|target| self.resolve(target)) {
            return self.types(target, followed + 1);
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(members) = object.get(keyword).and_then(Value::as_array) {
                return members.iter().map(|member| self.types(member, followed + 1)).try_fold(
                    BTreeSet::new(),
                    |mut all, types| {
                        all.extend(types?);
                        Some(all)
                    },
                );
            }
        }
        None
    }
}

impl Defaults {
    fn of(node: &Value) -> Defaults {
        let Some(properties) = node.get("properties").and_then(Value::as_object) else { return Defaults::default() };
        Defaults(
            properties
                .iter()
                .map(|(name, child)| (name.clone(), child.get("default").cloned(), Defaults::of(child)))
                .filter(|(_, default, nested)| default.is_some() || !nested.0.is_empty())
                .collect(),
        )
    }

    fn fill(&self, data: &mut Value) -> bool {
        let Value::Object(map) = data else { return false };
        self.fill_map(map)
    }

    fn fill_map(&self, map: &mut Map<String, Value>) -> bool {
        let mut changed = false;
        for (name, default, nested) in &self.0 {
            match (map.get_mut(name), default) {
                (Some(value), _) => changed |= nested.fill(value),
                (None, Some(default)) => {
                    let mut value = default.clone();
                    nested.fill(&mut value);
                    map.insert(name.clone(), value);
                    changed = true;
                }
                (None, None) => {}
            }
        }
        changed
    }
}

fn column_kind(types: &BTreeSet<&str>) -> Option<ColumnKind> {
    let scalars: Vec<&str> = types.iter().copied().filter(|name| *name != "null").collect();
    if scalars.iter().any(|name| matches!(*name, "object" | "array")) {
        return None;
    }
    Some(match scalars.as_slice() {
        [] => return None,
        ["string"] => ColumnKind::Text,
        ["integer"] => ColumnKind::Integer,
        ["number"] | ["integer", "number"] => ColumnKind::Number,
        ["boolean"] => ColumnKind::Boolean,
        _ => ColumnKind::Any,
    })
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

/// A reference that leaves the document: one with a scheme or a path that no `$id` inside can answer.
fn foreign_reference(node: &Value) -> Option<&str> {
    match node {
        Value::Object(map) => map.iter().find_map(|(name, child)| match (name.as_str(), child) {
            ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(target))
                if target.contains("://") || target.starts_with("file:") || target.starts_with('/') =>
            {
                Some(target.as_str())
            }
            ("enum" | "const" | "default" | "examples", _) => None,
            _ => foreign_reference(child),
        }),
        Value::Array(items) => items.iter().find_map(foreign_reference),
        _ => None,
    }
}

/// Whether a tree has more than that many values; looks at no more of them.
fn has_more_values(value: &Value, max: usize) -> bool {
    fn count(value: &Value, left: &mut usize) -> bool {
        let Some(rest) = left.checked_sub(1) else { return true };
        *left = rest;
        match value {
            Value::Array(items) => items.iter().any(|item| count(item, left)),
            Value::Object(map) => map.values().any(|item| count(item, left)),
            _ => false,
        }
    }
    count(value, &mut { max })
}

/// Messages quote the value; a large one would make the answer as large as the request.
fn shorten(message: &str) -> String {
    const CHARS_MAX: usize = 300;
    match message.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema(value: Value) -> Schema {
        Schema::compile(&Json::from_value(&value)).unwrap()
    }

    #[test]
    fn refuses_what_cannot_be_a_model() {
        for (value, message) in [
            (json!([]), "must be a JSON object"),
            (json!({"type": "string"}), "must have `\"type\": \"object\"`"),
            (json!({"type": "object", "properties": {"a": {"$ref": "https://example.com/x.json"}}}), "never followed"),
            (json!({"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}), "never followed"),
            (json!({"type": "object", "properties": {"a": {"$ref": "other.json"}}}), "cannot be used"),
            (json!({"type": "object", "properties": {"a": {"type": "text"}}}), "cannot be used at"),
            (json!({"type": "object", "properties": {"a": {"pattern": "("}}}), "cannot be used"),
        ] {
            let error = Schema::compile(&Json::from_value(&value)).unwrap_err();
            assert!(error.contains(message), "{value}: {error}");
        }
        let twice = Json::trusted(r#"{"type":"object","properties":{"a":{},"a":{"type":"string"}}}"#);
        assert_eq!(Schema::compile(&twice).unwrap_err(), "schema has `a` twice in one object");
    }

    #[test]
    fn exact_numbers_are_compared_exactly() {
        let schema = schema(json!({"type": "object", "properties": {"n": {"maximum": 9007199254740992u64}}}));
        let fits = |text| schema.validate(&serde_json::from_str(text).unwrap(), "").is_ok();
        assert!(fits(r#"{"n":9007199254740992}"#));
        assert!(!fits(r#"{"n":9007199254740993}"#));
    }

    #[test]
    fn errors_are_bounded() {
        let schema = schema(json!({"type": "object", "properties": {"a": {"items": {"type": "string"}}}}));
        let errors = |count: usize| schema.validate(&json!({"a": vec![1; count]}), "").unwrap_err();
        assert_eq!(errors(50).len(), 50);
        assert_eq!(errors(5_000).len(), ERRORS_MAX);
        // The validator would make an error for each before the first is seen.
        let many = errors(VALUES_MAX);
        assert_eq!((many.len(), many[0].pointer.as_str()), (1, "/a/0"));
    }

    #[test]
    fn a_pattern_cannot_burn() {
        let schema = schema(json!({"type": "object", "properties": {"s": {"pattern": "^(a+)+$"}}}));
        let data = json!({"s": format!("{}!", "a".repeat(60))});
        let started = std::time::Instant::now();
        assert!(schema.validate(&data, "/data").is_err());
        assert!(started.elapsed() < std::time::Duration::from_secs(5));
    }

    #[test]
    fn defaults_are_filled_in_at_every_level() {
        let schema = schema(json!({"type": "object", "properties": {
            "a": {"default": 1}, "b": {"type": "object", "properties": {"c": {"default": "x"}}},
            "d": {"default": {}, "properties": {"e": {"default": true}}}}}));
        let mut data = json!({"b": {}});
        assert!(schema.fill_defaults(&mut data));
        assert_eq!(data, json!({"b": {"c": "x"}, "a": 1, "d": {"e": true}}));
        assert!(!schema.fill_defaults(&mut data));
    }

    #[test]
    fn paths() {
        let schema = schema(
            json!({"type": "object", "$defs": {"p": {"type": "object", "properties": {"name": {"type": "string"}}}},
            "properties": {"a.b": {"type": "integer"}, "a": {"type": "object", "properties": {"c": {"type": ["number", "null"]}}},
            "customer": {"$ref": "#/$defs/p"}, "map": {"additionalProperties": {"type": "boolean"}}, "any": {}}}),
        );
        let find = |path| {
            schema.find(path).map(|(path, types)| (path.join("|"), types.into_iter().collect::<Vec<_>>().join(",")))
        };
        assert_eq!(find("a.b"), Some(("a.b".into(), "integer".into())));
        assert_eq!(find("a.c"), Some(("a|c".into(), "null,number".into())));
        assert_eq!(find("customer.name"), Some(("customer|name".into(), "string".into())));
        assert_eq!(find("map.x"), Some(("map|x".into(), "boolean".into())));
        assert_eq!(find("any"), Some(("any".into(), String::new())));
        assert_eq!(find("nope"), None);
        assert_eq!(find("a.nope"), None);
    }

    #[test]
    fn columns_are_the_scalars() {
        let schema = schema(
            json!({"type": "object", "properties": {"Release Date": {"type": ["string", "null"]}, "n": {"type": "integer"},
            "tags": {"type": "array"}, "e": {"enum": ["a", "b"]}, "m": {"type": ["string", "number"]}, "any": {}}}),
        );
        let columns: Vec<_> = schema.columns().into_iter().map(|column| (column.name, column.kind)).collect();
        assert_eq!(
            columns,
            [
                ("Release Date".to_owned(), ColumnKind::Text),
                ("n".to_owned(), ColumnKind::Integer),
                ("e".to_owned(), ColumnKind::Text),
                ("m".to_owned(), ColumnKind::Any)
            ]
        );
    }
}
