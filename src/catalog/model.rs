//! A model as it is at one version: its definition and what is derived from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use snaphook_driver::time::{self, Millis};
use snaphook_driver::{Json, Position};

use crate::config::Phase;

/// The definition of a model, as it stands in the log and in the model store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    pub id: String,
    /// From 1; raised by each change of the definition and of the hooks.
    pub version: u64,
    pub schema: Json,
    /// Property names (dotted for nested ones), `-` in front for descending.
    pub indexes: Vec<Vec<String>>,
    pub unique: Vec<Vec<String>>,
    pub hooks: BTreeMap<Phase, Vec<HookRecord>>,
    /// Position of the last event of the definition.
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
    /// Whether the code is TypeScript.
    #[serde(default)]
    pub typescript: bool,
    /// Position of the event that bound it.
    #[serde(default)]
    pub position: Position,
}

/// Whether a pre hook decides or only looks on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookMode {
    Enforce,
    Shadow,
}

/// A model in use: the record and what is derived from it.
#[derive(Debug)]
pub struct Model {
    pub record: ModelRecord,
}
