//! The parts that the WebAssembly engines share: one wasmtime engine per process, its clock, its limits, and its
//! compiled code.
//!
//! Nothing here depends on the form of a hook's code; `component` and `quickjs` handle that.

mod artifact;
mod cache;
mod compiled;
mod config;
mod end;
mod lane;
mod limiter;
mod pipe;
mod sandbox;
mod state;
mod stdio;
mod ticker;

pub(super) use cache::CodeCache;
pub(super) use config::{Runtime, compiler, loading_runtime, runtime};
pub(super) use end::gave_up;
pub(super) use lane::run;
pub(super) use sandbox::Sandbox;
pub(super) use state::{SandboxState, capability, fatal};

/// Largest WebAssembly file that is accepted. A Rust hook has 40 KB, one with a JavaScript engine inside 2 to 12 MB, one with
/// CPython inside 18 MB.
pub const CODE_BYTES_MAX: usize = 32 << 20;
