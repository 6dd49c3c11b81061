//! Arguments of host calls that are JSON: an error names the argument, what was found and what is expected.

use std::time::Duration;

use crate::catalog::{FieldError, Part};
use crate::hooks::session::Redirect;

/// For lists whose length the session checks.
pub(super) const ANY: usize = usize::MAX;

/// How redirects are handled.
pub(super) const REDIRECTS: &[(&str, Redirect)] =
    &[("follow", Redirect::Follow), ("manual", Redirect::Manual), ("error", Redirect::Error)];

/// A list of names with values, such as headers.
pub(super) fn pairs(list: &Part<'_>) -> Result<Vec<(String, String)>, FieldError> {
    let pair = |pair: &Part<'_>| match pair.items::<2>("a pair of strings")?.as_slice() {
        [name, value] => Ok((name.string()?, value.string()?)),
        _ => Err(pair.fault("is not a pair of strings")),
    };
    list.items::<ANY>("a list of pairs")?.iter().map(pair).collect()
}

/// A time in milliseconds.
pub(super) fn milliseconds(time: &Part<'_>) -> Result<Duration, FieldError> {
    time.large_number().map(Duration::from_millis)
}

/// What is wrong with `what`, as a sentence.
pub(super) fn misfit(what: &str, fault: &FieldError) -> String {
    let FieldError { pointer, message } = fault;
    match pointer.is_empty() {
        true => format!("{what} {message}"),
        false => format!("{what} does not fit: `{pointer}` {message}"),
    }
}
