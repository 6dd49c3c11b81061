//! Restores the memory of a sandbox to its state before the run, so that it can serve the hook's next run like a fresh
//! one: creating a sandbox takes as long as a small handler.
//!
//! The kernel reports which pages were written since the memory was mapped (written.rs); all of them get their original
//! content back, whichever run wrote them. The rest of the module's state needs no restore: its only variable, the stack
//! pointer, has its old value when the guest has returned, and nothing in the module changes its table (checked in
//! artifact_tests.rs). A sandbox whose guest did not return, whose memory grew or that wrote much is discarded, and so
//! are all if the kernel does not support this.

use super::host::Extra;
use super::load::Start;
use super::runner::Runner;
use super::written::Written;
use crate::hooks::engines::wasm::Sandbox;

/// Restores a sandbox whose run has ended; returns whether that worked.
pub(super) fn restore(runner: &Runner, start: &Start, sandbox: &mut Sandbox<Extra>) -> bool {
    let store = &mut sandbox.store;
    let extra = &mut store.data_mut().extra;
    if !extra.calls.is_idle() {
        return false;
    }
    extra.calls.clear();
    let Some(guest) = extra.guest else { return false };
    let mut written = std::mem::take(&mut extra.written);
    let is_restored = put_back(runner, start, guest.bytes_mut(store), &mut written);
    let extra = &mut store.data_mut().extra;
    (extra.written, extra.is_restored) = (written, is_restored);
    is_restored
}

fn put_back(runner: &Runner, start: &Start, memory: &mut [u8], written: &mut Written) -> bool {
    if memory.len() != start.memory_bytes(runner) {
        return false;
    }
    let Some(pieces) = written.pieces(memory) else { return false };
    for piece in pieces {
        start.fill(runner, piece.start, &mut memory[piece.clone()]);
    }
    true
}
