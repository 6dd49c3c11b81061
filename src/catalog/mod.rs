//! Models and their versions, schema validation, compatibility of a new version.

pub mod files;
mod model;
pub mod plan;

pub use model::{HookMode, HookRecord, Model, ModelRecord};
