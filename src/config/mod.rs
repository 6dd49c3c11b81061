//! config.toml: parsed, checked, with errors that point at the line.
//!
//! [`Config`] is what the rest of the server sees: every default filled in, every value checked.

mod phase;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use phase::Phase;

/// The whole configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Folder of the file: relative paths are meant from here.
    pub directory: PathBuf,
    /// The file it came from; `None`: the built-in defaults.
    pub file: Option<PathBuf>,
    pub server: ServerConfig,
    pub auth: AuthMode,
    pub plugins_directory: PathBuf,
    pub hooks: HooksConfig,
    /// `[connections.NAME]`, as they stand.
    pub connections: BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
    pub secure: DriverConfig,
    /// `private-key` of the secure storage: where the age identity is.
    pub private_key: String,
    pub event: DriverConfig,
    pub model: DriverConfig,
    pub error: DriverConfig,
    pub grants: Vec<Grant>,
}

/// `[server]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    pub mount_address: SocketAddr,
    /// Starts with `/`, does not end with one unless it is `/`.
    pub mount_path: String,
    pub max_body_bytes: usize,
    /// Threads that serve requests; 0 in the file becomes the number of cores here.
    pub workers: usize,
}

/// `[auth] mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    Tokens,
    Open,
}

/// `[hooks]`.
#[derive(Clone, Debug, PartialEq)]
pub struct HooksConfig {
    pub directory: PathBuf,
    pub apply: bool,
    pub cache: PathBuf,
    pub limits: Limits,
    pub isolation: Isolation,
    /// Calls of one hook at once.
    pub concurrency: usize,
    /// Tries of a post hook before it goes to the error store.
    pub attempts_max: u32,
}

/// What a hook's call may use, before grants raise it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Wall clock of one call, without the time that the host needs for capabilities.
    pub timeout: Duration,
    /// All memories and tables of the sandbox.
    pub memory_bytes: usize,
}

/// `isolation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// A fresh sandbox for each call.
    Call,
    /// One sandbox serves many calls of one hook.
    Reuse,
}

/// `[driver-…-storage]`: the driver's name and the rest of its table.
#[derive(Clone, Debug, PartialEq)]
pub struct DriverConfig {
    pub driver: String,
    pub settings: serde_json::Map<String, serde_json::Value>,
}

/// One `[[grants]]` table.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// Line in the file, for messages.
    pub line: usize,
    /// Glob over model ids.
    pub model: String,
    pub phases: Vec<Phase>,
    /// Glob over hook names, or `sha256:…` of the artifact.
    pub hook: String,
    /// Globs over model ids.
    pub read: Vec<String>,
    pub write: Vec<String>,
    /// `[METHOD ]URL` with `*`.
    pub http: Vec<String>,
    pub process: Vec<ProcessGrant>,
    /// Names, globs.
    pub secret: Vec<String>,
    pub amend: bool,
    pub timeout: Option<Duration>,
    pub memory_bytes: Option<usize>,
}

/// One program that a grant opens.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessGrant {
    /// Absolute path.
    pub program: PathBuf,
    /// One glob per argument; the number of arguments must match.
    pub args: Vec<String>,
    /// Environment variables that the call may set, besides those with a value here.
    pub env: BTreeMap<String, Option<String>>,
    pub timeout: Duration,
    pub memory_bytes: usize,
    pub output_bytes: usize,
}
