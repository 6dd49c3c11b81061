//! Formats paths for users who work in a folder.

use std::path::Path;

/// As seen from here.
pub(super) fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}
