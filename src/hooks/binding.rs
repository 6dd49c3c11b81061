//! A hook of a chain: as stored in the log, and as shown by the REST API.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use snaphook_driver::Position;

use super::engines::engine::HeldBack;
use super::grants::HookId;
use crate::catalog::{HookOrigin, SourceLanguage};

/// Whether a hook's verdict takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Enforce,
    /// It runs, and its verdict is only logged and counted.
    Shadow,
}

/// One hook of a chain, as stored in the log.
#[derive(Clone, Debug)]
pub struct Binding {
    pub id: HookId,
    pub engine: String,
    /// Size of the code in bytes.
    pub size: u64,
    pub mode: Mode,
    /// Position of the event that bound it.
    pub position: Position,
    /// A native library's file name in the hooks directory; the hook follows that file.
    pub library: Option<String>,
    /// The language of a source.
    pub language: Option<SourceLanguage>,
    /// Whether it reads and writes with the actor's right instead of the server's.
    pub as_actor: bool,
    pub origin: HookOrigin,
}

/// `Hook` of the REST API.
#[derive(Clone, Debug, Serialize)]
pub struct HookInfo {
    pub name: String,
    pub engine: String,
    pub artifact: String,
    pub size: u64,
    pub mode: Mode,
    pub grants: Value,
    pub position: Position,
    pub origin: HookOrigin,
    /// `ok`; `backing-off`: its calls, or those that `held_back` counts, fail until `retry_at`; `unavailable`: its
    /// calls fail until somebody intervenes.
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<String>,
    /// For loaded JavaScript: `captured` if a call starts from the state that the top-level code left; `each-call` if
    /// the top-level code runs at each call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_level: Option<&'static str>,
    /// Why the top-level code runs at each call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_level_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_back: Option<HeldBack>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<SourceLanguage>,
    /// `actor` if it reads and writes with the actor's right.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub acts_as: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub library: Option<String>,
    /// For a webhook: the receiving server, without path and query, which may be confidential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// For a webhook: the name of the signing secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// `not sandboxed` for native code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<&'static str>,
    /// Earlier or checked artifacts of its library's file: they run no calls, but stay in the server's process until it
    /// ends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub still_loaded: Vec<String>,
}
