//! Modules that were built from ZiaModuleAPISpec: they run in the program `snaphook-zia-bridge`, a process of its own.
//!
//! A connection goes to the bridge as its descriptor, once the client has sent a head; with it goes one end of a socket
//! pair. The bridge runs the modules' hooks, and sends a request that no module answers over that pair: the API is the last
//! module. So the server itself knows where each request comes from, whether over TLS (the first byte of the connection is
//! that of a handshake), and when the bridge is done with it. Whatever crashes in the bridge costs its connections.

mod connection;
mod control;
mod message;
mod modules;
mod output;
mod process;
mod program;
mod supervisor;

pub(super) use self::program::find;
pub use self::supervisor::Bridge;
