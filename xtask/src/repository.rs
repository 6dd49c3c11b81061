//! The folder of the checkout, and the files in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{Result, cargo, read};

/// The checkout that this xtask was built from.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Cargo's target folder for this checkout.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let metadata = read(cargo().args(["metadata", "--format-version=1", "--no-deps"]).current_dir(root()))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)
        .map_err(|error| format!("cannot read the output of `cargo metadata`: {error}"))?;
    let directory =
        metadata["target_directory"].as_str().ok_or("the output of `cargo metadata` has no target_directory")?;
    Ok(PathBuf::from(directory))
}

/// Every file in git, and every new one that git does not ignore: relative to `root`, with `/`, sorted.
pub(crate) fn files(root: &Path) -> Result<Vec<String>> {
    let list = read(
        Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"])
            .current_dir(root),
    )?;
    let mut files: Vec<String> =
        list.split('\0').filter(|path| !path.is_empty() && root.join(path).is_file()).map(str::to_owned).collect();
    files.sort();
    Ok(files)
}
