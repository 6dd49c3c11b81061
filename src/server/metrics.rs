//! Counts requests by route, method and status, their durations, and connections. Plain atomics, without locks or
//! lookups.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::{Method, StatusCode};

use crate::telemetry::exposition::Exposition;
use crate::telemetry::histogram::{Histogram, LATENCY};

const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "other"];
const STATUSES: [u16; 27] = [
    200, 201, 202, 204, 206, 304, 308, 400, 401, 403, 404, 405, 408, 409, 410, 412, 413, 415, 416, 422, 429, 500, 501,
    502, 503, 504, 0,
];

/// All routes, by their template.
pub(super) struct RequestMetrics {
    routes: Vec<(&'static str, Arc<RouteMetrics>)>,
    /// Of custom endpoints, by path; they may change while the server runs.
    endpoints: Mutex<Vec<(String, Arc<RouteMetrics>)>>,
    in_flight: AtomicU64,
    connections: Arc<AtomicU64>,
    accepted: AtomicU64,
}

/// One route.
pub(super) struct RouteMetrics {
    requests: [[AtomicU64; STATUSES.len()]; METHODS.len()],
    latency: Histogram<{ LATENCY.len() }>,
}

impl Default for RouteMetrics {
    fn default() -> Self {
        let requests = [const { [const { AtomicU64::new(0) }; STATUSES.len()] }; METHODS.len()];
        RouteMetrics { requests, latency: Histogram::new(&LATENCY) }
    }
}

impl RouteMetrics {
    pub(super) fn record(&self, method: &Method, status: StatusCode, elapsed: Duration) {
        let method = match *method {
            Method::GET | Method::HEAD => 0,
            Method::POST => 1,
            Method::PUT => 2,
            Method::PATCH => 3,
            Method::DELETE => 4,
            _ => 5,
        };
        let status = STATUSES.iter().position(|known| *known == status.as_u16()).unwrap_or(STATUSES.len() - 1);
        self.requests[method][status].fetch_add(1, Ordering::Relaxed);
        self.latency.observe(elapsed);
    }
}

impl RequestMetrics {
    /// For these routes, for responses of modules, and for unknown paths.
    pub(super) fn new(routes: impl Iterator<Item = (&'static str, Arc<RouteMetrics>)>) -> RequestMetrics {
        RequestMetrics {
            routes: routes.chain([("modules", Arc::default()), ("unknown", Arc::default())]).collect(),
            endpoints: Mutex::default(),
            in_flight: AtomicU64::new(0),
            connections: Arc::default(),
            accepted: AtomicU64::new(0),
        }
    }

    /// Of paths that are no route.
    pub(super) fn unknown(&self) -> &Arc<RouteMetrics> {
        // `new` puts it there.
        &self.routes[self.routes.len() - 1].1
    }

    /// Of the custom endpoint at a path.
    pub(super) fn of_endpoint(&self, path: &str) -> Arc<RouteMetrics> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, metrics)) = endpoints.iter().find(|(known, _)| known == path) {
            return Arc::clone(metrics);
        }
        let metrics = Arc::default();
        endpoints.push((path.to_owned(), Arc::clone(&metrics)));
        metrics
    }

    /// Of requests that modules answer.
    pub(super) fn modules(&self) -> &Arc<RouteMetrics> {
        // `new` puts it there.
        &self.routes[self.routes.len() - 2].1
    }

    /// A request is in flight until the guard is dropped, also if its client goes away.
    pub(super) fn begin_request(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self)
    }

    /// A connection is open until this is dropped.
    pub(super) fn open_connection(&self) -> OpenConnection {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.accepted.fetch_add(1, Ordering::Relaxed);
        OpenConnection(Arc::clone(&self.connections))
    }

    /// Omits everything that never happened.
    pub(super) fn write(&self, out: &mut Exposition) {
        let endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoints = endpoints.iter().map(|(path, metrics)| (&**path, metrics));
        let routes: Vec<_> = self.routes.iter().map(|(route, metrics)| (*route, metrics)).chain(endpoints).collect();
        let mut requests = out.counter("snaphook_http_requests", "Requests that were answered");
        for (route, metrics) in &routes {
            for (statuses, method) in metrics.requests.iter().zip(METHODS) {
                for (count, status) in statuses.iter().zip(STATUSES) {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 {
                        let status = if status == 0 { "other".to_owned() } else { status.to_string() };
                        requests.sample(&[("route", route), ("method", method), ("status", &status)], count);
                    }
                }
            }
        }
        let help = "From the head of a request to the head of its response";
        let mut latency = out.histogram("snaphook_http_request_duration_seconds", help);
        for (route, metrics) in &routes {
            latency.distribution(&[("route", route)], &metrics.latency.seconds());
        }
        let get = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let help = "Requests whose response has not begun";
        out.gauge("snaphook_http_requests_in_flight", help).sample(&[], get(&self.in_flight));
        out.gauge("snaphook_connections", "Open connections").sample(&[], get(&self.connections));
        out.counter("snaphook_connections_accepted", "Connections since the start").sample(&[], get(&self.accepted));
    }
}

/// A request in progress.
pub(super) struct InFlight<'a>(&'a RequestMetrics);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that is open.
pub(super) struct OpenConnection(Arc<AtomicU64>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::exposition::Format;

    #[test]
    fn counts_and_writes() {
        let instance = Arc::new(RouteMetrics::default());
        let metrics = RequestMetrics::new(
            [("/models/{model}/instances/{id}", Arc::clone(&instance)), ("/rebuild", Arc::default())].into_iter(),
        );
        let micros = Duration::from_micros;
        instance.record(&Method::GET, StatusCode::OK, micros(60));
        instance.record(&Method::HEAD, StatusCode::OK, micros(240));
        instance.record(&Method::PUT, StatusCode::IM_A_TEAPOT, micros(20_000_000));
        metrics.unknown().record(&Method::GET, StatusCode::NOT_FOUND, micros(1));
        let in_flight = metrics.begin_request();
        drop(metrics.begin_request());
        let mut out = Exposition::new(Format::Prometheus);
        metrics.write(&mut out);
        let text = out.finish();
        drop(in_flight);
        let instance = r#"route="/models/{model}/instances/{id}""#;
        for line in [
            format!(r#"snaphook_http_requests_total{{{instance},method="GET",status="200"}} 2"#),
            format!(r#"snaphook_http_requests_total{{{instance},method="PUT",status="other"}} 1"#),
            format!(r#"snaphook_http_request_duration_seconds_bucket{{{instance},le="0.00005"}} 0"#),
            format!(r#"snaphook_http_request_duration_seconds_bucket{{{instance},le="0.0001"}} 1"#),
            format!(r#"snaphook_http_request_duration_seconds_bucket{{{instance},le="10"}} 2"#),
            format!(r#"snaphook_http_request_duration_seconds_bucket{{{instance},le="+Inf"}} 3"#),
            format!(r#"snaphook_http_request_duration_seconds_sum{{{instance}}} 20.0003"#),
            "snaphook_http_requests_in_flight 1".to_owned(),
            r#"snaphook_http_requests_total{route="unknown",method="GET",status="404"} 1"#.to_owned(),
        ] {
            assert!(text.lines().any(|written| written == line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("/rebuild"));
    }
}
