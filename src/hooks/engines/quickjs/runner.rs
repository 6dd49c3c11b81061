//! The one component that runs all JavaScript hooks: QuickJS with the runner's JavaScript loaded, as a snapshot.
//!
//! It is put together and compiled once (2 to 4 s) and kept in the cache; from there it takes a few milliseconds. A hook
//! adds its source, nothing else.

use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Linker};

use super::host::{self, Extra};
use crate::hooks::engines::PrepareError;
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

/// The process's runner, made at the first use.
pub(super) async fn runner(runtime: &Runtime, cache: &CodeCache) -> Result<&'static Runner, PrepareError> {
    // One per process, like the wasmtime engine that it belongs to.
    static RUNNER: OnceCell<Runner> = OnceCell::const_new();
    RUNNER.get_or_try_init(|| make(runtime, cache)).await
}

async fn make(runtime: &Runtime, cache: &CodeCache) -> Result<Runner, PrepareError> {
    let mut digest = Sha256::new();
    for part in [COMPONENTIZER, WIT, HOST, SCRIPTS] {
        digest.update(part);
    }
    let key = format!("quickjs-{:x}", digest.finalize());
    let component = match cache.find(runtime, &key).await {
        Some(component) => component,
        None => {
            let code = tokio::task::spawn_blocking(snapshot).await;
            let code = code.unwrap_or_else(|error| Err(error.to_string())).map_err(PrepareError::plain)?;
            cache.trusted_component(runtime, &key, &code).await?
        }
    };
    link(runtime, &component)
        .map_err(|error| PrepareError::plain(format!("the JavaScript runner does not fit this server: {error:#}")))
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
