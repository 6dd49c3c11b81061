//! The boundary to the server: the descriptor, and the functions in it.
#![expect(unsafe_code, reason = "reads the memory that the server passes through the C ABI")]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::slice;
use std::sync::OnceLock;

use snaphook_module_abi as abi;

pub use abi::Descriptor as RawDescriptor;

use crate::config::{Config, ConnectionInfo};
use crate::exchange::{Exchange, Output};
use crate::hooks::Hooks;
use crate::host::{Host, Level};
use crate::traits::{ConnectionHandler as _, Module, RequestHandler as _};
use crate::views::view;

struct Exported(RawDescriptor);

// SAFETY: what the descriptor points to is constant.
unsafe impl Send for Exported {}
// SAFETY: as above.
unsafe impl Sync for Exported {}

/// The descriptor of this library's module, created at the first call.
pub fn export<M: Module>(name: &'static str, version: &'static str) -> *const RawDescriptor {
    static EXPORTED: OnceLock<Exported> = OnceLock::new();
    &raw const EXPORTED.get_or_init(|| Exported(descriptor::<M>(name, version))).0
}

/// The descriptor of a module.
pub fn descriptor<M: Module>(name: &'static str, version: &'static str) -> RawDescriptor {
    let text = |text: &'static str| abi::Text { ptr: text.as_ptr().cast(), len: text.len() };
    let has = |hooks: Hooks| M::HOOKS.has_any(hooks);
    let on_connections = has(Hooks::of_connections());
    RawDescriptor {
        abi_version: abi::ABI_VERSION,
        struct_size: size_of::<RawDescriptor>() as u32,
        name: text(name),
        version: text(version),
        flags: M::FLAGS.bits(),
        reserved: 0,
        factory: Some(factory::<M>),
        recycler: Some(recycler::<M>),
        activate: Some(activate::<M>),
        deactivate: Some(deactivate::<M>),
        config_change: Some(config_change::<M>),
        connection_open: on_connections.then_some(connection_open::<M> as _),
        connection_close: on_connections.then_some(connection_close::<M> as _),
        connection_start: has(Hooks::CONNECTION_START).then_some(connection_start::<M> as _),
        connection_end: has(Hooks::CONNECTION_END).then_some(connection_end::<M> as _),
        connection_read: has(Hooks::CONNECTION_READ).then_some(connection_read::<M> as _),
        connection_write: has(Hooks::CONNECTION_WRITE).then_some(connection_write::<M> as _),
        request_open: Some(request_open::<M>),
        request_close: Some(request_close::<M>),
        before_request: has(Hooks::BEFORE_REQUEST).then_some(before_request::<M> as _),
        request: has(Hooks::REQUEST).then_some(request::<M> as _),
        request_error: has(Hooks::REQUEST_ERROR).then_some(request_error::<M> as _),
        response: has(Hooks::RESPONSE).then_some(response::<M> as _),
        request_body: has(Hooks::REQUEST_BODY).then_some(request_body::<M> as _),
        response_body: has(Hooks::RESPONSE_BODY).then_some(response_body::<M> as _),
    }
}

/// The result of `factory`: it contains the module once it was activated.
struct Slot<M> {
    host: Host,
    module: OnceLock<M>,
}

/// State of a connection or request, with its server.
struct Stateful<T> {
    host: Host,
    handler: T,
}

/// Catches panics, so that nothing unwinds into the server.
fn guard<T>(host: Host, on_panic: T, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        host.log(Level::Error, &format!("the module panicked: {text}"));
        // Dropping it might panic again.
        std::mem::forget(payload);
        on_panic
    })
}

/// # Safety
///
/// `pointer` was returned by `factory`, `connection_open` or `request_open` as this type, and has not been given back.
unsafe fn shared<'a, T>(pointer: *mut c_void) -> &'a T {
    // SAFETY: guaranteed by the caller.
    unsafe { &*pointer.cast::<T>() }
}

/// # Safety
///
/// As [`shared`]; nobody else uses the pointer until the caller's function returns.
unsafe fn owned<'a, T>(pointer: *mut c_void) -> &'a mut T {
    // SAFETY: guaranteed by the caller.
    unsafe { &mut *pointer.cast::<T>() }
}

/// Takes ownership of state and drops it.
///
/// # Safety
///
/// As [`shared`]; the pointer is not used again.
unsafe fn dropped<T>(host: Host, pointer: *mut c_void) {
    if !pointer.is_null() {
        // SAFETY: guaranteed by the caller; the pointer came from a box.
        guard(host, (), || drop(unsafe { Box::from_raw(pointer.cast::<T>()) }));
    }
}

fn text<'a>(text: abi::Text) -> &'a str {
    if text.len == 0 {
        return "";
    }
    // SAFETY: the server keeps the configuration until the function that it was passed to returns.
    std::str::from_utf8(unsafe { slice::from_raw_parts(text.ptr.cast(), text.len) }).unwrap_or_default()
}

