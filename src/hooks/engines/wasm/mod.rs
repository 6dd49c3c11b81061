//! What the WebAssembly engines share: one wasmtime engine per process, its clock, its limits, its compiled code.
//!
//! Nothing here knows what a hook's code looks like; `component` and `quickjs` bring that.

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
pub(super) use state::{State, capability, fatal};

/// Largest WebAssembly file that is accepted. A Rust hook has 40 KB, one with a JavaScript engine inside 2 to 12 MB, one with
/// CPython inside 18 MB.
pub const CODE_BYTES_MAX: usize = 32 << 20;
