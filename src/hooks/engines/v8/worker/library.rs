//! The parts of the V8 library (mini-racer's C interface) that a worker uses.
//!
//! V8 runs on a thread of the library, which calls back when JavaScript calls the host and when a task has ended. No
//! JavaScript runs during a callback, so this side has exclusive access to the shared buffer.
#![expect(unsafe_code, reason = "a C library that is opened at run time")]

use std::ffi::{CString, c_char};
use std::path::Path;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};

use super::{promises, system};

/// File names in the folder of the library.
pub(crate) const LIBRARY_FILE: &str = "libmini_racer.so";
pub(crate) const ICU_FILE: &str = "icudtl.dat";

/// The id of JavaScript's calls; tasks have other ids.
const HOST_CALL: u64 = u64::MAX;

/// An event from V8.
pub(super) enum Event<'a> {
    /// JavaScript calls the host. The thread is V8's.
    Called,
    /// A task has ended.
    Ended(u64, Value<'a>),
}

/// How a task ended.
pub(super) enum Value<'a> {
    Text(&'a str),
    Null,
    Undefined,
    /// An object, a function: its handle.
    Other(Handle),
    /// V8's text for an exception.
    Exception(&'a str),
    OutOfMemory,
}

/// The library's layout. `kind` is the type of `value`.
#[repr(C, packed)]
struct Raw {
    value: usize,
    length: usize,
    kind: u8,
}

/// A value that the library keeps until it is freed. The handles of a worker live as long as the process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handle(*mut Raw);

// SAFETY: a handle is only a name for the library, which takes it from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above; what it names is never changed.
unsafe impl Sync for Handle {}

type Callback = extern "C" fn(u64, *mut Raw);

/// The functions. Their types are those of the library's header, version 0.14.
struct Functions {
    init_v8: Symbol<unsafe extern "C" fn(*const c_char, *const c_char)>,
    init_context: Symbol<unsafe extern "C" fn(Callback) -> u64>,
    eval: Symbol<unsafe extern "C" fn(u64, *mut Raw, u64) -> u64>,
    free_value: Symbol<unsafe extern "C" fn(u64, *mut Raw)>,
    alloc_string: Symbol<unsafe extern "C" fn(u64, *const c_char, u64, u8) -> *mut Raw>,
    alloc_int: Symbol<unsafe extern "C" fn(u64, i64, u8) -> *mut Raw>,
    make_js_callback: Symbol<unsafe extern "C" fn(u64, u64) -> *mut Raw>,
    get_object_item: Symbol<unsafe extern "C" fn(u64, *mut Raw, *mut Raw) -> *mut Raw>,
    set_object_item: Symbol<unsafe extern "C" fn(u64, *mut Raw, *mut Raw, *mut Raw) -> *mut Raw>,
    call_function: Symbol<unsafe extern "C" fn(u64, *mut Raw, *mut Raw, *mut Raw, u64) -> u64>,
    set_hard_memory_limit: Symbol<unsafe extern "C" fn(u64, usize)>,
    hard_memory_limit_reached: Symbol<unsafe extern "C" fn(u64) -> bool>,
}

/// One isolate with one context: a process has no more.
pub(super) struct V8 {
    functions: Functions,
    context: u64,
}

type Listener = Box<dyn Fn(Event<'_>) + Send + Sync>;

static V8_OF_THIS_PROCESS: OnceLock<V8> = OnceLock::new();
static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Opens the library in `folder`, starts V8 with `flags`, and passes every event to `listener`. Once per process.
pub(super) fn start(folder: &Path, flags: &str, listener: Listener) -> Result<&'static V8, String> {
    let path = folder.join(LIBRARY_FILE);
    let text = |path: &Path| CString::new(path.as_os_str().as_encoded_bytes()).map_err(|error| error.to_string());
    let (flags, icu) = (CString::new(flags).map_err(|error| error.to_string())?, text(&folder.join(ICU_FILE))?);
    LISTENER.set(listener).map_err(|_| "V8 runs already".to_owned())?;
    // SAFETY: the library's initialisers only set up its own data. Its functions have the types above in the version whose
    // digest `cargo xtask v8` checks; the folder is the admin's.
    let functions = unsafe {
        let library = Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL).map_err(|error| error.to_string())?;
        macro_rules! symbol {
            ($name:literal) => {
                library.get(concat!("mr_", $name, "\0").as_bytes()).map_err(|error| error.to_string())?
            };
        }
        let functions = Functions {
            init_v8: symbol!("init_v8"),
            init_context: symbol!("init_context"),
            eval: symbol!("eval"),
            free_value: symbol!("free_value"),
            alloc_string: symbol!("alloc_string_val"),
            alloc_int: symbol!("alloc_int_val"),
            make_js_callback: symbol!("make_js_callback"),
            get_object_item: symbol!("get_object_item"),
            set_object_item: symbol!("set_object_item"),
            call_function: symbol!("call_function"),
            set_hard_memory_limit: symbol!("set_hard_memory_limit"),
            hard_memory_limit_reached: symbol!("hard_memory_limit_reached"),
        };
        promises::find(&library)?;
        // The library is used until the process ends.
        std::mem::forget(library);
        // SAFETY: nothing of the library runs, since V8's thread is not started yet.
        if !system::own_in_large_pages(&path) {
            // Without this, children are slower.
            let _ = system::fork_with_pages_of(&path);
        }
        functions
    };
    // SAFETY: both are C strings; V8 is started once, since the listener could be set.
    let context = unsafe {
        (functions.init_v8)(flags.as_ptr(), icu.as_ptr());
        (functions.init_context)(on_event)
    };
    V8_OF_THIS_PROCESS.set(V8 { functions, context }).map_err(|_| "V8 runs already".to_owned())?;
    Ok(v8())
}

