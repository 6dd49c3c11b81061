//! The HTTP clients of all hooks: they resolve names and limit how much of a response is kept.
//!
//! There are two, because connections are pooled: one never connects to an address that is not public, and the other is
//! for hosts that a grant names in full. With a single pool, a connection made for the second kind could be reused for
//! the first. The filter is in the resolver that the connector itself uses, so the checked address is the one that it
//! connects to.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_LENGTH, HeaderMap};
use reqwest::{Client, Method, Response, redirect};
use url::Url;

use super::super::super::access::{AccessCode, AccessError};
use super::super::super::host_call::HostError;
use super::super::super::host_memory::Held;
use super::address;
use super::connection::{Connecting, Connection, NotMade};
use super::url_pattern::TargetUrl;
use crate::config::{format_duration, format_size};
use crate::hooks::fair::{self, FairSemaphore, Share};

/// Largest body of one response.
pub(super) const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Total bytes of the responses in progress, over all hooks. They do not count toward any sandbox's memory limit.
const BUFFERED_BYTES_MAX: usize = 512 * 1024 * 1024;

/// How many requests all hooks together may make at once. Each may occupy a thread while the system resolves its name.
const REQUESTS_MAX: usize = 256;

/// How much is read of a body of which only the first bytes are wanted, and for how long.
const EXCERPT_READ_MAX: usize = 64 * 1024;
const EXCERPT_TIME: Duration = Duration::from_secs(1);

const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const IDLE_PER_HOST_MAX: usize = 8;

/// Resolves a name to addresses.
pub type Lookup = dyn Fn(String) -> LookupFuture + Send + Sync;
type LookupFuture = Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>>;

/// Both clients. Each is created on first use, because reading the system's certificates takes a while.
pub struct HttpClient {
    lookup: Arc<Lookup>,
    public: OnceLock<Client>,
    named: OnceLock<Client>,
    buffered_bytes: AtomicUsize,
    places: FairSemaphore,
}

/// Timeouts for the parts of one request, and how much of the response to wait for. A part without its own timeout is
/// only bounded by the timeout of the whole request.
#[derive(Clone, Default)]
pub(in crate::hooks) struct Pace {
    pub(in crate::hooks) connection: Arc<Connection>,
    /// From the established connection to the response's head.
    pub(in crate::hooks) first_byte: Option<Duration>,
    /// Between two chunks of the response's body.
    pub(in crate::hooks) between_bytes: Option<Duration>,
    /// At most this many bytes of the body are wanted; the response does not wait for the rest.
    pub(in crate::hooks) excerpt: Option<usize>,
    /// The URL's path and query are confidential: neither messages nor traces show them, except for the lines that
    /// would grant a rejected request.
    pub(in crate::hooks) hides_path: bool,
}

impl Pace {
    pub(super) fn shown(&self, target: &TargetUrl) -> String {
        match self.hides_path {
            true => target.server(),
            false => target.to_string(),
        }
    }
}

/// Who makes a request, and how it is sent.
pub(super) struct Terms {
    /// Identifies the hook for fair sharing of the requests.
    pub(super) key: fair::Key,
    /// The grant names the host in full.
    pub(super) named: bool,
    pub(super) pace: Pace,
}

/// The error for a part of a request that exceeded its timeout.
fn late(what: &str, limit: Option<Duration>) -> AccessError {
    let limit = format_duration(limit.unwrap_or_default());
    AccessError::new(AccessCode::Timeout, format!("{what} within {limit}"))
}

/// One complete response.
pub(super) struct CompleteResponse {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Default for HttpClient {
    fn default() -> Self {
        HttpClient::with_lookup(Arc::new(|name| {
            Box::pin(async move {
                let addresses = tokio::net::lookup_host((name.as_str(), 0)).await?;
                Ok(addresses.map(|address| address.ip()).collect())
            })
        }))
    }
}

impl HttpClient {
    /// Creates clients with a custom resolver instead of the system's.
    pub fn with_lookup(lookup: Arc<Lookup>) -> Self {
        HttpClient {
            lookup,
            public: OnceLock::new(),
            named: OnceLock::new(),
            buffered_bytes: AtomicUsize::new(0),
            places: FairSemaphore::new(REQUESTS_MAX, Share::LeavesSome),
        }
    }

    /// Sends one request and reads the whole response; does not follow redirects.
    ///
    /// If the host is an IP address, the caller has checked it: connectors do not pass it to a resolver. The received
    /// bytes are counted in `held`.
    pub(super) async fn send(
        &self,
        terms: Terms,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
        held: &mut Held<'_>,
    ) -> Result<CompleteResponse, HostError> {
        let Terms { key, named, pace } = terms;
        let _place = self.places.acquire(key, 1).await;
        let takes_body = [Method::POST, Method::PUT, Method::PATCH].contains(&method);
        let mut request = self.client(named)?.request(method, url).headers(headers);
        if !body.is_empty() {
            request = request.body(body);
        } else if takes_body {
            // Otherwise many servers respond with 411.
            request = request.header(CONTENT_LENGTH, 0);
        }
        let response = pace.connection.response(pace.first_byte, request.send()).await;
        let mut response = response.ok_or_else(|| late("no response", pace.first_byte))?.map_err(explain)?;
        if let Some(bytes_max) = pace.excerpt {
            let body = excerpt(&mut response, bytes_max).await;
            return Ok(CompleteResponse {
                status: response.status().as_u16(),
                headers: response.headers().clone(),
                body,
            });
        }
        let announced = response.content_length().unwrap_or(0);
        if announced > BODY_BYTES_MAX as u64 {
            return Err(too_large().into());
        }
        let mut buffered = Buffered { client: self, bytes: 0 };
        let mut answer = CompleteResponse {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: Vec::new(),
        };
        let next = async |response: &mut Response| {
            let Some(limit) = pace.between_bytes else { return response.chunk().await.map_err(explain) };
            let chunk = tokio::time::timeout(limit, response.chunk()).await;
            chunk.map_err(|_| late("the response's body did not continue", Some(limit)))?.map_err(explain)
        };
        while let Some(chunk) = next(&mut response).await? {
            if answer.body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(too_large().into());
            }
            buffered.add(chunk.len())?;
            held.grow(chunk.len())?;
            answer.body.extend_from_slice(&chunk);
        }
        Ok(answer)
    }

