//! Common parts of the JavaScript engines: the author's source, the scripts around it, the conversion of input and
//! output.
//!
//! An engine provides a JavaScript interpreter for [`SCRIPTS`] and eleven functions for them (named `host…` in
//! runner/*.js): `quickjs` has them in its module, `v8` sends them to the server over a socket.

pub(super) mod asks;
pub(super) mod calls;
pub(super) mod web;

mod answer;
mod changes;
mod digits;
mod foreign;
mod input;
mod lost_change;
mod nesting;
mod nodes;
mod numbers;
mod source;

pub(super) use answer::{ALLOCATION_FAILED, Read, Reading, compile_error};
pub(super) use digits::Digits;
pub(super) use input::Input;
pub(super) use lost_change::LostChange;
pub(super) use source::Source;

/// One module, in the order of dependence. The engine puts its own interface to the host before it.
#[cfg(any(test, target_os = "linux"))]
pub(super) const SCRIPTS: &str = concat!(
    include_str!("runner/intrinsics.js"),
    include_str!("runner/text.js"),
    include_str!("runner/encoding.js"),
    include_str!("runner/events.js"),
    include_str!("runner/url.js"),
    include_str!("runner/clone.js"),
    include_str!("runner/crypto.js"),
    include_str!("runner/timers.js"),
    include_str!("runner/log.js"),
    include_str!("runner/calls.js"),
    include_str!("runner/pending.js"),
    include_str!("runner/capabilities.js"),
    include_str!("runner/fetch.js"),
    include_str!("runner/plain.js"),
    include_str!("runner/main.js"),
);
