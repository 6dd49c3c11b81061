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

/// Sizes in messages: `64 MiB`, `1.5 MiB`, `900 bytes`.
pub(super) fn bytes_text(bytes: usize) -> String {
    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;
    match bytes {
        _ if bytes >= MIB && bytes.is_multiple_of(MIB) => format!("{} MiB", bytes / MIB),
        _ if bytes >= MIB => format!("{:.1} MiB", bytes as f64 / MIB as f64),
        _ if bytes >= KIB && bytes.is_multiple_of(KIB) => format!("{} KiB", bytes / KIB),
        _ if bytes >= KIB => format!("{:.1} KiB", bytes as f64 / KIB as f64),
        _ => format!("{bytes} bytes"),
    }
}

/// Times in messages: `500 ms`, `2 s`.
pub(super) fn time_text(time: Duration) -> String {
    match time.as_millis() {
        millis if millis >= 1_000 && millis % 1_000 == 0 => format!("{} s", millis / 1_000),
        millis => format!("{millis} ms"),
    }
}
