//! What V8 alone knows of promises: what is left to do for them, and those that are rejected and have no handler, of which it tells
//! a function of turns.js.
//!
//! The library's C interface has no way to ask for either, so this file alone speaks to V8's own functions, which the library
//! exports too. They are found by the names that the compiler gave them, in the version whose digest `cargo xtask v8` checks.
#![expect(unsafe_code, reason = "functions of V8 that are found at run time")]

use std::ffi::{c_char, c_int};
use std::ptr::null;
use std::sync::OnceLock;

use libloading::os::unix::{Library, Symbol};

/// Where the function stands for a moment, as a member of the global object.
const NAME: &std::ffi::CStr = c"__snaphook";

/// Where V8 keeps a value: what its `Local` and `MaybeLocal` are, one pointer.
type Local = *const usize;
type Isolate = *const u8;

/// `v8::PromiseRejectMessage`.
#[repr(C)]
struct Message {
    promise: Local,
    event: c_int,
    value: Local,
}

/// Of the events, the two that count.
const WITHOUT_HANDLER: c_int = 0;
const HANDLER_ADDED: c_int = 1;

struct Functions {
    current: Symbol<unsafe extern "C" fn() -> Isolate>,
    context: Symbol<unsafe extern "C" fn(Isolate) -> Local>,
    global: Symbol<unsafe extern "C" fn(Local) -> Local>,
    get: Symbol<unsafe extern "C" fn(Local, Local, Local) -> Local>,
    text: Symbol<unsafe extern "C" fn(Isolate, *const c_char, c_int, c_int) -> Local>,
    integer: Symbol<unsafe extern "C" fn(Isolate, i32) -> Local>,
    keep: Symbol<unsafe extern "C" fn(Isolate, usize) -> Local>,
    call: Symbol<unsafe extern "C" fn(Local, Isolate, Local, Local, c_int, *const Local) -> Local>,
    watch: Symbol<unsafe extern "C" fn(Isolate, extern "C" fn(Message))>,
    run: Symbol<unsafe extern "C" fn(Isolate)>,
}

static FUNCTIONS: OnceLock<Functions> = OnceLock::new();

/// The function of turns.js, which V8 keeps for good.
static LISTENER: OnceLock<Listener> = OnceLock::new();

struct Listener(Local);

// SAFETY: only V8's thread follows the pointer.
unsafe impl Send for Listener {}
// SAFETY: as above.
unsafe impl Sync for Listener {}

/// Finds V8's functions in its library.
///
/// # Safety
///
/// It is the library of the version that the module's documentation names, and stays open for as long as the process lives.
pub(super) unsafe fn find(library: &Library) -> Result<(), String> {
    // SAFETY: the caller's. The types are those of v8-isolate.h, v8-function.h and their kin in that version; what is passed or given
    // by value is a pointer, or a class of pointers that can be copied byte by byte.
    let functions = unsafe {
        macro_rules! symbol {
            ($name:literal) => {
                library.get(concat!($name, "\0").as_bytes()).map_err(|error| error.to_string())?
            };
        }
        Functions {
            current: symbol!("_ZN2v87Isolate10GetCurrentEv"),
            context: symbol!("_ZN2v87Isolate17GetCurrentContextEv"),
            global: symbol!("_ZN2v87Context6GlobalEv"),
            get: symbol!("_ZN2v86Object3GetENS_5LocalINS_7ContextEEENS1_INS_5ValueEEE"),
            text: symbol!("_ZN2v86String11NewFromUtf8EPNS_7IsolateEPKcNS_13NewStringTypeEi"),
            integer: symbol!("_ZN2v87Integer3NewEPNS_7IsolateEi"),
            keep: symbol!("_ZN2v812api_internal18GlobalizeReferenceEPNS_8internal7IsolateEm"),
            call: symbol!("_ZN2v88Function4CallEPNS_7IsolateENS_5LocalINS_7ContextEEENS3_INS_5ValueEEEiPS7_"),
            watch: symbol!("_ZN2v87Isolate24SetPromiseRejectCallbackEPFvNS_20PromiseRejectMessageEE"),
            run: symbol!("_ZN2v87Isolate26PerformMicrotaskCheckpointEv"),
        }
    };
    FUNCTIONS.set(functions).map_err(|_| "V8 runs already".to_owned())
}

/// Has V8 tell the function that is the global object's member [`NAME`]. While JavaScript calls the host, on V8's thread.
pub(super) fn watch() -> Result<(), String> {
    let functions = FUNCTIONS.get().ok_or("V8 does not run")?;
    // SAFETY: on V8's thread, inside a call from JavaScript, there are a current isolate, a context and a scope that keeps
    // what the functions give until the call returns. Each result that may be empty is looked at before it is used.
    unsafe {
        let isolate = (functions.current)();
        let context = (functions.context)(isolate);
        let name = (functions.text)(isolate, NAME.as_ptr(), 0, -1);
        let listener =
            if name.is_null() { null() } else { (functions.get)((functions.global)(context), context, name) };
        if listener.is_null() {
            return Err("the runner has no listener for rejected promises".to_owned());
        }
        let listener = Listener((functions.keep)(isolate, *listener));
        LISTENER.set(listener).map_err(|_| "rejected promises are watched already".to_owned())?;
        (functions.watch)(isolate, rejected);
    }
    Ok(())
}

/// Does what is left to promises. On V8's thread, between two tasks.
pub(super) fn run() {
    let Some(functions) = FUNCTIONS.get() else { return };
    // SAFETY: a task of the library has just ended on this thread, and its isolate is the current one. What runs may call the host.
    unsafe { (functions.run)((functions.current)()) }
}

extern "C" fn rejected(message: Message) {
    let (Some(functions), Some(listener)) = (FUNCTIONS.get(), LISTENER.get()) else { return };
    // The others are of promises that are settled already.
    if !matches!(message.event, WITHOUT_HANDLER | HANDLER_ADDED) {
        return;
    }
    // SAFETY: V8 calls this on its thread, inside a scope, with a promise and, for a rejection, its reason. The arguments live
    // until the call is over. What the listener throws, or that V8 is being stopped, gives an empty result, which is not used.
    unsafe {
        let isolate = (functions.current)();
        let context = (functions.context)(isolate);
        let event = (functions.integer)(isolate, message.event);
        let reason = if message.event == WITHOUT_HANDLER { message.value } else { event };
        let arguments = [event, message.promise, reason];
        (functions.call)(listener.0, isolate, context, event, arguments.len() as c_int, arguments.as_ptr());
    }
}
