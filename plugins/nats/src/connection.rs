//! The client of one `[connections.NAME]`, shared by all stores that refer to it, and publishing of messages.

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, Event, HeaderMap, RequestErrorKind};
use bytes::Bytes;
use serde::Deserialize;
use snaphook_driver::{Connection, Connections, DriverError, ErrorKind, Result};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::config::{LinkConfig, StoreConfig, Tls};
use crate::fault::{Refusal, unavailable};
use crate::monitor;

/// The first server version with `sync_interval`.
const VERSION_LEAST: (u64, u64) = (2, 9);

/// Size of one part of a value. It fits easily into the message size that every server accepts.
pub(crate) const PART_BYTES: usize = 128 * 1024;

/// Additional size of a message: subject, headers, the frame.
const FRAME_BYTES: usize = 16 * 1024;

/// Payload size that a server must accept: a part of the data as in its responses, in base64 within JSON.
pub(crate) const PAYLOAD_LEAST: usize = 2 * PART_BYTES + FRAME_BYTES;

/// Timeout of a request to the server. Electing a new leader of a cluster takes longer; the request is then repeated.
pub(crate) const REQUEST_TIME: Duration = Duration::from_secs(3);

/// How many times a read is attempted before the call fails.
pub(crate) const READ_TRIES: u32 = 2;

/// How long a connection may be lost before a call fails.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// Timeout of connecting to one server.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// The interval of pings.
const PING: Duration = Duration::from_secs(5);

/// Longest pause between two attempts to reconnect.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);

static LINKS: Connections<LinkConfig, Link> = Connections::new();

/// A client with its configuration.
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) jetstream: Context,
    pub(crate) config: LinkConfig,
    is_connected: watch::Receiver<bool>,
}

/// Why a message was not stored.
pub(crate) enum Unstored {
    /// The server rejected it.
    Refused(Refusal),
    /// No server currently accepts such messages.
    Nobody,
    /// It may have been stored, or may be stored later.
    Unknown,
}

impl Unstored {
    pub(crate) fn into_error(self, operation: &'static str) -> DriverError {
        match self {
            Unstored::Refused(refusal) => refusal.into_error(operation),
            Unstored::Nobody => DriverError::new(
                ErrorKind::Unavailable,
                operation,
                "no server currently accepts messages for the stream; it may have no leader, or JetStream may be disabled",
            ),
            Unstored::Unknown => {
                DriverError::new(ErrorKind::Unavailable, operation, "the server did not acknowledge a message in time")
            }
        }
    }
}

impl Link {
    /// Returns the client of a store's connection. The server is checked whenever a store is opened.
    pub(crate) async fn of(config: &StoreConfig) -> Result<Arc<Link>> {
        let connection: &Connection<LinkConfig> = &config.connection;
        let named = |error: DriverError| error.with("connection", &connection.name);
        let link = LINKS.open(connection, async || connect(&connection.settings).await).await.map_err(named)?;
        link.connected("open").await.map_err(named)?;
        link.check().map_err(named)?;
        monitor::check(&link.config).await.map_err(named)?;
        Ok(link)
    }