fn config<'a>(config: *const abi::Config) -> Config<'a> {
    // SAFETY: the server passes a configuration to the functions that call this.
    let config = unsafe { &*config };
    let settings = match config.settings_len {
        0 => &[][..],
        // SAFETY: as above.
        len => unsafe { slice::from_raw_parts(config.settings, len) },
    };
    Config {
        server_name: text(config.server_name),
        server_version: text(config.server_version),
        platform: text(config.platform),
        module_name: text(config.module_name),
        api_version: config.api_version,
        json: text(config.json),
        settings: settings.iter().map(|setting| (text(setting.key), text(setting.value))).collect(),
    }
}

fn told(host: Host, result: Result<(), String>) -> u32 {
    match result {
        Ok(()) => abi::OK,
        Err(message) => {
            host.log(Level::Error, &message);
            abi::FAILED
        }
    }
}

extern "C-unwind" fn factory<M: Module>(host: *const abi::Host) -> *mut c_void {
    // SAFETY: the server keeps its table until the module has been recycled.
    let host = Host(unsafe { &*host });
    Box::into_raw(Box::new(Slot::<M> { host, module: OnceLock::new() })).cast()
}

extern "C-unwind" fn recycler<M: Module>(module: *mut c_void) {
    // SAFETY: it is what `factory` returned, for the last time.
    unsafe {
        let host = shared::<Slot<M>>(module).host;
        dropped::<Slot<M>>(host, module);
    }
}

extern "C-unwind" fn activate<M: Module>(module: *mut c_void, told_config: *const abi::Config) -> u32 {
    // SAFETY: it is what `factory` returned.
    let slot = unsafe { shared::<Slot<M>>(module) };
    let work = || {
        let activated = M::activate(slot.host, &config(told_config))?;
        slot.module.set(activated).map_err(|_| "the module is already active".to_owned())
    };
    guard(slot.host, abi::FAILED, || told(slot.host, work()))
}

extern "C-unwind" fn deactivate<M: Module>(module: *mut c_void) {
    // SAFETY: it is what `factory` returned.
    let slot = unsafe { shared::<Slot<M>>(module) };
    if let Some(module) = slot.module.get() {
        guard(slot.host, (), || module.deactivate());
    }
}

extern "C-unwind" fn config_change<M: Module>(module: *mut c_void, changed: *const abi::Config) -> u32 {
    // SAFETY: it is what `factory` returned.
    let slot = unsafe { shared::<Slot<M>>(module) };
    let Some(module) = slot.module.get() else { return abi::FAILED };
    guard(slot.host, abi::FAILED, || told(slot.host, module.config_change(&config(changed))))
}

extern "C-unwind" fn connection_open<M: Module>(module: *mut c_void, info: *const abi::ConnectionInfo) -> *mut c_void {
    // SAFETY: it is what `factory` returned, and the server keeps the information until this returns.
    let (slot, info) = unsafe { (shared::<Slot<M>>(module), &*info) };
    let Some(module) = slot.module.get() else { return null_mut() };
    guard(slot.host, null_mut(), || {
        let info = ConnectionInfo { peer: text(info.peer), is_secure: info.is_secure == 1 };
        let state = module.connection(&info).map(|handler| Stateful { host: slot.host, handler });
        state.map_or(null_mut(), |state| Box::into_raw(Box::new(state)).cast())
    })
}

/// Runs a filter of a connection.
fn on_connection<M: Module>(connection: *mut c_void, run: impl FnOnce(&Stateful<M::Connection>) -> u32) -> u32 {
    if connection.is_null() {
        return abi::DECLINED;
    }
    // SAFETY: it is what `connection_open` returned.
    let state = unsafe { shared::<Stateful<M::Connection>>(connection) };
    guard(state.host, abi::FAILED, || run(state))
}

extern "C-unwind" fn connection_close<M: Module>(connection: *mut c_void) {
    if !connection.is_null() {
        // SAFETY: it is what `connection_open` returned, for the last time.
        unsafe {
            let host = shared::<Stateful<M::Connection>>(connection).host;
            dropped::<Stateful<M::Connection>>(host, connection);
        }
    }
}

extern "C-unwind" fn connection_start<M: Module>(connection: *mut c_void, output: *mut abi::Output) -> u32 {
    on_connection::<M>(connection, |state| state.handler.start(&mut Output::new(output, state.host)).code())
}

extern "C-unwind" fn connection_end<M: Module>(connection: *mut c_void) -> u32 {
    on_connection::<M>(connection, |state| {
        state.handler.end();
        abi::OK
    })
}

