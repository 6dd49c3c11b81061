//! Faults of the stores in background work: logged when they begin and when they end, and shown by `/readyz` meanwhile.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use futures::FutureExt;
use snaphook_driver::{DriverError, ErrorKind};

use super::error::{Error, ErrorKind as EngineErrorKind, Result as EngineResult};

/// A function of a store. Each part fails and recovers independently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Events are appended.
    Append,
    /// Consumer groups make progress.
    Groups,
    /// Events are applied to the model store.
    Apply,
    /// Failed hooks are recorded.
    Errors,
    /// Events that other nodes wrote are read.
    Follow,
}

impl Part {
    /// The store that it belongs to.
    pub(super) const fn store(self) -> &'static str {
        match self {
            Part::Append | Part::Groups | Part::Follow => "event",
            Part::Apply => "model",
            Part::Errors => "error",
        }
    }

    const fn effect(self) -> &'static str {
        match self {
            Part::Append => "writes get 503",
            Part::Groups => "post hooks wait",
            Part::Apply => "the model store is unavailable and catches up from the log",
            Part::Errors => "post hooks that failed run again",
            Part::Follow => "changes of other nodes are not seen",
        }
    }
}

/// Parts that do not work now, with the reason.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    reasons: Mutex<BTreeMap<Part, String>>,
    /// How many there are, for the common case that there are none.
    count: AtomicUsize,
}

impl Troubles {
    /// Records a fault; logs it if the part worked before.
    pub(super) fn failed(&self, part: Part, reason: impl Display) {
        let reason = reason.to_string();
        let mut reasons = self.lock();
        if !reasons.contains_key(&part) {
            let (store, effect) = (part.store(), part.effect());
            tracing::error!("the {store} store failed, {effect} until it works again: {reason}");
        }
        reasons.insert(part, reason);
        self.count.store(reasons.len(), Ordering::Release);
    }

    /// Records a success; logs it if the part did not work before.
    pub(super) fn works(&self, part: Part) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut reasons = self.lock();
        if reasons.remove(&part).is_some() {
            tracing::info!("the {} store works again", part.store());
        }
        self.count.store(reasons.len(), Ordering::Release);
    }

    /// Whether the last use of the part failed.
    pub(super) fn has(&self, part: Part) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.lock().contains_key(&part)
    }

    /// All of them.
    pub(super) fn all(&self) -> BTreeMap<Part, String> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Part, String>> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a driver's call; a panic becomes an error of the call.
pub(super) async fn guarded<T>(
    operation: &'static str,
    call: impl Future<Output = Result<T, DriverError>>,
) -> Result<T, DriverError> {
    AssertUnwindSafe(call).catch_unwind().await.unwrap_or_else(|panic| {
        let message = format!("the driver panicked: {}", panic_message(&*panic));
        Err(DriverError::new(ErrorKind::Unexpected, operation, message))
    })
}

/// The same for work with several calls.
pub(super) async fn unpanicked<T>(work: impl Future<Output = EngineResult<T>>) -> EngineResult<T> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
        let message = format!("a driver panicked: {}", panic_message(&*panic));
        Err(Error::new(EngineErrorKind::Storage, message))
    })
}

/// The message of a panic.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
