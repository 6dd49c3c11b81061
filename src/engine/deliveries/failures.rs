//! Failed post hooks: listed, retried, dropped.
//!
//! A retry or a drop claims the record's instance first: no hook runs twice because of two requests, and the hooks of
//! one instance run one after the other. Claims are in memory: a crash ends them together with their retries.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use futures::stream;
use snaphook_driver::time::{self, Millis};
use snaphook_driver::{ErrorPage, ErrorQuery, ErrorRecord, Stream};

use super::Deliveries;
use super::claims::Claim;
use super::delivery::{error_record, run_post_hook};
use super::pace::backoff;
use crate::config::Phase;
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::jobs::{Job, JobInfo};
use crate::hooks::context::{FailureCause, Outcome};

/// Records per page of a bulk retry.
const PAGE: u32 = 64;
/// Instances that a bulk retry processes concurrently.
const RETRIES_MAX: usize = 32;

impl Deliveries {
    /// Failed runs, oldest first: one page.
    pub async fn errors(&self, query: &ErrorQuery) -> Result<ErrorPage> {
        self.check_readable()?;
        Ok(self.core.stores.error.list(query).await?)
    }

    /// The number of failures, of a model and a hook, or of all.
    pub async fn count_errors(&self, query: &ErrorQuery) -> Result<u64> {
        self.check_readable()?;
        Ok(self.core.stores.error.count(query).await?)
    }

    /// One failed run.
    pub async fn error(&self, id: &str) -> Result<ErrorRecord> {
        self.check_readable()?;
        let record = self.core.stores.error.get(id).await?;
        record.ok_or_else(|| Error::not_found(format!("there is no error `{}`", id.escape_debug())))
    }

    /// Drops one failure.
    pub async fn drop_error(&self, id: &str) -> Result<()> {
        let _claim = self.claim(&self.error(id).await?)?;
        match self.core.stores.error.remove(id).await? {
            true => Ok(()),
            false => Err(Error::not_found(format!("there is no error `{}`", id.escape_debug()))),
        }
    }

    /// Runs the current version of the hook again. `true`: the record was removed; `false`: it was updated.
    pub async fn retry_error(&self, id: &str) -> Result<bool> {
        let (deliveries, id) = (self.clone(), id.to_owned());
        // A post hook has effects, so its outcome is recorded even if the caller is gone.
        let retry = async move {
            let _claim = deliveries.claim(&deliveries.error(&id).await?)?;
            // Read under the claim: the previous holder may have finished it.
            let record = deliveries.error(&id).await?;
            deliveries.retry(record).await
        };
        self.core.commit(retry).await
    }

