//! A hook of a chain: as the log knows it, and as the REST API tells it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use snaphook_driver::Position;

use super::engines::engine::HeldBack;
use super::grants::HookId;
use crate::catalog::{HookOrigin, SourceLanguage};

/// Whether a hook decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Enforce,
    /// It runs, and what it would have said is logged and counted.
    Shadow,
}

/// One hook of a chain, as the log knows it.
#[derive(Clone, Debug)]
pub struct Binding {
    pub id: HookId,
    pub engine: String,
    /// Bytes of the code.
    pub size: u64,
    pub mode: Mode,
    /// Position of the event that bound it.
    pub position: Position,
    /// A native library's file name in the hooks directory; the hook follows that file.
    pub library: Option<String>,
    /// Of a source.
    pub language: Option<SourceLanguage>,
    /// It reads and writes with the right of the actor, and not of the server.
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
    /// `ok`; `backing-off`: its calls fail until `retry_at`, or those that `held_back` counts; `unavailable`: until something
    /// is done about it.
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<String>,
    /// Of JavaScript that is loaded: `captured`, a call starts from what the code outside of functions left; `each-call`, it
    /// runs at each call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_level: Option<&'static str>,
    /// Why it runs at each call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_level_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_back: Option<HeldBack>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<SourceLanguage>,
    /// `actor`: it reads and writes with the right of the actor.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub acts_as: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub library: Option<String>,
    /// Of a webhook: the server that it sends events to, without path and query, which may be confidential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Of a webhook: the name of the secret that signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// What native code has: `not sandboxed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<&'static str>,
    /// Artifacts that its library's file had before, or that were tried: they run no calls, but stay in the server's
    /// process until it ends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub still_loaded: Vec<String>,
}
