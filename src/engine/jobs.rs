//! Work that continues after the response to its request: its progress, and its cancellation.
//!
//! Jobs belong to this process. A crash loses a job, but its remaining work can be started again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::error::{Error, ErrorKind, Result};

/// Concurrent jobs.
const RUNNING_MAX: usize = 8;
/// Jobs that are kept; the oldest finished ones are removed first.
const KEPT_MAX: usize = 100;

/// The progress of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobInfo {
    pub id: String,
    /// `running`, `done`, `cancelled` or `failed`
    pub state: &'static str,
    /// The amount of work; corrected at the end to the actual amount.
    pub total: u64,
    /// The number of successes.
    pub done: u64,
    pub failed: u64,
    /// Why the job ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The running jobs, and the last finished ones. Ids increase with time.
#[derive(Default)]
pub(super) struct Jobs(Mutex<BTreeMap<String, Arc<Job>>>);

pub(super) struct Job {
    id: String,
    total: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicBool,
    /// Set once.
    end: Mutex<Option<std::result::Result<(), String>>>,
}

impl Jobs {
    /// `overloaded` if too many run.
    pub(super) fn start(&self, total: u64) -> Result<Arc<Job>> {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = jobs.values().filter(|job| !job.has_ended()).count();
        if running >= RUNNING_MAX {
            return Err(Error::new(
                ErrorKind::Overloaded,
                format!("{running} jobs are already running; wait until one is done, or cancel one"),
            ));
        }
        while jobs.len() >= KEPT_MAX {
            let Some(oldest) = jobs.values().find(|job| job.has_ended()).map(|job| job.id.clone()) else { break };
            jobs.remove(&oldest);
        }
        let job = Arc::new(Job {
            id: uuid::Uuid::now_v7().to_string(),
            total: AtomicU64::new(total),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
            end: Mutex::new(None),
        });
        jobs.insert(job.id.clone(), Arc::clone(&job));
        Ok(job)
    }

    /// `not-found` if there is none.
    pub(super) fn find(&self, id: &str) -> Result<Arc<Job>> {
        let jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.get(id).cloned().ok_or_else(|| {
            Error::not_found(format!("there is no job `{}`; jobs are forgotten at a restart", id.escape_debug()))
        })
    }
}

impl Job {
    pub(super) fn info(&self) -> JobInfo {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, error) = match &*end {
            None => ("running", None),
            Some(Err(error)) => ("failed", Some(error.clone())),
            Some(Ok(())) if self.is_cancelled() => ("cancelled", None),
            Some(Ok(())) => ("done", None),
        };
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let (done, failed) = (load(&self.done), load(&self.failed));
        // Records that came or went meanwhile must not make the progress end below or above the total.
        let total = if state == "done" { done + failed } else { load(&self.total).max(done + failed) };
        JobInfo { id: self.id.clone(), state, total, done, failed, error }
    }

    pub(super) fn succeeded(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Another request did it.
    pub(super) fn skipped(&self) {
        let _ = self.total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |total| total.checked_sub(1));
    }

    pub(super) fn cancel(&self) {
        if !self.has_ended() {
            self.cancelled.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn end(&self, result: std::result::Result<(), String>) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(result);
    }

    fn has_ended(&self) -> bool {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_bounded_and_forgotten() {
        let jobs = Jobs::default();
        let running: Vec<_> = (0..RUNNING_MAX).map(|_| jobs.start(3).unwrap()).collect();
        assert_eq!(jobs.start(1).err().unwrap().kind, ErrorKind::Overloaded);
        running[0].end(Ok(()));
        for _ in 0..2 * KEPT_MAX {
            jobs.start(1).unwrap().end(Ok(()));
        }
        assert!(jobs.find(&running[0].id).is_err(), "the oldest that ended is forgotten");
        assert!(jobs.find(&running[1].id).is_ok(), "what runs is not");
    }

    #[test]
    fn what_a_job_says() {
        let jobs = Jobs::default();
        let job = jobs.start(5).unwrap();
        job.succeeded();
        job.failed();
        job.skipped();
        let info = job.info();
        assert_eq!((info.state, info.total, info.done, info.failed), ("running", 4, 1, 1));
        job.cancel();
        assert_eq!(job.info().state, "running", "what it works on is finished first");
        job.end(Ok(()));
        assert_eq!((job.info().state, job.info().total), ("cancelled", 4));
        let job = jobs.start(5).unwrap();
        job.succeeded();
        job.end(Ok(()));
        job.cancel();
        assert_eq!((job.info().state, job.info().total), ("done", 1));
        let job = jobs.start(5).unwrap();
        job.end(Err("the disk".to_owned()));
        assert_eq!((job.info().state, job.info().error.as_deref()), ("failed", Some("the disk")));
    }
}
