//! The server's handle to a worker process: its socket, its standard error, and a way to end it.

use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::AsyncWriteExt as _;

use super::frames::{Call, Draft, Frame, Keep, Kind, Load, NO_TIMER, REUSABLE, receive};
use super::socket::Socket;
use super::turns::Turns;
use super::worker::TRAPPED;
use crate::hooks::context::{Failure, FailureCause};
use crate::hooks::engines::javascript::calls::Calls;
use crate::hooks::engines::javascript::{Digits, asks};
use crate::hooks::engines::limits::{Broken, memory_failure};
use crate::hooks::session::{HostError, Session};

/// When V8 aborts its process it prints a few lines.
const LAST_WORDS_BYTES_MAX: u64 = 4 << 10;

/// An idle or running worker. Dropping it ends the process.
pub(super) struct Process {
    stream: Socket,
    errors: PipeReader,
    handle: Arc<OwnedFd>,
    /// Whether it waits for a host call.
    is_waiting: Arc<AtomicBool>,
    /// Its state after each run; `None`: it has no hook yet.
    keep: Option<Keep>,
    #[cfg(test)]
    pid: Pid,
}

/// The result of a run.
pub(super) struct RunResult {
    pub(super) text: String,
    /// Processor time.
    pub(super) cpu: Duration,
    pub(super) memory_bytes: u64,
    /// Whether the process can serve another run.
    pub(super) reusable: bool,
}

/// Why there is no answer.
pub(super) enum End {
    Failed(Failure),
    /// The process ended, or was ended because of an invalid frame.
    Died(Failure),
    /// The process had ended before the run began: use another worker.
    Gone,
}

