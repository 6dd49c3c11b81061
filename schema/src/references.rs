//! The targets of a schema's references: pointers, anchors, the schema's own `$id` and those of its subschemas.
//!
//! Only locations where a schema is expected count: `$ref` and `$id` in data or in unknown keywords have no meaning.

use std::collections::HashMap;
use std::sync::Arc;

use jsonschema::Draft;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use url::Url;

use crate::budget::enter;
use crate::keywords::subschemas;

/// Maximum size in bytes of an absolute identifier; each reference is resolved to one.
pub(crate) const ID_BYTES_MAX: usize = 2048;

/// Maximum size in bytes of the JSON Pointer of a subschema.
pub(crate) const PLACE_BYTES_MAX: usize = 4096;

/// The identifier of a schema without `$id`.
const NAMELESS: &str = "json-schema:///";

/// An index over one schema.
#[derive(Debug)]
pub struct References {
    /// Set for drafts up to 7: members beside `$ref` are ignored.
    siblings_ignored: bool,
    root: String,
    /// Pointers by absolute URI without fragment.
    resources: HashMap<String, String>,
    /// Pointers by absolute URI with an anchor.
    anchors: HashMap<String, String>,
    /// The base URI of objects in embedded resources, by address, which is constant while the tree lives.
    bases: HashMap<usize, Arc<str>>,
    /// An identifier is longer than [`ID_BYTES_MAX`], or a pointer than [`PLACE_BYTES_MAX`].
    pub(crate) too_long: bool,
}

/// The draft that a schema is written in.
pub(crate) fn draft_of(tree: &Value) -> Draft {
    Draft::default().detect(tree)
}

/// Whether members beside `$ref` are ignored.
pub(crate) fn ignores_siblings(draft: Draft) -> bool {
    matches!(draft, Draft::Draft4 | Draft::Draft6 | Draft::Draft7)
}

impl References {
    pub fn of(tree: &Value) -> References {
        let draft = draft_of(tree);
        let mut references = References {
            siblings_ignored: ignores_siblings(draft),
            root: NAMELESS.to_owned(),
            resources: HashMap::new(),
            anchors: HashMap::new(),
            bases: HashMap::new(),
            too_long: false,
        };
        let own = tree.as_object().and_then(|object| references.id_of(object));
        references.root = join(NAMELESS, own.unwrap_or_default());
        references.resources.insert(references.root.clone(), String::new());
        references.too_long = references.root.len() > ID_BYTES_MAX;
        let root: Arc<str> = references.root.as_str().into();
        references.index(tree, &root, String::new());
        references
    }

    /// Whether members beside `$ref` are ignored.
    pub fn ignores_siblings(&self) -> bool {
        self.siblings_ignored
    }

    /// The pointer to the target of a reference in `schema`, which is a subschema of `tree`.
    pub fn pointer(&self, schema: &Value, reference: &str) -> Option<String> {
        let base: &str = self.bases.get(&address(schema)).map_or(&self.root, |base| base);
        let (uri, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let absolute = if uri.is_empty() { base.to_owned() } else { join(base, uri) };
        if fragment.is_empty() || fragment.starts_with('/') {
            let resource = self.resources.get(&absolute)?;
            let fragment = percent_decode_str(fragment).decode_utf8().ok()?;
            return Some(format!("{resource}{fragment}"));
        }
        self.anchors.get(&format!("{absolute}#{fragment}")).cloned()
    }

    /// The target of a reference in `schema`, which is a subschema of `tree`.
    pub fn resolve<'a>(&self, tree: &'a Value, schema: &Value, reference: &str) -> Option<&'a Value> {
        tree.pointer(&self.pointer(schema, reference)?)
    }

    fn index(&mut self, schema: &Value, base: &Arc<str>, pointer: String) {
        enter();
        let Value::Object(object) = schema else { return };
        if pointer.len() > PLACE_BYTES_MAX {
            self.too_long = true;
            return;
        }
        let mut base = Arc::clone(base);
        if !pointer.is_empty()
            && let Some(id) = self.id_of(object)
        {
            base = join(&base, id).into();
            if base.len() > ID_BYTES_MAX {
                self.too_long = true;
                return;
            }
            self.resources.entry(base.to_string()).or_insert_with(|| pointer.clone());
        }
        for keyword in ["$anchor", "$dynamicAnchor"] {
            if let Some(Value::String(anchor)) = object.get(keyword) {
                self.anchors.entry(format!("{base}#{anchor}")).or_insert_with(|| pointer.clone());
            }
        }
        if let Some(anchor) = self.id_text(object).and_then(|id| id.strip_prefix('#')).filter(|id| !id.is_empty()) {
            self.anchors.entry(format!("{base}#{anchor}")).or_insert_with(|| pointer.clone());
        }
        if *base != *self.root {
            self.bases.insert(address(schema), Arc::clone(&base));
        }
        for (suffix, child) in subschemas(object) {
            self.index(child, &base, format!("{pointer}{suffix}"));
        }
    }

    fn id_text<'a>(&self, object: &'a Map<String, Value>) -> Option<&'a str> {
        if self.siblings_ignored && object.get("$ref").is_some_and(Value::is_string) {
            return None;
        }
        // In draft 4 the keyword is `id`.
        object.get("$id").or_else(|| self.siblings_ignored.then(|| object.get("id")).flatten()).and_then(Value::as_str)
    }

    /// An identifier that names a resource, not an anchor in it.
    fn id_of<'a>(&self, object: &'a Map<String, Value>) -> Option<&'a str> {
        self.id_text(object).filter(|id| !id.starts_with('#'))
    }
}

