//! The tables of the file except grants: keys, defaults, valid values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Map;

use super::address::{MountAddress, mount_address};
use super::auth::{AuthConfig, AuthMode, auth};
use super::cors::cors;
use super::document::{ConfigDocument, Section, Text, strings};
use super::endpoints::{endpoints, plain_path};
use super::error::ConfigError;
use super::grants;
use super::hosts::{Hosts, hosts};
use super::limits::{memory, timeout};
use super::modules::modules;
use super::proxies::{TrustedProxies, trusted_proxies};
use super::settings::{
    Config, DriverConfig, HooksConfig, Isolation, Limits, PRIVATE_KEY_DEFAULT, PluginsConfig, ServerConfig, V8Reset,
};
use super::static_files::static_files;
use super::telemetry::telemetry;
use super::tls::{redirect_http, tls};
use super::zia;

/// Smallest and largest limit of a request body. Hook artifacts are sent as bodies, so it may be larger than an event.
const BODY_BYTES: (usize, usize) = (1 << 10, 256 << 20);

/// Minimum and maximum memory for requests: a few large documents, and more than any machine has.
const REQUESTS_BYTES: (usize, usize) = (16 << 20, 1 << 40);

/// Maximum number of connections; each uses a file descriptor and may buffer 64 KiB of received data.
const CONNECTIONS_MAX: u64 = 32 * 1024;

/// Reads the whole document; faults are noted in it. What is given beside it: why no API may be served with it.
pub(super) fn config(
    document: &ConfigDocument<'_>,
    root: &mut Section<'_>,
    directory: &Path,
    file: Option<&Path>,
) -> (Config, Option<ConfigError>) {
    let mut server = root.section("server");
    let address = mount_address(&mut server, directory);
    let tls = tls(&mut server, directory);
    let limits = server_limits(&mut server);
    let server_config = ServerConfig {
        mount_address: address.value.clone(),
        mount_path: mount_path(&mut server),
        max_body_bytes: server.size("max-body", BODY_BYTES.0, BODY_BYTES.1).unwrap_or(8 << 20),
        workers: match server.integer("workers", 0..=1024).unwrap_or(0) {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers as usize,
        },
        memory_bytes: limits.memory_bytes,
        connections_max: limits.connections_max,
        requests_per_second: limits.requests_per_second,
        trusted_proxies: limits.trusted_proxies,
        hosts: limits.hosts,
        redirect_http: redirect_http(&mut server, &address, tls.is_some()),
        tls,
        static_files: static_files(&mut server, directory),
        cors: cors(&mut server),
        endpoints: endpoints(&mut server, directory),
        modules: modules(&mut server, directory),
        zia_bridge: zia::bridge(&mut server, directory),
    };
    zia::check(document, &server_config);
    server.finish();

    let (auth, mode_line) = auth(root, directory);
    let exposed = auth.as_ref().and_then(|auth| mode_fault(auth.mode, mode_line, &address.value, address.line));
    let config = Config {
        directory: directory.to_owned(),
        file: file.map(Path::to_owned),
        server: server_config,
        // An invalid mode was already reported: nothing is served.
        auth: auth.unwrap_or_else(|| AuthConfig::open(directory)),
        telemetry: telemetry(root),
        plugins: plugins(document, root, directory),
        connections: connections(root),
        hooks: hooks(root, directory),
        secure: DriverConfig::default(),
        private_key: String::new(),
        event: storage(root, "driver-event-storage", "sqlite", "data/events.db"),
        model: storage(root, "driver-model-storage", "sqlite", "data/models.db"),
        error: storage(root, "driver-error-storage", "sqlite", "data/errors.db"),
        grants: Vec::new(),
    };
    let mut config = secure_storage(root, config);
    config.grants = grants::grants(root, &config.server);
    (config, exposed)
}

/// `[server.limits]`
struct ServerLimits {
    memory_bytes: usize,
    connections_max: usize,
    requests_per_second: u32,
    trusted_proxies: TrustedProxies,
    hosts: Hosts,
}

