//! Restores the memory of a sandbox to its state before the run, so that it can serve the hook's next run like a fresh
//! one: creating a sandbox takes as long as a small handler.
//!
//! The kernel reports which pages were written since the memory was mapped; all of them get their original content
//! back, whichever run wrote them. The rest of the module's state needs no restore: its only variable, the stack
//! pointer, has its old value when the guest has returned, and nothing in the module changes its table (checked in
//! artifact_tests.rs). A sandbox whose guest did not return, whose memory grew or that wrote much is discarded, and so
//! are all if the kernel does not support this.

use super::host::Extra;
use super::load::Start;
use super::runner::Runner;
#[cfg(target_os = "linux")]
use crate::hooks::engines::pagemap::{Pagemap, Region};
use crate::hooks::engines::wasm::Sandbox;

/// Scanning and copying more takes longer than creating a new sandbox.
#[cfg(target_os = "linux")]
const PIECES_MAX: usize = 256;
#[cfg(target_os = "linux")]
const COPIED_BYTES_MAX: usize = 1 << 20;

/// Restores a sandbox whose run has ended; returns whether that worked.
pub(super) fn restore(runner: &Runner, start: &Start, sandbox: &mut Sandbox<Extra>) -> bool {
    let store = &mut sandbox.store;
    let extra = &mut store.data_mut().extra;
    if !extra.calls.is_idle() {
        return false;
    }
    extra.calls.clear();
    let Some(guest) = extra.guest else { return false };
    let is_restored = put_back(runner, start, guest.bytes_mut(store));
    store.data_mut().extra.is_restored = is_restored;
    is_restored
}

#[cfg(target_os = "linux")]
fn put_back(runner: &Runner, start: &Start, memory: &mut [u8]) -> bool {
    use std::sync::LazyLock;

    static PAGEMAP: LazyLock<Option<Pagemap>> = LazyLock::new(Pagemap::open);

    let Some(pagemap) = &*PAGEMAP else { return false };
    if memory.len() != start.memory_bytes(runner) {
        return false;
    }
    let mut regions = [Region::default(); PIECES_MAX];
    let Some(pieces) = pagemap.written(memory, &mut regions) else { return false };
    let mut copied = 0;
    for piece in pieces {
        copied += piece.len();
        if copied > COPIED_BYTES_MAX {
            return false;
        }
        start.fill(runner, piece.start, &mut memory[piece]);
    }
    true
}

#[cfg(not(target_os = "linux"))]
fn put_back(_: &Runner, _: &Start, _: &mut [u8]) -> bool {
    false
}
