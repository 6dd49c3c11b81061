//! Server modules for Snaphook in Rust.
//!
//! A module is a crate of the type `cdylib` with a type that implements [`Module`]:
//!
//! ```
//! use snaphook_module::{Answer, Config, Exchange, Hooks, Host, Module, RequestHandler, Side};
//!
//! struct Stamp;
//!
//! impl Module for Stamp {
//!     type Connection = ();
//!     type Request = StampRequest;
//!     const HOOKS: Hooks = Hooks::RESPONSE;
//!
//!     fn activate(_: Host, _: &Config<'_>) -> Result<Self, String> {
//!         Ok(Stamp)
//!     }
//!
//!     fn request(&self, _: Option<&()>, _: &mut Exchange<'_>) -> StampRequest {
//!         StampRequest
//!     }
//! }
//!
//! struct StampRequest;
//!
//! impl RequestHandler for StampRequest {
//!     fn response(&mut self, exchange: &mut Exchange<'_>) -> Answer {
//!         exchange.set_header(Side::Response, "x-stamp", "1");
//!         Answer::Declined
//!     }
//! }
//!
//! snaphook_module::export_module!("stamp", Stamp);
//! # fn main() {}
//! ```
//!
//! A panic in a hook ends the request with status 500 and is counted by the server; it never leaves the library.

mod answer;
mod boundary;
mod config;
mod exchange;
mod hooks;
mod host;
mod traits;
mod views;

pub use answer::{Answer, Filtered};
#[doc(hidden)]
pub use boundary::{RawDescriptor, descriptor, export};
pub use config::{Config, ConnectionInfo};
pub use exchange::{Exchange, Output, Side, Text};
pub use hooks::{Flags, Hooks};
pub use host::{Host, Level, Resume};
pub use traits::{ConnectionHandler, Module, RequestHandler};
