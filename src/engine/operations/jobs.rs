//! Jobs: looked at, and ended early.

use super::Operations;
use crate::engine::error::Result;
use crate::engine::jobs::JobInfo;

impl Operations {
    /// How far a job has come; `not-found` if there is none.
    pub fn job(&self, id: &str) -> Result<JobInfo> {
        self.core.jobs.find(id).map(|job| job.info())
    }

    /// Ends a job: what it works on at this moment is finished, nothing else is begun. No effect on one that has ended.
    pub fn cancel_job(&self, id: &str) -> Result<()> {
        self.core.jobs.find(id).map(|job| job.cancel())
    }
}
