//! V8's internal state of promises: pending jobs, and rejected promises without a handler.
//!
//! The library's C interface offers neither, so this file, and no other, uses V8's own functions, which the library
//! exports too. They are found by their mangled names, in the version whose digest `cargo xtask v8` checks.
//!
//! V8 reports a rejection at any point of JavaScript, also when the stack is nearly full. So nothing runs then: the
//! promise and its reason are stored, and a function of turns.js gets the reason later.
#![expect(unsafe_code, reason = "functions of V8 that are found at run time")]

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int};
use std::ptr::null;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use libloading::os::unix::{Library, Symbol};

/// The temporary name of the function, as a member of the global object.
const NAME: &std::ffi::CStr = c"__snaphook";

/// V8's `Local` and `MaybeLocal`, which are one pointer.
type Local = *const usize;
type Isolate = *const u8;

/// `v8::PromiseRejectMessage`.
#[repr(C)]
struct Message {
    promise: Local,
    event: c_int,
    value: Local,
}

/// The two events that matter.
const WITHOUT_HANDLER: c_int = 0;
const HANDLER_ADDED: c_int = 1;

struct Functions {
    current: Symbol<unsafe extern "C" fn() -> Isolate>,
    context: Symbol<unsafe extern "C" fn(Isolate) -> Local>,
    global: Symbol<unsafe extern "C" fn(Local) -> Local>,
    get: Symbol<unsafe extern "C" fn(Local, Local, Local) -> Local>,
    text: Symbol<unsafe extern "C" fn(Isolate, *const c_char, c_int, c_int) -> Local>,
    hash: Symbol<unsafe extern "C" fn(Local) -> c_int>,
    keep: Symbol<unsafe extern "C" fn(Isolate, usize) -> Local>,
    forget: Symbol<unsafe extern "C" fn(Local)>,
    call: Symbol<unsafe extern "C" fn(Local, Isolate, Local, Local, c_int, *const Local) -> Local>,
    watch: Symbol<unsafe extern "C" fn(Isolate, extern "C" fn(Message))>,
    run: Symbol<unsafe extern "C" fn(Isolate)>,
}

static FUNCTIONS: OnceLock<Functions> = OnceLock::new();

/// The arguments of [`watch`].
static WATCH: OnceLock<Watch> = OnceLock::new();

struct Watch {
    /// The function of turns.js.
    listener: PersistentValue,
    on_change: fn(usize),
}

/// A value that V8 keeps until it is released.
struct PersistentValue(Local);

// SAFETY: only V8's thread follows the pointer.
unsafe impl Send for PersistentValue {}
// SAFETY: as above.
unsafe impl Sync for PersistentValue {}

static REJECTED: Mutex<Rejections> = Mutex::new(Rejections { by_hash: BTreeMap::new(), present: 0, count: 0 });

/// The rejected promises without a handler.
#[derive(Default)]
struct Rejections {
    /// By V8's hash of each object; some objects share one.
    by_hash: BTreeMap<c_int, Vec<Rejection>>,
    present: usize,
    /// How many there were.
    count: u64,
}

struct Rejection {
    number: u64,
    promise: PersistentValue,
    reason: PersistentValue,
}

fn rejected() -> MutexGuard<'static, Rejections> {
    REJECTED.lock().unwrap_or_else(PoisonError::into_inner)
}

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
            keep: symbol!("_ZN2v812api_internal18GlobalizeReferenceEPNS_8internal7IsolateEm"),
            hash: symbol!("_ZN2v86Object15GetIdentityHashEv"),
            forget: symbol!("_ZN2v812api_internal13DisposeGlobalEPm"),
            call: symbol!("_ZN2v88Function4CallEPNS_7IsolateENS_5LocalINS_7ContextEEENS3_INS_5ValueEEEiPS7_"),
            watch: symbol!("_ZN2v87Isolate24SetPromiseRejectCallbackEPFvNS_20PromiseRejectMessageEE"),
            run: symbol!("_ZN2v87Isolate26PerformMicrotaskCheckpointEv"),
        }
    };
    FUNCTIONS.set(functions).map_err(|_| "V8 runs already".to_owned())
}

/// Makes V8 report rejections: `on_change` gets the number of rejected promises without a handler. The global object's
/// member [`NAME`] is the function for [`tell`]. Call it on V8's thread, while JavaScript calls the host.
pub(super) fn watch(on_change: fn(usize)) -> Result<(), String> {
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
        let listener = PersistentValue((functions.keep)(isolate, *listener));
        WATCH.set(Watch { listener, on_change }).map_err(|_| "rejected promises are watched already".to_owned())?;
        (functions.watch)(isolate, on_rejection);
    }
    Ok(())
}

/// Clears all rejections, and calls the function of turns.js with the reason of the first one. That function must not
/// call the host.
pub(super) fn tell() {
    let (Some(functions), Some(watch)) = (FUNCTIONS.get(), WATCH.get()) else { return };
    let all = std::mem::take(&mut *rejected()).by_hash;
    let first = all.values().flatten().min_by_key(|rejection| rejection.number);
    // SAFETY: as in `watch`; what is kept is forgotten once, and after its last use. That V8 is being stopped gives an empty result,
    // which is not used.
    unsafe {
        if let Some(first) = first {
            let isolate = (functions.current)();
            let context = (functions.context)(isolate);
            (functions.call)(watch.listener.0, isolate, context, first.reason.0, 1, &first.reason.0);
        }
        for rejection in all.into_values().flatten() {
            (functions.forget)(rejection.promise.0);
            (functions.forget)(rejection.reason.0);
        }
    }
}

/// Runs the pending jobs of promises. On V8's thread, between two tasks.
pub(super) fn run() {
    let Some(functions) = FUNCTIONS.get() else { return };
    // SAFETY: a task of the library has just ended on this thread, and its isolate is the current one. What runs may call the host.
    unsafe { (functions.run)((functions.current)()) }
}

extern "C" fn on_rejection(message: Message) {
    let (Some(functions), Some(watch)) = (FUNCTIONS.get(), WATCH.get()) else { return };
    if !matches!(message.event, WITHOUT_HANDLER | HANDLER_ADDED) {
        // An event of a promise that was already settled.
        return;
    }
    // SAFETY: V8 calls this on its thread, with a promise.
    let hash = unsafe { (functions.hash)(message.promise) };
    let all = &mut *rejected();
    let same = all.by_hash.entry(hash).or_default();
    if message.event == WITHOUT_HANDLER {
        // SAFETY: as above, and with the reason of the rejection.
        let [promise, reason] = unsafe {
            let isolate = (functions.current)();
            [message.promise, message.value].map(|value| PersistentValue((functions.keep)(isolate, *value)))
        };
        all.count += 1;
        all.present += 1;
        same.push(Rejection { number: all.count, promise, reason });
    } else {
        // SAFETY: V8 keeps what the pointers lead to, and moves none of it during this call: the same promise is the same
        // address.
        let index = same.iter().position(|rejection| unsafe { *rejection.promise.0 == *message.promise });
        let removed = index.map(|index| same.swap_remove(index));
        if same.is_empty() {
            all.by_hash.remove(&hash);
        }
        let Some(Rejection { promise, reason, .. }) = removed else { return };
        all.present -= 1;
        // SAFETY: nobody has them any more.
        unsafe {
            (functions.forget)(promise.0);
            (functions.forget)(reason.0);
        }
    }
    (watch.on_change)(all.present);
}
