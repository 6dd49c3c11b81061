//! Defaults of properties, at any depth, also behind references and `allOf`.
//!
//! A schema may refer to itself, so defaults are a graph whose edges follow the data. The full value of each default is
//! computed once, when the schema is compiled, so that filling in only costs as much as the resulting data.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::Value;
use snaphook_driver::PAYLOAD_BYTES_MAX;
use snaphook_schema::{References, step};

/// Maximum size of one default with its nested defaults.
const DEFAULT_BYTES_MAX: usize = 256 * 1024;
/// Maximum number of different object descriptions.
const NODES_MAX: usize = 20_000;

/// The graph; the first node is the document.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    nodes: Vec<Node>,
    /// The node of each subschema that has one, by address.
    places: HashMap<usize, usize>,
}

/// The properties of one kind of object that have defaults, or nested ones.
#[derive(Debug, Default)]
struct Node(Vec<Property>);

#[derive(Debug)]
struct Property {
    name: String,
    /// With nested defaults filled in, and its size in bytes.
    default: Option<(Value, usize)>,
    below: Option<usize>,
}

impl Defaults {
    /// Builds the graph; the error names the exceeded limit.
    pub(super) fn of(tree: &Value, references: &References) -> Result<Defaults, String> {
        let mut building =
            Building { tree, references, nodes: Vec::new(), known: HashMap::new(), places: HashMap::new() };
        building.node(tree)?;
        for (pointer, default) in written(tree) {
            if default.is_object()
                && let Some(schema) = tree.pointer(&pointer)
            {
                let node = building.node(schema)?;
                building.places.insert(address(schema), node);
            }
        }
        let Building { nodes, places, .. } = building;
        let mut defaults = Defaults { nodes: useful(nodes), places };
        defaults.expand()?;
        Ok(defaults)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.first().is_none_or(|root| root.0.is_empty())
    }

    pub(super) fn top_level(&self) -> Vec<(String, Value)> {
        let properties = self.nodes.first().map_or(&[][..], |root| root.0.as_slice());
        properties
            .iter()
            .filter_map(|property| property.default.as_ref().map(|(value, _)| (property.name.clone(), value.clone())))
            .collect()
    }

    /// Fills in a document; an error if it would become too large.
    pub(super) fn fill(&self, data: &mut Value, bytes_max: usize) -> Result<bool, String> {
        self.fill_at(0, data, &mut { bytes_max })
    }

    /// Fills in a value described by a subschema with a default.
    pub(super) fn fill_from(&self, schema: &Value, value: &mut Value) -> Result<(), String> {
        match self.places.get(&address(schema)) {
            Some(node) => self.fill_at(*node, value, &mut { PAYLOAD_BYTES_MAX }).map(|_| ()),
            None => Ok(()),
        }
    }

    fn fill_at(&self, node: usize, data: &mut Value, left: &mut usize) -> Result<bool, String> {
        let (Some(Node(properties)), Value::Object(members)) = (self.nodes.get(node), data) else { return Ok(false) };
        let mut changed = false;
        for Property { name, default, below } in properties {
            match (members.get_mut(name), default) {
                (Some(value), _) => {
                    if let Some(below) = below {
                        changed |= self.fill_at(*below, value, left)?;
                    }
                }
                (None, Some((default, bytes))) => {
                    let bytes = bytes + name.len();
                    *left = left.checked_sub(bytes).ok_or_else(|| {
                        format!(
                            "filling in the defaults adds too much to the data: more than {PAYLOAD_BYTES_MAX} bytes"
                        )
                    })?;
                    members.insert(name.clone(), default.clone());
                    changed = true;
                }
                (None, None) => {}
            }
        }
        Ok(changed)
    }

