//! Steps 4 to 6 of a change: it is passed to the committer, whose result becomes the response, or another attempt.

use std::sync::atomic::Ordering;

use snaphook_driver::{Conflict, Position};
use tokio::sync::oneshot;

use super::Writes;
use super::conflicts::refusal;
use super::steps::{PreparedWrite, Sent, Submitted, WriteCommand};
use crate::engine::command::{WriteOptions, Written};
use crate::engine::committer::{AppendResult, Pending, commit_span, lost_answer};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::hanging::unanswered;
use crate::engine::idempotency::{first_answer, first_event, is_key};

/// Lost races before the change fails.
const RETRIES_MAX: u32 = 5;

impl Writes {
    /// Step 4: passes the change to the committer. Changes that are submitted one after the other are written in that
    /// order. `None`: the model does not accept writes now, so the change must be prepared again.
    pub(super) fn submit(&self, prepared: PreparedWrite, options: &WriteOptions) -> Result<Option<Sent>> {
        let PreparedWrite { append, instance, entry, key, hides_others } = prepared;
        let (answer, receiver) = oneshot::channel();
        let kind = append.event.kind;
        let reacts = entry.reacts_to(kind, Position::MAX);
        let (settled, settled_receiver) = match (options.wait, reacts) {
            (Some(_), true) => {
                let (sender, receiver) = oneshot::channel();
                (Some(sender), Some(receiver))
            }
            _ => (None, None),
        };
        let pending = Pending { append, hint: None, is_for_stuck: false, answer, settled, span: commit_span() };
        if !self.core.committer.submit(pending, &entry.gate)? {
            return Ok(None);
        }
        Ok(Some((receiver, settled_receiver, Submitted { entry, kind, instance, key, hides_others })))
    }

    /// The committer's result for a submitted change.
    pub(super) async fn answer(&self, receiver: oneshot::Receiver<AppendResult>) -> AppendResult {
        match self.core.committer.answered(receiver).await {
            Some(answer) => answer.unwrap_or_else(|_| Err(lost_answer())),
            None => Err(unanswered()),
        }
    }

    /// Step 6, or `None`: a race was lost and the change must be prepared again.
    pub(super) async fn finish(
        &self,
        submitted: Submitted,
        answer: AppendResult,
        command: &WriteCommand,
        options: &WriteOptions,
        lost: &mut u32,
    ) -> Result<Option<Written>> {
        let conflict = match answer? {
            Ok(committed) => return Ok(Some(submitted.written(committed))),
            Err(conflict) => conflict,
        };
        if let (Conflict::Claimed { key: claim, holder }, Some(key)) = (&conflict, &submitted.key)
            && is_key(claim)
            && let Some(answer) =
                first_event(&*self.core.stores.event, &self.core.tail, &self.core.metrics, key, holder)
                    .await?
                    .and_then(first_answer)
        {
            return Ok(Some(answer));
        }
        let has_key = options.idempotency_key.is_some();
        if let Some(error) = refusal(&submitted, &conflict, command, &options.precondition, has_key) {
            return Err(error);
        }
        self.try_again(&submitted, &conflict, lost).await?;
        Ok(None)
    }

    /// Waits until the next attempt sees the conflicting event; an error if too many races were lost.
    pub(super) async fn try_again(&self, submitted: &Submitted, conflict: &Conflict, lost: &mut u32) -> Result<()> {
        self.core.seen(conflict.position()).await;
        *lost += 1;
        self.core.metrics.retries.fetch_add(1, Ordering::Relaxed);
        if *lost > RETRIES_MAX {
            let Submitted { instance, .. } = submitted;
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("`{}/{}` was changed by others {lost} times meanwhile; try again", instance.model, instance.id),
            ));
        }
        Ok(())
    }
}
