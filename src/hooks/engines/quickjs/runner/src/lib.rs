//! QuickJS as one WebAssembly module that runs hooks.
//!
//! The module is booted once, when it is built: it loads the scripts of ../../../javascript/runner, and its memory becomes the
//! snapshot that every sandbox starts from. A hook's source is compiled to bytecode and loaded when the hook is bound; a call
//! runs its handler. Most of it is safe Rust over rquickjs; each file with `unsafe` guards one boundary: exports.rs and host.rs
//! to the server, quickjs.rs to what rquickjs has no safe form for, heap.rs to memory, single.rs to statics.

#![no_std]

extern crate alloc;

mod exports;
mod functions;
mod heap;
mod host;
mod quickjs;
mod rejections;
mod runner;
mod single;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
