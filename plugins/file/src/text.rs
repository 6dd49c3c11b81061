//! JSON of a client inside JSON of ours, such that its text comes back byte by byte.
//!
//! Nearly all of it stands in a line as it is, under `data`. Text with line breaks or spaces around it, and text that is
//! no JSON (a log may be imported whose data somebody changed), stands there as one string, under `data_text`.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use snaphook_driver::{Json, json};

/// A text as it is written: at most one of both.
pub(crate) fn split(text: Option<&Json>) -> (Option<&RawValue>, Option<&str>) {
    let Some(text) = text else { return (None, None) };
    let raw = json::typed::<&RawValue>(text).ok();
    match raw.filter(|raw| raw.get().len() == text.len() && memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_none()) {
        Some(raw) => (Some(raw), None),
        None => (None, Some(text)),
    }
}

/// A text as it was read.
pub(crate) fn join(data: Option<Json>, text: Option<String>) -> Option<Json> {
    data.or_else(|| text.map(Json::trusted))
}

/// Reads a member that is there, also if it is `null`.
pub(crate) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}
