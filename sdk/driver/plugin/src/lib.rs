//! Makes a library of drivers that are written in Rust.
//!
//! A driver crate stays an ordinary library crate, so that it can be linked into the server. A second crate beside it, of
//! the type `cdylib`, has one line and is what the server loads:
//!
//! ```ignore
//! snaphook_driver_plugin::export_plugin!("memory", snaphook_memory::DRIVER);
//! ```
//!
//! Stores are served with [`snaphook_driver::wire::Service`] (stores.rs). A call runs where the server makes it until the
//! driver waits for the first time, and then goes on in a runtime of the library's own (serving.rs).

mod boundary;
mod serving;
mod stores;

#[doc(hidden)]
pub use boundary::{Descriptor, export};

/// Exports the symbol that makes this library a plugin: the plugin's name, then its drivers. Once per library.
#[macro_export]
macro_rules! export_plugin {
    ($name:literal, $($driver:expr),+ $(,)?) => {
        /// What the server looks for in the library.
        #[allow(unsafe_code, reason = "the name is the one of the C ABI, and there is one such symbol in a library")]
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn snaphook_plugin_v1() -> *const $crate::Descriptor {
            $crate::export($name, env!("CARGO_PKG_VERSION"), &[$($driver),+])
        }
    };
}
