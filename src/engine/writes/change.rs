//! One change: the order of its steps is decided here. It is prepared ([`super::prepare`]), handed to the committer, and
//! answered ([`super::submit`]).
//!
//! No lock is held between the steps. What changed meanwhile shows at the append (optimistic concurrency), and the
//! change starts over with what is there now.

use snaphook_driver::Stream;

use super::Writes;
use super::steps::{Command, Step};
use crate::engine::command::{Change, Origin, WriteOptions, Written};
use crate::engine::error::Result;
use crate::engine::waiters;

impl Writes {
    /// Carries out a change: validated, hooked, logged, applied.
    pub async fn change(
        &self,
        model: &str,
        change: Change,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Written> {
        self.carry_out(model, Command::new(change)?, options, origin).await
    }

    /// The same for a command that is checked already.
    pub(super) async fn carry_out(
        &self,
        model: &str,
        command: Command,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Written> {
        let mut lost = 0;
        loop {
            let preparing = self.core.committer.preparing();
            let prepared = match self.prepare(model, &command, options, origin).await? {
                Step::Answer(answer) => return Ok(*answer),
                Step::Write(prepared) => prepared,
            };
            // What is submitted is not on its way any more.
            drop(preparing);
            let Some((receiver, settled, pending)) = self.submit(*prepared, options)? else { continue };
            let answer = self.answer(receiver).await;
            let position = answer.as_ref().ok().and_then(|answer| answer.as_ref().ok()).map(|written| written.position);
            if let Some(written) = self.finish(pending, answer, &command, options, &mut lost).await? {
                if let (Some(wait), Some(settled), Some(position)) = (options.wait, settled, position) {
                    // A hook that is not done by then goes on; the answer says nothing of it.
                    let instance = Stream::of_instance(model, &command.id);
                    let settled = waiters::settled(&*self.core.stores.event, &instance, position, settled);
                    tokio::select! {
                        _ = tokio::time::timeout(wait, settled) => {}
                        () = self.core.leaving.begun() => {}
                    }
                }
                return Ok(written);
            }
        }
    }
}
