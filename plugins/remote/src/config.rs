//! The driver's settings.

use serde::Deserialize;
use snaphook_driver::{DriverError, ErrorKind, Result};
use url::Url;

use crate::encoding::Encoding;

pub(crate) const URL_EXPECTED: &str = "the address of a driver's host such as `http://127.0.0.1:1400`";
pub(crate) const ENCODING_EXPECTED: &str = "`json` or `protobuf`";
pub(crate) const TOKEN_EXPECTED: &str = "the token that the host asks for";

/// What stands below `driver = 'remote'`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteConfig {
    /// Where `/{store}/{method}` is added.
    pub url: String,
    #[serde(default)]
    pub encoding: Encoding,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<String>,
}

impl RemoteConfig {
    /// The address, without a slash at its end.
    pub(crate) fn base(&self) -> Result<String> {
        // Not shown: there may be a password in it.
        let wrong = || {
            let message =
                format!("`url` is no such address, expected {URL_EXPECTED}, without user, password and query");
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
