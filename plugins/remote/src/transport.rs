//! Sends calls over HTTP. Responses of a host are limited in size and time, and never trusted.

use std::error::Error as _;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, StatusCode, redirect};
use snaphook_driver::wire::proto::{self, OpenRequest, OpenResponse};
use snaphook_driver::wire::{CALL_TIME, Method, Transport, decode, encode};
use snaphook_driver::{DriverError, ErrorKind, PAGE_BYTES_MAX, Result, Store};

use crate::config::RemoteConfig;
use crate::encoding::Encoding;

/// Largest body of a request or response: a page with its escapes, or a blob as base64.
pub(crate) const BODY_BYTES_MAX: usize = 4 * PAGE_BYTES_MAX;

/// Size of the data in one batch of events: as JSON within JSON it may be twice as long, plus the other parts of each
/// event.
const BATCH_BYTES_MAX: u64 = PAGE_BYTES_MAX as u64;

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Less than the time after which hosts and proxies usually close idle connections: an append on a connection that is
/// being closed has an unknown outcome.
const IDLE: Duration = Duration::from_secs(10);

/// Sends calls to the stores of a host.
pub(crate) struct HttpTransport {
    client: Client,
    base: String,
    encoding: Encoding,
    authorization: Option<HeaderValue>,
}

impl HttpTransport {
    /// Connects on first use.
    pub(crate) fn new(config: &RemoteConfig) -> Result<HttpTransport> {
        let fault = |message: String| DriverError::new(ErrorKind::Config, "open", message);
        let authorization = config.token.as_ref().map(|token| HeaderValue::try_from(format!("Bearer {token}")));
        let mut authorization = authorization
            .transpose()
            .map_err(|_| fault("`token` has characters that are not allowed in an HTTP header".into()))?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        // Selects the process's TLS implementation; an error means that it is already selected.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            Client::builder()
                .connect_timeout(CONNECT_PATIENCE)
                .pool_idle_timeout(IDLE)
                .tcp_nodelay(true)
                .no_proxy()
                // Only the configuration determines the address of a store.
                .redirect(redirect::Policy::none())
        };
        // A machine without any certificates can still use plain HTTP.
        let client = builder().build().or_else(|_| builder().tls_certs_only([]).build());
        let client = client.map_err(|error| fault("the HTTP client cannot start".into()).because(error))?;
        Ok(HttpTransport { client, base: config.base()?, encoding: config.encoding, authorization })
    }

    /// Opens the host's store of that kind.
    pub(crate) async fn open(&self, store: Store, node: &str) -> Result<OpenResponse> {
        let request =
            OpenRequest { store: proto::Store::from(store).into(), node: node.to_owned(), ..OpenRequest::default() };
        let path = format!("{store}/open");
        let response = self.post(&path, "OpenRequest", "OpenResponse", encode(&request), CALL_TIME).await;
        // Opening changes nothing, so it can be retried even if its outcome is unknown.
        let response = response.map_err(|error| match error.kind() {
            ErrorKind::Uncertain => error.as_kind(ErrorKind::Unavailable),
            _ => error,
        })?;
        let mut opened: OpenResponse =
            decode(&response).map_err(|error| garbage("open", ErrorKind::Unexpected, &error))?;
        if let Some(capabilities) = &mut opened.capabilities {
            capabilities.batch_bytes_max = match capabilities.batch_bytes_max {
                0 => BATCH_BYTES_MAX,
                bytes => bytes.min(BATCH_BYTES_MAX),
            };
        }
        Ok(opened)
    }

    /// Sends one request. Both messages are Protobuf here. `operation` is the last part of the path.
    async fn post(
        &self,
        path: &str,
        request_message: &str,
        response_message: &str,
        request: Vec<u8>,
        time: Duration,
    ) -> Result<Vec<u8>> {
        let operation = path.rsplit('/').next().unwrap_or_default().to_owned();
        let url = format!("{}/{path}", self.base);
        let body = self.encoding.write(request_message, request);
        let body = body.map_err(|error| {
            DriverError::new(ErrorKind::Invalid, operation.clone(), "the request cannot be written").because(error)
        })?;
        // A host may close the connection before it has read everything, and then the outcome would be unknown.
        if body.len() > BODY_BYTES_MAX {
            let message = format!("the request has {} bytes, at most {BODY_BYTES_MAX} are allowed", body.len());
            return Err(DriverError::new(ErrorKind::Invalid, operation, message));
        }
        let mut post = self.client.post(&url).timeout(time).header(CONTENT_TYPE, self.encoding.media_type()).body(body);
        if let Some(authorization) = &self.authorization {
            post = post.header(AUTHORIZATION, authorization.clone());
        }
        let response = post.send().await.map_err(|error| broken(&operation, &url, error))?;
        let status = response.status();
        let encoding = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let encoding = encoding.and_then(Encoding::from_media_type);
        let bytes = whole(&operation, &url, response).await?;
        if status.is_success() {
            // A page from an intermediary is not a response, even if its text could be parsed as one.
            if encoding != Some(self.encoding) {
                let message = format!("the response is not `{}`", self.encoding.media_type());
                return Err(DriverError::new(ErrorKind::Uncertain, operation, message).with("url", url));
            }
            let message = self.encoding.read(response_message, bytes);
            return message.map_err(|error| garbage(&operation, ErrorKind::Uncertain, &error));
        }
        // An intermediary may also respond with JSON: a host's error names its operation.
        let error = encoding.and_then(|encoding| encoding.read("Error", bytes).ok());
        let error = error.and_then(|bytes| decode::<proto::Error>(&bytes).ok());
        let error = error.filter(|error| !error.operation.is_empty());
        Err(match (status, error) {
            (StatusCode::UNAUTHORIZED, _) | (StatusCode::FORBIDDEN, None) => {
                let message = "the host rejects the token; set `token` to the one that the host was started with";
                DriverError::new(ErrorKind::Config, operation, message).with("url", url)
            }
            (_, Some(error)) => error.into(),
            // An intermediary responded, or the server is not a host. It is unknown whether the request was forwarded.
            (status, None) if status.is_server_error() || is_passing(status) => {
                DriverError::new(ErrorKind::Uncertain, operation, format!("the response has status {status}"))
                    .with("url", url)
            }
            (StatusCode::PAYLOAD_TOO_LARGE, None) => {
                let message = format!(
                    "a proxy in front of the host rejects a request of this size; allow {BODY_BYTES_MAX} bytes there"
                );
                DriverError::new(ErrorKind::Config, operation, message).with("url", url)
            }
            (status, None) => {
                let message = format!("the response has status {status}, which no driver host sends; check `url`");
                DriverError::new(ErrorKind::Config, operation, message).with("url", url)
            }
        })
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn call(&self, method: Method, request: Vec<u8>) -> Result<Vec<u8>> {
        let time = method.time(method.own_time(&request));
        let path = format!("{}/{}", method.store(), method.name());
        self.post(&path, &method.request(), &method.response(), request, time).await
    }
}