    /// Fills in the nested defaults of each default.
    fn expand(&mut self) -> Result<(), String> {
        let mut done: HashMap<(usize, usize), (Value, usize)> = HashMap::new();
        for node in 0..self.nodes.len() {
            for row in 0..self.nodes[node].0.len() {
                if self.nodes[node].0[row].default.is_some() {
                    self.expanded(node, row, &mut done, &mut HashSet::new())?;
                }
            }
        }
        for ((node, row), value) in done {
            self.nodes[node].0[row].default = Some(value);
        }
        Ok(())
    }

    fn expanded(
        &self,
        node: usize,
        row: usize,
        done: &mut HashMap<(usize, usize), (Value, usize)>,
        open: &mut HashSet<usize>,
    ) -> Result<Option<(Value, usize)>, String> {
        step(1);
        if let Some(known) = done.get(&(node, row)) {
            return Ok(Some(known.clone()));
        }
        let Property { name, default, below } = &self.nodes[node].0[row];
        let Some((default, _)) = default else { return Ok(None) };
        let mut value = default.clone();
        // A default that would contain itself is cut at the repetition.
        let circle = match below {
            Some(below) if open.insert(*below) => {
                let circle = self.expand_below(*below, &mut value, done, open)?;
                open.remove(below);
                circle
            }
            Some(_) => true,
            None => false,
        };
        let bytes = value.to_string().len();
        step(1 + bytes as u64 / 64);
        if bytes > DEFAULT_BYTES_MAX {
            return Err(format!("the default of `{name}` has more than {DEFAULT_BYTES_MAX} bytes with those below it"));
        }
        if !circle || open.is_empty() {
            done.insert((node, row), (value.clone(), bytes));
        }
        Ok(Some((value, bytes)))
    }

    /// Returns whether a circle was cut.
    fn expand_below(
        &self,
        node: usize,
        value: &mut Value,
        done: &mut HashMap<(usize, usize), (Value, usize)>,
        open: &mut HashSet<usize>,
    ) -> Result<bool, String> {
        step(1);
        let Value::Object(members) = value else { return Ok(false) };
        let mut circle = false;
        for (row, Property { name, below, .. }) in self.nodes[node].0.iter().enumerate() {
            if let Some(value) = members.get_mut(name) {
                if let Some(below) = below {
                    circle |= self.expand_below(*below, value, done, open)?;
                }
            } else if below.is_some_and(|below| open.contains(&below)) {
                circle = true;
            } else if let Some((value, _)) = self.expanded(node, row, done, open)? {
                members.insert(name.clone(), value);
            }
        }
        Ok(circle)
    }
}

struct Building<'a> {
    tree: &'a Value,
    references: &'a References,
    nodes: Vec<Vec<Written>>,
    /// Nodes by the subschemas that describe them.
    known: HashMap<BTreeSet<usize>, usize>,
    places: HashMap<usize, usize>,
}

/// A property in the schemas of an object.
struct Written {
    name: String,
    default: Option<Value>,
    below: Option<usize>,
}

impl<'a> Building<'a> {
    /// The node of an object described by a schema. Creates nested nodes, too.
    fn node(&mut self, schema: &'a Value) -> Result<usize, String> {
        let mut first = 0;
        let mut open = vec![(vec![schema], None::<(usize, usize)>)];
        while let Some((schemas, parent)) = open.pop() {
            let mut flat = Vec::new();
            let mut key = BTreeSet::new();
            for schema in schemas {
                self.flatten(schema, &mut flat, &mut key);
            }
            if parent.is_some() && !flat.iter().any(|schema| schema.get("properties").is_some()) {
                continue;
            }
            let node = match self.known.get(&key) {
                Some(node) => *node,
                None => {
                    let node = self.nodes.len();
                    if node >= NODES_MAX {
                        return Err(format!("its defaults describe more than {NODES_MAX} kinds of objects"));
                    }
                    self.known.insert(key, node);
                    let (properties, children) = self.properties(&flat);
                    self.nodes.push(properties);
                    open.extend(children.into_iter().enumerate().map(|(row, schemas)| (schemas, Some((node, row)))));
                    node
                }
            };
            match parent {
                Some((parent, row)) => self.nodes[parent][row].below = Some(node),
                None => first = node,
            }
        }
        Ok(first)
    }

