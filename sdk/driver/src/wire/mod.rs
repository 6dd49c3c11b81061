//! Driver calls as bytes, for libraries through the C ABI and for remote drivers over HTTP.
//!
//! [`Service`] serves an opened store: it takes the bytes of a request and returns those of the response. [`Client`] is
//! a store over any [`Transport`] for these bytes. `proto/driver.proto` describes the messages; [`proto`] is generated
//! from it, and each of the other files here converts one part of them to the types of the traits.

mod client;
mod describe;
mod error;
mod events;
mod filters;
mod instances;
mod json;
mod message;
mod method;
mod opened;
mod records;
mod service;
mod time;

/// The messages, generated from `proto/driver.proto` (`SNAPHOOK_BLESS=1 cargo test -p snaphook-driver --test proto`).
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, reason = "generated")]
#[rustfmt::skip]
pub mod proto;

pub use client::{Client, Transport};
pub use describe::{DriverDescription, PluginDescription};
pub use error::{decode_error, encode_error};
pub use json::{JsonMappingError, from_json, to_json};
pub use message::{Malformed, decode, encode};
pub use method::Method;
pub use opened::Opened;
pub use service::Service;
pub use time::{CALL_TIME, WHOLE_TIME};
