//! Many changes in one request. They take effect in the order of the lines, as if each were sent alone; independent
//! lines (see [`super::import_order`]) are processed concurrently.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use snaphook_driver::EventKind;
use tokio::sync::{Semaphore, oneshot};

use super::Writes;
use super::import_order::Order;
use super::steps::{PrepareOutcome, PreparedWrite, WriteCommand};
use crate::config::Phase;
use crate::engine::command::{DryRun, ImportError, Imported, InstanceChange, Origin, WriteOptions, Written};
use crate::engine::committer::lost_answer;
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::input::{self, NewInstance};
use crate::memory::Shortage;

/// Lines that are prepared concurrently.
const LINES_AT_ONCE: usize = 64;
/// Lines in progress or waiting for others.
const LINES_IN_FLIGHT: usize = LINES_AT_ONCE * 4;
/// Failures listed in the response; all are counted.
const ERRORS_MAX: usize = 1000;
/// Bytes of text of the listed failures.
const ERRORS_BYTES_MAX: usize = 1 << 20;
/// Delay before the first retry after a full queue; doubles with each further one.
const PATIENCE_FIRST: Duration = Duration::from_millis(10);
const PATIENCE_MAX: Duration = Duration::from_secs(1);
/// Attempts, which take about a minute.
const PATIENCE_TIMES: u32 = 60;

/// One line of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Without its line end. The bytes may own the memory lease for everything that is made from them.
    Whole(Bytes),
    /// The line is longer than allowed; the value is the limit.
    TooLong(usize),
    /// The line needs more memory than available.
    TooLarge(Shortage),
}

impl Line {
    fn is_blank(&self) -> bool {
        matches!(self, Line::Whole(line) if line.iter().all(u8::is_ascii_whitespace))
    }
}

/// The turn of a line to be queued: after the previous line.
struct Turn {
    before: Option<oneshot::Receiver<()>>,
    done: oneshot::Sender<()>,
}

impl Turn {
    /// Waits for the previous line. The next line's turn comes when the result is dropped.
    async fn come(self) -> oneshot::Sender<()> {
        if let Some(before) = self.before {
            // The other side is dropped in any case.
            let _ = before.await;
        }
        self.done
    }
}

/// The state of a prepared line.
enum Progress {
    Prepared(WriteCommand, Box<PreparedWrite>),
    /// Nothing is to be written.
    Answered(Box<Written>),
}

