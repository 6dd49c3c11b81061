//! Connecting to a server (name resolution, TCP, TLS), with a timeout separate from that of the response.
//!
//! A `reqwest` client has a single connection timeout for all its requests. The timeout of one request, and the moment
//! at which its connection was established, are passed through a task-local variable: the connection is made inside the
//! future of the request that needs it.

use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use crate::config::format_duration;

/// How long a connection may take to be established.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

tokio::task_local! {
    static CONNECTION: Arc<Connection>;
}

/// The state of the connection for a series of requests, each of which may reuse an existing connection.
pub(in crate::hooks) struct Connection {
    limit: Duration,
    /// When waiting for the response began; `None` while a connection is being made.
    waiting: watch::Sender<Option<Instant>>,
    timed_out: AtomicBool,
}

impl Default for Connection {
    fn default() -> Self {
        Connection::within(CONNECT_TIMEOUT)
    }
}

impl Connection {
    /// A connection that must be established within `limit`.
    pub(in crate::hooks) fn within(limit: Duration) -> Self {
        let limit = limit.min(CONNECT_TIMEOUT);
        Connection { limit, waiting: watch::channel(None).0, timed_out: AtomicBool::new(false) }
    }

    /// Whether establishing a connection timed out.
    pub(in crate::hooks) fn timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }

    /// Waits up to `limit` for a request's response, not counting the time in which a connection is made. `None` if it
    /// did not arrive.
    pub(super) async fn response<T>(
        self: &Arc<Self>,
        limit: Option<Duration>,
        request: impl Future<Output = T>,
    ) -> Option<T> {
        self.waiting.send_replace(Some(Instant::now()));
        let over = async {
            let mut waiting = self.waiting.subscribe();
            loop {
                let since = *waiting.borrow_and_update();
                let end = since.zip(limit).and_then(|(since, limit)| since.checked_add(limit));
                let passed = async {
                    match end {
                        Some(end) => tokio::time::sleep_until(end).await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    _ = waiting.changed() => {}
                    () = passed => return,
                }
            }
        };
        tokio::select! {
            biased;
            response = CONNECTION.scope(Arc::clone(self), request) => Some(response),
            () = over => None,
        }
    }

    async fn made<T>(&self, making: impl Future<Output = Result<T, BoxError>>) -> Result<T, BoxError> {
        self.waiting.send_replace(None);
        let made = tokio::time::timeout(self.limit, making).await;
        self.waiting.send_replace(Some(Instant::now()));
        made.unwrap_or_else(|_| {
            self.timed_out.store(true, Ordering::Relaxed);
            Err(NotMade(self.limit).into())
        })
    }
}

type BoxError = Box<dyn StdError + Send + Sync>;

/// The connection was not established in time.
#[derive(Debug)]
pub(super) struct NotMade(Duration);

impl fmt::Display for NotMade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection within {}", format_duration(self.0))
    }
}

impl StdError for NotMade {}

/// Wraps a client's connector in a [`Connector`].
#[derive(Clone, Copy)]
pub(super) struct Connecting;

impl<S> Layer<S> for Connecting {
    type Service = Connector<S>;

    fn layer(&self, inner: S) -> Connector<S> {
        Connector(inner)
    }
}

/// Makes connections within the timeout of the request that needs them.
#[derive(Clone)]
pub(super) struct Connector<S>(S);

impl<S, R> Service<R> for Connector<S>
where
    S: Service<R, Error = BoxError>,
    S::Future: Send + 'static,
    S::Response: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, to: R) -> Self::Future {
        let making = self.0.call(to);
        let connection = CONNECTION.try_with(Arc::clone).unwrap_or_default();
        Box::pin(async move { connection.made(making).await })
    }
}
