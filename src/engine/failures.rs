//! Failed post hooks: listed, retried, dropped.

use std::sync::Arc;

use snaphook_driver::{ErrorPage, ErrorQuery, ErrorRecord};

use super::Engine;
use super::delivery::error_record;
use super::error::{Error, ErrorKind, Result};
use crate::config::Phase;
use crate::hooks::context::Outcome;

/// Records that a bulk retry reads at once.
const PAGE: u32 = 100;

impl Engine {
    /// Failed runs, oldest first: one page.
    pub async fn errors(&self, query: &ErrorQuery) -> Result<ErrorPage> {
        self.check_readable()?;
        Ok(self.stores.error.list(query).await?)
    }

    /// One failed run.
    pub async fn error(&self, id: &str) -> Result<ErrorRecord> {
        self.check_readable()?;
        let record = self.stores.error.get(id).await?;
        record.ok_or_else(|| Error::not_found(format!("there is no error `{}`", id.escape_debug())))
    }

    /// Forgets one.
    pub async fn drop_error(&self, id: &str) -> Result<()> {
        self.check_readable()?;
        match self.stores.error.remove(id).await? {
            true => Ok(()),
            false => Err(Error::not_found(format!("there is no error `{}`", id.escape_debug()))),
        }
    }

    /// Runs the hook again, as it is now: `true` and the record is gone, or `false` and the record is renewed.
    pub async fn retry_error(&self, id: &str) -> Result<bool> {
        let record = self.error(id).await?;
        self.retry(record).await
    }

    /// All that match: how many did, how many succeeded. With `dry_run` only counts.
    pub async fn retry_errors(&self, query: &ErrorQuery, dry_run: bool) -> Result<(u64, u64)> {
        self.check_readable()?;
        let mut query = ErrorQuery { limit: PAGE, ..query.clone() };
        let (mut matched, mut succeeded) = (0, 0);
        loop {
            let records = self.stores.error.list(&query).await?.records;
            let Some(last) = records.last() else { return Ok((matched, succeeded)) };
            query.after = Some(last.id.clone());
            for record in records {
                matched += 1;
                if !dry_run {
                    // A hook that is gone fails its record, not the others.
                    match self.retry(record).await {
                        Ok(true) => succeeded += 1,
                        Ok(false) => {}
                        Err(error) if matches!(error.kind, ErrorKind::Storage | ErrorKind::Unavailable) => {
                            return Err(error);
                        }
                        Err(error) => tracing::warn!("a failed hook cannot be tried again: {error}"),
                    }
                }
            }
        }
    }

    async fn retry(&self, record: ErrorRecord) -> Result<bool> {
        self.check_available()?;
        let gone = || {
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "`{}.{}` has no hook `{}` any more; bind it again, or drop the error",
                    record.model, record.phase, record.hook
                ),
            )
        };
        let phase = Phase::from_name(&record.phase).ok_or_else(gone)?;
        let entry = self.models.get(&record.model).ok_or_else(gone)?;
        let hook = entry.chain(phase).iter().find(|hook| hook.binding().id.name == record.hook).ok_or_else(gone)?;
        let hook = Arc::clone(hook);
        let attempts = record.attempts.saturating_add(1);
        let run = self.run_post_hook(&hook, &entry, &record.event, attempts).await?;
        match &run.outcome {
            Outcome::Accept | Outcome::Amend(_) | Outcome::Reject(_) => {
                self.stores.error.remove(&record.id).await?;
                Ok(true)
            }
            Outcome::Failed(failure) => {
                let renewed = error_record(&hook, &record.event, failure, &run, attempts);
                self.stores.error.record(&ErrorRecord { id: record.id.clone(), ..renewed }).await?;
                Ok(false)
            }
        }
    }

    fn check_readable(&self) -> Result<()> {
        if self.stores.error.readable() {
            return Ok(());
        }
        Err(Error::not_found(
            "the error storage only forwards (driver `stdout`); with driver `sqlite` in `[driver-error-storage]` errors can be listed and retried",
        ))
    }
}
