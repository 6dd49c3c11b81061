//! Reads and cancels jobs.

use super::Operations;
use crate::engine::error::Result;
use crate::engine::jobs::JobInfo;

impl Operations {
    /// The progress of a job; `not-found` if there is none.
    pub fn job(&self, id: &str) -> Result<JobInfo> {
        self.core.jobs.find(id).map(|job| job.info())
    }

    /// Cancels a job: current work is finished, and no further work begins. No effect on a finished job.
    pub fn cancel_job(&self, id: &str) -> Result<()> {
        self.core.jobs.find(id).map(|job| job.cancel())
    }
}
