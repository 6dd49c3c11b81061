//! The boundary from a module to the server: the table of functions that a module may call, and the memory that it
//! passes in.
//!
//! A handle is the number of the exchange or output that the current hook on this thread works on. Any other number has
//! no effect, so a module that keeps a handle, or uses it on another thread, cannot reach freed memory.
#![expect(unsafe_code, reason = "reads and writes memory that a module points to")]

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use snaphook_module_abi as abi;

use abi::{Bytes, Header, Host, Text};

use crate::exchange::{Exchange, Impossible, Side};
use crate::output::Output;
use crate::resume::{self, WaitingHook};

/// Longest line that a module may log; longer ones are truncated.
const LOG_BYTES_MAX: usize = 8 * 1024;

thread_local! {
    static EXCHANGE: RefCell<Option<Box<Exchange>>> = const { RefCell::new(None) };
    static OUTPUT: RefCell<Option<Output>> = const { RefCell::new(None) };
    /// The number of the current exchange or output; 0: none.
    static TURN: Cell<usize> = const { Cell::new(0) };
    /// The last number that this thread has assigned. Threads never assign the same numbers.
    static TURNS: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed) << (usize::BITS / 2));
}

/// The number of the next thread that runs hooks, from 1.
static THREADS: AtomicUsize = AtomicUsize::new(1);

/// The names of the modules, indexed by the number in their table. They are few and never removed.
static NAMES: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// Creates the table of a module. It is never freed, because the library may keep it.
pub(crate) fn host(module: &str) -> &'static Host {
    let mut names = NAMES.write().unwrap_or_else(PoisonError::into_inner);
    names.push(module.to_owned());
    Box::leak(Box::new(Host {
        abi_version: abi::ABI_VERSION,
        struct_size: size_of::<Host>() as u32,
        module: names.len() as u64 - 1,
        log,
        token,
        resume: resume_hook,
        text,
        set_text,
        is_secure,
        header,
        headers,
        set_header,
        add_header,
        remove_header,
        status,
        set_status,
        body,
        set_body,
        filter_body,
        write,
    }))
}

/// Runs a hook with a handle to its exchange.
pub(crate) fn with_exchange<T>(exchange: Box<Exchange>, hook: impl FnOnce(usize) -> T) -> (Box<Exchange>, T) {
    let before = EXCHANGE.with(|turn| turn.borrow_mut().replace(exchange));
    let result = with_turn(hook);
    // Only this function takes the exchange out.
    let mut exchange = EXCHANGE.with(|turn| std::mem::replace(&mut *turn.borrow_mut(), before)).expect_turn();
    exchange.hook_ended();
    (exchange, result)
}

/// Runs a filter with a handle to its output.
pub(crate) fn with_output<T>(output: Output, filter: impl FnOnce(usize) -> T) -> (Output, T) {
    let before = OUTPUT.with(|turn| turn.borrow_mut().replace(output));
    let result = with_turn(filter);
    (OUTPUT.with(|turn| std::mem::replace(&mut *turn.borrow_mut(), before)).expect_turn(), result)
}

trait ExpectTurn<T> {
    fn expect_turn(self) -> T;
}

impl<T> ExpectTurn<T> for Option<T> {
    fn expect_turn(self) -> T {
        match self {
            Some(value) => value,
            None => unreachable!("what is on its turn stays until the hook returns"),
        }
    }
}

fn with_turn<T>(work: impl FnOnce(usize) -> T) -> T {
    let number = TURNS.get() + 1;
    TURNS.set(number);
    let before = TURN.replace(number);
    let result = work(number);
    TURN.set(before);
    result
}

/// Runs `work` on the current exchange if `handle` is its handle. Otherwise, or if `work` panics, returns `otherwise`:
/// a panic must not unwind into a module.
fn exchange<T>(handle: *mut abi::Exchange, otherwise: T, work: impl FnOnce(&mut Exchange) -> T) -> T {
    if handle.addr() == 0 || handle.addr() != TURN.get() {
        return otherwise;
    }
    let worked = catch_unwind(AssertUnwindSafe(|| {
        EXCHANGE.with(|turn| turn.try_borrow_mut().ok().and_then(|mut turn| turn.as_deref_mut().map(work)))
    }));
    worked.ok().flatten().unwrap_or(otherwise)
}

