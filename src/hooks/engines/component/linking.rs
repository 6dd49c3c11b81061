//! What components are linked with, and by what their compiled code is known.

use sha2::{Digest, Sha256};
use wasmtime::component::Linker;

use super::versions::Version;
use super::wasi_http::{self, Extra};
use crate::hooks::engines::wasm::{Runtime, State};

/// What code may import: WASI with nothing in it, requests by `wasi:http`, and a version of the package. What is not granted
/// is refused by the session.
pub(super) fn linker(runtime: &Runtime, version: Option<Version>) -> wasmtime::Result<Linker<State<Extra>>> {
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
