//! Core WebAssembly modules: the output of compilers that do not support components.
//!
//! Converts modules with an embedded world (from wit-bindgen) and commands for WASI preview 1 (from Javy and C
//! compilers) to components, with adapters between WASI preview 1 on the module's side and WASI 0.2 on the server's
//! side.

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{Parser, Payload, TypeRef};
use wit_component::ComponentEncoder;

/// Part of the cache key: identifies the adapters.
pub(super) const ADAPTER: &str = "wasip1-48";

/// Custom sections whose names start with this contain a world.
const WORLD_SECTION: &str = "component-type";

/// The relevant properties of a module.
#[derive(Debug, Default)]
struct Summary {
    has_world: bool,
    /// Whether it imports WASI preview 1.
    imports_wasi: bool,
    /// Other imports: module, name.
    foreign: Vec<(String, String)>,
    exports_start: bool,
    exports_memory: bool,
}

/// Checks that it can be converted to a hook component; the error says what is missing.
pub(super) fn check(code: &[u8]) -> Result<(), String> {
    let summary = summary(code).map_err(|error| format!("the file is not a valid module: {error}"))?;
    if summary.has_world {
        return Ok(());
    }
    if let Some((module, name)) = summary.foreign.first() {
        // Javy's plugins have names like `javy-default-plugin-v3`, older ones `javy_quickjs_provider_v3`.
        if summary.foreign.iter().any(|(_, name)| name == "invoke" || name == "eval_bytecode") {
            return Err(format!(
                "the module imports `{name}` of `{module}`: it is linked dynamically with a Javy plugin, which this server \
                 does not have; build it statically, which is what `javy build` does without `-C dynamic`"
            ));
        }
        return Err(format!(
            "the module imports `{name}` of `{module}`; a command may import `{WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME}` alone"
        ));
    }
    if !(summary.exports_start && summary.exports_memory) {
        return Err(format!(
            "the file is a core WebAssembly module without a world and without `{}`; expected a component, a module with a \
             world of `snaphook:hook` in it, or a command for WASI preview 1, as Javy creates them",
            if summary.exports_start { "memory" } else { "_start" }
        ));
    }
    Ok(())
}

/// Converts code to a component; a component is returned unchanged. The error is a sentence.
pub(super) fn componentized(code: &[u8]) -> Result<Vec<u8>, String> {
    if Parser::is_component(code) {
        return Ok(code.to_vec());
    }
    let summary = summary(code)?;
    let mut encoder = ComponentEncoder::default();
    if summary.imports_wasi || !summary.has_world {
        let adapter = match summary.has_world {
            true => WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
            false => WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
        };
        let adapted = encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter);
        adapted.map_err(|error| format!("{error:#}"))?;
    }
    encoder.module(code).and_then(|encoder| encoder.encode()).map_err(|error| format!("{error:#}"))
}

fn summary(code: &[u8]) -> Result<Summary, String> {
    let mut summary = Summary::default();
    for payload in Parser::new(0).parse_all(code) {
        match payload.map_err(|error| error.to_string())? {
            Payload::CustomSection(section) => summary.has_world |= section.name().starts_with(WORLD_SECTION),
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import.map_err(|error| error.to_string())?;
                    match (import.module, import.ty) {
                        (WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, TypeRef::Func(_)) => summary.imports_wasi = true,
                        (module, _) => summary.foreign.push((module.to_owned(), import.name.to_owned())),
                    }
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export.map_err(|error| error.to_string())?;
                    summary.exports_start |= export.name == "_start";
                    summary.exports_memory |= export.name == "memory";
                }
            }
            _ => {}
        }
    }
    Ok(summary)
}