fn server_limits(server: &mut Section<'_>) -> ServerLimits {
    let mut limits = server.section("limits");
    let read = ServerLimits {
        memory_bytes: limits.size("memory", REQUESTS_BYTES.0, REQUESTS_BYTES.1).unwrap_or(256 << 20),
        connections_max: limits.integer("connections", 1..=CONNECTIONS_MAX).unwrap_or(10_000) as usize,
        requests_per_second: limits.integer("requests-per-second", 0..=1_000_000).unwrap_or(0) as u32,
        trusted_proxies: trusted_proxies(&mut limits),
        hosts: hosts(&mut limits),
    };
    limits.finish();
    read
}

fn mount_path(server: &mut Section<'_>) -> String {
    let Some(text) = server.string("mount-path") else { return "/".to_owned() };
    let expected = "a path such as '/' or '/api', of letters, digits and `-._~`";
    text.parsed(expected, plain_path).unwrap_or_else(|| "/".to_owned())
}

/// Why a server must not start with this mode on this address.
fn mode_fault(
    mode: AuthMode,
    mode_line: Option<usize>,
    address: &MountAddress,
    address_line: Option<usize>,
) -> Option<ConfigError> {
    match mode {
        AuthMode::Tokens => None,
        AuthMode::Open if !address.is_of_this_machine() => {
            let default = if address_line.is_none() { " (the default)" } else { "" };
            Some(ConfigError::new(
                address_line.or(mode_line),
                format!(
                    "`server.mount-address` is `{address}`{default} and `auth.mode` is 'open': whoever reaches that \
                     address could read and change everything; expected a loopback address, write \
                     `mount-address = '{}'` under `[server]`",
                    address.on_loopback()
                ),
            ))
        }
        AuthMode::Open => None,
    }
}

fn plugins(document: &ConfigDocument<'_>, root: &mut Section<'_>, directory: &Path) -> PluginsConfig {
    let faults = document.fault_count();
    let mut plugins = root.section("plugins");
    let mut config = PluginsConfig {
        is_sound: true,
        directory: path(&mut plugins, "directory", directory, "plugins"),
        sha256: strings(plugins.value("sha256"), "digests of libraries", digest),
        replace: strings(plugins.value("replace"), "names of drivers", |text| Some(text.value)),
    };
    plugins.finish();
    config.is_sound = document.fault_count() == faults;
    config
}

fn digest(text: Text<'_>) -> Option<String> {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.value.len() == 64 && text.value.bytes().all(hex) {
        return Some(text.value);
    }
    text.unexpected("64 lowercase hex digits, as `snaphook plugin list` shows them");
    None
}

fn hooks(root: &mut Section<'_>, directory: &Path) -> HooksConfig {
    let mut hooks = root.section("hooks");
    let config = HooksConfig {
        directory: path(&mut hooks, "directory", directory, "hooks"),
        apply: hooks.boolean("apply").unwrap_or(false),
        cache: cache(&mut hooks, directory),
        limits: Limits {
            timeout: timeout(&mut hooks).unwrap_or(Duration::from_millis(500)),
            memory_bytes: memory(&mut hooks).unwrap_or(64 << 20),
        },
        isolation: hooks
            .string("isolation")
            .and_then(|text| text.word(&[("call", Isolation::Call), ("reuse", Isolation::Reuse)]))
            .unwrap_or(Isolation::Call),
        v8_reset: v8_reset(&mut hooks),
        concurrency: hooks.integer("concurrency", 1..=10_000).unwrap_or(64) as usize,
        attempts_max: hooks.integer("max-attempts", 1..=100).unwrap_or(8) as u32,
        webhook_attempts_max: hooks.integer("webhook-attempts", 1..=1000).unwrap_or(200) as u32,
    };
    hooks.finish();
    config
}

fn v8_reset(hooks: &mut Section<'_>) -> V8Reset {
    let mut v8 = hooks.section("v8");
    let reset = v8.string("reset").and_then(|text| text.word(&[("auto", V8Reset::Auto), ("fork", V8Reset::Fork)]));
    v8.finish();
    reset.unwrap_or(V8Reset::Auto)
}

