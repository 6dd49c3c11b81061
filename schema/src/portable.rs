//! A schema as part of an OpenAPI 3.1 document: in the terms of draft 2020-12, whatever draft it is written in.
//!
//! Each target of a reference becomes a separate schema with a plain name, so that no `$id`, anchor or pointer of the
//! client's document remains, which could mean something else in another document. Keywords that are not part of JSON
//! Schema are omitted, because the surrounding document may give them a meaning.

use std::collections::{HashMap, HashSet, VecDeque};

use jsonschema::Draft;
use serde_json::{Map, Value, json};

use crate::References;
use crate::budget::{Excess, Limits, enter, give_up, spend, within};
use crate::keywords::{Shape, shape};
use crate::references::draft_of;

/// Maximum size in bytes of the root and the parts together. If the target of one reference is inside that of another,
/// it is included twice.
const WRITTEN_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Maximum number of characters of a part's name.
const NAME_CHARS_MAX: usize = 40;

/// A schema and the schemas that it refers to.
#[derive(Clone, Debug, PartialEq)]
pub struct Portable {
    pub root: Value,
    /// The parts by name; names only contain letters, digits and `_`.
    pub parts: Vec<(String, Value)>,
}

impl Portable {
    /// `place` is a reference to the future location of the root; parts will be at `place.name`. Needs as much stack as
    /// a compilation.
    pub fn of(tree: &Value, references: &References, place: &str, limits: &Limits) -> Result<Portable, Excess> {
        within(limits, || {
            let mut moving = Moving {
                tree,
                references,
                draft: draft_of(tree),
                place,
                names: HashMap::new(),
                taken: HashSet::new(),
                numbers: HashMap::new(),
                waiting: VecDeque::new(),
                written: 0,
            };
            let root = moving.schema(tree);
            let mut parts = Vec::new();
            while let Some((pointer, name)) = moving.waiting.pop_front() {
                let part = tree.pointer(&pointer).map_or(Value::Bool(true), |target| moving.schema(target));
                parts.push((name, part));
            }
            Portable { root, parts }
        })
    }
}

struct Moving<'a> {
    tree: &'a Value,
    references: &'a References,
    draft: Draft,
    place: &'a str,
    /// Names of the parts, by pointer.
    names: HashMap<String, String>,
    taken: HashSet<String>,
    /// How many times each name was requested.
    numbers: HashMap<String, usize>,
    /// Parts that have not been written yet.
    waiting: VecDeque<(String, String)>,
    /// The approximate number of bytes so far.
    written: usize,
}

