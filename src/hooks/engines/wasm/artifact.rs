//! The only place that loads machine code that this process did not compile itself.
#![expect(unsafe_code, reason = "wasmtime cannot check that a serialized component is one of its own")]

use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use super::compiled::{Compiled, Verified};

/// Compiled code of one kind.
pub(in crate::hooks::engines) trait Code: Sized + Send + 'static {
    /// Loads the output of the engine's `precompile_…` for this kind. wasmtime checks its version, settings and target.
    ///
    /// # Safety
    ///
    /// `bytes` must be the unchanged output of this program in a process of this user: anything else would be executed
    /// too.
    unsafe fn load(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Self>;
}

impl Code for Component {
    unsafe fn load(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Self> {
        // SAFETY: the caller's promise is the one that `deserialize` asks for.
        unsafe { Component::deserialize(engine, bytes) }
    }
}

impl Code for Module {
    unsafe fn load(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Self> {
        // SAFETY: the caller's promise is the one that `deserialize` asks for.
        unsafe { Module::deserialize(engine, bytes) }
    }
}

/// Loads code that a subprocess has just compiled.
pub(super) fn load_compiled<C: Code>(engine: &Engine, compiled: &Compiled) -> wasmtime::Result<C> {
    // SAFETY: a `Compiled` is made by `compiled` alone, of what `subprocess::run` gave: the reply of a process that this one has
    // started from its own program, over a socket that nobody else has.
    unsafe { C::load(engine, compiled.bytes()) }
}

/// Loads a cached file's content after [`super::compiled`] found that only this user could have written it.
pub(super) fn load_verified<C: Code>(engine: &Engine, content: &Verified) -> wasmtime::Result<C> {
    // SAFETY: a `Verified` is made in one place, by `Verified::read`: the folder and the file belong to this user and nobody
    // else may write to them, and the checksum over all bytes, written by `Compiled::write` right after
    // they came from the subprocess, holds.
    unsafe { C::load(engine, content.bytes()) }
}
