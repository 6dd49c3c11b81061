//! Snaphook: models as a REST API over an event log, with sandboxed hooks around every change.
//!
//! The layers, from the bottom: [`config`], [`memory`], `drivers`, `catalog`, [`hooks`], `engine`, `server`, `cli`.
//! Each only uses those below it; `cargo xtask tidy` checks that.

pub mod catalog;
pub mod cli;
pub mod config;
pub mod drivers;
pub mod engine;
pub mod hooks;
pub mod memory;
pub mod server;
pub mod telemetry;
