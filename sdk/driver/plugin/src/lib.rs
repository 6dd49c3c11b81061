//! Builds a plugin library from drivers that are written in Rust.
//!
//! A driver crate stays an ordinary library crate, so that it can be linked into the server. A second crate beside it,
//! of type `cdylib`, consists of one line; the server loads its library:
//!
//! ```ignore
//! snaphook_driver_plugin::export_plugin!("memory", snaphook_memory::DRIVER);
//! ```
//!
//! Stores are served with [`snaphook_driver::wire::Service`] (stores.rs). A call runs on the server's thread until the
//! driver waits for the first time, and then continues in the library's own runtime (serving.rs).

mod answer;
mod boundary;
mod serving;
mod stores;

#[doc(hidden)]
pub use boundary::{Descriptor, export};
