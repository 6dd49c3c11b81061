//! Generates TypeScript types of a model's data from its JSON Schema.
//!
//! Types are less expressive than schemas: if a schema cannot be expressed, the type is wider, never narrower.

use serde_json::{Map, Value};

/// Maximum depth of types; deeper ones are `unknown`.
const DEPTH_MAX: usize = 32;

/// The contract's types of the phases, which take the data's type.
const HANDLERS: [&str; 6] = ["PreCreate", "PostCreate", "PreUpdate", "PostUpdate", "PreDelete", "PostDelete"];

/// A module that exports the data's type, named after the model, and the types of its hooks' handlers.
pub fn module(model: &str, schema: &Value) -> String {
    let name = type_name(model);
    let mut out = format!(
        "// The data of the model `{model}` and the handlers of its hooks. `snaphook hook types {model}` rewrites this \
         file.\n\n\
         import type * as contract from \"@snaphook/hook\";\n\n"
    );
    let defs = ["$defs", "definitions"].into_iter().filter_map(|key| Some((key, schema.get(key)?.as_object()?)));
    let mut names = vec![name.clone()];
    names.extend(HANDLERS.map(str::to_owned));
    let mut types = Types { refs: Vec::new() };
    for (key, def) in defs.flat_map(|(key, defs)| defs.keys().map(move |def| (key, def))) {
        let mut def_name = type_name(def);
        while names.contains(&def_name) {
            def_name.push('_');
        }
        names.push(def_name.clone());
        types.refs.push((format!("#/{key}/{}", def.replace('~', "~0").replace('/', "~1")), def_name));
    }
    types.refs.push(("#".to_owned(), name.clone()));
    out.push_str(&declaration(&types, &name, schema));
    for (pointer, name) in types.refs.iter().filter(|(pointer, _)| pointer != "#") {
        if let Some(def) = schema.pointer(&pointer[1..]) {
            out.push_str(&format!("\n{}", declaration(&types, name, def)));
        }
    }
    out.push('\n');
    for handler in HANDLERS {
        out.push_str(&format!("export type {handler} = contract.{handler}<{name}>;\n"));
    }
    out
}

/// `order-line` as `OrderLine`.
fn type_name(text: &str) -> String {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let name: String = words
        .map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_ascii_uppercase() + rest
        })
        .collect();
    match name.chars().next() {
        Some(first) if first.is_ascii_alphabetic() => name,
        _ => format!("Model{name}"),
    }
}

fn declaration(types: &Types, name: &str, schema: &Value) -> String {
    let doc = doc(schema, "");
    let body = types.of(schema, "", 0);
    match body.starts_with('{') && !body.contains(" & ") && body.ends_with('}') && !is_union(&body) {
        true => format!("{doc}export interface {name} {body}\n"),
        false => format!("{doc}export type {name} = {body};\n"),
    }
}

/// Whether a type's text is a union outside of its brackets.
fn is_union(text: &str) -> bool {
    let mut depth = 0_usize;
    text.chars().any(|char| {
        match char {
            '{' | '(' | '[' | '<' => depth += 1,
            '}' | ')' | ']' | '>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && matches!(char, '|' | '&')
    })
}

struct Types {
    /// A reference and the name of its type.
    refs: Vec<(String, String)>,
}

impl Types {
    fn of(&self, schema: &Value, indent: &str, depth: usize) -> String {
        let schema = match schema {
            Value::Bool(false) => return "never".to_owned(),
            Value::Object(schema) if depth < DEPTH_MAX => schema,
            _ => return "unknown".to_owned(),
        };
        // All parts apply, so they form an intersection.
        let mut parts: Vec<String> = Vec::new();
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let known = self.refs.iter().find(|(pointer, _)| pointer == reference);
            parts.extend(known.map(|(_, name)| name.clone()));
        }
        if let Some(value) = schema.get("const") {
            parts.push(literal(value));
        } else if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            parts.push(union(values.iter().map(literal)));
        } else {
            parts.extend(self.typed(schema, indent, depth));
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(options) = schema.get(key).and_then(Value::as_array) {
                parts.push(union(options.iter().map(|option| self.of(option, indent, depth + 1))));
            }
        }
        let all = schema.get("allOf").and_then(Value::as_array).into_iter().flatten();
        parts.extend(all.map(|part| self.of(part, indent, depth + 1)));
        parts.retain(|part| part != "unknown");
        match parts.len() {
            0 => "unknown".to_owned(),
            1 => parts.remove(0),
            _ => {
                let grouped = parts.iter().map(|part| if is_union(part) { format!("({part})") } else { part.clone() });
                grouped.collect::<Vec<_>>().join(" & ")
            }
        }
    }

    /// According to the schema's `type`, or its properties and items.
    fn typed(&self, schema: &Map<String, Value>, indent: &str, depth: usize) -> Option<String> {
        let names: Vec<&str> = match schema.get("type") {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            // A schema without a type does not restrict values other than objects.
            _ if depth == 0 && schema.contains_key("properties") => vec!["object"],
            _ => return None,
        };
        Some(union(names.into_iter().map(|name| match name {
            "string" | "boolean" | "null" => name.to_owned(),
            "number" | "integer" => "number".to_owned(),
            "array" => self.array(schema, indent, depth),
            "object" => self.object(schema, indent, depth),
            _ => "unknown".to_owned(),
        })))
    }

    fn array(&self, schema: &Map<String, Value>, indent: &str, depth: usize) -> String {
        let item = schema.get("items").filter(|_| !schema.contains_key("prefixItems"));
        let item = item.map_or_else(|| "unknown".to_owned(), |items| self.of(items, indent, depth + 1));
        if is_union(&item) { format!("({item})[]") } else { format!("{item}[]") }
    }

    fn object(&self, schema: &Map<String, Value>, indent: &str, depth: usize) -> String {
        let inner = format!("{indent}  ");
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let mut out = String::from("{\n");
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, property) in properties.into_iter().flatten() {
            let optional = if required.contains(&name.as_str()) { "" } else { "?" };
            let body = self.of(property, &inner, depth + 1);
            out.push_str(&format!("{}{inner}{}{optional}: {body};\n", doc(property, &inner), property_name(name)));
        }
        let is_open = schema.get("additionalProperties") != Some(&Value::Bool(false));
        if is_open || schema.contains_key("patternProperties") {
            out.push_str(&format!("{inner}[property: string]: unknown;\n"));
        }
        out + indent + "}"
    }
}

