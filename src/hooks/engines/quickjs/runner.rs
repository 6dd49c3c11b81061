//! The one component that runs all JavaScript hooks: QuickJS with the runner's JavaScript loaded, as a snapshot.
//!
//! It is put together and compiled once (2 to 4 s) and kept in the cache; from there it takes a few milliseconds. A hook
//! adds its source, nothing else.

use std::sync::OnceLock;

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Linker};

use super::host::{self, Extra};
use crate::hooks::engines::javascript::SCRIPTS;
use crate::hooks::engines::wasm::{CodeCache, Runtime, State};

/// Both sides of the interface.
const WIT: &str = include_str!("runner/runner.wit");

/// The way to the host, before the scripts.
const HOST: &str = include_str!("runner/host.js");

/// Part of the cache key: what makes the snapshot.
const COMPONENTIZER: &str = "componentize-qjs-0.4.5";

/// The runner, linked: an instance is a matter of microseconds.
pub(super) struct Runner {
    pub(super) code: InstancePre<State<Extra>>,
    pub(super) check: ComponentExportIndex,
    pub(super) run: ComponentExportIndex,
    pub(super) settle: ComponentExportIndex,
}

/// The process's runner, made at the first use. Blocks for as long as that takes.
pub(super) fn runner(runtime: &Runtime, cache: &CodeCache) -> Result<&'static Runner, String> {
    // One per process, like the wasmtime engine that it belongs to.
    static RUNNER: OnceLock<Result<Runner, String>> = OnceLock::new();
    RUNNER.get_or_init(|| make(runtime, cache)).as_ref().map_err(Clone::clone)
}

fn make(runtime: &Runtime, cache: &CodeCache) -> Result<Runner, String> {
    let mut digest = Sha256::new();
    for part in [COMPONENTIZER, WIT, HOST, SCRIPTS] {
        digest.update(part);
    }
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let component = cache.component(&runtime.engine, &format!("quickjs-{digest}"), snapshot)?;
    link(runtime, &component).map_err(|error| format!("the JavaScript runner does not fit this server: {error:#}"))
}

fn link(runtime: &Runtime, component: &Component) -> wasmtime::Result<Runner> {
    let mut linker = Linker::new(&runtime.engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    host::link(&mut linker)?;
    let export = |name: &str| {
        component.get_export_index(None, name).ok_or_else(|| wasmtime::format_err!("it has no export `{name}`"))
    };
    let (check, run, settle) = (export("check")?, export("run")?, export("settle")?);
    Ok(Runner { code: linker.instantiate_pre(component)?, check, run, settle })
}

/// QuickJS with the script evaluated, as a component.
fn snapshot() -> Result<Vec<u8>, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("cannot make a temporary folder: {error}"))?;
    let wit_path = folder.path().join("runner.wit");
    std::fs::write(&wit_path, WIT).map_err(|error| format!("cannot write to {}: {error}", folder.path().display()))?;
    let options = componentize_qjs::ComponentizeOpts {
        wit_path: &wit_path,
        js_source: &format!("{HOST}{SCRIPTS}"),
        js_path: None,
        module_root: None,
        world_name: None,
        // Stubs trap: Date and Math.random need clocks.
        stub_wasi: false,
        disable_gc: false,
        runtime: componentize_qjs::Runtime::Default,
    };
    // A runtime of its own: this runs on a blocking thread.
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let tokio = tokio.map_err(|error| format!("cannot start a runtime: {error}"))?;
    let component = tokio.block_on(componentize_qjs::componentize(&options));
    component.map_err(|error| format!("cannot put the JavaScript runner together: {error:#}"))
}