fn address(value: &Value) -> usize {
    std::ptr::from_ref(value) as usize
}

/// Resolves a reference to an absolute URI without fragment.
fn join(base: &str, reference: &str) -> String {
    let reference = reference.split('#').next().unwrap_or_default();
    match Url::parse(base).and_then(|base| base.join(reference)) {
        Ok(url) => url.into(),
        Err(_) => reference.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_are_found_as_the_drafts_say() {
        let tree = json!({
            "$id": "https://example.com/order.json",
            "properties": {
                "a": {"$ref": "#/$defs/plain"},
                "b": {"$ref": "https://example.com/order.json"},
                "c": {"$ref": "item.json"},
                "d": {"$ref": "https://example.com/item.json#/$defs/deep"},
                "e": {"$ref": "#named"},
                "f": {"$ref": "item.json#inner"},
                "g": {"$ref": "https://example.com/elsewhere.json"},
                "h": {"$ref": "#/$defs/a~1b%25c"},
                "i": {"$ref": "urn:x:y"}
            },
            "x-unknown": {"$id": "https://example.com/ignored.json"},
            "$defs": {
                "plain": {},
                "a/b%c": {},
                "named": {"$anchor": "named"},
                "urn": {"$id": "urn:x:y"},
                "item": {"$id": "item.json", "$defs": {"deep": {"$ref": "#/$defs/other"}, "other": {"$anchor": "inner"}}}
            }
        });
        let references = References::of(&tree);
        let find = |at: &str| {
            let schema = tree.pointer(at).unwrap();
            references.pointer(schema, schema["$ref"].as_str().unwrap())
        };
        for (at, expected) in [
            ("/properties/a", Some("/$defs/plain")),
            ("/properties/b", Some("")),
            ("/properties/c", Some("/$defs/item")),
            ("/properties/d", Some("/$defs/item/$defs/deep")),
            ("/$defs/item/$defs/deep", Some("/$defs/item/$defs/other")),
            ("/properties/e", Some("/$defs/named")),
            ("/properties/f", Some("/$defs/item/$defs/other")),
            ("/properties/g", None),
            ("/properties/h", Some("/$defs/a~1b%c")),
            ("/properties/i", Some("/$defs/urn")),
        ] {
            assert_eq!(find(at).as_deref(), expected, "{at}");
        }
    }

    #[test]
    fn draft_7_names_anchors_by_id_and_ignores_siblings() {
        let tree = json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "definitions": {"a": {"$id": "#a"}, "b": {"$id": "https://example.com/b", "$ref": "#a"}}
        });
        let references = References::of(&tree);
        assert!(references.ignores_siblings());
        assert_eq!(references.pointer(&tree, "#a").as_deref(), Some("/definitions/a"));
        assert_eq!(references.pointer(&tree, "https://example.com/b"), None);
    }
}
