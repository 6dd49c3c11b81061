//! The order of the steps of one change: it is prepared ([`super::prepare`]), passed to the committer, and gets its
//! result ([`super::submit`]).
//!
//! No lock is held between the steps. Concurrent changes are detected at the append (optimistic concurrency), and then
//! the change starts over with the current state.

use super::Writes;
use super::steps::{PrepareOutcome, PreparedWrite, WriteCommand};
use crate::engine::command::{InstanceChange, Origin, WriteOptions, Written};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::waiters;

impl Writes {
    /// Performs a change: validates it, runs hooks, logs and applies it.
    pub async fn change(
        &self,
        model: &str,
        change: InstanceChange,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Written> {
        let is_patch = matches!(change, InstanceChange::Patch { .. });
        let changed = self.carry_out(model, WriteCommand::new(change)?, options, origin).await;
        changed.map_err(|error| match is_patch && matches!(error.kind, ErrorKind::NotUnique | ErrorKind::BadRequest) {
            true => of_patch(error),
            false => error,
        })
    }

    /// The same for a checked command.
    pub(super) async fn carry_out(
        &self,
        model: &str,
        command: WriteCommand,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Written> {
        let mut lost = 0;
        loop {
            let preparing = self.core.committer.preparing();
            let prepared = match self.prepare(model, &command, options, origin).await? {
                PrepareOutcome::Answer(answer) => return Ok(*answer),
                PrepareOutcome::DeleteTarget => {
                    drop(preparing);
                    return self.delete_target(model, command, options, origin).await;
                }
                PrepareOutcome::Write(prepared) => prepared,
            };
            // Submitted changes no longer count as being prepared.
            drop(preparing);
            if let Some(written) = self.write(*prepared, &command, options, &mut lost).await? {
                return Ok(written);
            }
        }
    }

    /// Writes a prepared change; `None`: it must be prepared again.
    pub(super) async fn write(
        &self,
        prepared: PreparedWrite,
        command: &WriteCommand,
        options: &WriteOptions,
        lost: &mut u32,
    ) -> Result<Option<Written>> {
        let stream = options.wait.map(|_| prepared.append.event.stream());
        let Some((receiver, settled, pending)) = self.submit(prepared, options)? else { return Ok(None) };
        let answer = self.answer(receiver).await;
        let position = answer.as_ref().ok().and_then(|answer| answer.as_ref().ok()).map(|written| written.position);
        let written = self.finish(pending, answer, command, options, lost).await?;
        if let (Some(_), Some(wait), Some(stream), Some(settled), Some(position)) =
            (&written, options.wait, stream, settled, position)
        {
            // A hook that is not done by then continues; the result does not mention it.
            let settled = waiters::settled(&*self.core.stores.event, &self.core.tail, &stream, position, settled);
            tokio::select! {
                _ = tokio::time::timeout(wait, settled) => {}
                () = self.core.leaving.begun() => {}
            }
        }
        Ok(written)
    }
}

/// A patch is the data itself: nothing stands around it in the body.
fn of_patch(mut error: Error) -> Error {
    for row in &mut error.errors {
        if let Some(pointer) = row.pointer.strip_prefix("/data") {
            row.pointer = pointer.to_owned();
        }
    }
    error
}
