//! Loads libraries with drivers, and wraps the stores that they open.
//!
//! A library runs in the server's process, without a sandbox: it is trusted not to corrupt memory, but with nothing
//! else. Everything that it returns is checked (library.rs, completion.rs, answer.rs). The server tolerates a library
//! that answers too often (calls.rs), never answers (watch.rs) or does not return from a call (inline.rs, threads.rs).
//! Each fault fails only the call that it affects. Libraries are never unloaded, because they may have left threads and
//! exit handlers behind.
//!
//! Loading runs the library's initialisers, which may crash or never return. So the library is first loaded in a child
//! process: [`inspect_in_child`] starts it, and it runs [`answer_inspection`]. After that, [`Plugin::load`] loads the
//! library here and [`Plugin::open`] opens stores, which behave like those of linked drivers.

mod answer;
mod calls;
mod completion;
mod deadline;
mod description;
mod fault;
mod inline;
mod inspect;
mod library;
mod loaded;
mod outcome;
mod outstanding;
mod plugin;
mod store;
mod threads;
mod watch;

pub use deadline::Deadlines;
pub use fault::{Fault, LoadError};
pub use inline::Permit;
pub use inspect::{answer_inspection, inspect, inspect_in_child};
pub use loaded::Faults;
pub use plugin::Plugin;
pub use snaphook_driver_abi::ABI_VERSION;