/// The folder of compiled code: a folder of the user, shared by all of the user's servers, or one beside the data if
/// the user has no home.
fn cache(hooks: &mut Section<'_>, directory: &Path) -> PathBuf {
    let variable = |name| hooks.environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    let default = caches.map_or_else(|| PathBuf::from("data/cache"), |caches| caches.join("snaphook/compiled"));
    match hooks.string("cache").and_then(|text| not_empty(&text)) {
        Some(text) => directory.join(text),
        None => directory.join(default),
    }
}

/// A path, made absolute.
fn path(section: &mut Section<'_>, key: &'static str, directory: &Path, default: &str) -> PathBuf {
    let text = section.string(key).and_then(|text| not_empty(&text));
    directory.join(text.as_deref().unwrap_or(default))
}

fn not_empty(text: &Text<'_>) -> Option<String> {
    text.parsed("a path", |text| (!text.is_empty()).then(|| text.to_owned()))
}

/// `[driver-…-storage]`. The settings belong to the driver, which checks them when it is opened.
/// `[connections.NAME]`
fn connections(root: &mut Section<'_>) -> BTreeMap<String, DriverConfig> {
    let tables = root.value("connections").and_then(|value| value.entries()).unwrap_or_default();
    let mut connections = BTreeMap::new();
    for (name, value) in tables {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if name.is_empty() || name.len() > 63 || !name.bytes().all(plain) {
            value.error("is not a valid connection name, expected 1 to 63 of `a` to `z`, `0` to `9`, `-` and `_`");
            continue;
        }
        let Some(mut section) = value.section() else { continue };
        let driver = section.string("driver");
        if !section.was_there("driver") {
            section.missing("driver", "the name of a driver that supports connections");
        }
        let Some(driver) = driver else { continue };
        let mut hidden = Vec::new();
        let line = Some(driver.place.line);
        let lines = section.lines();
        let settings = section.rest(true, &mut hidden);
        connections.insert(name.to_owned(), DriverConfig { driver: driver.value, settings, line, lines, hidden });
    }
    connections
}

fn storage(root: &mut Section<'_>, key: &'static str, driver: &str, path: &str) -> DriverConfig {
    let mut section = root.section(key);
    driver_config(&mut section, true, driver, path)
}

fn driver_config(section: &mut Section<'_>, secrets: bool, driver: &str, path: &str) -> DriverConfig {
    let name = section.string("driver");
    let line = name.as_ref().map(|text| text.place.line).or(section.line);
    let name = name.map_or_else(|| driver.to_owned(), |text| text.value);
    let mut hidden = Vec::new();
    let lines = section.lines();
    let mut settings = section.rest(secrets, &mut hidden);
    if name == driver && !settings.contains_key("path") {
        settings.insert("path".to_owned(), path.into());
    }
    DriverConfig { driver: name, settings, line, lines, hidden }
}

fn secure_storage(root: &mut Section<'_>, mut config: Config) -> Config {
    let mut section = root.section("driver-secure-storage");
    // `env:` has its own meaning here: the key is read when the secure storage opens, and never kept in the config.
    config.private_key = match section.value("private-key") {
        Some(value) => value.raw_text().and_then(|text| private_key(&text)).unwrap_or_default(),
        None => PRIVATE_KEY_DEFAULT.to_owned(),
    };
    config.secure = driver_config(&mut section, false, "file", "data/secrets");
    config
}

fn private_key(text: &Text<'_>) -> Option<String> {
    let expected = "'file:PATH' or 'env:NAME'";
    match text.value.split_once(':') {
        Some(("file" | "env", rest)) if !rest.is_empty() => Some(text.value.clone()),
        // Not shown, because somebody may have entered the key itself.
        _ => {
            text.place.error(format!("does not name the location of an age identity, expected {expected}"));
            None
        }
    }
}

impl Default for DriverConfig {
    fn default() -> Self {
        DriverConfig {
            driver: "memory".to_owned(),
            settings: Map::new(),
            line: None,
            lines: BTreeMap::new(),
            hidden: Vec::new(),
        }
    }
}