    /// The properties in the schemas of one object, each with the schemas that describe it.
    fn properties(&self, flat: &[&'a Value]) -> (Vec<Written>, Vec<Vec<&'a Value>>) {
        let mut properties: Vec<Written> = Vec::new();
        let mut children: Vec<Vec<&'a Value>> = Vec::new();
        let mut rows: HashMap<&str, usize> = HashMap::new();
        for schema in flat {
            for (name, child) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                step(1);
                let row = *rows.entry(name).or_insert_with(|| {
                    properties.push(Written { name: name.clone(), default: None, below: None });
                    children.push(Vec::new());
                    properties.len() - 1
                });
                children[row].push(child);
                if properties[row].default.is_none() {
                    properties[row].default = self.default_of(child);
                }
            }
        }
        (properties, children)
    }

    /// A schema and all others for the same value: its `$ref` target, and the members of `allOf`.
    fn flatten(&self, schema: &'a Value, flat: &mut Vec<&'a Value>, seen: &mut BTreeSet<usize>) {
        step(1);
        if !schema.is_object() || !seen.insert(address(schema)) {
            return;
        }
        let target = schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|reference| self.references.resolve(self.tree, schema, reference));
        if !(self.references.ignores_siblings() && schema.get("$ref").is_some()) {
            flat.push(schema);
            for member in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
                self.flatten(member, flat, seen);
            }
        }
        if let Some(target) = target {
            self.flatten(target, flat, seen);
        }
    }

    /// The first default of the schema, its `$ref` target or its `allOf`.
    fn default_of(&self, schema: &'a Value) -> Option<Value> {
        let mut flat = Vec::new();
        self.flatten(schema, &mut flat, &mut BTreeSet::new());
        flat.into_iter().find_map(|schema| schema.get("default")).cloned()
    }
}

/// The nodes without the properties that lead to no default.
fn useful(written: Vec<Vec<Written>>) -> Vec<Node> {
    let mut parents: Vec<Vec<usize>> = vec![Vec::new(); written.len()];
    let mut useful = vec![false; written.len()];
    let mut open = Vec::new();
    for (node, properties) in written.iter().enumerate() {
        for property in properties {
            if let Some(below) = property.below {
                parents[below].push(node);
            }
            if property.default.is_some() && !useful[node] {
                useful[node] = true;
                open.push(node);
            }
        }
    }
    while let Some(node) = open.pop() {
        for parent in std::mem::take(&mut parents[node]) {
            if !useful[parent] {
                useful[parent] = true;
                open.push(parent);
            }
        }
    }
    let property = |Written { name, default, below }: Written| {
        let below = below.filter(|below| useful[*below]);
        let default = default.map(|value| (value, 0));
        (default.is_some() || below.is_some()).then_some(Property { name, default, below })
    };
    written.into_iter().map(|properties| Node(properties.into_iter().filter_map(property).collect())).collect()
}

/// All defaults in a schema: the pointer of the subschema, and the value.
pub(super) fn written(tree: &Value) -> Vec<(String, &Value)> {
    snaphook_schema::all(tree)
        .into_iter()
        .filter_map(|(pointer, schema)| Some((pointer, schema.get("default")?)))
        .collect()
}

fn address(schema: &Value) -> usize {
    std::ptr::from_ref(schema) as usize
}

#[cfg(test)]
mod tests {
    use super::super::tests::schema;
    use super::super::{Effort, Schema};
    use serde_json::{Value, json};
    use snaphook_driver::Json;

    #[track_caller]
    fn fills(schema: &Schema, data: Value, expected: Value) {
        let mut filled = data.clone();
        let changed = schema.fill_defaults(&mut filled, &Effort::whole(None, None)).unwrap();
        assert_eq!((changed, &filled), (data != expected, &expected));
    }