/// Whether the same request may succeed later, although the status blames the client.
fn is_passing(status: StatusCode) -> bool {
    matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS)
}

/// Reads the complete body if it is not too large.
async fn whole(operation: &str, url: &str, mut response: Response) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(operation, url, error))? {
        if bytes.len() + chunk.len() > BODY_BYTES_MAX {
            let message = format!("the response has more than {} MiB", BODY_BYTES_MAX >> 20);
            return Err(DriverError::new(ErrorKind::Uncertain, operation.to_owned(), message).with("url", url));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The error for a request without a complete response. Without a connection, nothing was done.
fn broken(operation: &str, url: &str, error: reqwest::Error) -> DriverError {
    let (kind, message) = if error.is_connect() {
        (ErrorKind::Unavailable, "the host cannot be reached")
    } else if error.is_timeout() {
        (ErrorKind::Uncertain, "the host did not respond in time")
    } else {
        (ErrorKind::Uncertain, "the connection broke")
    };
    DriverError::new(kind, operation.to_owned(), message).with("url", url).because(causes(&error))
}

/// The causes of an error, which itself only says that sending failed.
fn causes(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn garbage(operation: &str, kind: ErrorKind, error: &dyn std::error::Error) -> DriverError {
    DriverError::new(kind, operation.to_owned(), format!("the host's response cannot be read: {error}"))
}
