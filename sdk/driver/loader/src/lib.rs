//! Loads libraries with drivers, and makes stores of what they open.
//!
//! A library runs in the server's process, without a sandbox: it is trusted not to corrupt memory, and with nothing else.
//! What it returns is checked (library.rs, completion.rs, answer.rs), how often it answers does not matter (calls.rs), and neither does
//! whether it answers at all (watch.rs) or returns from a call (inline.rs, threads.rs). Each fault costs the call that met
//! it. Libraries are never unloaded: they may have left threads and exit handlers behind.
//!
//! Loading runs the library's initialisers, which may crash or never return. So it happens in a child process first:
//! [`inspect_in_child`] starts one, which runs [`answer_inspection`]. After that, [`Plugin::load`] loads the library here
//! and [`Plugin::open`] opens stores, which cannot be told from those of drivers that are linked in.

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