impl Writes {
    /// Each line has the form of `POST …/instances`; with `upsert`, a line with the id of an instance replaces its
    /// data. A line that fails does not stop the others; an `Err` of the stream ends the import with that error. With
    /// an idempotency key, each line has its own key.
    pub async fn import(
        &self,
        model: &str,
        lines: impl Stream<Item = Result<Line>> + Send,
        upsert: bool,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Imported> {
        self.core.models.require(model)?;
        let (order, places) = (&Order::default(), &Semaphore::new(LINES_AT_ONCE));
        let mut before: Option<oneshot::Receiver<()>> = None;
        // All steps of a line are one future, so that a step that holds a connection of a store continues while others
        // wait.
        let finished = lines
            .enumerate()
            // The closure runs in the order of the lines, so each knows the earlier ones.
            .map(|(index, line)| {
                let number = index as u64 + 1;
                let line = line.map(|line| if line.is_blank() { None } else { Some((read(&line, upsert), line)) });
                let id = match &line {
                    Ok(Some((Ok(command), _))) => command.named().map(str::to_owned),
                    _ => None,
                };
                if matches!(line, Ok(Some((Ok(_), _)))) {
                    order.begin(number, id.as_deref());
                }
                let (done, next) = oneshot::channel();
                let turn = Turn { before: before.replace(next), done };
                async move {
                    // The text uses memory of the budget until the line is finished.
                    let (command, _line) = match line {
                        Ok(Some(line)) => line,
                        other => {
                            turn.come().await;
                            return other.map(|_| None);
                        }
                    };
                    let options = line_options(options, number);
                    let prepared = match command {
                        Ok(command) => {
                            // Never closed; permits are given in the order of the lines.
                            let _place = places.acquire().await;
                            let alone = self.reads_before(model, upsert);
                            order.before_preparing(number, id.as_deref(), alone).await;
                            let prepare = || self.prepare(model, &command, &options, origin);
                            let mut step = patiently(prepare).await;
                            if matches!(&step, Err(error) if error.kind == ErrorKind::Invalid)
                                && self.refers_to_itself(model)
                            {
                                // It may refer to an instance that an earlier line creates.
                                order.before_preparing(number, id.as_deref(), true).await;
                                step = patiently(prepare).await;
                            }
                            match step {
                                // Lines delete nothing.
                                Ok(PrepareOutcome::DeleteTarget) => Err(lost_answer()),
                                Ok(PrepareOutcome::Write(prepared)) => Ok(Progress::Prepared(command, prepared)),
                                Ok(PrepareOutcome::Answer(answer)) => Ok(Progress::Answered(answer)),
                                Err(error) => Err(error),
                            }
                        }
                        Err(error) => Err(error),
                    };
                    // One after the other, so that changes are queued in the order of the lines.
                    let turn = turn.come().await;
                    let work = match prepared {
                        Err(error) => Err(error),
                        Ok(Progress::Answered(answer)) => refusal(&answer).map_or(Ok((None, Some(*answer))), Err),
                        Ok(Progress::Prepared(command, prepared)) => {
                            order.before_submitting(number, &prepared.append).await;
                            match self.submit(*prepared, &options) {
                                Err(error) if error.kind != ErrorKind::Overloaded => Err(error),
                                // The queue is full, or the model does not accept writes now.
                                submitted => Ok((Some((command, submitted.ok().flatten())), None)),
                            }
                        }
                    };
                    drop(turn);
                    let written = match work {
                        Err(error) => Err(error),
                        Ok((None, answer)) => Ok(answer),
                        // This line is processed like a single request, later.
                        Ok((Some((command, None)), _)) => {
                            self.write_patiently(model, command, &options, origin).await.map(Some)
                        }
                        Ok((Some((command, Some((receiver, _, submitted)))), _)) => {
                            let answer = self.answer(receiver).await;
                            let mut lost = 0;
                            match self.finish(submitted, answer, &command, &options, &mut lost).await {
                                Ok(Some(written)) => Ok(Some(written)),
                                // So is a line that lost a race with another client.
                                Ok(None) => self.write_patiently(model, command, &options, origin).await.map(Some),
                                Err(error) => Err(error),
                            }
                        }
                    };
                    order.end(number);
                    Ok::<_, Error>(Some((number, written)))
                }
            })
            .buffered(LINES_IN_FLIGHT);
        let mut finished = Box::pin(finished);
        let mut report = Report::default();
        while let Some(line) = finished.next().await {
            match line? {
                None => {}
                Some((_, Ok(written))) => report.done(written.as_ref()),
                // A fault of the server is not a fault of the line.
                Some((_, Err(error))) if matches!(error.kind, ErrorKind::Storage | ErrorKind::Unavailable) => {
                    return Err(error);
                }
                Some((number, Err(error))) => report.failed(number, error),
            }
        }
        Ok(report.imported)
    }

    /// Whether a pre hook of a line may read an earlier line's instance: a hook with a `read` grant, or native code,
    /// whose reads are unknown.
    fn reads_before(&self, model: &str, upsert: bool) -> bool {
        let Some(entry) = self.core.models.get(model) else { return true };
        let phases = if upsert { &[Phase::PreCreate, Phase::PreUpdate][..] } else { &[Phase::PreCreate][..] };
        let mut hooks = phases.iter().flat_map(|phase| entry.chain(*phase));
        hooks.any(|hook| {
            self.core.host.code.is_native(&hook.binding().engine) || !self.core.host.granted(hook).read.is_empty()
        })
    }

    /// Whether instances of a model may refer to each other.
    fn refers_to_itself(&self, model: &str) -> bool {
        self.core.models.get(model).is_some_and(|entry| entry.model.references_to(model).next().is_some())
    }

    async fn write_patiently(
        &self,
        model: &str,
        command: WriteCommand,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Written> {
        patiently(|| self.carry_out(model, command.clone(), options, origin)).await
    }
}

/// The response, while lines come in.
#[derive(Default)]
struct Report {
    imported: Imported,
    /// Text of the listed failures.
    bytes: usize,
}

impl Report {
    /// `None`: a dry run of a line that would be written.
    fn done(&mut self, written: Option<&Written>) {
        match written {
            Some(Written::Updated(_)) => self.imported.updated += 1,
            Some(Written::DryRun(DryRun { event: Some(event), .. })) if event.kind == EventKind::InstanceUpdated => {
                self.imported.updated += 1;
            }
            _ => self.imported.created += 1,
        }
    }

    fn failed(&mut self, line: u64, error: Error) {
        let imported = &mut self.imported;
        imported.failed += 1;
        let rows = error.errors.iter().map(|row| row.pointer.len() + row.message.len());
        let bytes = error.detail.len() + rows.sum::<usize>();
        let fits = imported.errors.len() < ERRORS_MAX && self.bytes + bytes <= ERRORS_BYTES_MAX;
        // The list is the first failures, without gaps.
        if imported.errors_truncated || !fits {
            imported.errors_truncated = true;
            return;
        }
        self.bytes += bytes;
        imported.errors.push(ImportError {
            line,
            kind: error.kind.as_str(),
            detail: error.detail,
            errors: error.errors,
        });
    }
}

/// Retries with backoff while a queue is full; an import alone can fill it.
async fn patiently<T, F: Future<Output = Result<T>>>(work: impl Fn() -> F) -> Result<T> {
    let mut delay = PATIENCE_FIRST;
    for _ in 0..PATIENCE_TIMES {
        match work().await {
            Err(error) if error.kind == ErrorKind::Overloaded => tokio::time::sleep(delay).await,
            result => return result,
        }
        delay = (delay * 2).min(PATIENCE_MAX);
    }
    work().await
}

/// In a dry run a rejection is a result; for a line it is still a failure.
fn refusal(answer: &Written) -> Option<Error> {
    let Written::DryRun(DryRun { event: None, hooks, .. }) = answer else { return None };
    let last = hooks.iter().rev().find(|hook| !hook.shadow)?;
    let kind = if last.decision == "failed" { ErrorKind::HookFailed } else { ErrorKind::Rejected };
    Some(Error::new(kind, last.message.clone().unwrap_or_default()))
}

/// One line as a command.
fn read(line: &Line, upsert: bool) -> Result<WriteCommand> {
    let line = match line {
        Line::Whole(line) => line,
        Line::TooLong(max) => {
            let detail = format!("the line has more than {max} bytes (`server.max-body`)");
            return Err(Error::new(ErrorKind::TooLarge, detail));
        }
        Line::TooLarge(shortage) => return Err((*shortage).into()),
    };
    let NewInstance { id, data } = input::line(line)?;
    WriteCommand::new(match id {
        Some(id) if upsert => InstanceChange::Replace { id, data, create: true },
        id => InstanceChange::Create { id, data },
    })
}

fn line_options(options: &WriteOptions, number: u64) -> WriteOptions {
    WriteOptions {
        idempotency_key: options.idempotency_key.as_ref().map(|key| format!("{key} line {number}")),
        wait: None,
        ..options.clone()
    }
}
