//! Links components, and identifies their compiled code.

use sha2::{Digest, Sha256};
use wasmtime::component::Linker;

use super::versions::Version;
use super::wasi_http::{self, Extra};
use crate::hooks::engines::wasm::{Runtime, SandboxState};

/// The possible imports: WASI without access to anything, requests through `wasi:http`, and a version of the package.
/// The session rejects everything that is not granted.
pub(super) fn linker(runtime: &Runtime, version: Option<Version>) -> wasmtime::Result<Linker<SandboxState<Extra>>> {
    let mut linker = Linker::new(&runtime.engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasi_http::link(&mut linker)?;
    version.map_or(Ok(()), |version| version.link(&mut linker))?;
    Ok(linker)
}

/// SHA-256, lowercase hex.
pub(super) fn digest(code: &[u8]) -> String {
    format!("{:x}", Sha256::digest(code))
}
