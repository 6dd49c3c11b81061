//! The SDKs for drivers and for hooks, kept in the binary: what `snaphook plugin new` and `snaphook hook new` write beside a
//! template, so that it needs no checkout and no package of ours.

use std::path::Path;

use rust_embed::RustEmbed;
use toml::{Table, Value};

use super::failure::{Failure, Result};

/// For plugins in C: the header, and an example with its messages.
pub(super) const HEADER: &str = include_str!("../../sdk/c/snaphook_driver.h");
pub(super) const EXAMPLE: &str = include_str!("../../sdk/c/examples/secure.c");
pub(super) const PROTOBUF: &str = include_str!("../../sdk/c/examples/protobuf.h");

/// For native hooks in C.
pub(super) const HOOK_HEADER: &str = include_str!("../../sdk/c/snaphook_hook.h");

#[derive(RustEmbed)]
#[folder = "sdk/hook/src/"]
struct HookSource;

#[derive(RustEmbed)]
#[folder = "sdk/c/src/"]
struct HookAbiSource;

#[derive(RustEmbed)]
#[folder = "wit/since_v0_1_0/"]
struct HookContract;

/// The npm package `@snaphook/hook`: the files that it consists of.
const NPM_PACKAGE: [(&str, &str); 8] = [
    ("package.json", include_str!("../../sdk/js/package.json")),
    ("index.js", include_str!("../../sdk/js/index.js")),
    ("index.d.ts", include_str!("../../sdk/js/index.d.ts")),
    ("build.js", include_str!("../../sdk/js/build.js")),
    ("build.d.ts", include_str!("../../sdk/js/build.d.ts")),
    ("test.js", include_str!("../../sdk/js/test.js")),
    ("test.d.ts", include_str!("../../sdk/js/test.d.ts")),
    ("bin.js", include_str!("../../sdk/js/bin.js")),
];

#[derive(RustEmbed)]
#[folder = "sdk/driver/src/"]
struct DriverSource;

#[derive(RustEmbed)]
#[folder = "sdk/driver/abi/src/"]
struct AbiSource;

#[derive(RustEmbed)]
#[folder = "sdk/driver/plugin/src/"]
struct PluginSource;

#[derive(RustEmbed)]
#[folder = "sdk/driver/servers/src/"]
struct ServersSource;

#[derive(RustEmbed)]
#[folder = "sdk/driver/testkit/src/"]
struct TestkitSource;

/// What `sdk/driver/src` includes.
const DESCRIPTION: &[u8] = include_bytes!("../../sdk/driver/proto/driver.binpb");

/// The workspace, whose versions the packages take.
const WORKSPACE: &str = include_str!("../../Cargo.toml");

/// Writes the crates that a plugin in Rust and its tests need into a folder, each as a package that belongs to no workspace.
pub(super) fn write(directory: &Path) -> Result<()> {
    package::<DriverSource>(directory, "driver", include_str!("../../sdk/driver/Cargo.toml"))?;
    package::<AbiSource>(directory, "abi", include_str!("../../sdk/driver/abi/Cargo.toml"))?;
    package::<PluginSource>(directory, "plugin", include_str!("../../sdk/driver/plugin/Cargo.toml"))?;
    package::<ServersSource>(directory, "servers", include_str!("../../sdk/driver/servers/Cargo.toml"))?;
    package::<TestkitSource>(directory, "testkit", include_str!("../../sdk/driver/testkit/Cargo.toml"))?;
    write_file(&directory.join("driver/proto/driver.binpb"), DESCRIPTION)
}

/// Writes the crates that a hook in Rust needs into a folder, and the contract that they read, at the places where they look for
/// it.
pub(super) fn write_hook_crate(directory: &Path) -> Result<()> {
    let crates = directory.join("sdk");
    package::<HookSource>(&crates, "hook", include_str!("../../sdk/hook/Cargo.toml"))?;
    package::<HookAbiSource>(&crates, "c", include_str!("../../sdk/c/Cargo.toml"))?;
    for path in HookContract::iter() {
        if let Some(file) = HookContract::get(&path) {
            write_file(&directory.join("wit/since_v0_1_0").join(&*path), &file.data)?;
        }
    }
    Ok(())
}

/// Writes the npm package for hooks in JavaScript and TypeScript into a folder.
pub(super) fn write_hook_package(directory: &Path) -> Result<()> {
    NPM_PACKAGE.into_iter().try_for_each(|(name, text)| write_file(&directory.join(name), text.as_bytes()))
}

