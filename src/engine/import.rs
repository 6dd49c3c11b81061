//! Many creations in one request: prepared side by side, written in the order of the lines.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};

use super::Engine;
use super::command::{Change, DryRun, ImportError, Imported, Origin, WriteOptions, Written};
use super::committer::lost_answer;
use super::error::{Error, ErrorKind, Result};
use super::input::{self, NewInstance};
use super::write::{Command, Step};
use crate::memory::Shortage;

/// Lines that are worked on at once.
const LINES_AT_ONCE: usize = 64;
/// Failures that the answer lists; all are counted.
const ERRORS_MAX: usize = 1000;
/// Delay before a line that found everything taken is tried again; doubles with each further time.
const PATIENCE_FIRST: Duration = Duration::from_millis(10);
const PATIENCE_MAX: Duration = Duration::from_secs(1);
/// Times that it is: about a minute.
const PATIENCE_TIMES: u32 = 60;

/// One line of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Without its end. The bytes may own the memory lease of all that is made of them.
    Whole(Bytes),
    /// It has more bytes than a line may have; that many are allowed.
    TooLong(usize),
    /// It needs more memory than there is.
    TooLarge(Shortage),
}

impl Engine {
    /// Each line is what `POST …/instances` takes; events come in the order of the lines. A line that is broken is
    /// one failure; an `Err` of the stream ends the import with that error. With an idempotency key, each line is
    /// remembered for itself.
    pub async fn import(
        &self,
        model: &str,
        lines: impl Stream<Item = Result<Line>> + Send,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Imported> {
        self.models.require(model)?;
        let prepared = lines
            .enumerate()
            .map(|(index, line)| async move {
                let number = index as u64 + 1;
                let line = line?;
                if matches!(&line, Line::Whole(line) if line.iter().all(u8::is_ascii_whitespace)) {
                    return Ok(None);
                }
                let options = line_options(options, number);
                let step = match read(&line) {
                    Ok(command) => {
                        let step = patiently(|| self.prepare(model, &command, &options, origin)).await;
                        step.map(|step| (command, step, line))
                    }
                    Err(error) => Err(error),
                };
                Ok::<_, Error>(Some((number, options, step)))
            })
            .buffered(LINES_AT_ONCE);
        // The closure runs in the order of the lines, so the changes are queued in that order.
        let finished = prepared
            .map(|line| {
                let submitted = match line {
                    Ok(Some((number, options, Ok((command, Step::Write(step), line))))) => {
                        let submitted = match self.submit(*step, &options) {
                            Err(error) if error.kind != ErrorKind::Overloaded => Err(error),
                            // Too much waits, or the model takes no writes now.
                            submitted => Ok(Some((command, submitted.ok().flatten(), line))),
                        };
                        Ok(Some((number, options, submitted)))
                    }
                    Ok(Some((number, options, Ok((_, Step::Answer(answer), _))))) => {
                        Ok(Some((number, options, refusal(*answer).map_or(Ok(None), Err))))
                    }
                    Ok(Some((number, options, Err(error)))) => Ok(Some((number, options, Err(error)))),
                    Ok(None) => Ok(None),
                    Err(error) => Err(error),
                };
                async move {
                    let Some((number, options, submitted)) = submitted? else { return Ok(None) };
                    let result = match submitted {
                        Ok(None) => Ok(()),
                        // This line goes the way of a single request, later.
                        Ok(Some((command, None, _line))) => {
                            self.write_patiently(model, command, &options, origin).await
                        }
                        Ok(Some((command, Some((receiver, _, submitted)), _line))) => {
                            let answer = receiver.await.unwrap_or_else(|_| Err(lost_answer()));
                            let mut lost = 0;
                            match self.finish(submitted, answer, &command, &options, &mut lost).await {
                                Ok(Some(_)) => Ok(()),
                                // So does one that lost a race.
                                Ok(None) => self.write_patiently(model, command, &options, origin).await,
                                Err(error) => Err(error),
                            }
                        }
                        Err(error) => Err(error),
                    };
                    Ok::<_, Error>(Some((number, result)))
                }
            })
            .buffered(LINES_AT_ONCE * 4);
        let mut finished = Box::pin(finished);
        let mut imported = Imported::default();
        while let Some(line) = finished.next().await {
            match line? {
                None => {}
                Some((_, Ok(()))) => imported.created += 1,
                // A fault of the server is no fault of the line.
                Some((_, Err(error))) if matches!(error.kind, ErrorKind::Storage | ErrorKind::Unavailable) => {
                    return Err(error);
                }
                Some((number, Err(error))) => {
                    imported.failed += 1;
                    if imported.errors.len() < ERRORS_MAX {
                        imported.errors.push(ImportError {
                            line: number,
                            kind: error.kind.as_str(),
                            detail: error.detail,
                            errors: error.errors,
                        });
                    }
                }
            }
        }
        Ok(imported)
    }

    async fn write_patiently(
        &self,
        model: &str,
        command: Command,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<()> {
        patiently(|| self.write_command(model, command.clone(), options, origin)).await.map(|_| ())
    }
}

/// Tries again while there is no place: an import is many lines at once, and none of them can help that.
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

/// In a dry run a refusal is an answer; of a line it is a failure all the same.
fn refusal(answer: Written) -> Option<Error> {
    let Written::DryRun(DryRun { event: None, hooks, .. }) = answer else { return None };
    let last = hooks.into_iter().rev().find(|hook| !hook.shadow)?;
    let kind = if last.decision == "failed" { ErrorKind::HookFailed } else { ErrorKind::Rejected };
    Some(Error::new(kind, last.message.unwrap_or_default()))
}

/// One line as a command.
fn read(line: &Line) -> Result<Command> {
    let line = match line {
        Line::Whole(line) => line,
        Line::TooLong(max) => {
            let detail = format!("the line has more than {max} bytes (`server.max-body`)");
            return Err(Error::new(ErrorKind::TooLarge, detail));
        }
        Line::TooLarge(shortage) => return Err((*shortage).into()),
    };
    let NewInstance { id, data } = input::line(line)?;
    Command::new(Change::Create { id, data })
}

fn line_options(options: &WriteOptions, number: u64) -> WriteOptions {
    WriteOptions {
        idempotency_key: options.idempotency_key.as_ref().map(|key| format!("{key} line {number}")),
        wait: None,
        ..options.clone()
    }
}
