//! Many creations in one request: prepared side by side, written in the order of the lines.

use bytes::Bytes;
use futures::{Stream, StreamExt};

use super::Engine;
use super::command::{Change, DryRun, ImportError, Imported, Origin, WriteOptions, Written};
use super::error::{Error, ErrorKind, Result};
use super::input::{self, NewInstance};
use super::write::{Command, Step, stopped};

/// Lines that are worked on at once.
const LINES_AT_ONCE: usize = 64;
/// Failures that the answer lists; all are counted.
const ERRORS_MAX: usize = 1000;

impl Engine {
    /// Each line is what `POST …/instances` takes; events come in the order of the lines. A line that is broken is
    /// one failure; an `Err` of the stream ends the import with that error. With an idempotency key, each line is
    /// remembered for itself.
    pub async fn import(
        &self,
        model: &str,
        lines: impl Stream<Item = Result<Bytes>> + Send,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Imported> {
        self.models.require(model)?;
        let prepared = lines
            .enumerate()
            .map(|(index, line)| async move {
                let number = index as u64 + 1;
                let line = line?;
                if line.iter().all(u8::is_ascii_whitespace) {
                    return Ok(None);
                }
                let options = line_options(options, number);
                let step = match read(&line) {
                    Ok(command) => match self.prepare(model, &command, &options, origin).await {
                        Ok(step) => Ok((command, step)),
                        Err(error) => Err(error),
                    },
                    Err(error) => Err(error),
                };
                Ok::<_, Error>(Some((number, options, step)))
            })
            .buffered(LINES_AT_ONCE);
        // The closure runs in the order of the lines, so the changes are queued in that order.
        let finished = prepared
            .map(|line| {
                let submitted = match line {
                    Ok(Some((number, options, Ok((command, Step::Write(step)))))) => {
                        let submitted = self.submit(*step, &options);
                        Ok(Some((number, options, submitted.map(|submitted| Some((command, submitted))))))
                    }
                    Ok(Some((number, options, Ok((_, Step::Answer(answer)))))) => {
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
                        Ok(Some((command, (receiver, _, submitted)))) => {
                            let answer = receiver.await.unwrap_or_else(|_| Err(stopped()));
                            let mut lost = 0;
                            match self.finish(submitted, answer, &command, &options, &mut lost).await {
                                Ok(Some(_)) => Ok(()),
                                // A race was lost: this line goes the way of a single request.
                                Ok(None) => self.write_command(model, command, &options, origin).await.map(|_| ()),
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
                Some((_, Err(error))) if matches!(error.kind, ErrorKind::Storage) => return Err(error),
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
}

/// In a dry run a refusal is an answer; of a line it is a failure all the same.
fn refusal(answer: Written) -> Option<Error> {
    let Written::DryRun(DryRun { event: None, hooks, .. }) = answer else { return None };
    let last = hooks.into_iter().rev().find(|hook| !hook.shadow)?;
    let kind = if last.decision == "failed" { ErrorKind::HookFailed } else { ErrorKind::Rejected };
    Some(Error::new(kind, last.message.unwrap_or_default()))
}

/// One line as a command.
fn read(line: &Bytes) -> Result<Command> {
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
