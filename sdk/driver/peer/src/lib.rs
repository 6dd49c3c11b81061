//! The other server of a driver that keeps or forwards data over HTTP: one base address, one token, bounded requests.
//!
//! A peer may be anything: slow, broken, hostile, or another program than the one that was meant. So every request has a
//! deadline, a response is read up to a bound, redirects are reported instead of followed (the token would go along), and
//! no error names the token. What a status means is up to the driver. The TLS settings are built here, with their own
//! crypto provider, so that a driver works in any process.

mod backoff;
mod peer;
mod tls;

pub use backoff::Backoff;
pub use peer::{Failure, Peer, Response, TIMEOUT_DEFAULT};
pub use reqwest::Method;