/// Bytes that a module passes. An impossible view is recorded as a violation of the rules.
fn bytes<'a>(exchange: &mut Exchange, bytes: &'a Bytes, what: &str) -> Option<&'a [u8]> {
    let seen = view(bytes);
    if seen.is_none() {
        exchange.lie = Some(format!("it passed an invalid view as {what}: {} bytes at {:p}", bytes.len, bytes.ptr));
    }
    seen
}

fn view(bytes: &Bytes) -> Option<&[u8]> {
    match (bytes.ptr.is_null(), bytes.len) {
        (_, 0) => Some(&[]),
        (true, _) => None,
        (false, len) if isize::try_from(len).is_err() => None,
        // SAFETY: the header says that there are `len` bytes until the function returns.
        (false, len) => Some(unsafe { std::slice::from_raw_parts(bytes.ptr, len) }),
    }
}

const NONE: Bytes = Bytes { ptr: std::ptr::null(), len: 0 };

fn lent(bytes: &[u8]) -> Bytes {
    Bytes { ptr: bytes.as_ptr(), len: bytes.len() }
}

fn code(done: Result<(), Impossible>) -> u32 {
    match done {
        Ok(()) => abi::OK,
        Err(Impossible) => abi::FAILED,
    }
}

fn side(of: u32) -> Option<Side> {
    match of {
        abi::REQUEST => Some(Side::Request),
        abi::RESPONSE => Some(Side::Response),
        _ => None,
    }
}

extern "C" fn log(module: u64, level: u32, message: Text) {
    let bytes = Bytes { ptr: message.ptr.cast(), len: message.len.min(LOG_BYTES_MAX) };
    let Some(message) = view(&bytes) else { return };
    let message = String::from_utf8_lossy(message);
    // A panic of a log subscriber must not unwind into the module.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let names = NAMES.read().unwrap_or_else(PoisonError::into_inner);
        let name = usize::try_from(module).ok().and_then(|module| names.get(module)).map_or("?", String::as_str);
        match level {
            abi::LOG_ERROR => tracing::error!("module `{name}`: {message}"),
            abi::LOG_WARN => tracing::warn!("module `{name}`: {message}"),
            abi::LOG_DEBUG => tracing::debug!("module `{name}`: {message}"),
            _ => tracing::info!("module `{name}`: {message}"),
        }
    }));
}

extern "C" fn token(handle: *mut abi::Exchange) -> u64 {
    exchange(handle, 0, |exchange| exchange.waiting.get_or_insert_with(WaitingHook::new).token)
}

extern "C" fn resume_hook(token: u64) {
    let _ = catch_unwind(|| resume::resume(token));
}

extern "C" fn text(handle: *mut abi::Exchange, what: u32) -> Bytes {
    exchange(handle, NONE, |exchange| match what {
        abi::METHOD => lent(&exchange.method_text),
        abi::URI => lent(exchange.uri().as_bytes()),
        abi::PROTOCOL => lent(exchange.protocol().as_bytes()),
        abi::HOST => lent(exchange.host()),
        abi::PEER => lent(exchange.origin.peer.as_bytes()),
        abi::REASON => exchange.response.as_ref().and_then(|head| head.reason.as_deref()).map_or(NONE, lent),
        _ => NONE,
    })
}

extern "C" fn set_text(handle: *mut abi::Exchange, what: u32, value: Bytes) -> u32 {
    exchange(handle, abi::FAILED, |exchange| {
        let Some(value) = bytes(exchange, &value, "a text") else { return abi::FAILED };
        code(match what {
            abi::METHOD => exchange.set_method(value),
            abi::URI => exchange.set_uri(value),
            abi::REASON => exchange.set_reason(value),
            _ => Err(Impossible),
        })
    })
}

extern "C" fn is_secure(handle: *mut abi::Exchange) -> u32 {
    exchange(handle, 0, |exchange| exchange.origin.is_secure.into())
}

extern "C" fn header(handle: *mut abi::Exchange, of: u32, name: Bytes) -> Bytes {
    exchange(handle, NONE, |exchange| {
        let Some(name) = bytes(exchange, &name, "the name of a header") else { return NONE };
        let name = std::str::from_utf8(name).unwrap_or_default();
        let headers = side(of).and_then(|side| exchange.headers(side));
        headers.and_then(|headers| headers.get(name)).map_or(NONE, |value| lent(value.as_bytes()))
    })
}

