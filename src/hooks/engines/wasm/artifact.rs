//! The one place where machine code is loaded that this process did not just compile.
#![expect(unsafe_code, reason = "wasmtime cannot check that a serialized component is one of its own")]

use wasmtime::Engine;
use wasmtime::component::Component;

/// Loads what [`Component::serialize`] gave. wasmtime checks its version, settings and target.
///
/// # Safety
///
/// `bytes` must be, unchanged, what `Component::serialize` gave in a process of this user: loading anything else runs it.
pub(super) unsafe fn load(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the caller's promise is the one that `deserialize` asks for.
    unsafe { Component::deserialize(engine, bytes) }
}

/// Loads a cached file's content after [`super::cache`] found that only this user could have written it.
pub(super) fn load_verified(engine: &Engine, content: &super::cache::Verified) -> wasmtime::Result<Component> {
    // SAFETY: a `Verified` is made in one place, by `cache::read`: the folder and the file belong to this user and nobody
    // else may write to them, and the checksum over all bytes, written by `cache::write` right after
    // `Component::serialize`, holds.
    unsafe { load(engine, content.bytes()) }
}
