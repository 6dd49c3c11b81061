//! Checks and compiles a client's definition of a model, and compares it with the previous version.

use std::collections::BTreeSet;
use std::sync::Arc;

use snaphook_driver::limits::{LIST_LENGTH_MAX, LISTS_MAX};
use snaphook_driver::{CarryOver, Json};

use super::definition_error::{DefinitionError, error, escape};
use super::model::{Model, ModelRecord};
use super::references::{self, Reference};
use super::rules::{Rules, RulesInput, renamed};
use super::schema::{Effort, Schema};
use super::unique_list::{UniqueInput, UniqueList};

/// Maximum size of a schema's text, which is stored with each change of the model.
const SCHEMA_BYTES_MAX: usize = 1024 * 1024;

/// A new model, or a new version of one.
#[derive(Clone, Debug, Default)]
pub struct ModelInput {
    /// JSON Schema, as text.
    pub schema: Option<Json>,
    /// Property names, with a leading `-` for descending order.
    pub indexes: Vec<Vec<String>>,
    pub unique: Vec<UniqueInput>,
    /// Old name, new name.
    pub renames: Vec<(String, String)>,
    pub rules: RulesInput,
}

/// A checked definition, compiled.
#[derive(Clone, Debug)]
pub struct Definition {
    pub schema: Arc<Schema>,
    pub indexes: Vec<Vec<String>>,
    pub unique: Vec<UniqueList>,
    pub references: Vec<Reference>,
    /// As they were sent, and parsed.
    pub rules: Option<(Json, Arc<Rules>)>,
}

impl Definition {
    /// Checks and compiles with the maximum effort.
    pub fn new(input: &ModelInput) -> Result<Definition, DefinitionError> {
        Definition::new_within(input, &Effort::whole(None, None))
    }

    /// Checks and compiles.
    pub fn new_within(input: &ModelInput, effort: &Effort) -> Result<Definition, DefinitionError> {
        let Some(text) = &input.schema else {
            return error("/schema", "`schema` is missing: a JSON Schema of type object is expected");
        };
        if text.len() > SCHEMA_BYTES_MAX {
            return error(
                "/schema",
                format!("schema has {} bytes, at most {SCHEMA_BYTES_MAX} are allowed", text.len()),
            );
        }
        let schema = Schema::compile(text, effort).map_err(|error| DefinitionError {
            pointer: format!("/schema{}", error.pointer),
            message: error.message,
            too_complex: error.too_complex,
        })?;
        let known = |name: &str| matches!(schema.find(name), Ok(Some(_)));
        let known_or_descending = |name: &str| known(name) || name.strip_prefix('-').is_some_and(known);
        check_lists("indexes", &input.indexes, |_| "", known_or_descending)?;
        let unique: Vec<UniqueList> = input.unique.iter().map(|unique| unique.list.clone()).collect();
        let names: Vec<&[String]> = unique.iter().map(|list| &**list).collect();
        check_lists("unique", &names, |row| input.unique[row].names_at, |name| schema.has_property(name))?;
        let references = references::of_schema(&schema, &input.indexes)?;
        let rules = match &input.rules {
            RulesInput::Keep | RulesInput::Remove => None,
            RulesInput::Set(rules) => Some((rules.clone(), Arc::new(Rules::new(&schema, rules)?))),
        };
        let indexes = input.indexes.clone();
        Ok(Definition { schema: Arc::new(schema), indexes, unique, references, rules })
    }

    /// Keeps the model's current rules, with renamed properties.
    pub fn keep_rules(&mut self, old: &ModelRecord, renames: &[(String, String)]) -> Result<(), DefinitionError> {
        let Some(rules) = &old.rules else { return Ok(()) };
        let rules = renamed(rules, renames);
        let checked = Rules::new(&self.schema, &rules).map_err(|error| DefinitionError {
            message: format!(
                "the model keeps its rules, since `rules` was not sent, but they do not fit the new schema: {}; send \
                 `rules` with it, or null to remove them",
                error.message
            ),
            ..error
        })?;
        self.rules = Some((rules, Arc::new(checked)));
        Ok(())
    }

    /// The model with this definition and record.
    pub fn model(&self, record: ModelRecord) -> Model {
        let rules = self.rules.as_ref().map(|(_, rules)| Arc::clone(rules));
        Model { record, schema: Arc::clone(&self.schema), rules }
    }

    /// Whether a record has the same definition. With `keeps_rules`, rules are ignored.
    pub fn same_as(&self, record: &ModelRecord, keeps_rules: bool) -> bool {
        let same_schema = self.schema.text == record.schema
            || matches!((self.schema.text.to_value(), record.schema.to_value()), (Ok(new), Ok(old)) if new == old);
        let same_lists = self.indexes == record.indexes && self.unique == record.unique;
        let rules = self.rules.as_ref().map(|(rules, _)| rules);
        let same_rules = match (rules, &record.rules) {
            (Some(new), Some(old)) => {
                new == old || matches!((new.to_value(), old.to_value()), (Ok(new), Ok(old)) if new == old)
            }
            (None, None) => true,
            _ => keeps_rules,
        };
        // A schema from before references were supported may contain them, but its record does not.
        same_schema && same_lists && same_rules && self.references == record.references
    }
}

