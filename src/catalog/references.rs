//! References: properties that contain the id of an instance, of the same model or of another.
//!
//! A top-level property declares one with `"x-references": {"model": "customer", "on-delete": "restrict"}`. The model's
//! record has the references in force: schemas stored before references were supported have none.
//!
//! A referenced instance has a claim in the event store, its target key. A write with a new reference takes the key for
//! the target's model, so all referring instances share it. The deletion of the target takes the key from them, and
//! only as of the position at which it looked for references. So of a new reference and a concurrent deletion, one
//! fails.
//!
//! # Why nothing refers to what is gone
//!
//! The event store judges one append after the other (`snaphook_driver::judge`), from all nodes, so only their order in
//! the log matters. A write with a new reference claims the target's key, and was prepared while the instance existed.
//! A deletion performs three steps in this order: it reads the holder of the key, waits until its node has applied the
//! whole log, and looks for references. It claims the key for the stream of the deleted instance, and replaces only the
//! holder that it has read (`replaces`).
//!
//! - The deletion is first: its stream has the key, so the write conflicts, and does not find the instance when it is
//!   prepared again. Only the creation of an instance with that id releases the key.
//! - The write is first, and the deletion read the holder before it: the key has moved to the write's position, so the
//!   deletion conflicts.
//! - The write is first, and the deletion read the holder after it: the write was already in the log, so the deletion
//!   finds the reference.
//!
//! A write that keeps a reference claims nothing: the target exists since the instance's last event, which the write
//! expects, because a deletion of the target would have been rejected, or would have changed the instance, too.
//!
//! A deletion checks the models that are known to refer to its own ([`Referenced::by`]). That list is always complete:
//!
//! - Before another model refers to a model, an event of the target's definition records it. A deletion that does not
//!   know this event requires the definition's earlier position, and conflicts.
//! - A deletion requires that each model of the list is at the event that it knows (0: there is no such model); a
//!   definition with a new reference requires that its targets are at theirs, and have it on their list. The second of
//!   the two conflicts. The deletion of a model works like that of an instance in this respect, and so does each
//!   deletion of its instances before it.
//! - Instances that already have a value for a new reference are checked before its definition is written. Each
//!   deletion also moves the key of the whole model ([`Referenced::prefix`]). The definition reads its holder, reads
//!   the log for deletions, and replaces only that holder.
//!
//! A key stays with its last holder until its model is deleted, one for each instance that was ever referenced or
//! deleted. So nothing has to be counted, and removing a reference costs nothing.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use snaphook_driver::limits::LISTS_MAX;
use snaphook_driver::{Claim, Position, SortKey, Stream};

use super::definition_error::{DefinitionError, error, escape};
use super::schema::Schema;
use crate::config::is_model_id;

/// References of one model.
pub const REFERENCES_MAX: usize = 16;

/// Models that refer to one model.
pub const REFERRING_MAX: usize = 64;

/// The prefix of all target keys.
pub const PREFIX: &str = "target ";

const KEYWORD: &str = "x-references";

/// A property that refers to instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub property: String,
    /// The model of the target instances.
    pub model: String,
    pub on_delete: OnDelete,
}

/// The effect on an instance when its target is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDelete {
    /// The target cannot be deleted.
    Restrict,
    /// The instance is deleted, too.
    Cascade,
    /// The reference is removed.
    SetNull,
}

impl OnDelete {
    const ALL: [OnDelete; 3] = [OnDelete::Restrict, OnDelete::Cascade, OnDelete::SetNull];

    pub const fn as_str(self) -> &'static str {
        match self {
            OnDelete::Restrict => "restrict",
            OnDelete::Cascade => "cascade",
            OnDelete::SetNull => "set-null",
        }
    }
}

/// Data of a model that others refer to, or did once, for deletions of its instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referenced {
    /// A part of its target keys, so that a later model of the same name has others.
    pub id: String,
    /// The models that may refer to it, sorted. Models that no longer refer to it may stay.
    pub by: Vec<String>,
}

