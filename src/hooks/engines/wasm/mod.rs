//! What the WebAssembly engines share: one wasmtime engine per process, its clock, its limits, its compiled code.
//!
//! Nothing here knows what a hook's code looks like; `component` and `quickjs` bring that.

mod artifact;
mod cache;
mod clock;
mod config;
mod end;
mod idle;
mod lane;
mod limiter;
mod sandbox;
mod state;
mod stdio;
mod ticker;

use std::time::Duration;

use crate::config::Limits;

pub(super) use cache::CodeCache;
pub(super) use config::{Runtime, runtime};
pub(super) use end::{Broken, stack_failure};
pub(super) use idle::IdlePool;
pub(super) use lane::run;
pub(super) use sandbox::Sandbox;
pub(super) use state::{State, capability, fatal};

/// For code that is only checked: no grant applies yet.
pub(super) const CHECK_LIMITS: Limits = Limits { timeout: Duration::from_secs(2), memory_bytes: 256 << 20 };

/// Largest WebAssembly file that is accepted. A Rust hook has 40 KB, one with a JavaScript engine inside 2 to 12 MB.
pub(super) const CODE_BYTES_MAX: usize = 32 << 20;

/// Most that one call may hand back, as JSON text.
pub(super) const OUTPUT_BYTES_MAX: usize = 16 << 20;

/// A measured size in messages; limits are written by [`crate::config::format_size`].
pub(super) fn used_size(bytes: usize) -> String {
    match bytes {
        mib if mib >= 1 << 20 => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        kib if kib >= 1 << 10 => format!("{:.1} KiB", bytes as f64 / f64::from(1 << 10)),
        _ => format!("{bytes} B"),
    }
}
