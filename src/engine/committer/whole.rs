//! Appends that are written atomically: a client's batch. Each batch is a separate call of the store, because a
//! conflicting row of others would make it fail.

use std::time::Instant;

use snaphook_driver::{Appended, Conflict, DriverError, ErrorKind as DriverErrorKind, Position, time};

use super::callers::{Callers, Committed, Whole};
use super::{Committer, CommitterThread, Job, append_span, lost_answer};
use crate::engine::error::{Error, ErrorKind, Result, stopped};
use crate::engine::gate::Gate;
use crate::engine::troubles::{Part, guarded};

impl Committer {
    /// As [`Committer::submit`]; `false` if one of the gates is closed.
    pub(in crate::engine) fn submit_whole<'a>(
        &self,
        whole: Whole,
        gates: impl IntoIterator<Item = &'a Gate>,
    ) -> Result<bool> {
        self.check_append()?;
        let bytes = whole.appends.iter().map(|append| append.event.data.as_ref().map_or(0, |data| data.len())).sum();
        let mut queue = self.lock();
        if queue.closed {
            return Err(stopped());
        }
        if !gates.into_iter().all(Gate::is_open) {
            return Ok(false);
        }
        queue.take(whole.appends.len(), bytes)?;
        queue.jobs.push(Job::Whole(whole));
        let is_awaited = queue.jobs.len() == 1 || queue.gathering && !self.shared.gathers(&queue);
        drop(queue);
        if is_awaited {
            self.shared.wake.notify_one();
        }
        Ok(true)
    }
}

impl CommitterThread {
    /// Appends them and responds to the caller.
    pub(super) fn commit_whole(&mut self, whole: Whole) {
        let Whole { mut appends, answer, mut settled, span } = whole;
        // A caller that left before has no result: nothing needs to happen.
        if answer.is_closed() {
            return;
        }
        let known = match self.ready() {
            Ok(known) => known,
            Err(error) => {
                let detail = format!("nothing was written: {}", error.detail);
                let _ = answer.send(Err(Error::new(ErrorKind::Storage, detail)));
                return;
            }
        };
        // They were prepared before their model became stuck.
        let stuck = appends.iter().map(|append| &append.event.model);
        if let Some(model) = stuck.into_iter().find(|model| self.availability.stuck(model).is_some()) {
            let _ = answer.send(self.availability.check_model(model).and_then(|()| Err(lost_answer())));
            return;
        }
        let now = time::now();
        appends.iter_mut().for_each(|append| append.event.time = now);
        self.appending.begin();
        let started = Instant::now();
        let results = self.runtime.block_on(guarded("append", self.events.append(&appends, true)));
        let took = started.elapsed();
        append_span(&span, started, appends.len());
        let outcome = match results {
            Ok(results) => outcome(results, appends.len()),
            Err(error) => Err(error),
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                return self.append_failed(&error, known, appends, Callers::All { answer, settled, _span: span });
            }
        };
        self.appending.end();
        self.troubles.works(Part::Append);
        self.metrics.batch(appends.len(), if outcome.is_ok() { 0 } else { appends.len() }, took);
        let told = match outcome {
            Ok(appended) => {
                let last = appended.last().map(|last| last.position);
                let committed = appended.iter().copied().map(Committed::from).collect();
                let results: Vec<_> = appended.into_iter().map(Ok).collect();
                self.project(appends, &results, settled.drain(..));
                (last, Ok(committed))
            }
            // The operations of a batch never conflict with each other, so the conflicting event is in the log, and may
            // be reported to a client.
            Err((index, conflict)) => (Some(conflict.position()), Err((index, conflict))),
        };
        told.0.iter().for_each(|position: &Position| self.tail.becomes_visible(*position));
        drop(span);
        let _ = answer.send(Ok(told.1));
    }
}

type WholeOutcome = std::result::Result<Vec<Appended>, (usize, Conflict)>;

/// The outcome of an atomic batch. If the results are impossible for such a batch, the outcome is unknown, and the log
/// decides.
fn outcome(
    results: Vec<std::result::Result<Appended, Conflict>>,
    expected: usize,
) -> std::result::Result<WholeOutcome, DriverError> {
    let found = results.len();
    let mut appended = Vec::with_capacity(found);
    let (mut conflict, mut others) = (None, 0);
    for (index, result) in results.into_iter().enumerate() {
        match result {
            Ok(one) => appended.push(one),
            Err(Conflict::Batch) => others += 1,
            Err(first) => drop(conflict.get_or_insert((index, first))),
        }
    }
    match conflict {
        None if found == expected && others == 0 => Ok(Ok(appended)),
        Some(conflict) if found == expected && appended.is_empty() => Ok(Err(conflict)),
        _ => {
            let message = format!(
                "the driver returned {found} results for {expected} events that are one, {} of them stored",
                appended.len()
            );
            Err(DriverError::new(DriverErrorKind::Uncertain, "append", message))
        }
    }
}
