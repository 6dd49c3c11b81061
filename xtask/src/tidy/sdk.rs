//! The SDK's generated types match the WIT text.

use super::{File, Finding};
use crate::sdk;

pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let text = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.text.as_str());
    let (Some(wit), Some(found)) = (text(sdk::WIT), text(sdk::TYPES)) else { return Vec::new() };
    match sdk::types(wit) {
        Ok(expected) if expected == found => Vec::new(),
        Ok(_) => vec![Finding::new(sdk::TYPES, 0, "does not match the WIT text; `cargo xtask sdk` rewrites it")],
        Err(error) => vec![Finding::new(sdk::WIT, 0, error)],
    }
}