fn union(options: impl Iterator<Item = String>) -> String {
    let mut seen: Vec<String> = Vec::new();
    for option in options {
        if !seen.contains(&option) {
            seen.push(option);
        }
    }
    match seen.is_empty() {
        true => "never".to_owned(),
        false if seen.iter().any(|option| option == "unknown") => "unknown".to_owned(),
        false => seen.join(" | "),
    }
}

/// A literal type. Numbers that JavaScript cannot represent have no literal.
fn literal(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => value.to_string(),
        Value::Number(number) if number.as_i64().is_some_and(|n| n.unsigned_abs() < 1 << 53) => number.to_string(),
        Value::Number(_) => "number".to_owned(),
        Value::Array(_) => "unknown[]".to_owned(),
        Value::Object(_) => "{ [property: string]: unknown }".to_owned(),
    }
}

fn property_name(name: &str) -> String {
    let mut chars = name.chars();
    let plain = chars.next().is_some_and(|first| first.is_ascii_alphabetic() || matches!(first, '_' | '$'))
        && chars.all(|char| char.is_ascii_alphanumeric() || matches!(char, '_' | '$'));
    if plain { name.to_owned() } else { Value::from(name).to_string() }
}

fn doc(schema: &Value, indent: &str) -> String {
    let text = ["description", "title"].into_iter().find_map(|key| schema.get(key)?.as_str());
    let text = text.map(|text| text.replace("*/", "* /").split_whitespace().collect::<Vec<_>>().join(" "));
    text.filter(|text| !text.is_empty()).map_or_else(String::new, |text| format!("{indent}/** {text} */\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn type_of(schema: Value) -> String {
        Types { refs: vec![("#/$defs/a".to_owned(), "A".to_owned())] }.of(&schema, "", 1)
    }

    #[test]
    fn types() {
        for (schema, expected) in [
            (json!({"type": "string"}), "string"),
            (json!({"type": ["integer", "null"]}), "number | null"),
            (json!({"type": ["integer", "number"]}), "number"),
            (json!({"type": "array", "items": {"type": ["string", "null"]}}), "(string | null)[]"),
            (json!({"type": "array"}), "unknown[]"),
            (json!({"enum": ["a", 1, null, 1.5]}), "\"a\" | 1 | null | number"),
            (json!({"const": "x"}), "\"x\""),
            (json!({"anyOf": [{"type": "string"}, {"$ref": "#/$defs/a"}]}), "string | A"),
            (json!({"anyOf": [{"type": "string"}, {"minimum": 3}]}), "unknown"),
            (json!({"$ref": "#/$defs/b"}), "unknown"),
            (json!({"allOf": [{"$ref": "#/$defs/a"}, {"enum": [1, 2]}]}), "A & (1 | 2)"),
            (json!(true), "unknown"),
            (json!(false), "never"),
            (json!({"properties": {"a": {}}}), "unknown"),
            (
                json!({"type": "object", "additionalProperties": false, "required": ["a b"],
                    "properties": {"a b": {"type": "string", "description": "An */ a"}, "c": {}}}),
                "{\n  /** An * / a */\n  \"a b\": string;\n  c?: unknown;\n}",
            ),
        ] {
            assert_eq!(type_of(schema.clone()), expected, "{schema}");
        }
    }

    #[test]
    fn a_module() {
        let schema = json!({"type": "object", "required": ["lines"], "additionalProperties": false,
            "properties": {"lines": {"type": "array", "items": {"$ref": "#/$defs/line"}}},
            "$defs": {"line": {"type": "object", "properties": {"parent": {"$ref": "#"}}}}});
        let text = module("order-2", &schema);
        assert!(text.contains("export interface Order2 {\n  lines: Line[];\n}\n"), "{text}");
        assert!(
            text.contains("export interface Line {\n  parent?: Order2;\n  [property: string]: unknown;\n}\n"),
            "{text}"
        );
        assert!(text.contains("export type PreCreate = contract.PreCreate<Order2>;\n"), "{text}");
        assert_eq!((type_name("2d"), type_name("pre-create")), ("Model2d".to_owned(), "PreCreate".to_owned()));
    }
}