impl Moving<'_> {
    fn schema(&mut self, schema: &Value) -> Value {
        enter();
        self.write(2);
        let Value::Object(members) = schema else {
            return if schema.is_boolean() { schema.clone() } else { Value::Bool(true) };
        };
        let mut moved = Map::new();
        let mut more = Vec::new();
        for keyword in ["$ref", "$dynamicRef", "$recursiveRef"] {
            let Some(reference) = members.get(keyword).and_then(Value::as_str) else { continue };
            let Some(target) = self.reference(schema, reference) else { continue };
            self.write(target.len() + 10);
            match moved.contains_key("$ref") {
                false => drop(moved.insert("$ref".to_owned(), Value::String(target))),
                true => more.push(json!({ "$ref": target })),
            }
        }
        if members.contains_key("$ref") && self.references.ignores_siblings() {
            return Value::Object(moved);
        }
        for (keyword, value) in members {
            spend(1);
            self.member(&mut moved, members, keyword, value);
        }
        if !more.is_empty() {
            match moved.get_mut("allOf") {
                Some(Value::Array(all)) => all.append(&mut more),
                _ => drop(moved.insert("allOf".to_owned(), Value::Array(more))),
            }
        }
        Value::Object(moved)
    }

    fn write(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written > WRITTEN_BYTES_MAX {
            give_up(Excess::Steps(WRITTEN_BYTES_MAX as u64));
        }
    }

    /// A reference to the future location of a reference's target.
    fn reference(&mut self, schema: &Value, reference: &str) -> Option<String> {
        let pointer = self.references.pointer(schema, reference)?;
        self.tree.pointer(&pointer)?;
        if pointer.is_empty() {
            return Some(self.place.to_owned());
        }
        if let Some(name) = self.names.get(&pointer) {
            return Some(format!("{}.{name}", self.place));
        }
        // The pointer is kept until the end.
        self.write(pointer.len());
        let name = self.name(&pointer);
        let target = format!("{}.{name}", self.place);
        self.names.insert(pointer.clone(), name.clone());
        self.waiting.push_back((pointer, name));
        Some(target)
    }

    /// A plain name that no other part has.
    fn name(&mut self, pointer: &str) -> String {
        let last = pointer.rsplit('/').next().unwrap_or_default().replace("~1", "_").replace("~0", "_");
        let plain = |char: char| if char.is_ascii_alphanumeric() { char } else { '_' };
        let wanted: String = last.chars().take(NAME_CHARS_MAX).map(plain).collect();
        let wanted = if wanted.is_empty() { "part".to_owned() } else { wanted };
        let number = self.numbers.entry(wanted.clone()).or_default();
        loop {
            spend(1);
            *number += 1;
            let name = if *number == 1 { wanted.clone() } else { format!("{wanted}_{number}") };
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }

    fn member(&mut self, moved: &mut Map<String, Value>, members: &Map<String, Value>, keyword: &str, value: &Value) {
        let draft4 = self.draft == Draft::Draft4;
        let (name, value) = match (keyword, value) {
            ("items", Value::Array(items)) => {
                let items: Vec<Value> = items.iter().map(|item| self.schema(item)).collect();
                if let Some(rest) = members.get("additionalItems") {
                    let rest = self.schema(rest);
                    moved.insert("items".to_owned(), rest);
                }
                // An empty list of schemas has no meaning and is not allowed in draft 2020-12.
                if items.is_empty() {
                    return;
                }
                ("prefixItems", Value::Array(items))
            }
            ("additionalItems", _) => return,
            ("minimum", _) if draft4 && members.get("exclusiveMinimum") == Some(&Value::Bool(true)) => {
                ("exclusiveMinimum", value.clone())
            }
            ("maximum", _) if draft4 && members.get("exclusiveMaximum") == Some(&Value::Bool(true)) => {
                ("exclusiveMaximum", value.clone())
            }
            ("exclusiveMinimum" | "exclusiveMaximum", Value::Bool(_)) => return,
            ("required", Value::Array(names)) if names.is_empty() => return,
            ("dependencies", Value::Object(dependencies)) => {
                self.dependencies(moved, dependencies);
                return;
            }
            ("dependentRequired" | "dependentSchemas", Value::Object(_)) if moved.contains_key(keyword) => return,
            _ if !self.knows(keyword) => return,
            _ => match (shape(keyword), value) {
                (Some(Shape::Schemas), Value::Array(items)) => {
                    (keyword, Value::Array(items.iter().map(|item| self.schema(item)).collect()))
                }
                (Some(Shape::Schemas), _) => (keyword, self.schema(value)),
                (Some(Shape::Named), Value::Object(named)) => {
                    let named = named.iter().map(|(name, schema)| {
                        self.write(name.len() + 4);
                        (name.clone(), self.schema(schema))
                    });
                    (keyword, Value::Object(named.collect()))
                }
                (Some(Shape::Named), _) => return,
                // Omitted: a tool that looks for references everywhere would follow one inside data.
                (None, _) if has_reference(value) => return,
                (None, _) => {
                    self.write(bytes(value));
                    (keyword, value.clone())
                }
            },
        };
        self.write(name.len() + 4);
        moved.insert(name.to_owned(), value);
    }

    /// `dependencies`: one keyword up to draft 7, and two since then.
    fn dependencies(&mut self, moved: &mut Map<String, Value>, dependencies: &Map<String, Value>) {
        let (mut required, mut schemas) = (Map::new(), Map::new());
        for (name, dependency) in dependencies {
            match dependency {
                Value::Array(_) => required.insert(name.clone(), dependency.clone()),
                schema => schemas.insert(name.clone(), self.schema(schema)),
            };
        }
        for (keyword, all) in [("dependentRequired", required), ("dependentSchemas", schemas)] {
            if !all.is_empty() {
                moved.insert(keyword.to_owned(), Value::Object(all));
            }
        }
    }

    /// Whether a keyword has a meaning in the draft that the schema is written in.
    fn knows(&self, keyword: &str) -> bool {
        let since = match keyword {
            "type"
            | "enum"
            | "multipleOf"
            | "minimum"
            | "maximum"
            | "exclusiveMinimum"
            | "exclusiveMaximum"
            | "minLength"
            | "maxLength"
            | "pattern"
            | "items"
            | "minItems"
            | "maxItems"
            | "uniqueItems"
            | "properties"
            | "patternProperties"
            | "additionalProperties"
            | "required"
            | "minProperties"
            | "maxProperties"
            | "allOf"
            | "anyOf"
            | "oneOf"
            | "not"
            | "format"
            | "title"
            | "description"
            | "default" => Draft::Draft4,
            "const" | "contains" | "propertyNames" | "examples" => Draft::Draft6,
            "if" | "then" | "else" | "readOnly" | "writeOnly" | "contentEncoding" | "contentMediaType" => Draft::Draft7,
            "deprecated"
            | "dependentRequired"
            | "dependentSchemas"
            | "unevaluatedItems"
            | "unevaluatedProperties"
            | "minContains"
            | "maxContains"
            | "contentSchema" => Draft::Draft201909,
            "prefixItems" => Draft::Draft202012,
            _ => return keyword.starts_with("x-"),
        };
        age(self.draft) >= age(since)
    }
}

