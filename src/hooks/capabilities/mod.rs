//! The capabilities: what a hook may ask of the host. One place each for its checks, its host function and its tests.
//!
//! Each is a part of [`super::session::Session`]: count the call, check the grant, note what was asked, then act
//! within a deadline and a size.

mod amend;
pub mod http;
mod log;
pub mod process;
mod read;
mod secret;
mod write;
