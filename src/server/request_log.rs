//! Logs one line per request, at `debug` with the target `request`: method and path, id, status, time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use hyper::http::Method;
use tracing::Level;

use crate::telemetry::line::shortened;
use crate::telemetry::trace::{Scope, scope};

/// Longer paths are cut.
const PATH_BYTES_MAX: usize = 1024;

/// The line of one request. Written on drop, so also if the client leaves before the response.
pub(super) struct RequestLine {
    method: Method,
    path: String,
    request_id: HeaderValue,
    started: Instant,
    scope: Option<Arc<Scope>>,
    status: Option<StatusCode>,
    unless: Option<Arc<AtomicBool>>,
}

impl RequestLine {
    /// `None` if the log filter excludes these lines. The path has no query, since queries may contain private data.
    pub(super) fn begin(
        method: &Method,
        path: &str,
        request_id: &HeaderValue,
        scope: Option<&Arc<Scope>>,
        started: Instant,
    ) -> Option<RequestLine> {
        tracing::enabled!(target: "request", Level::DEBUG).then(|| RequestLine {
            method: method.clone(),
            path: shortened(path, PATH_BYTES_MAX).into_owned(),
            request_id: request_id.clone(),
            started,
            scope: scope.cloned(),
            status: None,
            unless: None,
        })
    }

    /// Suppresses the line if the flag is set on drop.
    pub(super) fn unless(mut self, is_written: &Arc<AtomicBool>) -> RequestLine {
        self.unless = Some(Arc::clone(is_written));
        self
    }

    /// Records the status and writes the line.
    pub(super) fn answered(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for RequestLine {
    fn drop(&mut self) {
        if self.unless.as_ref().is_some_and(|is_written| is_written.load(Ordering::Relaxed)) {
            return;
        }
        let request_id = self.request_id.to_str().unwrap_or_default();
        let wall_us = self.started.elapsed().as_micros() as u64;
        let (method, path) = (&self.method, &self.path);
        scope::on_thread(self.scope.take(), || match self.status {
            Some(status) => {
                let status = status.as_u16();
                tracing::debug!(target: "request", request_id, status, wall_us, "{method} {path}");
            }
            None => tracing::debug!(target: "request", request_id, wall_us, "{method} {path}, whose client left"),
        });
    }
}