/// The order of the drafts.
fn age(draft: Draft) -> u8 {
    match draft {
        Draft::Draft4 => 4,
        Draft::Draft6 => 6,
        Draft::Draft7 => 7,
        Draft::Draft201909 => 8,
        _ => 9,
    }
}

/// Whether any object in a value has a member that looks like a reference.
fn has_reference(value: &Value) -> bool {
    enter();
    match value {
        Value::Object(members) => members.contains_key("$ref") || members.values().any(has_reference),
        Value::Array(items) => items.iter().any(has_reference),
        _ => false,
    }
}

/// The approximate size of a value as text, in bytes.
fn bytes(value: &Value) -> usize {
    enter();
    match value {
        Value::Object(members) => members.iter().map(|(name, value)| name.len() + 4 + bytes(value)).sum::<usize>() + 2,
        Value::Array(items) => items.iter().map(|item| 1 + bytes(item)).sum::<usize>() + 2,
        Value::String(text) => text.len() + 2,
        Value::Number(number) => number.as_str().len(),
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Compiled;

    fn portable(tree: &Value) -> Portable {
        let references = References::of(tree);
        crate::on_large_stack(|| Portable::of(tree, &references, "#/components/schemas/m", &Limits::schema())).unwrap()
    }

    #[test]
    fn what_is_referred_to_gets_a_plain_name() {
        let tree = json!({
            "$id": "https://example.com/m.json",
            "type": "object",
            "properties": {
                "a": {"$ref": "#/$defs/a~1b%25c", "description": "kept"},
                "b": {"$ref": "#named"},
                "c": {"$ref": "item.json"},
                "d": {"$ref": "https://example.com/m.json"},
                "e": {"$ref": "#/$defs/nested/a"},
                "$ref": {"type": "string", "x-mine": 1, "discriminator": 5, "xml": 6},
            },
            "$defs": {
                "a/b%c": {"type": "string"},
                "named": {"$anchor": "named", "items": {"$ref": "#"}},
                "item": {"$id": "item.json", "type": "object", "properties": {"next": {"$ref": "#"}}},
                "nested": {"a": {"const": {"$ref": "data"}, "minimum": 1}},
                "unused": {"type": "null"}
            }
        });
        let Portable { root, parts } = portable(&tree);
        assert_eq!(
            root,
            json!({"type": "object", "properties": {
                "a": {"$ref": "#/components/schemas/m.a_b_c", "description": "kept"},
                "b": {"$ref": "#/components/schemas/m.named"},
                "c": {"$ref": "#/components/schemas/m.item"},
                "d": {"$ref": "#/components/schemas/m"},
                "e": {"$ref": "#/components/schemas/m.a"},
                "$ref": {"type": "string", "x-mine": 1},
            }})
        );
        assert_eq!(
            Value::Object(parts.into_iter().collect()),
            json!({
                "a_b_c": {"type": "string"},
                "named": {"items": {"$ref": "#/components/schemas/m"}},
                "item": {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/m.item"}}},
                "a": {"minimum": 1},
            })
        );
    }

    #[test]
    fn older_drafts_are_put_into_new_words() {
        let draft4 = json!({
            "$schema": "http://json-schema.org/draft-04/schema#", "id": "urn:x", "type": "object",
            "properties": {
                "n": {"type": "number", "minimum": 1, "exclusiveMinimum": true, "maximum": 9, "exclusiveMaximum": false},
                "list": {"items": [{"type": "string"}, {}], "additionalItems": false},
                "const": {"const": 1, "if": false},
                "ref": {"$ref": "#/definitions/d", "description": "ignored there"}
            },
            "dependencies": {"n": ["list"], "list": {"required": ["n"]}},
            "definitions": {"d": {"type": "null"}}
        });
        assert_eq!(
            portable(&draft4).root,
            json!({"type": "object",
                "properties": {
                    "n": {"type": "number", "exclusiveMinimum": 1, "maximum": 9},
                    "list": {"prefixItems": [{"type": "string"}, {}], "items": false},
                    "const": {},
                    "ref": {"$ref": "#/components/schemas/m.d"}
                },
                "dependentRequired": {"n": ["list"]}, "dependentSchemas": {"list": {"required": ["n"]}}})
        );
        let dynamic = json!({"$dynamicAnchor": "node", "type": "object", "$ref": "#/$defs/base",
            "properties": {"next": {"$dynamicRef": "#node", "$ref": "#/$defs/base"}}, "$defs": {"base": {"minProperties": 0}}});
        assert_eq!(
            portable(&dynamic).root,
            json!({"$ref": "#/components/schemas/m.base", "type": "object", "properties": {"next": {
                "$ref": "#/components/schemas/m.base", "allOf": [{"$ref": "#/components/schemas/m"}]}}})
        );
    }

    #[test]
    fn both_take_the_same_data() {
        let drafts = ["draft-04/schema#", "draft-06/schema#", "draft-07/schema#", "draft/2019-09/schema"];
        for draft in
            drafts.map(|draft| format!("http{}://json-schema.org/{draft}", if draft.contains('#') { "" } else { "s" }))
        {
            let tree = json!({"$schema": draft, "type": "object", "definitions": {"s": {"type": "string", "maxLength": 2}},
                "properties": {"a": {"items": [{"$ref": "#/definitions/s"}], "additionalItems": {"type": "null"}}},
                "dependencies": {"a": ["b"]}});
            let Portable { root, parts } = portable(&tree);
            let mut whole = json!({"components": {"schemas": {"m": root}}, "$ref": "#/components/schemas/m"});
            for (name, part) in parts {
                whole["components"]["schemas"][format!("m.{name}")] = part;
            }
            let [old, new] = [tree, whole].map(|tree| Compiled::new(&tree, &Limits::schema()).unwrap());
            for data in [
                json!({}),
                json!({"a": 1, "b": 1}),
                json!({"a": []}),
                json!({"a": ["x"], "b": 1}),
                json!({"a": ["xxx"], "b": 1}),
                json!({"a": ["x", null], "b": 1}),
                json!({"a": ["x", 1], "b": 1}),
            ] {
                let [old, new] =
                    [&old, &new].map(|schema| schema.check(&data, &Limits::inline(), 1, false).unwrap().is_ok());
                assert_eq!(old, new, "{draft}: {data}");
            }
        }
    }

    #[test]
    fn many_and_deep_schemas_end() {
        let many: Map<String, Value> = (0..5000).map(|n| (format!("{}{n}", "x".repeat(60)), json!({}))).collect();
        let all: Vec<Value> = many.keys().map(|name| json!({"$ref": format!("#/$defs/{name}")})).collect();
        let moved = portable(&json!({"type": "object", "$defs": many, "allOf": all}));
        let names: HashSet<&String> = moved.parts.iter().map(|(name, _)| name).collect();
        assert_eq!((moved.parts.len(), names.len()), (5000, 5000));
        let mut deep = json!({});
        for _ in 0..120 {
            deep = json!({"not": deep});
        }
        assert!(portable(&json!({"type": "object", "allOf": [deep]})).parts.is_empty());
        // Each part contains everything below it.
        let mut nested = json!({"description": "x".repeat(200_000)});
        let mut references = Vec::new();
        let mut pointer = "#".to_owned();
        for _ in 0..50 {
            nested = json!({"not": nested});
            pointer.push_str("/not");
            references.push(json!({ "$ref": pointer }));
        }
        nested["allOf"] = Value::Array(references);
        let large = References::of(&nested);
        assert!(crate::on_large_stack(|| Portable::of(&nested, &large, "#", &Limits::schema())).is_err());
        // The same with references, which are longer when they are written.
        let leaves: Vec<Value> = (0..5000).map(|_| json!({"$ref": "#/$defs/x"})).collect();
        let mut nested = json!({ "allOf": leaves });
        let mut references = Vec::new();
        let mut pointer = "#/$defs/n".to_owned();
        for _ in 0..20 {
            nested = json!({"not": nested});
            references.push(json!({ "$ref": pointer }));
            pointer.push_str("/not");
        }
        let many = json!({"allOf": references, "$defs": {"x": {}, "n": nested}});
        let index = References::of(&many);
        let place = format!("#/components/schemas/{}", "m".repeat(63));
        assert!(crate::on_large_stack(|| Portable::of(&many, &index, &place, &Limits::schema())).is_err());
        let few = Limits { steps: 10, ..Limits::inline() };
        let tree = json!({"properties": {"a": {}, "b": {}, "c": {}, "d": {}, "e": {}, "f": {}, "g": {}, "h": {}, "i": {}, "j": {}}});
        assert!(Portable::of(&tree, &References::of(&tree), "#", &few).is_err());
    }
}
