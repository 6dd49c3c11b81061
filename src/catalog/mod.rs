//! Models and their versions, schema validation, compatibility of a new version.
//!
//! Pure functions on text and trees. The catalog stores nothing and runs no hooks.

pub mod document;
pub mod files;
pub mod filter;
pub mod plan;
pub mod query;
pub mod references;
pub mod rules;
pub mod typescript;
pub mod unique;

mod definition;
mod definition_error;
mod field_error;
mod members;
mod model;
mod path_target;
mod schema;
mod unique_list;
mod webhook;

use std::collections::BTreeSet;

pub use definition::{Definition, ModelInput, change_of};
pub use definition_error::{DefinitionError, escape as escape_token};
pub use field_error::FieldError;
pub use members::{Members, Part};
pub use model::{HookMode, HookOrigin, HookRecord, Model, ModelRecord, SourceLanguage};
pub use references::{OnDelete, Reference, Referenced};
pub use snaphook_schema::on_large_stack;
pub use unique_list::{Collation, UniqueList};
pub use webhook::{WEBHOOK, Webhook};

pub use schema::{Effort, Schema, SchemaError, Unfit};

pub use crate::config::is_model_id;

/// Whether `id` may name an instance: `^[A-Za-z0-9][A-Za-z0-9._~-]{0,127}$`.
pub fn is_instance_id(id: &str) -> bool {
    let bytes = id.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.len() <= 128
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-'))
}

/// Whether `name` may name a hook: `^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`.
pub fn is_hook_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.len() <= 63
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// The name of an unnamed hook: `wanted`, with a number if another hook of its chain already has this name.
pub fn free_hook_name(wanted: &str, taken: &BTreeSet<String>) -> String {
    let mut name = wanted.to_owned();
    let mut count = 1;
    while taken.contains(&name) {
        count += 1;
        name = format!("{wanted}-{count}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for good in ["a", "0", "movie", "a_b-c", &"x".repeat(63)] {
            assert!(is_model_id(good), "{good}");
        }
        for bad in ["", "_a", "-a", "A", "a.b", "ä", "a b", &"x".repeat(64)] {
            assert!(!is_model_id(bad), "{bad}");
        }
        for good in ["a", "A.b_c~d-e", "0", &"x".repeat(128)] {
            assert!(is_instance_id(good), "{good}");
        }
        for bad in ["", ".a", "~", "a/b", "a b", "é", &"x".repeat(129)] {
            assert!(!is_instance_id(bad), "{bad}");
        }
    }
}
