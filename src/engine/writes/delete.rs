//! Deletes an instance of a model that others refer to, with all changes that follow from it, in one append.

use tokio::time::Instant;

use super::Writes;
use super::batch::{BatchStep, PREPARE_MAX, too_long};
use super::conflicts::refusal;
use super::drafts::PreparedBatch;
use super::steps::{One, PreparedWrite, Submitted, WriteCommand};
use crate::engine::command::{Batched, Origin, WriteOptions, Written};
use crate::engine::committer::lost_answer;
use crate::engine::error::Result;

impl Writes {
    pub(super) async fn delete_target(
        &self,
        model: &str,
        command: WriteCommand,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Written> {
        let one = [One { model: model.to_owned(), command, precondition: options.precondition.clone() }];
        let deadline = Instant::now() + PREPARE_MAX;
        let mut lost = 0;
        loop {
            let trees = self.core.own_memory.lease();
            let preparing = self.prepare_batch(&one, None, options, origin, &trees);
            let prepared = tokio::time::timeout_at(deadline, preparing).await.map_err(|_| too_long())?;
            let mut whole = match prepared.map_err(|stopped| stopped.error)? {
                BatchStep::Answer(Batched::DryRun(mut trials)) => {
                    return trials.pop().map(Written::DryRun).ok_or_else(lost_answer);
                }
                BatchStep::Answer(Batched::Done { .. }) => return Err(lost_answer()),
                BatchStep::Write(whole) => whole,
            };
            if whole.appends.len() > 1 {
                let Some((submitted, outcome)) = self.submit_whole(whole, options).await? else { continue };
                let Some(first) = submitted.into_iter().next() else { return Err(lost_answer()) };
                match outcome {
                    Ok(committed) => {
                        let committed = committed.into_iter().next().ok_or_else(lost_answer)?;
                        return Ok(first.written(committed));
                    }
                    Err((index, conflict)) => {
                        if index == 0
                            && let Some(error) =
                                refusal(&first, &conflict, &one[0].command, &options.precondition, false)
                        {
                            return Err(error);
                        }
                        self.try_again(&first, &conflict, &mut lost).await?;
                    }
                }
                continue;
            }
            // Nothing follows, so it can share an append with others.
            let PreparedBatch { appends, submitted, .. } = &mut whole;
            let (Some(append), Some(first)) = (appends.pop(), submitted.pop()) else { return Err(lost_answer()) };
            let Submitted { instance, entry, hides_others, .. } = first;
            let prepared = PreparedWrite { append, instance, entry, key: None, hides_others };
            if let Some(written) = self.write(prepared, &one[0].command, options, &mut lost).await? {
                return Ok(written);
            }
        }
    }
}
