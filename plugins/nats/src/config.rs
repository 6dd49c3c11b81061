//! The driver's settings, and those of its connections.

use std::fmt;
use std::path::PathBuf;

use async_nats::ServerAddr;
use serde::Deserialize;
use snaphook_driver::{Connection, DriverError, ErrorKind, OpenContext, Result, Setting, SettingKind};

/// The expected value of `path`.
pub(crate) const PATH_EXPECTED: &str = "the path of a database file such as `data/nats.db`";

/// Limits the names of streams and buckets, which contain it, to what the server allows.
const NAME_BYTES_MAX: usize = 64;

/// The maximum that a server accepts.
const REPLICAS_MAX: u64 = 5;

/// The keys of `[connections.NAME]`.
pub(crate) const CONNECTION: &[Setting] = &[
    Setting::required("url", SettingKind::Secret, "addresses such as `nats://a:4222,nats://b:4222`"),
    Setting::with_default("name", SettingKind::Text, "the prefix of the names of streams and buckets", "\"snaphook\""),
    Setting::with_default("replicas", SettingKind::Number, "the number of servers that store each stream, 1 to 5", "1"),
    Setting::with_default(
        "durability",
        SettingKind::Text,
        "`fsync`, `replicated` or `lazy`: when a write counts as durable",
        "\"fsync\"",
    ),
    Setting::optional(
        "monitor",
        SettingKind::Text,
        "addresses of the servers' monitoring endpoints, such as `http://a:8222`",
    ),
    Setting::with_default("tls", SettingKind::Text, "`off` or `require`", "\"off\""),
    Setting::optional("ca", SettingKind::Text, "the path of a file with certificates (PEM)"),
    Setting::optional("credentials", SettingKind::Text, "the path of a `.creds` file"),
    Setting::optional("token", SettingKind::Secret, "a token"),
    Setting::optional("user", SettingKind::Text, "the name of a user"),
    Setting::optional("password", SettingKind::Secret, "the user's password"),
];

/// The settings below `driver = 'nats'`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreConfig {
    pub(crate) connection: Connection<LinkConfig>,
    #[serde(default = "path")]
    path: String,
    #[serde(default = "snapshots")]
    pub(crate) snapshots: u64,
}

/// The settings in `[connections.NAME]`.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkConfig {
    url: String,
    #[serde(default = "name")]
    pub(crate) name: String,
    #[serde(default = "replicas")]
    replicas: u64,
    #[serde(default)]
    pub(crate) durability: Durability,
    monitor: Option<String>,
    #[serde(default)]
    pub(crate) tls: Tls,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) credentials: Option<PathBuf>,
    pub(crate) token: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
}

/// When a write counts as durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Durability {
    /// It is on the disks of the servers that acknowledged it.
    #[default]
    Fsync,
    /// A majority of the replicas have it in memory and write it to disk slightly later.
    Replicated,
    /// One server has it; a power failure may lose it.
    Lazy,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Fsync => "fsync",
            Durability::Replicated => "replicated",
            Durability::Lazy => "lazy",
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Tls {
    #[default]
    Off,
    Require,
}

fn path() -> String {
    "data/nats.db".to_owned()
}

fn name() -> String {
    "snaphook".to_owned()
}

const fn replicas() -> u64 {
    1
}

const fn snapshots() -> u64 {
    100_000
}

impl StoreConfig {
    /// Reads and checks the settings of a store; makes paths absolute.
    pub(crate) fn of(context: &OpenContext) -> Result<StoreConfig> {
        let mut config: StoreConfig = context.settings()?;
        if config.path.is_empty() {
            return Err(fault(format!("`path` is empty, expected {PATH_EXPECTED}")));
        }
        let link = &mut config.connection.settings;
        let paths = [&mut link.ca, &mut link.credentials].into_iter().flatten();
        paths.for_each(|path| *path = context.directory.join(&path));
        link.check()?;
        Ok(config)
    }

    /// The file of the event store.
    pub(crate) fn path(&self, context: &OpenContext) -> PathBuf {
        context.path(&self.path)
    }
}

impl LinkConfig {
    fn check(&self) -> Result<()> {
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || !self.name.bytes().all(is_of_name) {
            return Err(fault(format!(
                "`name` is `{}`, expected 1 to {NAME_BYTES_MAX} letters, digits, `-` and `_`",
                self.name.escape_debug()
            )));
        }
        if !(1..=REPLICAS_MAX).contains(&self.replicas) {
            return Err(fault(format!("`replicas` is {}, expected 1 to {REPLICAS_MAX}", self.replicas)));
        }
        if self.durability == Durability::Replicated && self.replicas < 3 {
            return Err(fault(format!(
                "`durability` is `replicated` with {} replicas, which needs at least 3; raise `replicas` or use `fsync`",
                self.replicas
            )));
        }
        if self.user.is_some() != self.password.is_some() {
            return Err(fault("only one of `user` and `password` is given, expected both or neither".to_owned()));
        }
        let ways = [self.credentials.is_some(), self.token.is_some(), self.user.is_some()];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            return Err(fault("more than one of `credentials`, `token` and `user` is given, expected one".to_owned()));
        }
        self.addresses().map(drop)
    }

    pub(crate) fn replicas(&self) -> usize {
        self.replicas as usize
    }

    /// The servers' addresses. They must not be shown, because they may contain passwords.
    pub(crate) fn addresses(&self) -> Result<Vec<ServerAddr>> {
        let addresses = self.url.split(',').map(str::trim).enumerate();
        addresses
            .map(|(index, address)| {
                address.parse().map_err(|_| {
                    let message =
                        format!("address {} in `url` is invalid, expected one such as `nats://host:4222`", index + 1);
                    fault(message)
                })
            })
            .collect()
    }

    /// Addresses of monitoring.
    pub(crate) fn monitors(&self) -> impl Iterator<Item = &str> {
        self.monitor.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|address| !address.is_empty())
    }
}

fn fault(message: String) -> DriverError {
    DriverError::new(ErrorKind::Config, "open", message)
}