    #[test]
    fn defaults_are_filled_in_at_every_level() {
        let schema = schema(json!({"type": "object", "properties": {
            "a": {"default": 1}, "b": {"type": "object", "properties": {"c": {"default": "x"}}},
            "d": {"default": {}, "properties": {"e": {"default": true}}}}}));
        fills(&schema, json!({"b": {}}), json!({"b": {"c": "x"}, "a": 1, "d": {"e": true}}));
        fills(
            &schema,
            json!({"a": 1, "b": {"c": "x"}, "d": {"e": true}}),
            json!({"a": 1, "b": {"c": "x"}, "d": {"e": true}}),
        );
    }

    #[test]
    fn references_and_all_of_are_followed() {
        let parts = schema(json!({"type": "object", "$ref": "#/$defs/base", "allOf": [
            {"properties": {"b": {"default": 2}}}, {"$ref": "https://example.com/c"}],
            "properties": {"n": {"$ref": "#/$defs/number"}, "own": {"$ref": "#/$defs/number", "default": 8},
                "both": {"allOf": [{"properties": {"x": {"default": 1}}}, {"$ref": "#/$defs/y"}]}},
            "$defs": {"base": {"properties": {"a": {"default": 1}, "n": {"default": 9}}}, "number": {"type": "integer", "default": 7},
                "y": {"properties": {"y": {"default": 2}}}, "c": {"$id": "https://example.com/c", "properties": {"c": {"default": 3}}}}}));
        fills(&parts, json!({"both": {}}), json!({"both": {"x": 1, "y": 2}, "n": 7, "own": 8, "b": 2, "c": 3, "a": 1}));
        let old = schema(json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
            "properties": {"n": {"$ref": "#/definitions/n", "default": 1}}, "definitions": {"n": {"default": 2}}}));
        fills(&old, json!({}), json!({"n": 2}));
        // Defaults that may not apply are not filled in.
        let any = schema(json!({"type": "object", "anyOf": [{"properties": {"a": {"default": 1}}}],
            "if": true, "then": {"properties": {"b": {"default": 1}}}}));
        assert!(!any.has_defaults());
    }

    #[test]
    fn schemas_that_hold_themselves_end() {
        let tree = schema(json!({"type": "object", "$ref": "#/$defs/node", "$defs": {"node": {"type": "object",
            "properties": {"next": {"$ref": "#/$defs/node", "default": {}}, "size": {"default": 1}}}}}));
        fills(&tree, json!({}), json!({"next": {"size": 1}, "size": 1}));
        fills(
            &tree,
            json!({"next": {"next": {}}}),
            json!({"next": {"next": {"next": {"size": 1}, "size": 1}, "size": 1}, "size": 1}),
        );
        let doubling = |levels: usize| {
            let defs: serde_json::Map<String, Value> = (0..levels)
                .map(|n| {
                    let next = json!({"$ref": format!("#/$defs/d{}", n + 1), "default": {}});
                    let node = if n + 1 == levels { json!({}) } else { json!({"properties": {"a": next, "b": next}}) };
                    (format!("d{n}"), node)
                })
                .collect();
            let tree = json!({"type": "object", "$ref": "#/$defs/d0", "$defs": defs});
            Schema::compile(&Json::from_value(&tree), &Effort::whole(None, None))
        };
        assert!(doubling(5).is_ok());
        let error = doubling(60).unwrap_err();
        assert!(error.too_complex, "{error}");
    }

    #[test]
    fn what_is_filled_in_has_a_size() {
        let tree = schema(json!({"type": "object", "$ref": "#/$defs/node", "$defs": {"node": {"type": "object",
            "properties": {"a": {"$ref": "#/$defs/node"}, "b": {"$ref": "#/$defs/node"}, "text": {"default": "x".repeat(200_000)}}}}}));
        let mut data = json!({});
        for _ in 0..100 {
            data = json!({"a": data, "b": {}});
        }
        let error = tree.fill_defaults(&mut data, &Effort::whole(None, None)).unwrap_err();
        assert!(format!("{error:?}").contains("adds too much"), "{error:?}");
    }
}
