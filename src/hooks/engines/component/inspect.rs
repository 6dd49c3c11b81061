//! Inspects a component before it is bound: a component that cannot work is rejected here, with the reason.

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::speech::Speech;
use super::versions::{Version, handler_name, world_name};
use super::{command, core_module};
use crate::config::{Phase, format_size};
use crate::hooks::engines::limits::used_size;
use crate::hooks::engines::wasm::CODE_BYTES_MAX;

/// Interfaces of the package, and whether they are available in pre phases.
pub(super) const INTERFACES: [(&str, bool); 7] = [
    ("types", true),
    ("log", true),
    ("read", true),
    ("secret", true),
    ("write", false),
    ("http", false),
    ("process", false),
];

/// The WASI 0.2 packages that standard libraries import. All of them are linked, but give access to nothing.
pub(super) const WASI_PACKAGES: [&str; 6] = ["cli", "clocks", "filesystem", "io", "random", "sockets"];

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Component,
    CoreModule,
}

/// Determines, before anything is compiled, whether the code is WebAssembly, and of what kind.
pub(super) fn kind(code: &[u8]) -> Result<Kind, String> {
    match code {
        [b'\0', b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(Kind::Component),
        [b'\0', b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(Kind::CoreModule),
        [b'\0', b'a', b's', b'm', ..] => {
            Err("the file is WebAssembly of a version that this server does not know, expected a component".into())
        }
        _ => Err("the file is not WebAssembly, expected a component".into()),
    }
}

/// Checks its size, its kind and, for a core module, what it needs.
pub(super) fn check_bytes(code: &[u8]) -> Result<(), String> {
    if code.len() > CODE_BYTES_MAX {
        return Err(format!(
            "the component has {}, at most {} are possible",
            used_size(code.len()),
            format_size(CODE_BYTES_MAX)
        ));
    }
    match kind(code)? {
        Kind::Component => Ok(()),
        Kind::CoreModule => core_module::check(code),
    }
}

/// Checks that the component's imports and exports fit the phase. Returns how to communicate with it.
pub(super) fn check_world(engine: &Engine, component: &Component, phase: Phase) -> Result<Speech, String> {
    let kind = component.component_type();
    let functions: Vec<&str> = kind
        .exports(engine)
        .filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)))
        .map(|(name, _)| name)
        .collect();
    // A component that exports functions of the package is not a command, whatever else it exports.
    let is_command =
        !functions.iter().any(|name| ["check", "react"].contains(name)) && command::handler(component).is_some();
    if !is_command && !functions.contains(&handler_name(phase)) {
        let exports: Vec<String> = kind.exports(engine).map(|(name, _)| format!("`{name}`")).collect();
        let found = if exports.is_empty() { "nothing".into() } else { exports.join(", ") };
        return Err(format!(
            "the component exports no handler for `{phase}`: expected the function `{}` of the world `{}`, it exports {found}",
            handler_name(phase),
            world_name(phase)
        ));
    }
    // A component for both worlds imports the interfaces of the post phases; in a pre phase the session rejects their
    // calls.
    let both = functions.contains(&"check") && functions.contains(&"react");
    let mut version = None;
    let mut never = Vec::new();
    let mut unknown = Vec::new();
    for (name, _) in kind.imports(engine) {
        match import(name, phase, both)? {
            Import::Known(found) => version = version.or(found),
            Import::NotInPhase => never.push(format!("`{name}`")),
            Import::Unknown => unknown.push(format!("`{name}`")),
        }
    }
    if !unknown.is_empty() {
        return Err(format!(
            "the component imports {}, which no hook has; it may import `snaphook:hook@{}` and WASI 0.2",
            unknown.join(", "),
            Version::NEWEST.as_str()
        ));
    }
    if !never.is_empty() {
        return Err(format!(
            "the component imports {}, which `{phase}` never has: only post phases have it, after the change is stored",
            never.join(", ")
        ));
    }
    Ok(if is_command { Speech::Command } else { Speech::Package(version.unwrap_or(Version::NEWEST)) })
}

enum Import {
    Known(Option<Version>),
    NotInPhase,
    Unknown,
}

fn import(name: &str, phase: Phase, both: bool) -> Result<Import, String> {
    let (path, version) = name.split_once('@').unwrap_or((name, ""));
    let Some((package, interface)) = path.split_once('/') else { return Ok(Import::Unknown) };
    if let Some(wasi) = package.strip_prefix("wasi:") {
        if wasi == "http" && ["types", "outgoing-handler"].contains(&interface) && version.starts_with("0.2.") {
            return Ok(if phase.is_pre() && !both { Import::NotInPhase } else { Import::Known(None) });
        }
        let linked = WASI_PACKAGES.contains(&wasi) && version.starts_with("0.2.");
        return Ok(if linked { Import::Known(None) } else { Import::Unknown });
    }
    if package != "snaphook:hook" {
        return Ok(Import::Unknown);
    }
    let Some(found) = Version::from_name(version) else {
        return Err(format!(
            "the component uses `snaphook:hook@{version}`, this server supports {}; build the hook against a version \
             that the server supports, or run a server that supports {version}",
            Version::names()
        ));
    };
    Ok(match INTERFACES.iter().find(|(known, _)| *known == interface) {
        None => Import::Unknown,
        Some((_, in_pre)) if phase.is_pre() && !in_pre && !both => Import::NotInPhase,
        Some(_) => Import::Known(Some(found)),
    })
}
