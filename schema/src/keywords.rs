//! The locations of subschemas: the keywords of all drafts that contain them.

use serde_json::{Map, Value};

/// How a keyword contains subschemas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One schema, or a list of them.
    Schemas,
    /// Schemas by name. `dependencies` may also contain lists of names.
    Named,
}

pub(crate) fn shape(keyword: &str) -> Option<Shape> {
    Some(match keyword {
        "additionalItems"
        | "additionalProperties"
        | "allOf"
        | "anyOf"
        | "contains"
        | "contentSchema"
        | "else"
        | "if"
        | "items"
        | "not"
        | "oneOf"
        | "prefixItems"
        | "propertyNames"
        | "then"
        | "unevaluatedItems"
        | "unevaluatedProperties" => Shape::Schemas,
        "$defs" | "definitions" | "dependencies" | "dependentSchemas" | "patternProperties" | "properties" => {
            Shape::Named
        }
        _ => return None,
    })
}

/// The subschemas of a schema, each with the rest of its pointer.
pub(crate) fn subschemas(schema: &Map<String, Value>) -> impl Iterator<Item = (String, &Value)> {
    schema.iter().flat_map(|(keyword, value)| -> Vec<(String, &Value)> {
        match (shape(keyword), value) {
            (Some(Shape::Schemas), Value::Array(items)) => {
                items.iter().enumerate().map(|(row, item)| (format!("/{keyword}/{row}"), item)).collect()
            }
            (Some(Shape::Schemas), Value::Object(_)) => vec![(format!("/{keyword}"), value)],
            (Some(Shape::Named), Value::Object(members)) => {
                members.iter().map(|(name, member)| (format!("/{keyword}/{}", escape(name)), member)).collect()
            }
            _ => Vec::new(),
        }
    })
}

/// A schema and all its subschemas, each with its pointer.
pub fn all(tree: &Value) -> Vec<(String, &Value)> {
    let mut found = vec![(String::new(), tree)];
    let mut next = 0;
    while let Some((pointer, schema)) = found.get(next).cloned() {
        if let Value::Object(members) = schema {
            found.extend(subschemas(members).map(|(suffix, child)| (format!("{pointer}{suffix}"), child)));
        }
        next += 1;
    }
    found.retain(|(_, schema)| schema.is_object());
    found
}

/// One token of a JSON Pointer.
pub(crate) fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}