    fn client(&self, named: bool) -> Result<&Client, AccessError> {
        let (cell, public_only) = if named { (&self.named, false) } else { (&self.public, true) };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let client = build(Resolver { lookup: Arc::clone(&self.lookup), public_only })?;
        Ok(cell.get_or_init(|| client))
    }
}

/// The first bytes of a body. A short body is read to its end, so that its connection can be reused. The rest is
/// dropped if it is late, breaks off or is long.
async fn excerpt(response: &mut Response, bytes_max: usize) -> Vec<u8> {
    let (mut kept, mut read) = (Vec::new(), 0);
    let reading = async {
        while read < EXCERPT_READ_MAX
            && let Ok(Some(chunk)) = response.chunk().await
        {
            read += chunk.len();
            let wanted = chunk.len().min(bytes_max - kept.len());
            kept.extend_from_slice(&chunk[..wanted]);
        }
    };
    let _ = tokio::time::timeout(EXCERPT_TIME, reading).await;
    kept
}

fn build(resolver: Resolver) -> Result<Client, AccessError> {
    // An error means that a provider is already installed, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let resolver = Arc::new(resolver);
    let builder = || {
        Client::builder()
            .dns_resolver(Arc::clone(&resolver))
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .connector_layer(Connecting)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .user_agent(concat!("snaphook/", env!("CARGO_PKG_VERSION")))
    };
    // A machine without any certificates can still use plain HTTP; TLS then trusts no certificate.
    builder().build().or_else(|_| builder().tls_certs_only([]).build()).map_err(|error| {
        AccessError::new(AccessCode::Failed, format!("the HTTP client cannot start: {}", causes(&error)))
    })
}

/// Bytes of one response that count against [`BUFFERED_BYTES_MAX`] while it is read.
struct Buffered<'a> {
    client: &'a HttpClient,
    bytes: usize,
}

impl Buffered<'_> {
    fn add(&mut self, bytes: usize) -> Result<(), AccessError> {
        self.bytes += bytes;
        let before = self.client.buffered_bytes.fetch_add(bytes, Ordering::Relaxed);
        match before + bytes > BUFFERED_BYTES_MAX {
            true => Err(AccessError::new(
                AccessCode::Failed,
                format!(
                    "the responses for all hooks together exceed {} at the moment; try again later",
                    format_size(BUFFERED_BYTES_MAX)
                ),
            )),
            false => Ok(()),
        }
    }
}

impl Drop for Buffered<'_> {
    fn drop(&mut self) {
        self.client.buffered_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Resolver {
    lookup: Arc<Lookup>,
    public_only: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let public_only = self.public_only;
        let host = name.as_str().to_owned();
        let found = (self.lookup)(host.clone());
        Box::pin(async move {
            let mut addresses = found.await?;
            if public_only {
                let refused = addresses.iter().find_map(|&found| Some((found, address::special(found)?)));
                addresses.retain(|&found| address::special(found).is_none());
                if let (true, Some((address, kind))) = (addresses.is_empty(), refused) {
                    return Err(Refused { host, address, kind }.into());
                }
            }
            if addresses.is_empty() {
                return Err(format!("`{host}` has no address").into());
            }
            Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

/// The error for a name that resolves to addresses that are not public.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) host: String,
    pub(super) address: IpAddr,
    pub(super) kind: &'static str,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused { host, address, kind } = self;
        match host.trim_matches(['[', ']']) == address.to_string() {
            true => write!(f, "`{host}` is {kind} address"),
            false => write!(f, "`{host}` resolves to {address}, {kind} address"),
        }
    }
}

impl StdError for Refused {}

/// Converts an error to one for the guest. It never contains the URL's query or a header.
fn explain(error: reqwest::Error) -> AccessError {
    let mut source: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return AccessError::new(AccessCode::Denied, refused.to_string());
        }
        if let Some(not_made) = cause.downcast_ref::<NotMade>() {
            return AccessError::new(AccessCode::Timeout, not_made.to_string());
        }
        source = cause.source();
    }
    // The system has its own timeouts.
    let code = if error.is_timeout() { AccessCode::Timeout } else { AccessCode::Failed };
    AccessError::new(code, causes(&error.without_url()))
}

/// The whole chain of causes: the outermost message only says that something failed.
fn causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = cause.source();
    }
    text
}

fn too_large() -> AccessError {
    AccessError::new(AccessCode::TooLarge, format!("the response exceeds {}", format_size(BODY_BYTES_MAX)))
}
