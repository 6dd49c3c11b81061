//! Performs one run, in the same way for components, native libraries and the mock.

use crate::change::Raw;
use crate::{Error, Hook, Result, Verdict};

/// Runs a pre hook.
pub fn check<H: Hook>(change: Raw) -> Result<Verdict> {
    H::check(&change.typed()?)
}

/// Runs a post hook; the error is a sentence.
pub fn react<H: Hook>(change: Raw) -> std::result::Result<(), String> {
    change.typed().and_then(|change| H::react(&change)).map_err(|error| match error {
        Error::Reject(reject) => reject.message,
        Error::Fail(message) => message,
    })
}
