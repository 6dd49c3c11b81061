//! One peer and the requests to it.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, Url, redirect};
use snaphook_driver::{DriverError, ErrorKind, Result, Store};

use crate::response::Response;
use crate::secrets::Secrets;
use crate::settings::Timeout;
use crate::tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection without requests stays open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How many bytes of a response are read and discarded so that its connection can be reused: a peer may return the
/// largest record and a little more.
const DRAIN_BYTES_MAX: usize = 16 << 20;

/// Headers that belong to the connection and its messages; the settings must not contain them.
const HEADERS_OF_MESSAGES: [&str; 4] = ["connection", "content-length", "host", "transfer-encoding"];

/// Headers whose values are not secret and help to understand a message.
const HEADERS_SHOWN: [&str; 3] = ["accept", "content-type", "prefer"];

/// A value of the settings with at least this many characters is treated as a secret. Shorter ones, such as a version,
/// stay readable in messages.
const SECRET_CHARS_MIN: usize = 6;

/// Another server: its address, the token, and the connections to it.
pub struct Peer {
    client: Client,
    base: Url,
    /// Headers of every request.
    headers: HeaderMap,
    timeout: Duration,
    secrets: Secrets,
}

/// Why there is no response. The request may nevertheless have been carried out.
#[derive(Clone, Debug)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Failure {}

impl Peer {
    /// Creates the peer of a store. Logs a warning if the token would cross a network in the clear.
    pub fn open(store: Store, url: &str, token: Option<&str>, timeout: Timeout) -> Result<Peer> {
        let peer = Peer::new(url, token, timeout.get())?;
        if token.is_some() && peer.is_open() {
            tracing::warn!("the token of the {store} storage is sent unencrypted, use `https`");
        }
        Ok(peer)
    }

    /// `url` is the base address of all paths and `token` the value for `Authorization: Bearer`. A query in `url` is
    /// part of every request.
    pub fn new(url: &str, token: Option<&str>, timeout: Duration) -> Result<Peer> {
        // No message quotes the address: it may contain a password by mistake.
        let base = Url::parse(url).map_err(|error| wrong(format!("`url` is not a valid address: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(wrong("`url` is not an address that begins with `http://` or `https://`".into()));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(wrong("`url` contains a name or a password, use `token`".into()));
        }
        if base.fragment().is_some() {
            return Err(wrong("`url` contains `#`".into()));
        }
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let value = header_value(&format!("Bearer {token}"));
            headers.insert(AUTHORIZATION, value.map_err(|reason| wrong(format!("`token` {reason}")))?);
        }
        let failed = |error: &dyn StdError| wrong(format!("the HTTP client cannot start: {}", causes(error)));
        let tls = tls::config(base.scheme() == "https").map_err(|error| failed(&error))?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .pool_idle_timeout(IDLE_TIMEOUT)
            .user_agent(concat!("snaphook/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| failed(&error))?;
        let as_written =
            base.query().unwrap_or("").split('&').filter_map(|pair| Some(pair.split_once('=')?.1.to_owned()));
        let values = base.query_pairs().map(|(_, value)| value.into_owned()).chain(as_written);
        let values = values.filter(|value| value.len() >= SECRET_CHARS_MIN);
        let secrets = Secrets::default().and(values.chain(token.map(str::to_owned)));
        Ok(Peer { client, base, headers, timeout, secrets })
    }

    /// The same peer, with additional headers in each request; they override those that the driver sends.
    pub fn with_headers(mut self, headers: &BTreeMap<String, String>) -> Result<Peer> {
        for (name, value) in headers {
            let fault = |reason: &str| wrong(format!("`headers.{name}` {reason}"));
            let name = HeaderName::try_from(name.as_str()).map_err(|_| fault("is not a valid header name"))?;
            if HEADERS_OF_MESSAGES.contains(&name.as_str()) {
                return Err(fault("belongs to the connection and cannot be set"));
            }
            let value = header_value(value).map_err(fault)?;
            if self.headers.insert(&name, value).is_some() {
                return Err(fault(match name == AUTHORIZATION {
                    true => "and `token` are the same header, use one of them",
                    false => "is set twice",
                }));
            }
        }
        let may_be_secret =
            headers.iter().filter(|(name, _)| !HEADERS_SHOWN.contains(&name.to_ascii_lowercase().as_str()));
        // The part after `Basic ` may be echoed alone.
        let values = may_be_secret.flat_map(|(_, value)| value.split_ascii_whitespace().chain([value.as_str()]));
        self.secrets = self.secrets.and(values.filter(|value| value.len() >= SECRET_CHARS_MIN).map(str::to_owned));
        Ok(self)
    }

    /// Whether the token would cross a network in the clear.
    pub fn is_open(&self) -> bool {
        let is_local = match self.base.host_str() {
            Some(host) => {
                let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
                host == "localhost" || address.is_ok_and(|address| address.is_loopback())
            }
            None => false,
        };
        self.base.scheme() == "http" && !is_local
    }

    /// Sends one request and waits for the response, of which at most `body_max` bytes are kept. `path` is appended to
    /// the base address and must already be escaped. A body is JSON.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        body_max: usize,
    ) -> Result<Response, Failure> {
        let url = self.url(path);
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let request = request.headers(self.headers.clone());
        let deadline = tokio::time::Instant::now() + self.timeout;
        let late = |_| Failure(format!("no response within {:.1} s", self.timeout.as_secs_f64()));
        let sent = tokio::time::timeout_at(deadline, request.send()).await.map_err(late)?;
        let mut response = sent.map_err(|error| Failure(causes(&error.without_url())))?;
        let header = |name| {
            let value = response.headers().get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let mut found = Response {
            status: response.status().as_u16(),
            content_type: header(CONTENT_TYPE),
            location: header(LOCATION),
            retry_after: header(RETRY_AFTER).and_then(|text| retry_after(&text)),
            body: Vec::new(),
            is_whole: false,
            secrets: self.secrets.clone(),
        };
        // The status gives the outcome, even if reading the body fails.
        let body = &mut found.body;
        let read = async {
            let mut length = 0;
            while let Ok(chunk) = response.chunk().await {
                let Some(chunk) = chunk else { return length <= body_max };
                length += chunk.len();
                body.extend_from_slice(&chunk[..chunk.len().min(body_max - body.len())]);
                if length > DRAIN_BYTES_MAX.max(body_max) {
                    break;
                }
            }
            false
        };
        found.is_whole = tokio::time::timeout_at(deadline, read).await.unwrap_or(false);
        Ok(found)
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        if path.is_empty() {
            return url;
        }
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        if let Some(query) = query {
            let both = self.base.query().filter(|own| !own.is_empty()).map(|own| format!("{own}&{query}"));
            url.set_query(Some(both.as_deref().unwrap_or(query)));
        }
        url
    }
}

fn wrong(message: String) -> DriverError {
    DriverError::new(ErrorKind::Config, "open", message)
}

/// A header value that is never logged.
fn header_value(text: &str) -> Result<HeaderValue, &'static str> {
    let mut value = HeaderValue::try_from(text).map_err(|_| "contains characters that are not allowed in a header")?;
    value.set_sensitive(true);
    Ok(value)
}

/// Seconds, or a date.
fn retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// An error with all of its causes: reqwest's own text is only "error sending request".
fn causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
