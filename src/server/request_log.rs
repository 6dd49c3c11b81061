//! One line of the log for each request, at `debug` with the target `request`: what was asked for, the id, the status, the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use hyper::http::Method;
use tracing::Level;

use crate::telemetry::line::shortened;
use crate::telemetry::trace::{Scope, scope};

/// What is shown of a path, which a client decides.
const PATH_BYTES_MAX: usize = 1024;

/// The line of one request, written when this is dropped: also where the client goes away before it is answered.
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
    /// `None`: the log does not take such lines. Of the path without its query, which may have what is nobody's business.
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

    /// Nothing is written if this is true in the end.
    pub(super) fn unless(mut self, is_written: &Arc<AtomicBool>) -> RequestLine {
        self.unless = Some(Arc::clone(is_written));
        self
    }

    /// The request was answered.
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
