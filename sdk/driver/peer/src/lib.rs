//! The other server of a driver that keeps or forwards data over HTTP: one base address, one token, bounded requests.
//!
//! A peer may be anything: slow, broken, hostile, or another program than the one that was meant. So every request has a
//! deadline, a response is read up to a bound, redirects are reported instead of followed (the token would go along), and
//! no message shows a secret, also where the peer echoes it. [`Response::verdict`] says what a status means, and whether it
//! is the peer's word at all. The TLS settings are built here, with their own crypto provider, so that a driver works in any
//! process.

mod backoff;
mod escape;
mod peer;
mod response;
mod secrets;
mod settings;
mod tls;

pub use backoff::Backoff;
pub use escape::escape;
pub use peer::{Failure, Peer};
pub use reqwest::Method;
pub use response::{Response, Verdict};
pub use settings::{TIMEOUT, TOKEN, Timeout};
