//! One peer and the requests to it.

use std::error::Error as StdError;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, Url, redirect};
use snaphook_driver::{DriverError, ErrorKind, Result};

use crate::tls;

/// How long one request may take, where the settings do not say.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection without requests stays open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of a response that are read and dropped so that its connection can be used again: a peer may send back the largest
/// record, and a little more.
const DRAIN_BYTES_MAX: usize = 16 << 20;

/// Characters of a response that a message quotes.
const QUOTED_CHARS: usize = 200;

/// Another server: its address, the token, and the connections to it.
pub struct Peer {
    client: Client,
    /// Without a slash at the end, unless nothing else is in its path.
    base: Url,
    timeout: Duration,
}

/// What came back.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub content_type: Option<String>,
    /// Where a redirect, which is not followed, leads.
    pub location: Option<String>,
    /// How long the peer asks to be left alone.
    pub retry_after: Option<Duration>,
    /// The beginning of the body.
    pub body: Vec<u8>,
    /// `body` is all of it.
    pub is_whole: bool,
}

/// Why no response came: the request may have been carried out all the same.
#[derive(Clone, Debug)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Failure {}

impl Peer {
    /// `url` is the address that all paths follow, `token` what goes into `Authorization: Bearer`.
    pub fn new(url: &str, token: Option<&str>, timeout: Duration) -> Result<Peer> {
        let wrong = |message: String| DriverError::new(ErrorKind::Config, "open", message);
        // No message quotes the address: it may contain a password by mistake.
        let base = Url::parse(url).map_err(|error| wrong(format!("`url` is no address: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(wrong("`url` is no address that begins with `http://` or `https://`".into()));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(wrong("`url` contains a name or a password, use `token`".into()));
        }
        if base.fragment().is_some() {
            return Err(wrong("`url` contains `#`".into()));
        }
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| wrong("`token` contains characters that no header may have".into()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let failed = |error: &dyn StdError| wrong(format!("the HTTP client cannot start: {}", causes(error)));
        let tls = tls::config(base.scheme() == "https").map_err(|error| failed(&error))?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .default_headers(headers)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .pool_idle_timeout(IDLE_TIMEOUT)
            .user_agent(concat!("snaphook/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| failed(&error))?;
        Ok(Peer { client, base, timeout })
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

    /// Sends one request and waits for the response, of which at most `body_max` bytes are kept. `path` follows the base
    /// address; what a URL must not contain as it is has been escaped. A body is JSON.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        body_max: usize,
    ) -> Result<Response, Failure> {
        let url = self.url(path)?;
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
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
        };
        // The status says what happened, whatever becomes of the body.
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

    fn url(&self, path: &str) -> Result<Url, Failure> {
        if path.is_empty() {
            return Ok(self.base.clone());
        }
        let mut url = self.base.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        if let Some(query) = query {
            url.set_query(Some(query));
        }
        Ok(url)
    }
}

impl Response {
    /// What a driver says of a response that it did not expect, such as `the peer answered 400: {"error": …}`.
    pub fn complaint(&self) -> String {
        if let (300..400, Some(location)) = (self.status, &self.location) {
            return format!(
                "the peer answered {} and redirects to {}, which is not followed; `url` must be the final address",
                self.status,
                quoted(location)
            );
        }
        let text = String::from_utf8_lossy(&self.body);
        match text.trim() {
            "" => format!("the peer answered {}", self.status),
            text => format!("the peer answered {}: {}", self.status, quoted(text)),
        }
    }
}

/// The beginning of a text, without characters that a terminal obeys.
fn quoted(text: &str) -> String {
    let mut shown: String =
        text.chars().take(QUOTED_CHARS).map(|char| if char.is_control() { ' ' } else { char }).collect();
    if text.chars().nth(QUOTED_CHARS).is_some() {
        shown.push('…');
    }
    shown
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

/// An error with everything below it: reqwest's own text is only "error sending request".
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
