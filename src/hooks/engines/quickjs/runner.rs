//! The module that runs all JavaScript hooks: compiled once per machine, stored in the cache, loaded once per process.
//!
//! A hook only adds the changes that loading it makes in the module's memory (load.rs).

use tokio::sync::OnceCell;

use super::artifact;
use super::guest::Code;
use super::host::Extra;
use super::image::{self, Apart};
use super::instance::Guest;
use crate::hooks::engines::engine::PrepareError;
use crate::hooks::engines::limits::CHECK_LIMITS;
use crate::hooks::engines::wasm::{self, CodeCache, Runtime, Sandbox};

/// The module in both runtimes.
pub(super) struct Runner {
    /// For runs.
    pub(super) runtime: &'static Runtime,
    pub(super) code: Code,
    /// For loading hooks.
    pub(super) loading_runtime: &'static Runtime,
    pub(super) loading_code: Code,
    /// The memory of a fresh instance.
    pub(super) memory: Vec<u8>,
    /// The end of its stack: memory below has no meaning between two runs.
    pub(super) stack_bytes: usize,
    /// The address of the input buffer.
    pub(super) input: u32,
    /// For runs of hooks with an image, once there is one.
    apart: OnceCell<Apart>,
}

impl Runner {
    /// The module for hooks with an image.
    pub(super) async fn apart(&self, cache: &CodeCache) -> Result<&Apart, PrepareError> {
        self.apart.get_or_try_init(|| make_apart(self.runtime, cache)).await
    }

    /// The same, for a hook with an image, for which it already exists.
    pub(super) fn apart_of_image(&self) -> wasmtime::Result<&Apart> {
        self.apart.get().ok_or_else(|| wasmtime::format_err!("the runner's module for images is not there"))
    }
}

/// One per process, like the wasmtime engines that it belongs to.
static RUNNER: OnceCell<Runner> = OnceCell::const_new();

/// Its key, if it is neither in the process nor in the cache.
pub(super) fn uncompiled(cache: &CodeCache) -> Option<String> {
    let key = key(artifact::digest().filter(|_| !RUNNER.initialized())?);
    (!cache.names().may_have(&key)).then_some(key)
}

fn key(digest: &str) -> String {
    format!("quickjs-{digest}")
}

/// The process's runner, created at the first use.
pub(super) async fn runner(cache: &CodeCache) -> Result<&'static Runner, PrepareError> {
    RUNNER.get_or_try_init(|| make(cache)).await
}

async fn make(cache: &CodeCache) -> Result<Runner, PrepareError> {
    let runtime = wasm::runtime().map_err(PrepareError::plain)?;
    let loading_runtime = wasm::loading_runtime().map_err(PrepareError::plain)?;
    let (wasm, digest) = artifact::runner().map_err(PrepareError::plain)?;
    let [module, loading_module] = cache.own_module([runtime, loading_runtime], &key(digest), &wasm).await?;
    let code = Code::new(runtime, &module).map_err(unfit)?;
    let loading_code = Code::new(loading_runtime, &loading_module).map_err(unfit)?;
    let fresh = Sandbox::new(loading_runtime, Extra::default()).await;
    let mut fresh = fresh.map_err(|failure| PrepareError::plain(failure.message))?;
    fresh.begin(None, &CHECK_LIMITS);
    let guest = Guest::new(&loading_code, &mut fresh.store).await.map_err(unfit)?;
    let memory = guest.bytes(&fresh.store).to_vec();
    let stack_bytes: u32 = guest.call(&mut fresh.store, "stack_bytes", ()).await.map_err(unfit)?;
    let input: u32 = guest.call(&mut fresh.store, "input", ()).await.map_err(unfit)?;
    let (stack_bytes, apart) = (stack_bytes as usize, OnceCell::new());
    Ok(Runner { runtime, code, loading_runtime, loading_code, memory, stack_bytes, input, apart })
}

async fn make_apart(runtime: &Runtime, cache: &CodeCache) -> Result<Apart, PrepareError> {
    let (wasm, digest) = artifact::runner().map_err(PrepareError::plain)?;
    let wasm = image::apart(&wasm).map_err(PrepareError::plain)?;
    let [module] = cache.own_module([runtime], &format!("quickjs-apart-{digest}"), &wasm).await?;
    Apart::new(runtime, module).map_err(unfit)
}

fn unfit(error: wasmtime::Error) -> PrepareError {
    PrepareError::plain(format!("the JavaScript runner does not fit this server: {error:#}"))
}
