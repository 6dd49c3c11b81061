//! What the server calls (../../guest.rs).
//!
//! Texts and bytes that come in lie at [`input`], or at what [`alloc`] gave if they are longer; texts and sources have a 0
//! behind them. What goes out is a pointer and a length in one number, valid until the next call.

#![expect(unsafe_code, reason = "what the server hands in, and what it gets")]

use alloc::vec::Vec;
use core::cell::{OnceCell, RefCell, UnsafeCell};

use crate::heap;
use crate::quickjs::{Bytecode, Source, Text};
use crate::runner::{Ending, Runner};
use crate::single::Single;

const INPUT_BYTES: usize = 64 << 10;

// Of what goes out, beside a pointer that is not 0.
/// Not even an error: there was no memory for it.
const OUT_NOTHING: u64 = 0;
/// Nothing is left that could settle the handler's promise.
const OUT_NEVER: u64 = 1;
/// With this bit of the length, it is why a source cannot be compiled.
const OUT_NOT_COMPILED: u64 = 1 << 31;

static RUNNER: Single<OnceCell<Runner>> = Single::new(OnceCell::new());
static INPUT: Single<UnsafeCell<[u8; INPUT_BYTES]>> = Single::new(UnsafeCell::new([0; INPUT_BYTES]));
static OUT: Single<RefCell<Out>> = Single::new(RefCell::new(Out::Nothing));

/// What went out last.
enum Out {
    Nothing,
    Text(Text),
    Bytes(Vec<u8>),
}

fn out(out: Out) -> u64 {
    let bytes = match &out {
        Out::Nothing => return OUT_NOTHING,
        Out::Text(text) => text.bytes(),
        Out::Bytes(bytes) => bytes,
    };
    let packed = (bytes.as_ptr() as u64) << 32 | bytes.len() as u64;
    // Neither moves its bytes when it moves.
    OUT.replace(out);
    packed
}

fn text_out(text: Option<Text>) -> u64 {
    out(text.map_or(Out::Nothing, Out::Text))
}

/// Made by the first call, which is `boot` or `boot_compile`.
fn runner() -> &'static Runner {
    RUNNER.get_or_init(|| Runner::new().unwrap_or_else(|_| core::arch::wasm32::unreachable()))
}

/// What the server wrote before it called.
///
/// # Safety
///
/// The server wrote it, at a place that it got for so many bytes, and the place is not given back while this is used.
unsafe fn handed<'a>(place: *const u8, length: usize) -> &'a [u8] {
    // SAFETY: the caller's.
    unsafe { core::slice::from_raw_parts(place, length) }
}

/// The same of what has a 0 behind it.
///
/// # Safety
///
/// As above.
unsafe fn handed_source<'a>(place: *const u8, length: usize) -> Source<'a> {
    // SAFETY: the caller's.
    Source::new(unsafe { handed(place, length + 1) }).unwrap_or_else(|| core::arch::wasm32::unreachable())
}

/// The stack lies below everything else and holds nothing between two calls.
#[unsafe(no_mangle)]
extern "C" fn stack_bytes() -> usize {
    const { parse(env!("STACK_BYTES")) }
}

const fn parse(digits: &str) -> usize {
    let (digits, mut number, mut index) = (digits.as_bytes(), 0, 0);
    while index < digits.len() {
        number = number * 10 + (digits[index] - b'0') as usize;
        index += 1;
    }
    number
}

#[unsafe(no_mangle)]
extern "C" fn input() -> *mut u8 {
    INPUT.get().cast()
}

#[unsafe(no_mangle)]
extern "C" fn alloc(length: usize) -> *mut u8 {
    heap::lend(length)
}

/// Takes back what `alloc` gave.
#[unsafe(no_mangle)]
unsafe extern "C" fn release(place: *mut u8) {
    // SAFETY: the server gives back what it got, once.
    unsafe { heap::take_back(place) }
}

/// The scripts to bytecode. In an instance of its own, so that what the parser leaves behind is not in the snapshot.
#[unsafe(no_mangle)]
unsafe extern "C" fn boot_compile(source: *const u8, length: usize) -> u64 {
    // SAFETY: the server wrote the source.
    let source = unsafe { handed_source(source, length) };
    match runner().compile_scripts(source) {
        Ok(bytecode) => out(Out::Bytes(bytecode)),
        Err(error) => text_out(error),
    }
}

/// Runs the scripts' bytecode. Out: nothing, or an error.
#[unsafe(no_mangle)]
unsafe extern "C" fn boot(bytecode: *const u8, length: usize) -> u64 {
    // SAFETY: the server wrote what `boot_compile` gave.
    let bytecode = unsafe { Bytecode::new(handed(bytecode, length)) };
    runner().boot(bytecode).map_or_else(text_out, |()| OUT_NOTHING)
}

/// Makes the memory ready to be the snapshot that every sandbox starts from.
#[unsafe(no_mangle)]
extern "C" fn seal() {
    runner().seal();
    // SAFETY: nobody else looks at it now.
    unsafe { (*INPUT.get()).fill(0) };
}

/// A source to bytecode. Out: the bytecode, or why it cannot be compiled.
#[unsafe(no_mangle)]
unsafe extern "C" fn compile(source: *const u8, length: usize) -> u64 {
    // SAFETY: the server wrote the source.
    let source = unsafe { handed_source(source, length) };
    match runner().compile(source) {
        Ok(bytecode) => out(Out::Bytes(bytecode)),
        Err(error) => text_out(error) | OUT_NOT_COMPILED,
    }
}

/// Whether bytecode that `compile` gave was loaded.
#[unsafe(no_mangle)]
unsafe extern "C" fn load(bytecode: *const u8, length: usize) -> bool {
    // SAFETY: the server wrote what `compile` gave.
    let bytecode = unsafe { Bytecode::new(handed(bytecode, length)) };
    runner().load(bytecode)
}

/// Runs the hook's top level: what it left.
#[unsafe(no_mangle)]
extern "C" fn prepare() -> u32 {
    runner().prepare() as u32
}

/// Phase, context and marker lie one after the other, each with a 0 behind it.
#[unsafe(no_mangle)]
unsafe extern "C" fn run(parts: *mut u8, phase_length: usize, context_length: usize, marker_length: usize) -> u64 {
    let context = parts.wrapping_add(phase_length + 1);
    let marker = context.wrapping_add(context_length + 1);
    // SAFETY: the server wrote the three.
    let (phase, context, marker) =
        unsafe { (handed(parts, phase_length), handed_source(context, context_length), handed(marker, marker_length)) };
    let [Ok(phase), Ok(marker)] = [phase, marker].map(core::str::from_utf8) else { core::arch::wasm32::unreachable() };
    let give_back = || {
        if parts != input() {
            // SAFETY: then the server got it from `alloc`.
            unsafe { heap::take_back(parts) }
        }
    };
    match runner().run(phase, context, marker, give_back) {
        Ending::Answer(answer) => out(Out::Text(answer)),
        Ending::Never => OUT_NEVER,
        Ending::Nothing => OUT_NOTHING,
    }
}
