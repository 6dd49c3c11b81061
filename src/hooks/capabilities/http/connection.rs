//! The way to a server (its name, TCP, TLS), bounded by itself and apart from the response that follows.
//!
//! A client of `reqwest` bounds that way alike for all its requests. What one request allows, and when its connection was
//! there, goes through the task: a connection is made inside the future of the request that needs it.

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

/// Longest that a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

tokio::task_local! {
    static CONNECTION: Arc<Connection>;
}

/// The connection of one request after another, each of which may find one that is there already.
pub(in crate::hooks) struct Connection {
    limit: Duration,
    /// Since when the response is waited for; `None`: a connection is being made.
    waiting: watch::Sender<Option<Instant>>,
    timed_out: AtomicBool,
}

impl Default for Connection {
    fn default() -> Self {
        Connection::within(CONNECT_TIMEOUT)
    }
}

impl Connection {
    /// One that is made within `limit`, or fails.
    pub(in crate::hooks) fn within(limit: Duration) -> Self {
        let limit = limit.min(CONNECT_TIMEOUT);
        Connection { limit, waiting: watch::channel(None).0, timed_out: AtomicBool::new(false) }
    }

    /// Whether one was not made in time.
    pub(in crate::hooks) fn timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }

    /// Waits for a request's response for `limit`, the time apart in which a connection is made. `None`: it did not come.
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

/// There was no connection in time.
#[derive(Debug)]
pub(super) struct NotMade(Duration);

impl fmt::Display for NotMade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection within {}", format_duration(self.0))
    }
}

impl StdError for NotMade {}

/// Puts a [`Connector`] around what makes a client's connections.
#[derive(Clone, Copy)]
pub(super) struct Connecting;

impl<S> Layer<S> for Connecting {
    type Service = Connector<S>;

    fn layer(&self, inner: S) -> Connector<S> {
        Connector(inner)
    }
}

/// Makes connections as the request allows that they are for.
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