extern "C" fn headers(handle: *mut abi::Exchange, of: u32, to: *mut Header, capacity: usize) -> usize {
    exchange(handle, 0, |exchange| {
        let Some(headers) = side(of).and_then(|side| exchange.headers(side)) else { return 0 };
        let room = if to.is_null() { 0 } else { capacity };
        for (index, (name, value)) in headers.iter().enumerate().take(room) {
            let header = Header { name: lent(name.as_str().as_bytes()), value: lent(value.as_bytes()) };
            // SAFETY: the header says that there is space for `capacity` headers.
            unsafe { to.add(index).write_unaligned(header) };
        }
        headers.len()
    })
}

extern "C" fn set_header(handle: *mut abi::Exchange, of: u32, name: Bytes, value: Bytes) -> u32 {
    change_header(handle, of, name, value, Exchange::set_header)
}

extern "C" fn add_header(handle: *mut abi::Exchange, of: u32, name: Bytes, value: Bytes) -> u32 {
    change_header(handle, of, name, value, Exchange::add_header)
}

fn change_header(
    handle: *mut abi::Exchange,
    of: u32,
    name: Bytes,
    value: Bytes,
    change: impl FnOnce(&mut Exchange, Side, &[u8], &[u8]) -> Result<(), Impossible>,
) -> u32 {
    exchange(handle, abi::FAILED, |exchange| {
        let Some(name) = bytes(exchange, &name, "the name of a header") else { return abi::FAILED };
        let Some(value) = bytes(exchange, &value, "the value of a header") else { return abi::FAILED };
        code(side(of).ok_or(Impossible).and_then(|side| change(exchange, side, name, value)))
    })
}

extern "C" fn remove_header(handle: *mut abi::Exchange, of: u32, name: Bytes) -> u32 {
    exchange(handle, abi::FAILED, |exchange| {
        let Some(name) = bytes(exchange, &name, "the name of a header") else { return abi::FAILED };
        code(side(of).ok_or(Impossible).and_then(|side| exchange.remove_header(side, name)))
    })
}

extern "C" fn status(handle: *mut abi::Exchange) -> u32 {
    exchange(handle, 0, |exchange| exchange.response.as_ref().map_or(0, |head| head.status.as_u16().into()))
}

extern "C" fn set_status(handle: *mut abi::Exchange, status: u32) -> u32 {
    exchange(handle, abi::FAILED, |exchange| code(exchange.set_status(status)))
}

extern "C" fn body(handle: *mut abi::Exchange, of: u32) -> Bytes {
    exchange(handle, NONE, |exchange| side(of).and_then(|side| exchange.body(side)).map_or(NONE, |body| lent(body)))
}

extern "C" fn set_body(handle: *mut abi::Exchange, of: u32, body: Bytes) -> u32 {
    exchange(handle, abi::FAILED, |exchange| {
        let Some(body) = bytes(exchange, &body, "a body") else { return abi::FAILED };
        code(side(of).ok_or(Impossible).and_then(|side| exchange.set_body(side, body)))
    })
}

extern "C" fn filter_body(handle: *mut abi::Exchange, of: u32) -> u32 {
    exchange(handle, abi::FAILED, |exchange| {
        code(side(of).ok_or(Impossible).and_then(|side| exchange.filter_body(side)))
    })
}

extern "C" fn write(handle: *mut abi::Output, to: u32, bytes: Bytes) -> u32 {
    if handle.addr() == 0 || handle.addr() != TURN.get() {
        return abi::FAILED;
    }
    let worked = catch_unwind(AssertUnwindSafe(|| {
        OUTPUT.with(|turn| {
            let mut turn = turn.try_borrow_mut().ok()?;
            let output = turn.as_mut()?;
            match (side(to), view(&bytes)) {
                (Some(side), Some(bytes)) => Some(code(output.write(side, bytes))),
                (_, None) => {
                    output.lie = Some("it wrote from an invalid view".to_owned());
                    None
                }
                _ => None,
            }
        })
    }));
    worked.ok().flatten().unwrap_or(abi::FAILED)
}