extern "C-unwind" fn connection_read<M: Module>(
    connection: *mut c_void,
    bytes: abi::Bytes,
    is_last: u32,
    output: *mut abi::Output,
) -> u32 {
    on_connection::<M>(connection, |state| {
        let bytes = view(&bytes, bytes).unwrap_or_default();
        state.handler.read(bytes, is_last == 1, &mut Output::new(output, state.host)).code()
    })
}

extern "C-unwind" fn connection_write<M: Module>(
    connection: *mut c_void,
    bytes: abi::Bytes,
    is_last: u32,
    output: *mut abi::Output,
) -> u32 {
    on_connection::<M>(connection, |state| {
        let bytes = view(&bytes, bytes).unwrap_or_default();
        state.handler.write(bytes, is_last == 1, &mut Output::new(output, state.host)).code()
    })
}

extern "C-unwind" fn request_open<M: Module>(
    module: *mut c_void,
    connection: *mut c_void,
    exchange: *mut abi::Exchange,
) -> *mut c_void {
    // SAFETY: it is what `factory` returned.
    let slot = unsafe { shared::<Slot<M>>(module) };
    let Some(module) = slot.module.get() else { return null_mut() };
    guard(slot.host, null_mut(), || {
        let connection = (!connection.is_null()).then(|| {
            // SAFETY: it is what `connection_open` returned; others only read it.
            unsafe { shared::<Stateful<M::Connection>>(connection) }
        });
        let handler = module.request(connection.map(|state| &state.handler), &mut Exchange::new(exchange, slot.host));
        Box::into_raw(Box::new(Stateful { host: slot.host, handler })).cast()
    })
}

extern "C-unwind" fn request_close<M: Module>(request: *mut c_void) {
    if !request.is_null() {
        // SAFETY: it is what `request_open` returned, for the last time.
        unsafe {
            let host = shared::<Stateful<M::Request>>(request).host;
            dropped::<Stateful<M::Request>>(host, request);
        }
    }
}

/// Runs a request hook. If there is no state, creating it panicked.
fn on_request<M: Module>(request: *mut c_void, run: impl FnOnce(&mut M::Request, Host) -> u32) -> u32 {
    if request.is_null() {
        return abi::FAILED;
    }
    // SAFETY: it is what `request_open` returned, and hooks of one request never overlap.
    let Stateful { host, handler } = unsafe { owned::<Stateful<M::Request>>(request) };
    guard(*host, abi::FAILED, || run(handler, *host))
}

extern "C-unwind" fn before_request<M: Module>(request: *mut c_void, exchange: *mut abi::Exchange) -> u32 {
    on_request::<M>(request, |handler, host| handler.before_request(&mut Exchange::new(exchange, host)).code())
}

extern "C-unwind" fn request<M: Module>(request: *mut c_void, exchange: *mut abi::Exchange) -> u32 {
    on_request::<M>(request, |handler, host| handler.request(&mut Exchange::new(exchange, host)).code())
}

extern "C-unwind" fn request_error<M: Module>(request: *mut c_void, exchange: *mut abi::Exchange, status: u32) -> u32 {
    on_request::<M>(request, |handler, host| {
        let status = u16::try_from(status).unwrap_or(500);
        handler.request_error(&mut Exchange::new(exchange, host), status).code()
    })
}

extern "C-unwind" fn response<M: Module>(request: *mut c_void, exchange: *mut abi::Exchange) -> u32 {
    on_request::<M>(request, |handler, host| handler.response(&mut Exchange::new(exchange, host)).code())
}

extern "C-unwind" fn request_body<M: Module>(
    request: *mut c_void,
    bytes: abi::Bytes,
    is_last: u32,
    output: *mut abi::Output,
) -> u32 {
    on_request::<M>(request, |handler, host| {
        let bytes = view(&bytes, bytes).unwrap_or_default();
        handler.request_body(bytes, is_last == 1, &mut Output::new(output, host)).code()
    })
}

extern "C-unwind" fn response_body<M: Module>(
    request: *mut c_void,
    bytes: abi::Bytes,
    is_last: u32,
    output: *mut abi::Output,
) -> u32 {
    on_request::<M>(request, |handler, host| {
        let bytes = view(&bytes, bytes).unwrap_or_default();
        handler.response_body(bytes, is_last == 1, &mut Output::new(output, host)).code()
    })
}

/// Exports the symbol that makes this library a module. Takes the module's name, then its type. Use it once per
/// library.
#[macro_export]
macro_rules! export_module {
    ($name:literal, $module:ty) => {
        /// The entry point that the server looks for.
        #[allow(unsafe_code, reason = "the name is the one of the C ABI, and there is one such symbol in a library")]
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn snaphook_module_v1() -> *const $crate::RawDescriptor {
            $crate::export::<$module>($name, env!("CARGO_PKG_VERSION"))
        }
    };
}

#[cfg(test)]
mod tests;
