//! The configuration as the rest of the server sees it: plain data.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::address::MountAddress;
use super::auth::AuthConfig;
use super::cors::CorsConfig;
use super::endpoints::EndpointConfig;
use super::hosts::Hosts;
use super::modules::ModuleConfig;
use super::phase::Phase;
use super::proxies::TrustedProxies;
use super::static_files::StaticConfig;
use super::telemetry::TelemetryConfig;
use super::tls::TlsConfig;

/// The file that is read from the working directory.
pub const FILE_DEFAULT: &str = "config.toml";
/// Where the age identity is, unless the file says otherwise.
pub(super) const PRIVATE_KEY_DEFAULT: &str = "file:data/secret.key";

/// The whole configuration, checked. Paths in it are absolute.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Folder of the file, absolute: relative paths are meant from here.
    pub directory: PathBuf,
    /// The file it came from; `None`: the built-in defaults.
    pub file: Option<PathBuf>,
    pub server: ServerConfig,
    pub auth: AuthConfig,
    pub telemetry: TelemetryConfig,
    pub plugins: PluginsConfig,
    /// What several stores share, by name.
    pub connections: BTreeMap<String, DriverConfig>,
    pub hooks: HooksConfig,
    pub secure: DriverConfig,
    /// `private-key` of the secure storage: where the age identity is, `file:PATH` or `env:NAME`.
    pub private_key: String,
    pub event: DriverConfig,
    pub model: DriverConfig,
    pub error: DriverConfig,
    pub grants: Vec<Grant>,
}

/// `[plugins]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PluginsConfig {
    /// Whether all of it was understood. If not, it may allow more than its author meant, and no library is run.
    pub is_sound: bool,
    /// Folder of libraries with more drivers; absolute.
    pub directory: PathBuf,
    /// Digests of the libraries that may be loaded, 64 lowercase hex digits each; empty: all may.
    pub sha256: Vec<String>,
    /// Names of linked drivers that a library may replace.
    pub replace: Vec<String>,
}

/// `[server]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    pub mount_address: MountAddress,
    /// Starts with `/`, does not end with one unless it is `/`.
    pub mount_path: String,
    pub max_body_bytes: usize,
    /// Threads that serve requests; 0 in the file becomes the number of cores here.
    pub workers: usize,
    /// `limits.memory`: what requests may hold together.
    pub memory_bytes: usize,
    /// `limits.connections`: how many may be open at once.
    pub connections_max: usize,
    /// `limits.requests-per-second`, of each token or address; 0: no limit.
    pub requests_per_second: u32,
    /// `limits.trusted-proxies`.
    pub trusted_proxies: TrustedProxies,
    /// `limits.hosts`: the names under which it may be asked; empty: loopback names in open mode, every name with tokens.
    pub hosts: Hosts,
    /// Where plain HTTP is answered with a redirect to https.
    pub redirect_http: Option<SocketAddr>,
    /// `None`: plain HTTP.
    pub tls: Option<TlsConfig>,
    /// `None`: no page of another site may use the API.
    pub cors: Option<CorsConfig>,
    /// `None`: no files.
    pub static_files: Option<StaticConfig>,
    /// In the order of the file.
    pub endpoints: Vec<EndpointConfig>,
    /// In the order in which they are asked.
    pub modules: Vec<ModuleConfig>,
    /// The program that runs modules with `kind = 'zia'`: a bare name, or an absolute path.
    pub zia_bridge: PathBuf,
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
    pub v8_reset: V8Reset,
    /// Tries of a post hook before it goes to the error store.
    pub attempts_max: u32,
    /// Tries of a webhook whose receiver does not take the event.
    pub webhook_attempts_max: u32,
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

/// `[hooks.v8] reset`: how a hook's next call finds V8 as it was before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum V8Reset {
    /// The memory of the process is restored, where the kernel can tell what was written.
    Auto,
    /// Each call has a process of its own.
    Fork,
}

/// `[driver-…-storage]`: the driver's name and the rest of its table.
#[derive(Clone, PartialEq)]
pub struct DriverConfig {
    pub driver: String,
    /// `env:` references are resolved; `secret:` ones stand as they are until the secure storage is open.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Line of `driver` or of the table, for messages; `None` if the file has no such table.
    pub line: Option<usize>,
    /// Lines of the settings that are in the file, for messages.
    pub lines: BTreeMap<String, usize>,
    /// Values of the settings that came from the environment: messages must not show them.
    pub hidden: Vec<String>,
}

impl DriverConfig {
    /// Where a setting stands, or the table if it is not there.
    pub fn line_of(&self, setting: &str) -> Option<usize> {
        self.lines.get(setting).copied().or(self.line)
    }
}

/// Names the settings without their values, which may be secrets.
impl fmt::Debug for DriverConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings: Vec<_> = self.settings.keys().collect();
        f.debug_struct("DriverConfig")
            .field("driver", &self.driver)
            .field("settings", &settings)
            .finish_non_exhaustive()
    }
}

/// One `[[grants]]` table.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// Line in the file, for messages.
    pub line: usize,
    pub target: GrantTarget,
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

/// Whom a grant is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantTarget {
    Hooks {
        /// Glob over model ids.
        model: String,
        phases: Vec<Phase>,
        /// Glob over hook names, or `sha256:…` of the artifact.
        hook: String,
    },
    /// Glob over names of `[[server.endpoints]]`.
    Endpoint(String),
    /// Glob over names of `[[server.modules]]`.
    Module(String),
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

impl Config {
    /// What the file is called in messages.
    pub fn name(&self) -> String {
        let working = std::env::current_dir().ok();
        match &self.file {
            Some(file) => {
                let short = working.as_deref().and_then(|working| file.strip_prefix(working).ok()).unwrap_or(file);
                short.display().to_string()
            }
            None => FILE_DEFAULT.to_owned(),
        }
    }

    /// Where the data is, by which servers are told apart: the path of the event store, or the configuration's folder if the
    /// store has no path here.
    pub fn data(&self) -> String {
        let folder = std::path::absolute(&self.directory).unwrap_or_else(|_| self.directory.clone());
        // The same folder by whichever way it is reached.
        let folder = folder.canonicalize().unwrap_or(folder);
        let path = self.event.settings.get("path").and_then(serde_json::Value::as_str);
        path.map_or(folder.clone(), |path| folder.join(path)).display().to_string()
    }

    /// Where the API can be reached from this machine, such as `http://127.0.0.1:1337/api`. Over a Unix socket the host only
    /// fills its place.
    pub fn url(&self) -> String {
        let host = match self.server.mount_address {
            MountAddress::Tcp(address) if address.ip().is_unspecified() => {
                SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, address.port())).to_string()
            }
            MountAddress::Tcp(address) => address.to_string(),
            MountAddress::Unix(_) => "localhost".to_owned(),
        };
        self.url_at(&host)
    }

    /// The same for an address that is known better, such as the port that the system chose.
    pub fn url_at(&self, host: &str) -> String {
        let scheme = if self.server.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{host}{}", self.server.mount_path.trim_end_matches('/'))
    }
}