    /// Waits for a connection; an error if there is none for a while.
    pub(crate) async fn connected(&self, operation: &'static str) -> Result<()> {
        if self.client.connection_state() == State::Connected {
            return Ok(());
        }
        let mut is_connected = self.is_connected.clone();
        let deadline = Instant::now() + RECONNECT_PATIENCE;
        while self.client.connection_state() != State::Connected {
            // The client reports the connection slightly before or after it can be used.
            let is_late = timeout_at(deadline, is_connected.wait_for(|is| *is)).await.is_err();
            if is_late || Instant::now() >= deadline {
                return Err(DriverError::new(
                    ErrorKind::Unavailable,
                    operation,
                    "NATS is not connected; the driver keeps reconnecting",
                ));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Publishes a message to a stream. Returns its sequence there.
    pub(crate) async fn publish(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> std::result::Result<u64, Unstored> {
        let reply = self.client.request_with_headers(subject, headers, payload).await;
        let reply = reply.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => Unstored::Nobody,
            RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::InvalidSubject => {
                Unstored::Refused(Refusal { code: 0, description: error.to_string() })
            }
            _ => Unstored::Unknown,
        })?;
        let acknowledgement: Acknowledgement =
            snaphook_driver::json::typed_bytes(&reply.payload).map_err(|_| Unstored::Unknown)?;
        match acknowledgement {
            Acknowledgement { error: Some(error), .. } => {
                let refusal = Refusal::from(error);
                Err(if refusal.is_certain(self.config.replicas()) {
                    Unstored::Refused(refusal)
                } else {
                    Unstored::Unknown
                })
            }
            Acknowledgement { seq: Some(sequence), .. } => Ok(sequence),
            _ => Err(Unstored::Unknown),
        }
    }

    fn check(&self) -> Result<()> {
        let info = self.client.server_info();
        let mut numbers = info.version.split(['.', '-']).map(|number| number.parse::<u64>().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let fault = |message: String| Err(DriverError::new(ErrorKind::Config, "open", message));
        if version < VERSION_LEAST {
            let (major, minor) = VERSION_LEAST;
            return fault(format!("the server has version {}, expected {major}.{minor} or newer", info.version));
        }
        if !info.jetstream {
            return fault("JetStream is disabled on the server; add `jetstream {}` to its configuration".to_owned());
        }
        if info.max_payload < PAYLOAD_LEAST {
            return fault(format!(
                "the server accepts messages of at most {} bytes, expected {PAYLOAD_LEAST}; raise `max_payload` in its \
                 configuration",
                info.max_payload
            ));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Acknowledgement {
    seq: Option<u64>,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Refusal { code: error.err_code, description: error.description }
    }
}

async fn connect(config: &LinkConfig) -> Result<Link> {
    let (told, is_connected) = watch::channel(false);
    let told = Arc::new(told);
    let mut options = ConnectOptions::new()
        .name("snaphook")
        .connection_timeout(CONNECT_TIME)
        .request_timeout(Some(REQUEST_TIME))
        .ping_interval(PING)
        .reconnect_delay_callback(|attempt| {
            Duration::from_millis(100).saturating_mul(attempt.min(20) as u32).min(RECONNECT_PAUSE_MAX)
        })
        .event_callback(move |event| {
            let told = Arc::clone(&told);
            async move {
                match event {
                    Event::Connected => told.send_modify(|is| *is = true),
                    Event::Disconnected | Event::Closed => told.send_modify(|is| *is = false),
                    event => tracing::debug!(%event, "nats"),
                }
            }
        });
    if let Some(path) = &config.credentials {
        options = options.credentials_file(path).await.map_err(|error| {
            DriverError::new(ErrorKind::Config, "open", "the file in `credentials` cannot be used")
                .with("path", path.display())
                .because(error)
        })?;
    }
    // The client ignores credentials in an address.
    let addresses = config.addresses()?;
    let within = addresses.iter().find_map(|address| Some((text(address.username()?), address.password().map(text))));
    options = match (&config.token, &config.user, &config.password, within) {
        (Some(token), ..) => options.token(token.clone()),
        (None, Some(user), Some(password), _) => options.user_and_password(user.clone(), password.clone()),
        (None, _, _, Some((user, Some(password)))) => options.user_and_password(user, password),
        (None, _, _, Some((token, None))) => options.token(token),
        _ => options,
    };
    if let Some(path) = &config.ca {
        options = options.add_root_certificates(path.clone());
    }
    options = options.require_tls(config.tls == Tls::Require);
    let connected = options.connect(addresses).await;
    let client = connected.map_err(unavailable("open", "NATS"))?;
    let mut jetstream = jetstream::new(client.clone());
    jetstream.set_timeout(REQUEST_TIME);
    Ok(Link { client, jetstream, config: config.clone(), is_connected })
}

/// Decodes the escaped characters in a part of an address.
fn text(part: &str) -> String {
    percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
}
