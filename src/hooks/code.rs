//! The code of a bound hook: its current version, and the file that provides the next one.
//!
//! Code from the log never changes while it is bound. A native library changes with its file: the hook then has another
//! artifact, and grants that are pinned to the old one no longer apply.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use super::engines::engine::{PrepareError, PreparedCode};
use super::grants::{Granted, Grantee, HookId};
use super::library::{self, Stamp};
use crate::config::Config;

/// Time between two checks of a file whose code is being called.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A file that is being replaced may be missing for a moment; for this long, the loaded code stays in use.
const GONE_MAX: Duration = Duration::from_secs(1);

/// After a failed load, calls fail at once for this long before the next attempt.
const LOAD_RETRY: Duration = Duration::from_secs(5);

/// One version of a hook's code.
pub(super) struct Code {
    pub(super) id: Arc<HookId>,
    /// Bytes.
    pub(super) size: u64,
    pub(super) prepared: OnceCell<Arc<dyn PreparedCode>>,
    failure: Mutex<Option<LoadFailure>>,
    granted: ArcSwapOption<Granted>,
}

/// A load that failed.
#[derive(Clone, Debug)]
struct LoadFailure {
    message: String,
    /// `None`: it would fail again until the server is another one.
    retry_at: Option<Instant>,
}

impl Code {
    pub(super) fn new(id: HookId, size: u64, prepared: Option<Arc<dyn PreparedCode>>) -> Arc<Code> {
        Arc::new(Code {
            id: Arc::new(id),
            size,
            prepared: OnceCell::new_with(prepared),
            failure: Mutex::default(),
            granted: ArcSwapOption::empty(),
        })
    }

    /// Why it could not be loaded, if it is not time for another attempt.
    pub(super) fn recent_failure(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |failure: &&LoadFailure| failure.retry_at.is_some_and(|retry_at| retry_at <= Instant::now());
        failure.as_ref().filter(|failure| !is_due(failure)).map(|failure| failure.message.clone())
    }

    /// The same, if another attempt could not succeed.
    pub(super) fn lasting_failure(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().filter(|failure| failure.retry_at.is_none()).map(|failure| failure.message.clone())
    }

    pub(super) fn failed(&self, message: String) {
        self.set_failure(Some(LoadFailure { message, retry_at: Some(Instant::now() + LOAD_RETRY) }));
    }

    /// Until the code is bound again, calls fail without another attempt.
    pub(super) fn failed_for_good(&self, message: String) {
        self.set_failure(Some(LoadFailure { message, retry_at: None }));
    }

    /// The next call loads it, whatever happened before.
    pub(super) fn bound_anew(&self) {
        self.set_failure(None);
    }

    fn set_failure(&self, failure: Option<LoadFailure>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// What the current configuration grants it.
    pub(super) fn granted(&self, config: &ArcSwap<Config>) -> Arc<Granted> {
        let config = config.load();
        if let Some(granted) = &*self.granted.load()
            && granted.is_current(&config)
        {
            return Arc::clone(granted);
        }
        let granted = Arc::new(Granted::resolve(&config, Grantee::Hook(Arc::clone(&self.id))));
        self.granted.store(Some(Arc::clone(&granted)));
        granted
    }

    /// Whether a call with it can succeed or fail at once, without loading.
    pub(super) fn is_settled(&self) -> bool {
        self.prepared.initialized() || self.recent_failure().is_some()
    }
}

/// The file that a hook's code comes from.
pub(super) struct Followed {
    pub(super) name: String,
    started: Instant,
    /// Milliseconds after `started`.
    next_look: AtomicU64,
    /// Locked while the file is checked.
    pub(super) seen: tokio::sync::Mutex<Seen>,
}

/// The result of the last check.
#[derive(Default)]
pub(super) struct Seen {
    /// Code that is being loaded, which may take longer than the call that found it can wait for.
    pub(super) loading: Option<Loading>,
    stamp: Option<Stamp>,
    gone_since: Option<Instant>,
}

/// A library that is being loaded.
pub(super) struct Loading {
    pub(super) id: HookId,
    pub(super) size: u64,
    pub(super) task: JoinHandle<Result<Arc<dyn PreparedCode>, PrepareError>>,
}

/// The result of a check.
pub(super) enum Found {
    /// The loaded code is still current.
    Same,
    /// A different library, or one that is not loaded yet.
    Bytes {
        bytes: Vec<u8>,
        /// SHA-256, lowercase hex.
        digest: String,
    },
    /// The file cannot be read.
    Fault(String),
}

impl Followed {
    pub(super) fn new(name: &str) -> Followed {
        Followed {
            name: name.to_owned(),
            started: Instant::now(),
            next_look: AtomicU64::new(0),
            seen: tokio::sync::Mutex::default(),
        }
    }

    /// Whether the next check is due.
    pub(super) fn is_due(&self) -> bool {
        self.started.elapsed().as_millis() as u64 >= self.next_look.load(Ordering::Relaxed)
    }

    /// Checks whether the file has changed since the last check. If code is `loaded`, a file that is still being
    /// written is left for the next check.
    pub(super) async fn look(&self, seen: &mut Seen, directory: PathBuf, code: &Code) -> Found {
        let next = self.started.elapsed() + LOOK_EVERY;
        self.next_look.store(next.as_millis() as u64, Ordering::Relaxed);
        let loaded = code.prepared.initialized();
        // A single system call on a recently used file: not worth another thread.
        let stamp = Stamp::of(&directory, &self.name);
        match stamp {
            None if loaded => {
                let gone_since = *seen.gone_since.get_or_insert_with(Instant::now);
                if gone_since.elapsed() < GONE_MAX {
                    return Found::Same;
                }
            }
            Some(stamp) if loaded && (seen.stamp == Some(stamp) || !stamp.is_quiet()) => {
                seen.gone_since = None;
                return Found::Same;
            }
            // A failed load is retried when the file changes, or after a while.
            stamp if stamp == seen.stamp && code.recent_failure().is_some() => return Found::Same,
            _ => {}
        }
        seen.gone_since = None;
        let name = self.name.clone();
        let read = tokio::task::spawn_blocking(move || {
            let (stamp, bytes) = library::read_with_stamp(&directory, &name)?;
            Ok((stamp, format!("{:x}", Sha256::digest(&bytes)), bytes))
        });
        match read.await.unwrap_or_else(|error| Err(format!("library `{}` cannot be read: {error}", self.name))) {
            Ok((stamp, digest, bytes)) => {
                seen.stamp = Some(stamp);
                match loaded && code.id.artifact.strip_prefix("sha256:") == Some(&digest) {
                    true => Found::Same,
                    false => Found::Bytes { bytes, digest },
                }
            }
            Err(message) => {
                seen.stamp = None;
                Found::Fault(message)
            }
        }
    }
}