/// How instances are converted from the old definition to the new one; checks the renames.
pub fn change_of(old: &Schema, new: &Schema, renames: &[(String, String)]) -> Result<CarryOver, DefinitionError> {
    let mut targets = BTreeSet::new();
    for (from, to) in renames {
        let pointer = format!("/renames/{}", escape(from));
        if !old.has_property(from) {
            return error(pointer, format!("the model has no property `{from}` that could be renamed"));
        }
        if !new.has_property(to) {
            return error(pointer, format!("the new schema has no property `{to}`"));
        }
        if new.has_property(from) && !renames.iter().any(|(_, to)| to == from) {
            return error(pointer, format!("the new schema still has `{from}`; a renamed property must be gone"));
        }
        if old.has_property(to) && !renames.iter().any(|(from, _)| from == to) {
            return error(pointer, format!("the model already has a property `{to}`"));
        }
        if !targets.insert(to) {
            return error(pointer, format!("two properties are renamed to `{to}`"));
        }
    }
    Ok(CarryOver { renames: renames.to_vec(), defaults: new.top_level_defaults() })
}

fn check_lists<L: AsRef<[String]>>(
    member: &str,
    lists: &[L],
    below: impl Fn(usize) -> &'static str,
    known: impl Fn(&str) -> bool,
) -> Result<(), DefinitionError> {
    if lists.len() > LISTS_MAX {
        return error(format!("/{member}"), format!("{} lists, at most {LISTS_MAX} are allowed", lists.len()));
    }
    let mut seen = BTreeSet::new();
    for (row, list) in lists.iter().map(AsRef::as_ref).enumerate() {
        let pointer = format!("/{member}/{row}{}", below(row));
        if list.is_empty() || list.len() > LIST_LENGTH_MAX {
            return error(pointer, format!("a list of 1 to {LIST_LENGTH_MAX} property names is expected"));
        }
        if !seen.insert(list) {
            return error(pointer, "two lists contain the same properties");
        }
        let mut names = BTreeSet::new();
        for (column, name) in list.iter().enumerate() {
            let pointer = format!("{pointer}/{column}");
            if !known(name) {
                return error(pointer, format!("the schema has no property `{name}`"));
            }
            if !names.insert(name.trim_start_matches('-')) {
                return error(pointer, format!("`{name}` appears twice in one list"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn input(indexes: &[&[&str]], unique: &[&[&str]]) -> ModelInput {
        let lists =
            |lists: &[&[&str]]| lists.iter().map(|list| list.iter().map(|name| (*name).to_owned()).collect()).collect();
        ModelInput {
            schema: Some(Json::from_value(&json!({"type": "object", "properties": {
                "a": {"type": "string"}, "b": {"type": "object", "properties": {"c": {"type": "number"}}}}}))),
            indexes: lists(indexes),
            unique: lists(unique).into_iter().map(UniqueInput::from).collect(),
            ..ModelInput::default()
        }
    }

    #[test]
    fn lists_name_what_the_schema_has() {
        assert!(Definition::new(&input(&[&["-b.c", "a"]], &[&["a"]])).is_ok());
        for (indexes, unique, pointer) in [
            (&[&["x"][..]][..], &[][..], "/indexes/0/0"),
            (&[&["a", "-a"]], &[], "/indexes/0/1"),
            (&[&[]], &[], "/indexes/0"),
            (&[&["a"], &["a"]], &[], "/indexes/1"),
            (&[], &[&["b.c"][..]][..], "/unique/0/0"),
        ] {
            assert_eq!(Definition::new(&input(indexes, unique)).unwrap_err().pointer, pointer);
        }
    }

    #[test]
    fn renames_must_fit_both_versions() {
        let schema = |names: &[&str]| {
            let properties: serde_json::Map<_, _> =
                names.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
            Schema::compile_stored(&Json::from_value(&json!({"type": "object", "properties": properties}))).unwrap()
        };
        let rename = |from: &str, to: &str| vec![(from.to_owned(), to.to_owned())];
        let (old, new) = (schema(&["a", "b"]), schema(&["c", "b"]));
        assert_eq!(change_of(&old, &new, &rename("a", "c")).unwrap().renames, rename("a", "c"));
        assert!(change_of(&old, &new, &rename("x", "c")).unwrap_err().message.contains("no property `x`"));
        assert!(change_of(&old, &new, &rename("a", "y")).unwrap_err().message.contains("no property `y`"));
        assert!(change_of(&old, &new, &rename("b", "c")).unwrap_err().message.contains("still has `b`"));
        let swap = [rename("a", "b"), rename("b", "a")].concat();
        assert!(change_of(&old, &old, &swap).is_ok());
    }
}
