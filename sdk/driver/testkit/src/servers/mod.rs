//! The servers that tests start, and drivers on them for the suites.

pub mod nats;
pub mod postgres;
pub mod redis;

pub use snaphook_driver_servers::{Server, Signal, free_port};
