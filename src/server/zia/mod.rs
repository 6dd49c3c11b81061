//! Modules that were built with ZiaModuleAPISpec. They run in a separate process, the program `snaphook-zia-bridge`.
//!
//! Once a client has sent a head, the server passes the descriptor of its connection to the bridge, together with one end
//! of a socket pair. The bridge runs the modules' hooks, and sends a request that no module handles over that pair: the
//! API acts as the last module. So the server itself knows the origin of each request, whether it uses TLS (the first byte
//! of the connection is that of a handshake), and when the bridge has finished. A crash in the bridge only ends its
//! connections.

mod connection;
mod control;
mod message;
mod modules;
mod output;
mod process;
mod program;
mod supervisor;
mod threads;

pub(super) use self::program::find;
pub use self::supervisor::Bridge;
