//! What the engines that run JavaScript share: the author's source, the scripts around it, what goes in and comes out.
//!
//! An engine brings a JavaScript that can evaluate the `scripts!` and ten functions for it (runner/*.js calls them `host…`):
//! `quickjs` builds them into its sandbox, `v8` sends them to the server over a socket.

pub(super) mod asks;
pub(super) mod web;

mod answer;
mod digits;
mod foreign;
mod input;
mod nodes;
mod source;

pub(super) use answer::{Reading, compile_error};
pub(super) use digits::Digits;
pub(super) use input::Input;
pub(super) use source::Source;

/// One module, in the order of dependence. The engine puts its own way to the host before it.
macro_rules! scripts {
    () => {
        concat!(
            include_str!("../javascript/runner/intrinsics.js"),
            include_str!("../javascript/runner/text.js"),
            include_str!("../javascript/runner/encoding.js"),
            include_str!("../javascript/runner/events.js"),
            include_str!("../javascript/runner/url.js"),
            include_str!("../javascript/runner/clone.js"),
            include_str!("../javascript/runner/crypto.js"),
            include_str!("../javascript/runner/timers.js"),
            include_str!("../javascript/runner/log.js"),
            include_str!("../javascript/runner/capabilities.js"),
            include_str!("../javascript/runner/fetch.js"),
            include_str!("../javascript/runner/main.js"),
        )
    };
}
pub(super) use scripts;
