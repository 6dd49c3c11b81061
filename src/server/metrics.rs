//! Requests, counted: by route, method and status, and how long they took. Plain atomics, no lock and no lookup.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::{Method, StatusCode};

const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "other"];
const STATUSES: [u16; 26] = [
    200, 201, 202, 204, 206, 304, 308, 400, 401, 403, 404, 405, 409, 410, 412, 413, 415, 416, 422, 429, 500, 501, 502,
    503, 504, 0,
];

/// Upper bounds of the histogram's buckets, in microseconds.
const BOUNDS_MICROS: [u64; 14] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 10_000_000];

/// All routes, by their template.
pub(super) struct RequestMetrics {
    routes: Vec<(&'static str, Arc<RouteMetrics>)>,
    /// Of custom endpoints, by their path; they come and go while the server runs.
    endpoints: Mutex<Vec<(String, Arc<RouteMetrics>)>>,
}

/// One route.
#[derive(Default)]
pub(super) struct RouteMetrics {
    requests: [[AtomicU64; STATUSES.len()]; METHODS.len()],
    latency: Histogram,
}

#[derive(Default)]
struct Histogram {
    /// The last one: longer than every bound.
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    sum_micros: AtomicU64,
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
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS_MICROS.len());
        self.latency.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.latency.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl RequestMetrics {
    /// Of these routes, and of what is none.
    pub(super) fn new(routes: impl Iterator<Item = (&'static str, Arc<RouteMetrics>)>) -> RequestMetrics {
        RequestMetrics { routes: routes.chain([("unknown", Arc::default())]).collect(), endpoints: Mutex::default() }
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

    /// Of paths that are no route.
    pub(super) fn unknown(&self) -> &Arc<RouteMetrics> {
        // `new` puts it there.
        &self.routes[self.routes.len() - 1].1
    }

    /// Appends Prometheus text. What never happened is left out.
    pub(super) fn write(&self, out: &mut String) {
        let endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoints = endpoints.iter().map(|(path, metrics)| (&**path, metrics));
        let routes: Vec<_> = self.routes.iter().map(|(route, metrics)| (*route, metrics)).chain(endpoints).collect();
        out.push_str("# HELP snaphook_http_requests_total Requests that were answered.\n");
        out.push_str("# TYPE snaphook_http_requests_total counter\n");
        for (route, metrics) in &routes {
            for (statuses, method) in metrics.requests.iter().zip(METHODS) {
                for (count, status) in statuses.iter().zip(STATUSES) {
                    let count = count.load(Ordering::Relaxed);
                    let status = if status == 0 { "other".to_owned() } else { status.to_string() };
                    if count > 0 {
                        // Writing into a `String` cannot fail; so in all of this function.
                        let _ = writeln!(
                            out,
                            "snaphook_http_requests_total{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}} {count}"
                        );
                    }
                }
            }
        }
        let name = "snaphook_http_request_duration_seconds";
        let _ = writeln!(out, "# HELP {name} From the head of a request to the head of its answer.");
        let _ = writeln!(out, "# TYPE {name} histogram");
        for (route, metrics) in &routes {
            let latency = &metrics.latency;
            let counts: Vec<u64> = latency.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
            let total: u64 = counts.iter().sum();
            if total == 0 {
                continue;
            }
            let mut below = 0;
            for (count, bound) in counts.iter().zip(BOUNDS_MICROS) {
                below += count;
                let bound = bound as f64 / 1e6;
                let _ = writeln!(out, "{name}_bucket{{route=\"{route}\",le=\"{bound}\"}} {below}");
            }
            let sum = latency.sum_micros.load(Ordering::Relaxed) as f64 / 1e6;
            let _ = writeln!(out, "{name}_bucket{{route=\"{route}\",le=\"+Inf\"}} {total}");
            let _ = writeln!(out, "{name}_sum{{route=\"{route}\"}} {sum}");
            let _ = writeln!(out, "{name}_count{{route=\"{route}\"}} {total}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut text = String::new();
        metrics.write(&mut text);
        let instance = r#"route="/models/{model}/instances/{id}""#;
        for line in [
            format!(r#"snaphook_http_requests_total{{{instance},method="GET",status="200"}} 2"#),
            format!(r#"snaphook_http_requests_total{{{instance},method="PUT",status="other"}} 1"#),
            format!(r#"snaphook_http_request_duration_seconds_bucket{{{instance},le="0.00005"}} 0"#),
            format!(r#"snaphook_http_request_duration_seconds_bucket{{{instance},le="0.0001"}} 1"#),
            format!(r#"snaphook_http_request_duration_seconds_bucket{{{instance},le="10"}} 2"#),
            format!(r#"snaphook_http_request_duration_seconds_bucket{{{instance},le="+Inf"}} 3"#),
            format!(r#"snaphook_http_request_duration_seconds_sum{{{instance}}} 20.0003"#),
            r#"snaphook_http_requests_total{route="unknown",method="GET",status="404"} 1"#.to_owned(),
        ] {
            assert!(text.lines().any(|written| written == line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("/rebuild"));
    }
}