/// The V8 of this process; call [`start`] first.
pub(super) fn v8() -> &'static V8 {
    match V8_OF_THIS_PROCESS.get() {
        Some(v8) => v8,
        // No event can come before the context exists.
        None => std::process::abort(),
    }
}

impl V8 {
    /// Evaluates a script as task `id`, which ends with an event.
    pub(super) fn eval(&self, script: &str, id: u64) {
        let code = self.text(script);
        // SAFETY: the context lives as long as the process; the handle was just made.
        unsafe { (self.functions.eval)(self.context, code.0, id) };
    }

    /// Calls a function without arguments as task `id`, which ends with an event.
    pub(super) fn call(&self, function: Handle, receiver: Handle, no_arguments: Handle, id: u64) {
        // SAFETY: the handles are the library's.
        unsafe { (self.functions.call_function)(self.context, function.0, receiver.0, no_arguments.0, id) };
    }

    /// Gives the object a function `name` by which JavaScript calls the host. Not on V8's thread.
    pub(super) fn set_host_function(&self, object: Handle, name: &str) {
        let name = self.text(name);
        // SAFETY: the handles are the library's; its copies of what they name are its own.
        unsafe {
            let function = (self.functions.make_js_callback)(self.context, HOST_CALL);
            (self.functions.set_object_item)(self.context, object.0, name.0, function);
        }
    }

    /// Element `index` of an array. Not on V8's thread.
    pub(super) fn element(&self, array: Handle, index: i64) -> Handle {
        /// The library's kind of a whole number.
        const INTEGER: u8 = 3;
        // SAFETY: the handles are the library's.
        unsafe {
            let key = (self.functions.alloc_int)(self.context, index, INTEGER);
            Handle((self.functions.get_object_item)(self.context, array.0, key))
        }
    }

    /// The bytes of a shared buffer, which never move. `None`: the value is not a buffer.
    pub(super) fn shared(&self, buffer: Handle) -> Option<SharedBuffer> {
        /// The library's kind of a SharedArrayBuffer.
        const SHARED: u8 = 101;
        // SAFETY: a handle points to a value of the library until it is freed, which handles never are.
        let raw = unsafe { buffer.0.read_unaligned() };
        (raw.kind == SHARED).then_some(SharedBuffer { start: raw.value, length: raw.length })
    }

    /// JavaScript is terminated if its heap is larger than this after a collection.
    pub(super) fn set_memory_limit(&self, bytes: usize) {
        // SAFETY: it stores a number.
        unsafe { (self.functions.set_hard_memory_limit)(self.context, bytes) };
    }

    pub(super) fn memory_limit_reached(&self) -> bool {
        // SAFETY: it reads a flag.
        unsafe { (self.functions.hard_memory_limit_reached)(self.context) }
    }

    fn text(&self, text: &str) -> Handle {
        // SAFETY: the library copies the bytes.
        Handle(unsafe { (self.functions.alloc_string)(self.context, text.as_ptr().cast(), text.len() as u64, STRING) })
    }
}

/// The library's kind of UTF-8 text.
const STRING: u8 = 5;

/// Memory that JavaScript sees as a buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct SharedBuffer {
    start: usize,
    length: usize,
}

impl SharedBuffer {
    /// The bytes. Only while JavaScript waits for the host: in an [`Event::Called`], before it is answered.
    #[expect(clippy::mut_from_ref, reason = "the memory is JavaScript's; the rule above makes it this side's alone")]
    pub(super) fn bytes(&self) -> &mut [u8] {
        // SAFETY: the buffer has that many bytes and is never freed, since its handle is not. Nothing else looks at it while
        // JavaScript waits, and the slice does not outlive the event by the rule above.
        unsafe { std::slice::from_raw_parts_mut(self.start as *mut u8, self.length) }
    }
}

extern "C" fn on_event(id: u64, raw: *mut Raw) {
    let Some(listener) = LISTENER.get() else { return };
    // SAFETY: the library gives a value of its own that lives until it is freed below.
    let Raw { value, length, kind } = unsafe { raw.read_unaligned() };
    if id == HOST_CALL {
        free(raw);
        listener(Event::Called);
        return;
    }
    // SAFETY: for texts, `value` points to `length` bytes that live as long as the value.
    let text = || unsafe { std::slice::from_raw_parts(value as *const u8, length) };
    let (value, keep) = match kind {
        STRING => (Value::Text(std::str::from_utf8(text()).unwrap_or_default()), false),
        1 => (Value::Null, false),
        202 => (Value::OutOfMemory, false),
        11 => (Value::Undefined, false),
        200 | 201 | 203.. => (Value::Exception(std::str::from_utf8(text()).unwrap_or_default()), false),
        _ => (Value::Other(Handle(raw)), true),
    };
    listener(Event::Ended(id, value));
    if !keep {
        free(raw);
    }
}

fn free(raw: *mut Raw) {
    // The first value can come before this process's V8 is known; it is never freed.
    if let Some(v8) = V8_OF_THIS_PROCESS.get() {
        // SAFETY: the value came from the library and nobody has it any more.
        unsafe { (v8.functions.free_value)(v8.context, raw) };
    }
}
