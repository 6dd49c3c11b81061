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

mod answer;
mod boundary;
mod serving;
mod stores;

#[doc(hidden)]
pub use boundary::{Descriptor, export};