impl Process {
    /// Connects to the worker at the other end of `stream`, after its first frame.
    pub(super) async fn meet(mut stream: Socket, errors: PipeReader) -> io::Result<Process> {
        let frame = receive(&mut stream).await?;
        let mut frame = frame.ok_or_else(|| io::Error::other("the worker ended before it began"))?;
        if frame.kind != Kind::Ready {
            return Err(io::Error::other(format!("expected {:?}, got {:?}", Kind::Ready, frame.kind)));
        }
        // Sent before any foreign code runs in it.
        let pid = i32::try_from(frame.number()?).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("a worker without a process id"))?;
        rustix::io::ioctl_fionbio(&errors, true)?;
        Ok(Process {
            stream,
            errors,
            handle: Arc::new(pidfd_open(pid, PidfdFlags::empty())?),
            is_waiting: Arc::default(),
            keep: None,
            #[cfg(test)]
            pid,
        })
    }

    #[cfg(test)]
    pub(super) const fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Its turns among the long runs.
    pub(super) fn turns(&self) -> Turns {
        Turns::new(Arc::clone(&self.handle), Arc::clone(&self.is_waiting))
    }

    /// Its state after each run, once it has a hook.
    pub(super) const fn kept(&self) -> Option<Keep> {
        self.keep
    }

    /// Only compiles a source in V8.
    pub(super) async fn check(&mut self, load: &Load) -> Result<RunResult, End> {
        let bytes = Draft::load(load).finish();
        self.serve(bytes, load.memory_bytes, None, &mut Digits::default()).await
    }

    /// Performs one run, of the hook in `load` if the worker has none yet. Host calls go to the session.
    pub(super) async fn call(
        &mut self,
        load: Option<&Load>,
        call: &Call,
        session: &Arc<Session>,
        digits: &mut Digits,
    ) -> Result<RunResult, End> {
        let call_bytes = Draft::call(call).finish();
        let bytes = match load {
            Some(load) => {
                self.keep = Some(load.keep);
                Draft::load(load).finish().and_then(|load| Ok([load, call_bytes?].concat()))
            }
            None => call_bytes,
        };
        self.serve(bytes, call.memory_bytes, Some(session), digits).await
    }

    async fn serve(
        &mut self,
        bytes: io::Result<Vec<u8>>,
        memory_bytes: u64,
        session: Option<&Arc<Session>>,
        digits: &mut Digits,
    ) -> Result<RunResult, End> {
        let bytes =
            bytes.map_err(|error| End::Failed(Broken::internal(format!("the call is too large: {error}")).0))?;
        if self.stream.write_all(&bytes).await.is_err() {
            return Err(End::Gone);
        }
        let mut began = false;
        let mut calls = Calls::default();
        loop {
            let mut frame = match receive(&mut self.stream).await {
                Ok(Some(frame)) => frame,
                // Unread data means that the worker did not begin the run.
                Err(error) if !began && error.kind() == io::ErrorKind::ConnectionReset => return Err(End::Gone),
                Err(error) if error.kind() != io::ErrorKind::ConnectionReset => return Err(End::Died(strange(&error))),
                Ok(None) | Err(_) => return Err(self.died(memory_bytes)),
            };
            began = true;
            // Relaxed: see turns.rs.
            self.is_waiting.store(true, Ordering::Relaxed);
            let answered = self.answer(&mut frame, memory_bytes, session, digits, &mut calls).await;
            self.is_waiting.store(false, Ordering::Relaxed);
            match answered {
                Ok(None) => {}
                Ok(Some(answer)) => return Ok(answer),
                Err(end) => return Err(end),
            }
        }
    }

    /// `None`: the run continues.
    async fn answer(
        &mut self,
        frame: &mut Frame,
        memory_bytes: u64,
        session: Option<&Arc<Session>>,
        digits: &mut Digits,
        calls: &mut Calls,
    ) -> Result<Option<RunResult>, End> {
        let strange = |error: io::Error| End::Died(strange(&error));
        let failed = |broken: Broken| End::Failed(broken.0);
        let asked = || {
            session.ok_or_else(|| {
                End::Failed(Failure {
                    cause: FailureCause::Load,
                    message: "asked for a capability while it was loaded; that is only possible inside the handler"
                        .into(),
                    limit: None,
                })
            })
        };
        let reply = match frame.kind {
            Kind::Answer => {
                let flags = frame.byte().map_err(strange)?;
                let cpu = Duration::from_micros(frame.number().map_err(strange)?);
                let memory_bytes = frame.number().map_err(strange)?;
                let text = frame.text().map_err(strange)?;
                return Ok(Some(RunResult { text, cpu, memory_bytes, reusable: flags & REUSABLE != 0 }));
            }
            Kind::Log => {
                let (level, message) = (frame.byte().map_err(strange)?, frame.text().map_err(strange)?);
                let logged = asked()?.log(asks::log_level(level), message);
                return logged.map(|()| None).map_err(|error| End::Failed(ending(error)));
            }
            Kind::Ask => {
                let text = frame.text().map_err(strange)?;
                let (operation, arguments) = text.split_once('\n').unwrap_or((&text, ""));
                let answer = asks::ask(asked()?, digits, operation, arguments).await.map_err(End::Failed)?;
                Draft::new(Kind::Reply).number(0).bytes(answer.as_bytes())
            }
            Kind::Start => {
                let operation = u32::try_from(frame.number().map_err(strange)?).unwrap_or(u32::MAX);
                let (text, bytes) = (frame.text().map_err(strange)?, frame.bytes().map_err(strange)?);
                let call = calls.start(asked()?, operation, text, bytes).await.map_err(failed)?;
                Draft::new(Kind::Reply).number(call.into())
            }
            Kind::Wait => {
                let wanted = u32::try_from(frame.number().map_err(strange)?).unwrap_or(u32::MAX);
                let milliseconds = match frame.number().map_err(strange)? {
                    NO_TIMER => -1.0,
                    milliseconds => milliseconds as f64,
                };
                let call = calls.wait(asked()?, wanted, milliseconds).await.map_err(failed)?;
                let reply = Draft::new(Kind::Reply).number(call.into());
                match call {
                    0 => reply,
                    _ => calls.take_all().iter().fold(reply, |reply, part| reply.bytes(part)),
                }
            }
            Kind::Cancel => {
                calls.cancel(u32::try_from(frame.number().map_err(strange)?).unwrap_or(u32::MAX));
                return Ok(None);
            }
            Kind::Spent => return Err(End::Gone),
            Kind::Memory => return Err(End::Failed(memory(memory_bytes))),
            Kind::Stuck => {
                return Err(End::Failed(Failure {
                    cause: FailureCause::Exception,
                    message:
                        "the promise that the handler returned never settles: nothing is left that could settle it"
                            .into(),
                    limit: None,
                }));
            }
            Kind::Fault => {
                let message = frame.text().unwrap_or_default();
                return Err(End::Died(Broken::internal(format!("the V8 worker failed: {message}")).0));
            }
            other => return Err(strange(io::Error::other(format!("a frame {other:?}")))),
        };
        match reply.send(&mut self.stream).await {
            Ok(()) => Ok(None),
            Err(_) => Err(self.died(memory_bytes)),
        }
    }

    /// The process has ended; its last output tells why.
    fn died(&mut self, memory_bytes: u64) -> End {
        let mut words = Vec::new();
        // Reads what is available; the pipe is non-blocking.
        let _ = (&mut self.errors).take(LAST_WORDS_BYTES_MAX).read_to_end(&mut words);
        let words = String::from_utf8_lossy(&words);
        let is_memory =
            ["out of memory", "invalid size error", "Allocation failed", "OOM"].iter().any(|sign| words.contains(sign));
        let (words, trapped) = match words.split_once(TRAPPED) {
            Some((words, _)) => (words, true),
            None => (&*words, false),
        };
        let line = words.lines().map(|line| line.trim_matches(['#', ' '])).find(|line| !line.is_empty());
        // In all other cases V8 prints a reason before the trap.
        let silent = trapped && line.is_none();
        let line = line.or(silent.then_some("an allocation failed"));
        End::Died(match (is_memory || silent, line) {
            (true, Some(line)) => {
                let failure = memory(memory_bytes);
                Failure { message: format!("{} (V8 ended its process: {line})", failure.message), ..failure }
            }
            (_, line) => Failure {
                cause: FailureCause::Trap,
                message: format!("V8 ended the process of the call: {}", line.unwrap_or("it gave no reason")),
                limit: None,
            },
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = pidfd_send_signal(&*self.handle, Signal::KILL);
    }
}

fn memory(limit: u64) -> Failure {
    memory_failure(usize::try_from(limit).unwrap_or(usize::MAX), None)
}

fn strange(error: &io::Error) -> Failure {
    Broken::internal(format!("the V8 worker sent an invalid frame: {error}")).0
}

fn ending(error: HostError) -> Failure {
    match error {
        HostError::Fatal(failure) => failure,
        HostError::Access(error) => Failure { cause: FailureCause::Exception, message: error.message, limit: None },
    }
}
