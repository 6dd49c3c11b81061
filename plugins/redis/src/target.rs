//! The server that a connection's settings name.

use percent_encoding::percent_decode_str;
use serde_json::Number;
use snaphook_driver::{DriverError, ErrorKind, Result};
use url::{Host, Url};

use crate::config::{DATABASE_EXPECTED, HOST_EXPECTED, PORT_EXPECTED, PREFIX_EXPECTED, RedisConfig, URL_EXPECTED};

const DEFAULT_PORT: u16 = 6379;

/// A server's address and the user's credentials.
pub(crate) struct RedisServer {
    /// A name or an IP address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: u32,
}

impl RedisServer {
    /// Messages never quote the address, which may contain a password.
    pub(crate) fn new(config: &RedisConfig) -> Result<RedisServer> {
        check_prefix(config.prefix())?;
        let mut target = match (&config.url, &config.host) {
            (Some(url), None) if config.port.is_none() && config.tls.is_none() => from_url(url)?,
            (Some(_), _) => {
                return Err(wrong("`url` already contains the server: remove `host`, `port` and `tls`, or `url`"));
            }
            (None, Some(host)) => RedisServer {
                host: host.trim_matches(['[', ']']).to_owned(),
                port: config.port.as_ref().map_or(Ok(DEFAULT_PORT), |port| number("port", port, PORT_EXPECTED))?,
                tls: config.tls.unwrap_or(false),
                user: None,
                password: None,
                database: 0,
            },
            (None, None) => {
                return Err(wrong(format!("`url` is missing, expected {URL_EXPECTED}; or `host`, {HOST_EXPECTED}")));
            }
        };
        let twice =
            |name: &str| wrong(format!("`{name}` is set twice, in `url` and as its own setting: remove one of them"));
        if target.user.is_some() && config.user.is_some() {
            return Err(twice("user"));
        }
        if target.password.is_some() && config.password.is_some() {
            return Err(twice("password"));
        }
        target.user = target.user.or(config.user.clone());
        target.password = target.password.or(config.password.clone());
        if let Some(database) = &config.database {
            if target.database != 0 {
                return Err(twice("database"));
            }
            target.database = number("database", database, DATABASE_EXPECTED)?;
        }
        if target.user.is_some() && target.password.is_none() {
            return Err(wrong("`user` has no `password`, expected both or neither"));
        }
        Ok(target)
    }

    /// The address for messages.
    pub(crate) fn address(&self) -> String {
        let RedisServer { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Whether a password would cross a network in the clear.
    pub(crate) fn is_open(&self) -> bool {
        let is_local = self.host == "localhost"
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        self.password.is_some() && !self.tls && !is_local
    }
}

fn number<T: TryFrom<u64>>(name: &str, number: &Number, expected: &str) -> Result<T> {
    let found = number.as_u64().and_then(|number| T::try_from(number).ok());
    found.ok_or_else(|| wrong(format!("`{name}` is `{number:.40}`, expected {expected}")))
}

fn from_url(text: &str) -> Result<RedisServer> {
    let not_one = || wrong(format!("`url` is not a valid address, expected {URL_EXPECTED}, without `?` and `#`"));
    let url = Url::parse(text).map_err(|_| not_one())?;
    let tls = match url.scheme() {
        "redis" => false,
        "rediss" => true,
        _ => return Err(not_one()),
    };
    if url.query().is_some() || url.fragment().is_some() {
        return Err(not_one());
    }
    let host = match url.host().ok_or_else(not_one)? {
        Host::Domain(name) => decoded(name)?,
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    };
    if host.is_empty() {
        return Err(not_one());
    }
    let database = match url.path().trim_matches('/') {
        "" => 0,
        number => number.parse().map_err(|_| {
            wrong("the path of `url` is not a database number, expected an address such as `redis://127.0.0.1:6379/0`")
        })?,
    };
    let user = Some(url.username()).filter(|user| !user.is_empty()).map(decoded).transpose()?;
    let password = url.password().map(decoded).transpose()?;
    Ok(RedisServer { host, port: url.port().unwrap_or(DEFAULT_PORT), tls, user, password, database })
}

fn decoded(text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| wrong("a part of `url` is not UTF-8 after its escapes (`%41`) are decoded"))
}

/// The prefix becomes the hash tag of every key, so braces would change the cluster node of the keys.
fn check_prefix(prefix: &str) -> Result<()> {
    let is_one = (1..=64).contains(&prefix.len())
        && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte));
    match is_one {
        true => Ok(()),
        false => Err(wrong(format!("`prefix` is `{}`, expected {PREFIX_EXPECTED}", prefix.escape_debug()))),
    }
}

fn wrong(message: impl Into<String>) -> DriverError {
    DriverError::new(ErrorKind::Config, "open", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<RedisServer> {
        RedisServer::new(&RedisConfig { url: Some(url.into()), ..RedisConfig::default() })
    }

    #[test]
    fn addresses() {
        for (url, address, tls, user, password, database) in [
            ("redis://a", "a:6379", false, None, None, 0),
            ("rediss://a.example:7000/3", "a.example:7000", true, None, None, 3),
            ("redis://:p%40ss@127.0.0.1/", "127.0.0.1:6379", false, None, Some("p@ss"), 0),
            ("redis://me:x@[::1]:1", "[::1]:1", false, Some("me"), Some("x"), 0),
        ] {
            let found = target(url).unwrap();
            assert_eq!((found.address().as_str(), found.tls, found.database), (address, tls, database), "{url}");
            assert_eq!((found.user.as_deref(), found.password.as_deref()), (user, password), "{url}");
        }
    }

    #[test]
    fn what_is_no_address_is_not_quoted() {
        for url in [
            "hunter2",
            "http://:hunter2@a",
            "redis://:hunter2@",
            "redis:///0?hunter2",
            "redis://:hunter2@a/b",
            "redis://:hunter2@a?x=1",
            "redis://hunter2@a",
            "redis://:hunter2%FF@a",
        ] {
            let error = target(url).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn parts() {
        let part = |text: &str| Some(text.to_owned());
        let config = RedisConfig {
            host: part("::1"),
            user: part("me"),
            password: part("x"),
            database: Some(2.into()),
            ..RedisConfig::default()
        };
        let found = RedisServer::new(&config).unwrap();
        assert_eq!((found.address().as_str(), found.database), ("[::1]:6379", 2));
        for config in [
            RedisConfig::default(),
            RedisConfig { url: part("redis://a"), host: part("a"), ..RedisConfig::default() },
            RedisConfig { url: part("redis://a"), port: Some(1.into()), ..RedisConfig::default() },
            RedisConfig { url: part("redis://:x@a"), password: part("y"), ..RedisConfig::default() },
            RedisConfig { url: part("redis://a/1"), database: Some(2.into()), ..RedisConfig::default() },
            RedisConfig { host: part("a"), port: Some(65_536.into()), ..RedisConfig::default() },
            RedisConfig { host: part("a"), user: part("me"), ..RedisConfig::default() },
            RedisConfig { host: part("a"), prefix: part("a{b}"), ..RedisConfig::default() },
            RedisConfig { host: part("a"), prefix: part(""), ..RedisConfig::default() },
        ] {
            assert_eq!(RedisServer::new(&config).err().unwrap().kind(), ErrorKind::Config);
        }
    }
}
