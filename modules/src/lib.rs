//! Server modules: libraries that take part in serving requests, and the processing of a request by them.
//!
//! A [`Chain`] holds the [`Module`]s of a server in their order. What runs a module implements [`Runner`]; [`Native`] runs
//! libraries with the C ABI of `sdk/c/snaphook_module.h`. This crate knows no configuration and no routes: the server gives it
//! what it needs through [`Server`], [`Hold`] and [`Memory`].

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
