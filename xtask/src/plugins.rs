//! Builds the drivers of `plugins/` as libraries: each folder `plugins/<name>/library` is built to
//! `target/plugins/<name>/libsnaphook_<name>.so`.

use std::path::{Path, PathBuf};

use crate::repository::{root, target_directory};
use crate::shell::{Result, cargo, run as run_command};

/// `cargo xtask plugins [--release]`.
pub(crate) fn run(args: &[String]) -> Result {
    match args {
        [] => build(false).map(|_| ()),
        [arg] if arg == "--release" => build(true).map(|_| ()),
        _ => Err(format!("`plugins` takes `--release` or nothing, found `{}`", args.join(" "))),
    }
}

/// Builds all of them and returns the folder that contains one folder for each.
pub(crate) fn build(is_release: bool) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--locked"]).args(names()?.iter().map(|name| format!("--package=snaphook-{name}-library")));
    command.args(if is_release { &["--release"][..] } else { &[] });
    run_command(command.current_dir(root()))?;
    collect(is_release)
}

/// Copies the built libraries into that folder and returns it.
pub(crate) fn collect(is_release: bool) -> Result<PathBuf> {
    let target = target_directory()?;
    let built = target.join(if is_release { "release" } else { "debug" });
    let plugins = target.join("plugins");
    let names = names()?;
    for name in &names {
        let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        let from = built.join(format!("{prefix}snaphook_{name}_library{suffix}"));
        replace(&from, &plugins.join(name).join(format!("{prefix}snaphook_{name}{suffix}")))?;
    }
    println!("{} plugins in {}", names.len(), plugins.display());
    Ok(plugins)
}

/// Folders in `plugins/` that have a `library`, sorted.
fn names() -> Result<Vec<String>> {
    let folder = root().join("plugins");
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    let has_library = |path: &PathBuf| path.join("library/Cargo.toml").is_file();
    let paths = entries.flatten().map(|entry| entry.path()).filter(has_library);
    let mut names: Vec<String> = paths.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// Replaces a file by a copy of another one. A process that has loaded the old file keeps it.
fn replace(from: &Path, to: &Path) -> Result {
    let failed = |error: std::io::Error| format!("cannot copy {} to {}: {error}", from.display(), to.display());
    std::fs::create_dir_all(to.parent().unwrap_or(to)).map_err(failed)?;
    let new = to.with_extension("new");
    std::fs::copy(from, &new).and_then(|_| std::fs::rename(&new, to)).map_err(failed)
}
