//! References: properties that hold the id of an instance, of the same model or of another.
//!
//! A property of the data's top level says so with `"x-references": {"model": "customer", "on-delete": "restrict"}`. What is in
//! force stands in the model's record: a schema that was stored before references had a meaning has none.
//!
//! An instance that somebody refers to has a claim in the event store, its target key. Whoever writes a new reference takes it
//! for the target's model, so all of them hold it together; the deletion of the target takes it away from them, and only from
//! the position at which it looked for references. So of a new reference and a deletion at the same moment one fails.
//!
//! # Why nothing refers to what is gone
//!
//! The event store judges one append after the other (`snaphook_driver::judge`), whichever nodes they come from, so only their
//! order in the log matters. A write that begins to refer to an instance claims its key and was prepared when the instance was
//! there. A deletion does three things in this order: it asks who holds the key, waits until its node has applied the whole log,
//! and looks for references. It claims the key for the stream of the deleted instance, and gives way to no holder but the one it
//! was told of (`replaces`).
//!
//! - The deletion is first: its stream has the key, the write conflicts, and does not find the instance when it is prepared
//!   again. Only the creation of an instance with that id gives the key back.
//! - The write is first, and the deletion asked before it: the key has moved to the write's position, the deletion conflicts.
//! - The write is first, and the deletion asked after it: the write was in the log then, so the deletion finds the reference.
//!
//! A write that leaves a reference as it is claims nothing: the target is there since the instance's last event, after which the
//! write is expected, because a deletion of the target would have been refused, or changed the instance, too.
//!
//! A deletion looks at the models that are known to refer to its own ([`Referenced::by`]), and that list is always complete:
//!
//! - A model is told by an event of its own definition before another one refers to it. A deletion that does not know of it
//!   requires the definition to be where it was before, and conflicts.
//! - A deletion requires each model of the list to be at the event that it knows (0: there is no such model); a definition that
//!   makes a reference requires its targets to be at theirs, and to have it on their list. The second of the two conflicts. The
//!   end of a model is written like a deletion in this, and so is each deletion of its instances that goes before it.
//! - Instances that have the value of a new reference already are looked at before its definition is written. Each deletion
//!   moves one more key, that of the whole model ([`Referenced::prefix`]). The definition asks who holds it, reads the log for
//!   deletions, and replaces that holder only.
//!
//! A key stays with whoever took it last until its model ends, one for each instance that was ever referred to or deleted: so
//! nothing has to be counted, and a reference that goes costs nothing.

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

/// What every target key begins with.
pub const PREFIX: &str = "target ";

const KEYWORD: &str = "x-references";

/// A property that refers to instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub property: String,
    /// The model of the instances that it refers to.
    pub model: String,
    pub on_delete: OnDelete,
}

/// What becomes of an instance when the one that it refers to is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDelete {
    /// The other cannot be deleted.
    Restrict,
    /// It is deleted, too.
    Cascade,
    /// It refers to nothing from then on.
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

/// A model that others refer to, or did once: what deletions of its instances look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referenced {
    /// Begins its target keys, so that a later model of the same name has others.
    pub id: String,
    /// The models that may refer to it, sorted. One that does not any more may stay.
    pub by: Vec<String>,
}

impl Referenced {
    /// The same, or a new one, with one more model. An error if there are too many.
    pub fn with(known: Option<&Referenced>, model: &str) -> Result<Referenced, String> {
        let mut referenced = known
            .cloned()
            .unwrap_or_else(|| Referenced { id: uuid::Uuid::now_v7().simple().to_string(), by: Vec::new() });
        if let Err(place) = referenced.by.binary_search_by(|known| known.as_str().cmp(model)) {
            if referenced.by.len() == REFERRING_MAX {
                return Err(format!("{REFERRING_MAX} models refer to it already, and more are not allowed"));
            }
            referenced.by.insert(place, model.to_owned());
        }
        Ok(referenced)
    }

    /// The same, but for models that are found not to refer to it.
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

    /// What all its keys begin with. As a key it is the one that moves with each deletion of an instance.
    pub fn prefix(&self) -> String {
        format!("{PREFIX}{}", self.id)
    }

    /// The target key of an instance.
    pub fn key(&self, instance: &str) -> String {
        format!("{PREFIX}{} {instance}", self.id)
    }

    /// What an append takes that makes a reference to an instance of `model`.
    pub fn claim(&self, model: &str, instance: &str) -> Claim {
        Claim { holder: Some(Stream::of_model(model)), ..Claim::new(self.key(instance)) }
    }

    /// What the deletion of an instance takes, which looked for references when the target key was held since `replaces`. Until
    /// the instance is made again nobody can refer to it.
    pub fn deletion(&self, instance: &str, replaces: Option<Position>) -> [Claim; 2] {
        [Claim { replaces, ..Claim::new(self.key(instance)) }, Claim::new(self.prefix())]
    }
}

/// Whether a claim is a target key.
pub fn is_key(claim: &str) -> bool {
    claim.starts_with(PREFIX)
}

/// The references of a schema, checked against all else that it says. `indexes` are those that the client asks for.
pub(super) fn of_schema(schema: &Schema, indexes: &[Vec<String>]) -> Result<Vec<Reference>, DefinitionError> {
    let mut references: Vec<Reference> = Vec::new();
    for (pointer, value) in schema.keyword(KEYWORD) {
        let at = format!("/schema{pointer}/{KEYWORD}");
        let name = pointer.strip_prefix("/properties/").filter(|name| !name.contains('/')).map(unescape);
        let Some(property) = name else {
            let what = match pointer.strip_suffix("/items") {
                Some(_) => "arrays of references are not supported; make a model whose instances refer to both sides",
                None => "only a property of the data's top level can be a reference, and says so itself",
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

/// The indexes that references need and the model does not ask for itself.
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

/// The references of a new version that instances of the old one may not fit: those that the old one did not have, under
/// whatever name.
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