fn package<S: RustEmbed>(directory: &Path, name: &str, manifest: &str) -> Result<()> {
    let directory = directory.join(name);
    for path in S::iter() {
        if let Some(source) = S::get(&path) {
            write_file(&directory.join("src").join(&*path), &source.data)?;
        }
    }
    let manifest =
        standalone(manifest, WORKSPACE).map_err(|error| Failure::new(format!("the SDK `{name}`: {error}")))?;
    write_file(&directory.join("Cargo.toml"), manifest.as_bytes())
}

pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error: std::io::Error| Failure::new(format!("`{}` cannot be written: {error}", path.display()));
    std::fs::create_dir_all(path.parent().unwrap_or(path)).map_err(failed)?;
    std::fs::write(path, bytes).map_err(failed)
}

/// A manifest with what it takes from its workspace written out, and without what only our own tests need.
fn standalone(manifest: &str, workspace: &str) -> std::result::Result<String, toml::de::Error> {
    let mut manifest: Table = manifest.parse()?;
    let workspace: Table = workspace.parse()?;
    let shared = |section: &str, key: &str| workspace.get("workspace")?.get(section)?.get(key).cloned();
    for key in ["lints", "dev-dependencies"] {
        manifest.remove(key);
    }
    for section in ["package", "dependencies"] {
        let Some(Value::Table(entries)) = manifest.get_mut(section) else { continue };
        for (key, value) in entries {
            if value.get("workspace").and_then(Value::as_bool) != Some(true) {
                continue;
            }
            if let Some(found) = shared(section, key) {
                *value = beside(found);
            }
        }
    }
    Ok(manifest.to_string())
}

/// Crates of ours stand beside each other there: `sdk/driver` is `../driver`.
fn beside(mut dependency: Value) -> Value {
    if let Some(Value::String(path)) = dependency.get_mut("path")
        && let Some((_, name)) = path.rsplit_once('/')
    {
        *path = format!("../{name}");
    }
    dependency
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_npm_package_is_whole() {
        let manifest = snaphook_driver::json::parse(include_str!("../../sdk/js/package.json")).unwrap();
        let mut named: Vec<&str> =
            manifest["files"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        named.push("package.json");
        named.sort_unstable();
        let mut kept = NPM_PACKAGE.map(|(name, _)| name);
        kept.sort_unstable();
        assert_eq!(kept[..], named[..]);
    }

    #[test]
    fn the_crate_for_hooks_stands_alone() {
        let folder = tempfile::tempdir().unwrap();
        write_hook_crate(folder.path()).unwrap();
        for name in ["hook", "c"] {
            let text = std::fs::read_to_string(folder.path().join("sdk").join(name).join("Cargo.toml")).unwrap();
            assert!(!text.contains("workspace") && !text.contains("dev-dependencies"), "{text}");
        }
        let text = std::fs::read_to_string(folder.path().join("sdk/hook/Cargo.toml")).unwrap();
        let manifest: Table = text.parse().unwrap();
        let abi =
            &manifest["target"]["cfg(not(target_arch = \"wasm32\"))"]["dependencies"]["snaphook-hook-abi"]["path"];
        assert_eq!(abi.as_str(), Some("../c"));
        let source = std::fs::read_to_string(folder.path().join("sdk/hook/src/component.rs")).unwrap();
        assert!(source.contains("\"../../wit/since_v0_1_0\""));
        assert!(folder.path().join("wit/since_v0_1_0/hook.wit").is_file());
    }

    #[test]
    fn packages_stand_alone() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        for name in ["driver", "abi", "plugin", "servers", "testkit"] {
            let text = std::fs::read_to_string(folder.path().join(name).join("Cargo.toml")).unwrap();
            assert!(!text.contains("workspace") && !text.contains("dev-dependencies"), "{text}");
            assert!(folder.path().join(name).join("src/lib.rs").is_file());
        }
        let text = std::fs::read_to_string(folder.path().join("plugin/Cargo.toml")).unwrap();
        let manifest: Table = text.parse().unwrap();
        assert_eq!(manifest["dependencies"]["snaphook-driver"]["path"].as_str(), Some("../driver"));
        assert_eq!(manifest["package"]["edition"].as_str(), Some("2024"));
        assert!(manifest["dependencies"]["tokio"]["features"].is_array());
    }
}
