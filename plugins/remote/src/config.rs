//! The driver's settings.

use serde::Deserialize;
use snaphook_driver::{Connection, DriverError, ErrorKind, Result};
use url::Url;

use crate::encoding::Encoding;

pub(crate) const URL_EXPECTED: &str = "the address of a driver's host such as `http://127.0.0.1:1400`";
pub(crate) const ENCODING_EXPECTED: &str = "`json` or `protobuf`";
pub(crate) const TOKEN_EXPECTED: &str = "the token that the host requires";

/// The settings below `driver = 'remote'` in the table of a store: a host, or the name of a connection.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreConfig {
    connection: Option<Connection<RemoteConfig>>,
    url: Option<String>,
    encoding: Option<Encoding>,
    token: Option<String>,
}

/// The two forms of a [`StoreConfig`].
pub(crate) enum StoreLocation {
    Own(RemoteConfig),
    Shared(Connection<RemoteConfig>),
}

impl StoreConfig {
    pub(crate) fn place(self) -> Result<StoreLocation> {
        let fault = |message: &str| Err(DriverError::new(ErrorKind::Config, "open", message));
        match (self.connection, self.url) {
            (Some(connection), None) if self.encoding.is_none() && self.token.is_none() => {
                Ok(StoreLocation::Shared(connection))
            }
            (Some(_), _) => {
                fault("`connection` is set; move `url`, `encoding` and `token` into the table of that connection")
            }
            (None, Some(url)) => {
                let encoding = self.encoding.unwrap_or_default();
                Ok(StoreLocation::Own(RemoteConfig { url, encoding, token: self.token }))
            }
            (None, None) => fault(&format!("`url` is missing, expected {URL_EXPECTED}, or a `connection` that has it")),
        }
    }
}

/// The address and encoding of a host: the settings in `[connections.NAME]`.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteConfig {
    /// The base address, to which `/{store}/{method}` is appended.
    pub url: String,
    #[serde(default)]
    pub encoding: Encoding,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<String>,
}

impl RemoteConfig {
    /// The address without a trailing slash.
    pub(crate) fn base(&self) -> Result<String> {
        // Not shown, because it may contain a password.
        let wrong = || {
            let message =
                format!("`url` is not a valid address, expected {URL_EXPECTED}, without user, password and query");
            DriverError::new(ErrorKind::Config, "open", message)
        };
        let url = Url::parse(&self.url).map_err(|_| wrong())?;
        let is_usable = matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if is_usable { Ok(self.url.trim_end_matches('/').to_owned()) } else { Err(wrong()) }
    }
}
