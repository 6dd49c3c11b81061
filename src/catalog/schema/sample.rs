//! An example of valid data for a schema: its own example, or a generated one.

use std::collections::HashSet;

use serde_json::{Map, Number, Value, json};

use super::{Effort, Schema};

/// Maximum number of values in a generated example.
const VALUES_MAX: usize = 200;
/// Its maximum depth; schemas may refer to themselves.
const DEPTH_MAX: usize = 8;
/// Properties of an object that are shown although none is required.
const PROPERTIES_MAX: usize = 16;
/// Bytes of an example, also of the schema's own.
const BYTES_MAX: usize = 8 * 1024;
/// Bytes of one text.
const TEXT_BYTES_MAX: usize = 256;

impl Schema {
    /// `None` if no valid example is found.
    pub fn sample(&self, effort: &Effort) -> Option<Value> {
        let mut making = Making { schema: self, left: VALUES_MAX, bytes_left: BYTES_MAX };
        let sample = making.value(&self.tree, 0)?;
        let fits = sample.to_string().len() <= BYTES_MAX && self.check(&sample, "", effort).is_ok();
        fits.then_some(sample)
    }
}

struct Making<'a> {
    schema: &'a Schema,
    left: usize,
    /// For what is copied from the schema.
    bytes_left: usize,
}

impl<'a> Making<'a> {
    /// `None`: no suitable value, or the example is large enough.
    fn value(&mut self, node: &'a Value, depth: usize) -> Option<Value> {
        self.left = self.left.checked_sub(1)?;
        if depth > DEPTH_MAX {
            return None;
        }
        let own = |keyword: &str| self.schema.own(node, keyword);
        let first = |keyword: &str| own(keyword).and_then(Value::as_array).and_then(|values| values.first());
        if let Some(given) = first("examples").or(own("default")).or(own("const")).or(first("enum")) {
            return self.given(given);
        }
        let kind = self.schema.types(node).and_then(|types| types.names().find(|name| *name != "null"));
        if let Some(target) = self.target(node) {
            return self.value(target, depth + 1);
        }
        if kind == Some("object") || own("properties").is_some() {
            return self.object(node, depth);
        }
        if let Some(choice) = first("oneOf").or(first("anyOf")).or(first("allOf")) {
            return self.value(choice, depth + 1);
        }
        Some(match kind? {
            "array" => return self.array(node, depth),
            "boolean" => Value::Bool(true),
            "integer" | "number" => return self.number(node),
            "string" => Value::String(self.text(node)?),
            _ => return None,
        })
    }

    /// A value from the schema, unless the example is large enough.
    fn given(&mut self, value: &Value) -> Option<Value> {
        let mut space = [0; BYTES_MAX];
        let mut rest = &mut space[..self.bytes_left];
        serde_json::to_writer(&mut rest, value).ok()?;
        self.bytes_left = rest.len();
        Some(value.clone())
    }

