//! JavaScript and TypeScript: esbuild bundles a source and its imports into one file.

use std::path::Path;

use serde_json::Value;

use super::built::Built;
use super::tool::Tool;
use crate::catalog::SourceLanguage;
use crate::cli::failure::{Failure, Result};
use crate::hooks::source_map;

/// How many parts of a bundle are listed when it is rejected.
const LARGEST: usize = 5;

/// Bundles a file. `directory` is where esbuild is searched first; file names in errors are relative to it.
pub(super) fn bundle(entry: &Path, directory: &Path, minify: bool) -> Result<Built> {
    if !entry.is_file() {
        return Err(Failure::new(format!("there is no `{}`", entry.display())));
    }
    let failed = |error: std::io::Error| Failure::new(format!("no temporary folder: {error}"));
    let temporary = tempfile::tempdir().map_err(failed)?;
    // esbuild names files relative to its output, with links resolved.
    let real = |path: &Path| path.canonicalize().map_err(failed);
    let folder = real(temporary.path())?;
    let directory = real(if directory.as_os_str().is_empty() { Path::new(".") } else { directory })?;
    let (out, meta) = (folder.join("hook.js"), folder.join("meta.json"));
    let entry = std::path::absolute(entry).map_err(failed)?;
    let option = |name: &str, path: &Path| {
        let mut option = std::ffi::OsString::from(format!("--{name}="));
        option.push(path);
        option
    };
    Tool::find("esbuild", &directory)?
        .args([entry.as_os_str()])
        .args([option("outfile", &out), option("metafile", &meta)])
        .args([
            "--bundle",
            "--format=esm",
            // Neither a browser nor Node: modules that are not bundled are not available.
            "--platform=neutral",
            "--main-fields=module,main",
            "--conditions=import,default",
            "--target=es2023",
            "--charset=utf8",
            "--legal-comments=none",
            "--log-level=warning",
            "--sourcemap=external",
            "--sources-content=false",
        ])
        .args(minify.then_some("--minify"))
        .run()?;
    let unreadable =
        |error: String| Failure::new(format!("`esbuild` succeeded, but its bundle cannot be read: {error}"));
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()));
    let (bundle, map) = (read(&out)?, read(&out.with_extension("js.map"))?);
    let map = source_map::comment(&map, &folder, &directory).map_err(unreadable)?;
    let bytes = (bundle + &map).into_bytes();
    Ok(Built { engine: "quickjs", bytes, language: Some(SourceLanguage::JavaScript), largest: largest(&meta) })
}

/// The inputs with the most bytes in the bundle.
fn largest(meta: &Path) -> Vec<String> {
    let meta: Value =
        std::fs::read(meta).ok().and_then(|bytes| snaphook_driver::json::parse_bytes(&bytes).ok()).unwrap_or_default();
    let outputs = meta.get("outputs").and_then(Value::as_object);
    // The source map is an output too, and has no inputs.
    let inputs = outputs.into_iter().flat_map(|outputs| outputs.values());
    let inputs = inputs.filter_map(|output| output.get("inputs")?.as_object()).find(|inputs| !inputs.is_empty());
    let mut parts: Vec<(u64, &str)> = inputs
        .into_iter()
        .flatten()
        .filter_map(|(name, input)| Some((input.get("bytesInOutput")?.as_u64()?, name.as_str())))
        .collect();
    parts.sort_by(|a, b| b.cmp(a));
    parts.into_iter().take(LARGEST).map(|(bytes, name)| format!("{bytes} bytes {name}")).collect()
}
