//! The boundary to the server: the descriptor, and the functions in it.
#![expect(unsafe_code, reason = "reads the memory that the server passes through the C ABI")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use prost::Message as _;
use snaphook_driver::Driver;
use snaphook_driver::wire::{DriverDescription, PluginDescription, proto};
use snaphook_driver_abi::{ABI_VERSION, Bytes, Completion, Text};

pub use snaphook_driver_abi::Descriptor;

use crate::answer::PendingAnswer;
use crate::stores::Stores;

/// Exports the symbol that makes this library a plugin. Takes the plugin's name, then its drivers. Use it once per
/// library.
#[macro_export]
macro_rules! export_plugin {
    ($name:literal, $($driver:expr),+ $(,)?) => {
        /// The symbol that the server looks for in the library.
        #[allow(unsafe_code, reason = "the name is the one of the C ABI, and there is one such symbol in a library")]
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn snaphook_plugin_v1() -> *const $crate::Descriptor {
            $crate::export($name, env!("CARGO_PKG_VERSION"), &[$($driver),+])
        }
    };
}

static PLUGIN: OnceLock<Plugin> = OnceLock::new();

struct Plugin {
    /// Points to memory that is never freed.
    descriptor: Descriptor,
    stores: Stores,
}

// SAFETY: what the descriptor points to is constant.
unsafe impl Send for Plugin {}
// SAFETY: as above.
unsafe impl Sync for Plugin {}

/// The descriptor of this library's only plugin; created by the first call.
pub fn export(name: &'static str, version: &'static str, drivers: &'static [Driver]) -> *const Descriptor {
    let plugin = PLUGIN.get_or_init(|| {
        let description = PluginDescription {
            name: name.to_owned(),
            version: version.to_owned(),
            drivers: drivers.iter().map(DriverDescription::from).collect(),
        };
        let description: &'static [u8] = proto::Plugin::from(&description).encode_to_vec().leak();
        let text = |text: &'static str| Text { ptr: text.as_ptr().cast(), len: text.len() };
        let descriptor = Descriptor {
            abi_version: ABI_VERSION,
            struct_size: size_of::<Descriptor>() as u32,
            name: text(name),
            version: text(version),
            description: Bytes { ptr: description.as_ptr(), len: description.len() },
            open: Some(open),
            call: Some(call),
            cancel: Some(cancel),
        };
        Plugin { descriptor, stores: Stores::new(name, drivers) }
    });
    &raw const plugin.descriptor
}

extern "C-unwind" fn open(request: Bytes, completion: Completion) {
    // SAFETY: the server keeps the request until this function returns.
    let request = unsafe { copy(request) };
    with_stores(PendingAnswer::new(completion), |stores, answer| stores.open(request, answer));
}

extern "C-unwind" fn call(handle: u64, method: u32, request: Bytes, completion: Completion) {
    // SAFETY: the server keeps the request until this function returns.
    let request = unsafe { copy(request) };
    with_stores(PendingAnswer::new(completion), |stores, answer| stores.call(handle, method, request, answer));
}

extern "C-unwind" fn cancel(call: u64) {
    if let Some(plugin) = PLUGIN.get() {
        let _ = catch_unwind(AssertUnwindSafe(|| plugin.stores.cancel(call)));
    }
}

/// Catches panics, so that nothing unwinds into the server: a panic drops the answer, which completes the call.
fn with_stores(answer: PendingAnswer, work: impl FnOnce(&'static Stores, PendingAnswer)) {
    if let Some(plugin) = PLUGIN.get() {
        let _ = catch_unwind(AssertUnwindSafe(|| work(&plugin.stores, answer)));
    }
}

/// # Safety
///
/// `bytes` must have been passed by the server to a function of the descriptor that has not returned yet.
unsafe fn copy(bytes: Bytes) -> Vec<u8> {
    match bytes.len {
        0 => Vec::new(),
        // SAFETY: the header requires that this many bytes are valid.
        len => unsafe { std::slice::from_raw_parts(bytes.ptr, len) }.to_vec(),
    }
}

#[cfg(test)]
mod tests;
