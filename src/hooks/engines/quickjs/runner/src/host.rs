//! The server, as the module sees it: the functions that it imports (../../host.rs gives them).
//!
//! The server keeps what a call answered, a text and up to two pieces of bytes, until [`part`] copies it.

#![expect(unsafe_code, reason = "what the server reads and writes of the memory")]

use alloc::vec::Vec;
use core::cell::Cell;

use rquickjs::{Error, Result};

use crate::single::Single;

/// What the server computes: nothing that a grant opens.
#[derive(Clone, Copy)]
pub(crate) enum Computation {
    Url = 0,
    Digest = 1,
    Decode = 2,
    /// As above, but bytes that are malformed give nothing.
    DecodeFatal = 3,
}

mod imports {
    #[link(wasm_import_module = "snaphook")]
    unsafe extern "C" {
        pub(super) safe fn now() -> f64;
        pub(super) safe fn observe(what: u32);
        pub(super) safe fn wait(call: u32, milliseconds: f64) -> u32;
        pub(super) safe fn cancel(call: u32);
        pub(super) safe fn part(part: u32) -> i32;
        pub(super) fn log(level: i32, text: *const u8, length: usize);
        pub(super) fn random(to: *mut u8, length: usize);
        pub(super) fn compute(operation: u32, text: *const u8, text_length: usize, bytes: *const u8, length: usize);
        pub(super) fn ask(text: *const u8, length: usize);
        pub(super) fn start(
            operation: u32,
            text: *const u8,
            text_length: usize,
            bytes: *const u8,
            length: usize,
        ) -> u32;
        pub(super) fn take(part: u32, to: *mut u8);
    }
}

/// Calls that were started and are not answered.
static OUTSTANDING: Single<Cell<u32>> = Single::new(Cell::new(0));

/// The clock of QuickJS, in microseconds since 1970: C asks for it under this name.
#[unsafe(no_mangle)]
extern "C" fn __rquickjs_host_now_us() -> f64 {
    imports::now()
}

/// 0 debug, 1 info, 2 warn, 3 error.
pub(crate) fn log(level: i32, text: &[u8]) {
    // SAFETY: the server reads the text.
    unsafe { imports::log(level, text.as_ptr(), text.len()) }
}

/// Before the first look at the clock, so that the reason why a top level is not kept is the right one: 0 the source sets a
/// timer, 1 it makes a host call.
pub(crate) fn observe(what: u32) {
    imports::observe(what);
}

pub(crate) fn random(length: usize) -> Result<Vec<u8>> {
    filled(length, |to| {
        // SAFETY: the server writes so many bytes, or ends the module.
        unsafe { imports::random(to, length) }
    })
}

/// The answer is in the parts.
pub(crate) fn compute(computation: Computation, text: &[u8], bytes: &[u8]) {
    // SAFETY: the server reads both.
    unsafe { imports::compute(computation as u32, text.as_ptr(), text.len(), bytes.as_ptr(), bytes.len()) }
}

/// A host call that the source waits for. The answer is in the parts.
pub(crate) fn ask(text: &[u8]) {
    // SAFETY: the server reads the text.
    unsafe { imports::ask(text.as_ptr(), text.len()) }
}

/// A host call that goes on beside the source; its number, from 1.
pub(crate) fn start(operation: u32, text: &[u8], bytes: &[u8]) -> u32 {
    // SAFETY: the server reads both.
    let call = unsafe { imports::start(operation, text.as_ptr(), text.len(), bytes.as_ptr(), bytes.len()) };
    OUTSTANDING.set(OUTSTANDING.get() + 1);
    call
}

/// Waits for a call that was started, or for any; or for so many milliseconds, if they are not negative. The call that has
/// its answer in the parts, or none after the time.
pub(crate) fn wait(call: Option<u32>, milliseconds: f64) -> Option<u32> {
    let done = imports::wait(call.unwrap_or(0), milliseconds);
    if done == 0 {
        return None;
    }
    OUTSTANDING.set(OUTSTANDING.get() - 1);
    Some(done)
}

/// Nobody waits for that call any more.
pub(crate) fn cancel(call: u32) {
    imports::cancel(call);
    OUTSTANDING.set(OUTSTANDING.get() - 1);
}

pub(crate) fn has_outstanding_calls() -> bool {
    OUTSTANDING.get() > 0
}

/// A part of the last answer: 0 the text, 1 and 2 the bytes.
pub(crate) fn part(part: u32) -> Result<Option<Vec<u8>>> {
    // Negative: there is none.
    let Ok(length) = usize::try_from(imports::part(part)) else { return Ok(None) };
    filled(length, |to| {
        // SAFETY: the server writes as many bytes as it said above.
        unsafe { imports::take(part, to) }
    })
    .map(Some)
}

/// Bytes that `fill` writes, all of them.
fn filled(length: usize, fill: impl FnOnce(*mut u8)) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| Error::Allocation)?;
    // Zeros first: it costs little beside the copy, and nothing depends on what `fill` does.
    bytes.resize(length, 0);
    fill(bytes.as_mut_ptr());
    Ok(bytes)
}
