//! The wrapper around every store, for all drivers: each call has a deadline, a panic is an error, results are checked
//! before they are used, reads are retried once if that helps, and everything is counted.

mod error;
mod event;
#[cfg(test)]
mod faults;
mod meter;
mod model;
mod secure;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use snaphook_driver::wire::{Method, Opened};
use snaphook_driver::{DriverError, ErrorKind, Result};

#[cfg(test)]
pub(crate) use self::faults::Faults;
pub(super) use self::meter::Meters;
use crate::telemetry::trace::{Span, SpanKind};

/// A driver can give a better reason for a timeout itself, so it gets a little longer.
const GRACE: Duration = Duration::from_secs(5);

/// A read that failed within this time is retried once.
const QUICK: Duration = Duration::from_secs(1);

/// Pause before the retry of a read: a closed connection is reopened immediately.
const PAUSE: Duration = Duration::from_millis(50);

/// The common part of all four kinds of guarded stores.
struct Guard {
    driver: String,
    meters: Arc<Meters>,
    #[cfg(test)]
    faults: Option<Faults>,
}

/// A guarded store: implements the trait of its store.
struct Guarded<T: ?Sized> {
    inner: Arc<T>,
    guard: Guard,
}

/// Guards a store of that driver.
pub(super) fn guard(opened: Opened, driver: &str, meters: &Arc<Meters>) -> Opened {
    let guard = Guard {
        driver: driver.to_owned(),
        meters: Arc::clone(meters),
        #[cfg(test)]
        faults: None,
    };
    wrap(opened, guard)
}

/// Guards a store with injected faults.
#[cfg(test)]
pub(super) fn guard_with(opened: Opened, faults: Faults) -> Opened {
    let guard = Guard { driver: "faulty".to_owned(), meters: Arc::default(), faults: Some(faults) };
    wrap(opened, guard)
}

fn wrap(opened: Opened, guard: Guard) -> Opened {
    match opened {
        Opened::Secure(inner) => Opened::Secure(Arc::new(Guarded { inner, guard })),
        Opened::Event(inner) => Opened::Event(Arc::new(Guarded { inner, guard })),
        Opened::Model(inner) => Opened::Model(Arc::new(Guarded { inner, guard })),
        Opened::Error(inner) => Opened::Error(Arc::new(Guarded { inner, guard })),
    }
}

impl Guard {
    /// One call. `own`: the additional time of its request, on top of the method's.
    async fn call<T>(&self, method: Method, own: Duration, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let started = Instant::now();
        let mut span = Span::begin("driver", SpanKind::Client);
        span.name(|| format!("{} {}", method.store(), method.name()));
        span.note("snaphook.driver", || self.driver.clone());
        #[cfg(test)]
        let call = async {
            match &self.faults {
                Some(faults) => faults.around(method, call).await,
                None => call.await,
            }
        };
        let limit = method.time(own) + GRACE;
        let result = match tokio::time::timeout(limit, AssertUnwindSafe(call).catch_unwind()).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => {
                Err(self.lost(method, ErrorKind::Unexpected, format!("the driver panicked: {}", text(&*panic))))
            }
            Err(_) => {
                let seconds = limit.as_secs();
                Err(self.lost(method, ErrorKind::Unavailable, format!("the driver did not respond within {seconds} s")))
            }
        };
        if let Err(error) = &result {
            span.fail(|| error.to_string());
        }
        self.meters.record(method, &self.driver, started.elapsed(), result.is_ok());
        result
    }

    /// A read, which is retried once if the store was unreachable. A slow read is not retried, because its caller would
    /// wait as long again.
    async fn read<T, F>(&self, method: Method, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let started = Instant::now();
        match self.call(method, Duration::ZERO, call()).await {
            Err(error)
                if error.kind() == ErrorKind::Unavailable && error.is_temporary() && started.elapsed() < QUICK =>
            {
                tokio::time::sleep(PAUSE).await;
                self.call(method, Duration::ZERO, call()).await
            }
            result => result,
        }
    }

    /// A call without a result: if it changes something, its outcome is unknown.
    fn lost(&self, method: Method, kind: ErrorKind, message: String) -> DriverError {
        let kind = if method.changes() { ErrorKind::Uncertain } else { kind };
        DriverError::new(kind, method.name(), message).with("driver", &self.driver)
    }

    /// The error for an impossible result.
    fn wrong(&self, method: Method, what: String) -> DriverError {
        self.lost(method, ErrorKind::Unexpected, format!("the driver's response is wrong: {what}"))
    }
}

/// The message of a panic.
fn text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

/// Whether a store's capabilities are sufficient for the server: a clause if not.
pub(super) fn unfit(opened: &Opened) -> Option<String> {
    let Opened::Event(events) = opened else { return None };
    let capabilities = events.capabilities();
    let least = snaphook_driver::PAYLOAD_BYTES_MAX as u64;
    if capabilities.event_bytes_max < least {
        let found = capabilities.event_bytes_max;
        return Some(format!("it accepts events of up to {found} bytes, at least {least} are needed"));
    }
    if capabilities.batch_bytes_max < capabilities.event_bytes_max {
        let (batch, event) = (capabilities.batch_bytes_max, capabilities.event_bytes_max);
        return Some(format!("it accepts batches of up to {batch} bytes, which is less than one event of {event}"));
    }
    if !capabilities.ordered_claims {
        return Some("it does not return claims in the order of their keys".to_owned());
    }
    if uuid::Uuid::parse_str(events.identity()).is_err() {
        return Some(format!("its log is called `{}`, expected a UUID", events.identity()));
    }
    None
}
