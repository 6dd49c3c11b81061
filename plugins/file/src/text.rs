//! Embeds a client's JSON in our JSON so that its text is preserved byte for byte.
//!
//! Almost all text is embedded as it is, in `data`. Text with line breaks or surrounding spaces, and text that is not
//! JSON (somebody may have changed the data of an imported log), is stored as one string in `data_text`.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use snaphook_driver::{Json, json};

/// The members to write for a text: at most one of the two.
pub(crate) fn split(text: Option<&Json>) -> (Option<&RawValue>, Option<&str>) {
    let Some(text) = text else { return (None, None) };
    let raw = json::typed::<&RawValue>(text).ok();
    match raw.filter(|raw| raw.get().len() == text.len() && memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_none()) {
        Some(raw) => (Some(raw), None),
        None => (None, Some(text)),
    }
}

/// The text from the members that were read.
pub(crate) fn join(data: Option<Json>, text: Option<String>) -> Option<Json> {
    data.or_else(|| text.map(Json::trusted))
}

/// Reads a member that is present, even if it is `null`.
pub(crate) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}