    /// Starts a job that retries all matching failures: concurrently across instances, in the order of the log within
    /// one.
    pub async fn start_retry(&self, query: &ErrorQuery) -> Result<JobInfo> {
        self.core.availability.check()?;
        let total = self.count_errors(query).await?;
        let job = self.core.jobs.start(total)?;
        let info = job.info();
        let (deliveries, query) = (self.clone(), query.clone());
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = deliveries.retry_all(&job, query) => ended,
                () = deliveries.core.stopping.begun() => {
                    Err(Error::new(ErrorKind::Unavailable, "the server stopped; what was not retried is kept"))
                }
            };
            job.end(ended.map_err(|error| error.detail));
        });
        Ok(info)
    }

    async fn retry_all(&self, job: &Job, query: ErrorQuery) -> Result<()> {
        // Failures from now on are excluded, so that the job ends.
        let started = time::now();
        let mut query = ErrorQuery { limit: PAGE, after: None, ..query };
        while !job.is_cancelled() {
            let records = self.core.stores.error.list(&query).await?.records;
            let Some(last) = records.last() else { return Ok(()) };
            query.after = Some(last.id.clone());
            let mut streams: BTreeMap<Stream, Vec<String>> = BTreeMap::new();
            for record in records.into_iter().filter(|record| record.time <= started) {
                streams.entry(record.event.stream()).or_default().push(record.id);
            }
            let fault = Mutex::new(None);
            let work = stream::iter(streams).for_each_concurrent(RETRIES_MAX, |(stream, ids)| {
                let fault = &fault;
                async move {
                    for id in ids {
                        if job.is_cancelled() || fault.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                            return;
                        }
                        if let Err(error) = self.retry_for(job, &stream, &id, started).await {
                            *fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        }
                    }
                }
            });
            work.await;
            if let Some(error) = fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Retries one record of a job. An error ends the job, because all other records would fail too.
    async fn retry_for(&self, job: &Job, stream: &Stream, id: &str, started: Millis) -> Result<()> {
        let mut waited = 0;
        loop {
            let claim = self.claims.wait(stream).await;
            // Another request may have retried it meanwhile: then it is gone, or has failed again since the job began.
            let Some(record) = self.core.stores.error.get(id).await?.filter(|record| record.time <= started) else {
                job.skipped();
                return Ok(());
            };
            let retried = self.retry(record).await;
            drop(claim);
            match retried {
                Ok(true) => job.succeeded(),
                Ok(false) => job.failed(),
                // There is no permit for its hook, or the model store is unavailable: this is not an attempt.
                Err(error) if matches!(error.kind, ErrorKind::Overloaded | ErrorKind::Unavailable) => {
                    waited += 1;
                    if job.is_cancelled() || self.core.pause(backoff(waited)).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                Err(error) if error.kind == ErrorKind::Storage => return Err(error),
                // Its hook was removed, which fails this record and not the others.
                Err(error) => {
                    tracing::warn!("a failed hook cannot be tried again: {error}");
                    job.failed();
                }
            }
            return Ok(());
        }
    }

    async fn retry(&self, record: ErrorRecord) -> Result<bool> {
        self.core.availability.check_model(&record.model)?;
        let gone = || {
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "`{}.{}` no longer has a hook `{}`; bind it again, or drop the error",
                    record.model, record.phase, record.hook
                ),
            )
        };
        let phase = Phase::from_name(&record.phase).ok_or_else(gone)?;
        let entry = self.core.models.get(&record.model).ok_or_else(gone)?;
        let hook = entry.chain(phase).iter().find(|hook| hook.binding().id.name == record.hook).ok_or_else(gone)?;
        let hook = Arc::clone(hook);
        let attempts = record.attempts.saturating_add(1);
        let run = run_post_hook(&self.core, &hook, &entry, &record.event, attempts).await?;
        match &run.outcome {
            Outcome::Accept | Outcome::Amend(_) | Outcome::Reject(_) => {
                self.core.stores.error.remove(&record.id).await?;
                Ok(true)
            }
            // The hook did not run.
            Outcome::Failed(failure) if failure.cause == FailureCause::Overloaded => {
                Err(Error::new(ErrorKind::Overloaded, failure.message.clone()))
            }
            Outcome::Failed(failure) => {
                let renewed = error_record(&hook, &record.event, failure, &run, attempts);
                self.core.stores.error.record(&ErrorRecord { id: record.id.clone(), ..renewed }).await?;
                Ok(false)
            }
        }
    }

    fn claim(&self, record: &ErrorRecord) -> Result<Claim<'_>> {
        let stream = record.event.stream();
        self.claims.take(&stream).ok_or_else(|| {
            let detail =
                format!("a failed hook of `{stream}` is being retried at this moment; try again when it is done");
            Error::new(ErrorKind::Conflict, detail)
        })
    }

    fn check_readable(&self) -> Result<()> {
        if self.core.stores.error.capabilities().readable {
            return Ok(());
        }
        Err(Error::not_found(
            "the error storage only forwards (driver `stdout`); with driver `sqlite` in `[driver-error-storage]` errors can be listed and retried",
        ))
    }
}