impl Referenced {
    /// Adds one model. An error if there are too many.
    pub fn with(known: Option<&Referenced>, model: &str) -> Result<Referenced, String> {
        let mut referenced = known
            .cloned()
            .unwrap_or_else(|| Referenced { id: uuid::Uuid::now_v7().simple().to_string(), by: Vec::new() });
        if let Err(place) = referenced.by.binary_search_by(|known| known.as_str().cmp(model)) {
            if referenced.by.len() == REFERRING_MAX {
                return Err(format!("{REFERRING_MAX} models already refer to it, which is the maximum"));
            }
            referenced.by.insert(place, model.to_owned());
        }
        Ok(referenced)
    }

    /// Removes models that do not refer to it.
    pub fn without(mut self, models: &[&str]) -> Referenced {
        self.by.retain(|known| !models.contains(&known.as_str()));
        self
    }

    pub fn is_full(&self) -> bool {
        self.by.len() >= REFERRING_MAX
    }

    pub fn is_by(&self, model: &str) -> bool {
        self.by.binary_search_by(|known| known.as_str().cmp(model)).is_ok()
    }

    /// The prefix of all its keys. As a key itself, it moves with each deletion of an instance.
    pub fn prefix(&self) -> String {
        format!("{PREFIX}{}", self.id)
    }

    /// The target key of an instance.
    pub fn key(&self, instance: &str) -> String {
        format!("{PREFIX}{} {instance}", self.id)
    }

    /// The claim of an append with a new reference to an instance of `model`.
    pub fn claim(&self, model: &str, instance: &str) -> Claim {
        Claim { holder: Some(Stream::of_model(model)), ..Claim::new(self.key(instance)) }
    }

    /// The claim of the deletion of an instance, which looked for references when the target key was held since
    /// `replaces`. Nobody can refer to the instance until it is created again.
    pub fn deletion(&self, instance: &str, replaces: Option<Position>) -> [Claim; 2] {
        [Claim { replaces, ..Claim::new(self.key(instance)) }, Claim::new(self.prefix())]
    }
}

/// Whether a claim is a target key.
pub fn is_key(claim: &str) -> bool {
    claim.starts_with(PREFIX)
}

/// The references of a schema, checked against its other keywords. `indexes` are the client's.
pub(super) fn of_schema(schema: &Schema, indexes: &[Vec<String>]) -> Result<Vec<Reference>, DefinitionError> {
    let mut references: Vec<Reference> = Vec::new();
    for (pointer, value) in schema.keyword(KEYWORD) {
        let at = format!("/schema{pointer}/{KEYWORD}");
        let name = pointer.strip_prefix("/properties/").filter(|name| !name.contains('/')).map(unescape);
        let Some(property) = name else {
            let what = match pointer.strip_suffix("/items") {
                Some(_) => "arrays of references are not supported; create a model whose instances refer to both sides",
                None => "only a property at the top level of the data can be a reference, declared in its own schema",
            };
            return error(at, what);
        };
        if references.len() == REFERENCES_MAX {
            return error(at, format!("a model has at most {REFERENCES_MAX} references"));
        }
        references.push(reference(schema, property, value, &at)?);
    }
    let own = indexes.len() + references.iter().filter(|reference| !is_indexed(indexes, &reference.property)).count();
    if own > LISTS_MAX {
        let message = format!("references have an index each: {own} indexes, at most {LISTS_MAX} are allowed");
        return error("/indexes", message);
    }
    Ok(references)
}

fn reference(schema: &Schema, property: String, value: &Value, at: &str) -> Result<Reference, DefinitionError> {
    let Some(members) = value.as_object() else {
        return error(at, "an object is expected, such as {\"model\": \"customer\", \"on-delete\": \"restrict\"}");
    };
    if let Some(unknown) = members.keys().find(|name| !matches!(name.as_str(), "model" | "on-delete")) {
        let shown: String = unknown.chars().take(80).collect();
        return error(format!("{at}/{}", escape(unknown)), format!("unknown member `{shown}`"));
    }
    let Some(model) = members.get("model").and_then(Value::as_str).filter(|model| is_model_id(model)) else {
        return error(format!("{at}/model"), "the id of a model is expected");
    };
    let on_delete = match members.get("on-delete") {
        None => OnDelete::Restrict,
        Some(value) => {
            let named = OnDelete::ALL.into_iter().find(|kind| value.as_str() == Some(kind.as_str()));
            let Some(kind) = named else {
                return error(format!("{at}/on-delete"), "expected `restrict`, `cascade` or `set-null`");
            };
            kind
        }
    };
    let types = schema.types_of(&property);
    let is_text = types.contains(&"string") && types.iter().all(|name| matches!(*name, "string" | "null"));
    if !is_text {
        let pointer = format!("/schema/properties/{}", escape(&property));
        return error(pointer, "a reference must have the type `string`, or `string` and `null`");
    }
    if on_delete == OnDelete::SetNull && !types.contains(&"null") && schema.requires(&property) {
        let message = "`set-null` needs a property that may be null or absent, and this one is required";
        return error(format!("{at}/on-delete"), message);
    }
    Ok(Reference { property, model: model.to_owned(), on_delete })
}

