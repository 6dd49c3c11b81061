//! One version of a model: its definition and derived data.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use snaphook_driver::time::{self, Millis};
use snaphook_driver::{Event, Json, ModelShape, Position, SortKey};

use super::references::{self, Reference, Referenced};
use super::rules::Rules;
use super::schema::Schema;
use super::unique_list::UniqueList;
use crate::config::Phase;

/// The definition of a model, as stored in the log and in the model store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    pub id: String,
    /// Starts at 1; increased by each change of the definition or of the hooks.
    pub version: u64,
    pub schema: Json,
    /// Property names (dotted for nested ones), with a leading `-` for descending order.
    pub indexes: Vec<Vec<String>>,
    pub unique: Vec<UniqueList>,
    /// For each list of `unique` its id; see [`super::unique`]. Absent or empty for a list from before lists had ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unique_ids: Vec<String>,
    /// The properties that refer to instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
    /// For a model to which others refer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referenced: Option<Referenced>,
    /// As they were sent; see [`super::rules`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Json>,
    /// Phases without hooks are absent.
    #[serde(default)]
    pub hooks: BTreeMap<Phase, Vec<HookRecord>>,
    /// For each phase with hooks: the position since which it has had some. Post hooks run for later events only.
    #[serde(default)]
    pub hooked_since: BTreeMap<Phase, Position>,
    /// Position of the last event of the definition; 0 inside that event itself.
    #[serde(default)]
    pub position: Position,
    #[serde(with = "time")]
    pub created_at: Millis,
    #[serde(with = "time")]
    pub updated_at: Millis,
}

/// One hook of a chain, as it is bound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HookRecord {
    pub name: String,
    pub engine: String,
    /// SHA-256 of the code, lowercase hex.
    pub artifact: String,
    /// Bytes of the code.
    pub size: u64,
    pub mode: HookMode,
    /// Position of the event that bound it; 0 inside that event itself.
    #[serde(default)]
    pub position: Position,
    /// A native library's file name in the hooks directory. The current file runs; `artifact` is its digest when it was
    /// bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub library: Option<String>,
    /// Whether it reads and writes with the actor's right.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_actor: bool,
    /// The language of a source, if its file name or media type specified it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<SourceLanguage>,
    /// How it was bound.
    #[serde(default, skip_serializing_if = "HookOrigin::is_rest")]
    pub origin: HookOrigin,
}

/// How a hook was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookOrigin {
    /// From a folder of models and hooks: the hook is removed with its file.
    Files,
    /// By a request. Hooks bound before origins were recorded count as these, so that they are kept.
    #[default]
    Rest,
}

impl HookOrigin {
    pub const fn as_str(self) -> &'static str {
        match self {
            HookOrigin::Files => "files",
            HookOrigin::Rest => "rest",
        }
    }

    pub fn from_name(name: &str) -> Option<HookOrigin> {
        [HookOrigin::Files, HookOrigin::Rest].into_iter().find(|origin| origin.as_str() == name)
    }

    fn is_rest(&self) -> bool {
        *self == HookOrigin::Rest
    }
}

/// The language of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceLanguage {
    JavaScript,
    TypeScript,
}

impl SourceLanguage {
    /// The language for a file extension; `None` if the file is not a source.
    pub fn of_extension(extension: &str) -> Option<SourceLanguage> {
        match extension {
            "js" | "mjs" => Some(SourceLanguage::JavaScript),
            "ts" | "mts" => Some(SourceLanguage::TypeScript),
            _ => None,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            SourceLanguage::JavaScript => "javascript",
            SourceLanguage::TypeScript => "typescript",
        }
    }
}

/// Whether a pre hook's verdict takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookMode {
    Enforce,
    Shadow,
}

impl HookMode {
    pub const fn as_str(self) -> &'static str {
        match self {
            HookMode::Enforce => "enforce",
            HookMode::Shadow => "shadow",
        }
    }
}

/// A model in use: the record and derived data.
#[derive(Clone, Debug)]
pub struct Model {
    pub record: ModelRecord,
    pub schema: Arc<Schema>,
    pub rules: Option<Arc<Rules>>,
}

impl Model {
    /// Compiles the record's schema; fails only for a record that no server wrote.
    pub fn from_record(record: ModelRecord) -> Result<Model, String> {
        let schema = Schema::compile_stored(&record.schema).map_err(|error| error.message)?;
        Model::with_schema(record, Arc::new(schema))
    }

    /// The same for a schema that is compiled already.
    pub fn with_schema(record: ModelRecord, schema: Arc<Schema>) -> Result<Model, String> {
        let rules = record.rules.as_ref().map(|rules| Rules::new(&schema, rules)).transpose();
        let rules = rules.map_err(|error| format!("{}: {}", error.pointer, error.message))?.map(Arc::new);
        Ok(Model { record, schema, rules })
    }

    /// The shape for the model store.
    pub fn shape(&self) -> ModelShape {
        ModelShape {
            model: self.record.id.clone(),
            version: self.record.version,
            columns: self.schema.columns(),
            indexes: self
                .record
                .indexes
                .iter()
                .map(|list| list.iter().filter_map(|name| self.sort_key(name)).collect())
                .chain(references::indexes(&self.record.references, &self.record.indexes))
                .collect(),
            unique: self.record.unique.iter().map(|list| list.properties.clone()).collect(),
            record: serde_json::to_string(&self.record).map(Json::trusted).unwrap_or_else(|_| Json::trusted("null")),
        }
    }

    /// `name` or `-name`, looked up in the schema.
    pub fn sort_key(&self, name: &str) -> Option<SortKey> {
        if let Ok(Some(found)) = self.schema.find(name) {
            return Some(SortKey { path: found.path.into(), descending: false });
        }
        let found = self.schema.find(name.strip_prefix('-')?).ok()??;
        Some(SortKey { path: found.path.into(), descending: true })
    }

    /// The property's reference, if it is one.
    pub fn reference(&self, property: &str) -> Option<&Reference> {
        self.record.references.iter().find(|reference| reference.property == property)
    }

    /// Its references to instances of a model.
    pub fn references_to<'a>(&'a self, model: &'a str) -> impl Iterator<Item = &'a Reference> {
        self.record.references.iter().filter(move |reference| reference.model == model)
    }

    /// The hooks of a phase.
    pub fn chain(&self, phase: Phase) -> &[HookRecord] {
        self.record.hooks.get(&phase).map_or(&[], Vec::as_slice)
    }
}

impl ModelRecord {
    /// Fills in the position of the event that carried the record.
    pub fn settle(&mut self, position: Position) {
        self.position = position;
        for hook in self.hooks.values_mut().flatten().filter(|hook| hook.position == 0) {
            hook.position = position;
        }
        for since in self.hooked_since.values_mut().filter(|since| **since == 0) {
            *since = position;
        }
    }

    /// Applies an event that skips another one: only the position in the log changes.
    pub fn skipped(&mut self, skip: &Event) {
        self.position = skip.position;
        self.version = self.version.max(skip.model_version);
    }
}
