//! Server modules: libraries that take part in serving requests, and how a request passes through them.
//!
//! A [`Chain`] contains the [`Module`]s of a server in order. Each kind of module implements [`Runner`]; [`Native`]
//! runs libraries with the C ABI of `sdk/c/snaphook_module.h`. This crate knows neither configuration nor routes: the
//! server provides its services through [`Server`], [`Hold`] and [`Memory`].

mod chain;
mod connection;
mod exchange;
mod fault;
mod filtered;
mod health;
mod inline;
mod library;
mod memory;
mod module;
mod native;
mod output;
mod resume;
mod table;
pub mod task;
mod threads;

pub use chain::{Chain, Server};
pub use connection::{Connection, Filters};
pub use exchange::{Exchange, Hold, Impossible, Origin, ResponseHead, Side};
pub use fault::Fault;
pub use health::{Health, Standing};
pub use inline::spare_threads;
pub use library::RequestHook;
pub use memory::{Lease, Memory};
pub use module::{
    Called, ConnectionFiltered, ConnectionHandler, ConnectionState, Filtered, Handler, Module, Runner, Verdict, Wants,
};
pub use native::{Native, try_out};
pub use threads::has_late_threads;
