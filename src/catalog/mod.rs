//! Models and their versions, schema validation, compatibility of a new version.

mod model;

pub use model::{HookMode, HookRecord, Model, ModelRecord};