    fn target(&self, node: &Value) -> Option<&'a Value> {
        let reference = node.get("$ref")?.as_str()?;
        self.schema.references.resolve(&self.schema.tree, node, reference)
    }

    fn object(&mut self, node: &'a Value, depth: usize) -> Option<Value> {
        let mut members = Map::new();
        let all = self.schema.own(node, "allOf").and_then(Value::as_array).into_iter().flatten();
        let parts: Vec<&'a Value> = all.map(|part| self.target(part).unwrap_or(part)).collect();
        for part in std::iter::once(node).chain(parts) {
            let required = self.schema.own(part, "required").and_then(Value::as_array).into_iter().flatten();
            let required: HashSet<&str> = required.filter_map(Value::as_str).collect();
            let Some(properties) = self.schema.own(part, "properties").and_then(Value::as_object) else { continue };
            for (name, property) in properties {
                let is_required = required.contains(name.as_str());
                if members.contains_key(name) || (!is_required && members.len() >= PROPERTIES_MAX) {
                    continue;
                }
                let value = self.value(property, depth + 1);
                match value.filter(|_| self.take(name.len())) {
                    Some(value) => drop(members.insert(name.clone(), value)),
                    None if is_required => return None,
                    None => {}
                }
            }
        }
        Some(Value::Object(members))
    }

    /// Reserves this many bytes; `false` if there is no space.
    fn take(&mut self, bytes: usize) -> bool {
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left = left.unwrap_or(self.bytes_left);
        left.is_some()
    }

    fn array(&mut self, node: &'a Value, depth: usize) -> Option<Value> {
        let least = self.schema.own(node, "minItems").and_then(Value::as_u64).unwrap_or(0);
        let item = self.schema.own(node, "items").filter(|item| item.is_object());
        match item.and_then(|item| self.value(item, depth + 1)) {
            Some(item) if least <= 1 => Some(json!([item])),
            _ if least == 0 => Some(json!([])),
            _ => None,
        }
    }

    /// A number at the bound of the schema.
    fn number(&mut self, node: &'a Value) -> Option<Value> {
        let schema = self.schema;
        let bound = |keyword: &str| schema.own(node, keyword).filter(|bound| bound.is_number());
        if let Some(bound) = bound("minimum").or(bound("maximum")).or(bound("multipleOf")) {
            return self.given(bound);
        }
        let beyond = |keyword: &str, step: i64| bound(keyword)?.as_i64()?.checked_add(step);
        let number = beyond("exclusiveMinimum", 1).or(beyond("exclusiveMaximum", -1)).unwrap_or(1);
        Some(Value::Number(Number::from(number)))
    }

    fn text(&self, node: &Value) -> Option<String> {
        if self.schema.own(node, "pattern").is_some() {
            return None;
        }
        let format = self.schema.own(node, "format").and_then(Value::as_str).unwrap_or_default();
        let text = match format {
            "date-time" => "2026-01-31T12:00:00Z",
            "date" => "2026-01-31",
            "time" => "12:00:00Z",
            "duration" => "PT1H",
            "email" | "idn-email" => "somebody@example.com",
            "hostname" | "idn-hostname" => "example.com",
            "ipv4" => "192.0.2.1",
            "ipv6" => "2001:db8::1",
            "uri" | "iri" => "https://example.com/",
            "uri-reference" | "iri-reference" => "/",
            "uuid" => "01890a5d-ac96-774b-bcce-b302099a8057",
            _ => "text",
        };
        let length = |keyword: &str| {
            let length = self.schema.own(node, keyword).and_then(Value::as_u64);
            length.and_then(|length| usize::try_from(length).ok())
        };
        let (least, most) = (length("minLength").unwrap_or(0), length("maxLength").unwrap_or(usize::MAX));
        if least > TEXT_BYTES_MAX {
            return None;
        }
        Some(text.chars().chain(std::iter::repeat('x')).take(least.max(text.len()).min(most)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::schema;
    use super::*;

    #[track_caller]
    fn check(tree: Value, expected: Option<Value>) {
        assert_eq!(schema(tree.clone()).sample(&Effort::small()), expected, "{tree}");
    }

    #[test]
    fn examples_are_given_or_made() {
        check(json!({"type": "object", "examples": [{"a": 1}, {}]}), Some(json!({"a": 1})));
        check(
            json!({"type": "object", "required": ["a"], "$defs": {"p": {"type": "object", "properties": {"n": {"type": "number",
                "exclusiveMinimum": 3}, "again": {"$ref": "#/$defs/p"}}}},
                "properties": {"a": {"type": ["null", "string"], "minLength": 6}, "b": {"enum": ["x", "y"]},
                "c": {"type": "array", "items": {"type": "integer"}}, "d": {"type": "string", "format": "date"},
                "e": {"type": "boolean", "default": false}, "f": {"type": "string", "pattern": "^z"},
                "g": {"$ref": "#/$defs/p"}}}),
            Some(json!({"a": "textxx", "b": "x", "c": [1], "d": "2026-01-31", "e": false,
                "g": {"n": 4, "again": {"n": 4, "again": {"n": 4, "again": {}}}}})),
        );
    }

    #[test]
    fn what_does_not_fit_is_none() {
        check(json!({"type": "object", "examples": [{"a": "x"}], "properties": {"a": {"type": "null"}}}), None);
        check(
            json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string", "pattern": "^z"}}}),
            None,
        );
        check(json!({"type": "object", "minProperties": 1}), None);
        // A large value is left out, however often it is referred to.
        let large = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/large"}, "b": {"type": "integer"}},
            "$defs": {"large": {"type": "string", "examples": ["x".repeat(9000)]}}});
        check(large, Some(json!({"b": 1})));
        check(json!({"type": "object", "default": {"a": "x".repeat(9000)}}), None);
    }
}
