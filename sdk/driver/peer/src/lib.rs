//! The other server of a driver that keeps or forwards data over HTTP: one base address, one token, bounded requests.
//!
//! A peer may be slow, broken, hostile, or a different program from the intended one. So every request has a deadline,
//! a response is only read up to a limit, redirects are reported instead of followed (following one would send the
//! token along), and no message shows a secret, even if the peer echoes it. [`Response::verdict`] says what a status
//! means, and whether it comes from the peer's API at all. The TLS settings are built here, with their own crypto
//! provider, so that a driver works in any process.

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