/// The indexes for references that the model does not define itself.
pub(super) fn indexes<'r>(
    references: &'r [Reference],
    own: &'r [Vec<String>],
) -> impl Iterator<Item = Vec<SortKey>> + use<'r> {
    let missing = references.iter().filter(|reference| !is_indexed(own, &reference.property));
    missing.map(|reference| vec![SortKey { path: vec![reference.property.clone()].into(), descending: false }])
}

fn is_indexed(indexes: &[Vec<String>], property: &str) -> bool {
    indexes.iter().any(|list| list.first().is_some_and(|first| first == property))
}

/// The references of a new version that instances of the old one may violate: those that the old one did not have,
/// considering renames.
pub fn added(old: &[Reference], new: &[Reference], renames: &[(String, String)]) -> Vec<Reference> {
    let before =
        |name: &str| renames.iter().find(|(_, new)| new == name).map_or(name.to_owned(), |(old, _)| old.clone());
    let is_new = |reference: &&Reference| {
        let property = before(&reference.property);
        !old.iter().any(|known| known.property == property && known.model == reference.model)
    };
    new.iter().filter(is_new).cloned().collect()
}

fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use snaphook_driver::Json;

    use super::*;

    fn define(schema: Value, indexes: &[&str]) -> Result<Vec<Reference>, DefinitionError> {
        let indexes: Vec<_> = indexes.iter().map(|name| vec![(*name).to_owned()]).collect();
        of_schema(&Schema::compile_stored(&Json::from_value(&schema)).unwrap(), &indexes)
    }

    fn properties(properties: Value) -> Value {
        json!({"type": "object", "properties": properties})
    }

    #[test]
    fn references_are_read() {
        let found = define(
            properties(json!({
                "a": {"type": "string", "x-references": {"model": "m"}},
                "b/c": {"type": ["null", "string"], "x-references": {"model": "n", "on-delete": "set-null"}},
                "d.e": {"$ref": "#/$defs/id", "x-references": {"model": "m", "on-delete": "cascade"}},
                "x-references": {"type": "string", "default": "x-references"},
                "plain": {"const": {"x-references": 1}}
            }))
            .as_object()
            .map(|schema| {
                let mut schema = schema.clone();
                schema.insert("$defs".to_owned(), json!({"id": {"type": "string"}}));
                Value::Object(schema)
            })
            .unwrap(),
            &[],
        )
        .unwrap();
        let found: Vec<_> =
            found.iter().map(|found| (found.property.as_str(), found.model.as_str(), found.on_delete)).collect();
        assert_eq!(
            found,
            [("a", "m", OnDelete::Restrict), ("b/c", "n", OnDelete::SetNull), ("d.e", "m", OnDelete::Cascade)]
        );
    }

    #[test]
    fn what_cannot_be_a_reference_is_refused_where_it_stands() {
        let one = |rest: Value| {
            let mut property = json!({"type": "string"});
            property.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            properties(json!({ "p": property }))
        };
        let to = json!({"model": "m"});
        for (schema, pointer, message) in [
            (one(json!({"x-references": "m"})), "/schema/properties/p/x-references", "an object is expected"),
            (one(json!({"x-references": {}})), "/schema/properties/p/x-references/model", "id of a model"),
            (
                one(json!({"x-references": {"model": "A b"}})),
                "/schema/properties/p/x-references/model",
                "id of a model",
            ),
            (
                one(json!({"x-references": {"model": "m", "on/delete": 1}})),
                "/schema/properties/p/x-references/on~1delete",
                "unknown member `on/delete`",
            ),
            (
                one(json!({"x-references": {"model": "m", "on-delete": "nullify"}})),
                "/schema/properties/p/x-references/on-delete",
                "expected `restrict`, `cascade` or `set-null`",
            ),
            (
                one(json!({"type": "integer", "x-references": to})),
                "/schema/properties/p",
                "must have the type `string`",
            ),
            (properties(json!({"p": {"x-references": to}})), "/schema/properties/p", "must have the type `string`"),
            (
                properties(json!({"p": {"type": "array", "items": {"type": "string", "x-references": to}}})),
                "/schema/properties/p/items/x-references",
                "arrays of references are not supported",
            ),
            (
                properties(json!({"p": {"properties": {"q": {"type": "string", "x-references": to}}}})),
                "/schema/properties/p/properties/q/x-references",
                "top level",
            ),
            (
                json!({"type": "object", "allOf": [{"properties": {"p": {"type": "string", "x-references": to}}}]}),
                "/schema/allOf/0/properties/p/x-references",
                "top level",
            ),
            (
                json!({"type": "object", "required": ["p"], "properties": {
                    "p": {"type": "string", "x-references": {"model": "m", "on-delete": "set-null"}}}}),
                "/schema/properties/p/x-references/on-delete",
                "may be null or absent",
            ),
        ] {
            let error = define(schema.clone(), &[]).unwrap_err();
            assert_eq!(error.pointer, pointer, "{schema}: {}", error.message);
            assert!(error.message.contains(message), "{schema}: {}", error.message);
        }
    }

    #[test]
    fn counts_are_bounded() {
        let many = |count: usize| {
            let all = (0..count).map(|n| (format!("p{n}"), json!({"type": "string", "x-references": {"model": "m"}})));
            properties(Value::Object(all.chain((0..40).map(|n| (format!("i{n}"), json!({})))).collect()))
        };
        assert_eq!(define(many(REFERENCES_MAX), &[]).unwrap().len(), REFERENCES_MAX);
        assert!(define(many(REFERENCES_MAX + 1), &[]).unwrap_err().message.contains("at most 16 references"));
        let names: Vec<String> = (0..LISTS_MAX).map(|n| format!("i{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(define(many(1), &names[1..]).unwrap().len(), 1);
        assert_eq!(define(many(1), &names).unwrap_err().pointer, "/indexes");
        let mut known = None;
        for n in 0..REFERRING_MAX {
            known = Some(Referenced::with(known.as_ref(), &format!("m{n}")).unwrap());
        }
        let known = known.unwrap();
        assert!(known.is_by("m7") && !known.is_by("m"));
        assert_eq!(Referenced::with(Some(&known), "m7").unwrap(), known);
        assert!(known.is_full() && Referenced::with(Some(&known), "other").is_err());
        let fewer = known.without(&["m7", "m8"]);
        assert!(!fewer.is_full() && !fewer.is_by("m7") && fewer.is_by("m9"));
    }

    #[test]
    fn only_new_references_are_looked_at_again() {
        let reference = |property: &str, model: &str, on_delete| Reference {
            property: property.to_owned(),
            model: model.to_owned(),
            on_delete,
        };
        let old = [reference("a", "m", OnDelete::Restrict), reference("b", "n", OnDelete::Cascade)];
        let renames = [("a".to_owned(), "c".to_owned())];
        let names = |found: Vec<Reference>| found.into_iter().map(|found| found.property).collect::<Vec<_>>();
        let new = [reference("c", "m", OnDelete::Cascade), reference("b", "m", OnDelete::Cascade)];
        assert_eq!(names(added(&old, &new, &renames)), ["b"]);
        assert_eq!(names(added(&old, &new, &[])), ["c", "b"]);
        assert_eq!(names(added(&old, &old, &[])), [""; 0]);
    }

    #[test]
    fn keys_of_one_model_are_apart_from_all_others() {
        let (one, other) = (Referenced::with(None, "m").unwrap(), Referenced::with(None, "m").unwrap());
        assert_ne!(one.id, other.id);
        assert!(one.key("a").starts_with(&one.prefix()) && !one.key("a").starts_with(&other.prefix()));
        assert!(is_key(&one.key("a")) && is_key(&one.prefix()) && !is_key("list x") && !is_key("idempotency x"));
        let [target, moving] = one.deletion("a", Some(7));
        assert_eq!((target.key, target.replaces, moving.key), (one.key("a"), Some(7), one.prefix()));
        assert_eq!(one.claim("c", "a").holder, Some(Stream::of_model("c")));
    }
}
