//! Host calls of one run that run concurrently with the guest, and their pending answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};

use super::asks;
use crate::hooks::context::Failure;
use crate::hooks::engines::limits::Broken;
use crate::hooks::host_memory::MemoryShare;
use crate::hooks::session::Session;

/// Concurrent calls; further ones wait to be started.
const RUNNING_MAX: usize = 64;

/// The same limit as for timers in browsers.
const TIMER_MILLISECONDS_MAX: f64 = 0x7fff_ffff as f64;

/// The answer of a call: a text, and up to two byte strings.
pub(in crate::hooks::engines) type Parts = Vec<Vec<u8>>;

/// An answer, and its share of the run's memory.
type CallResult = Result<(Parts, MemoryShare), Failure>;

/// Operations of runner/calls.js.
const SEND: u32 = 0;
const EXECUTE: u32 = 1;

/// Dropping it aborts all running calls.
#[derive(Default)]
pub(in crate::hooks::engines) struct Calls {
    running: JoinSet<(u32, CallResult)>,
    handles: HashMap<u32, AbortHandle>,
    /// In the order of completion.
    done: Vec<(u32, (Parts, MemoryShare))>,
    last: u32,
    /// The answer that the guest reads next.
    parts: Parts,
    _kept: MemoryShare,
}

impl Calls {
    /// Starts a call, in the format of asks.rs; returns its number. Waits while too many calls are running.
    pub(in crate::hooks::engines) async fn start(
        &mut self,
        session: &Arc<Session>,
        operation: u32,
        text: String,
        bytes: Vec<u8>,
    ) -> Result<u32, Broken> {
        let asking = Arc::clone(session);
        match operation {
            SEND => {
                let send = async move {
                    let (answer, body) = asks::send(&asking, &text, bytes).await?;
                    Ok(vec![answer.into_bytes(), body])
                };
                self.begin(session, send).await
            }
            EXECUTE => {
                let execute = async move {
                    let (answer, stdout, stderr) = asks::execute(&asking, &text, bytes).await?;
                    Ok(vec![answer.into_bytes(), stdout, stderr])
                };
                self.begin(session, execute).await
            }
            other => Err(Broken::internal(format!("there is no host call {other}"))),
        }
    }

    async fn begin(
        &mut self,
        session: &Arc<Session>,
        call: impl Future<Output = Result<Parts, Failure>> + Send + 'static,
    ) -> Result<u32, Broken> {
        while self.running.len() >= RUNNING_MAX {
            self.join().await?;
        }
        // 0 means none.
        self.last = self.last.checked_add(1).unwrap_or(1);
        let (number, memory) = (self.last, Arc::clone(session.memory()));
        let background = session.background();
        let handle = self.running.spawn(async move {
            let _background = background;
            let answer = call.await.and_then(|parts| {
                let kept = MemoryShare::new(memory, parts.iter().map(Vec::len).sum())?;
                Ok((parts, kept))
            });
            (number, answer)
        });
        self.handles.insert(number, handle);
        Ok(number)
    }

    /// Waits for the call `wanted`, 0 for any, for at most this many milliseconds unless negative. Returns the call's
    /// number, with its answer ready to be read, or 0 after the time.
    pub(in crate::hooks::engines) async fn wait(
        &mut self,
        session: &Arc<Session>,
        wanted: u32,
        milliseconds: f64,
    ) -> Result<u32, Broken> {
        let has_timer = milliseconds >= 0.0;
        let time = Duration::from_millis(milliseconds.clamp(0.0, TIMER_MILLISECONDS_MAX) as u64);
        let timer = session.sleep(time);
        tokio::pin!(timer);
        loop {
            let found = self.done.iter().position(|(number, _)| wanted == 0 || *number == wanted);
            if let Some(index) = found {
                let (number, answer) = self.done.remove(index);
                (self.parts, self._kept) = answer;
                return Ok(number);
            }
            if self.running.is_empty() && !has_timer {
                return Err(Broken::internal("it waits for a call that is not under way".into()));
            }
            tokio::select! {
                biased;
                joined = self.join(), if !self.running.is_empty() => joined?,
                slept = &mut timer, if has_timer => {
                    slept.map_err(Broken::from)?;
                    return Ok(0);
                }
            }
        }
    }

    /// Waits for one call to end. An exceeded limit ends the guest, whatever it waits for.
    async fn join(&mut self) -> Result<(), Broken> {
        match self.running.join_next().await {
            Some(Ok((number, answer))) => {
                self.handles.remove(&number);
                self.done.push((number, answer.map_err(Broken)?));
            }
            Some(Err(error)) if error.is_panic() => {
                return Err(Broken::internal(format!("a host call failed: {error}")));
            }
            // Cancelled, or none.
            Some(Err(_)) | None => {}
        }
        Ok(())
    }

    /// Aborts a call that is no longer needed.
    pub(in crate::hooks::engines) fn cancel(&mut self, call: u32) {
        if let Some(handle) = self.handles.remove(&call) {
            handle.abort();
        }
        self.done.retain(|(number, _)| *number != call);
    }

    /// Sets the answer of a synchronous call.
    pub(in crate::hooks::engines) fn answer(&mut self, parts: Parts) {
        (self.parts, self._kept) = (parts, MemoryShare::default());
    }

    /// The length of a part of the answer, if it exists.
    pub(in crate::hooks::engines) fn part(&self, part: u32) -> Option<usize> {
        self.parts.get(part as usize).map(Vec::len)
    }

    pub(in crate::hooks::engines) fn take(&mut self, part: u32) -> Vec<u8> {
        self.parts.get_mut(part as usize).map(std::mem::take).unwrap_or_default()
    }

    /// All parts of the answer.
    #[cfg(target_os = "linux")]
    pub(in crate::hooks::engines) fn take_all(&mut self) -> Parts {
        std::mem::take(&mut self.parts)
    }

    /// Clears the state of the last run: its numbers and its last answer. Only if [`Calls::is_idle`].
    pub(in crate::hooks::engines) fn clear(&mut self) {
        self.last = 0;
        self.answer(Vec::new());
    }

    /// Whether no call is running.
    pub(in crate::hooks::engines) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.done.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Phase;
    use crate::hooks::context::FailureCause;
    use crate::hooks::testing::Bench;

    #[tokio::test]
    async fn an_answer_is_kept_in_the_memory_of_the_run() {
        let session = Bench::new().session("item", Phase::PostCreate, "h", "memory = '2 MiB'");
        let mut calls = Calls::default();
        let answer = |bytes: usize| std::future::ready(Ok(vec![vec![0; bytes]]));
        let held = session.memory().held();
        assert_eq!(calls.begin(&session, answer(400 << 10)).await.unwrap(), 1);
        assert_eq!(calls.wait(&session, 0, -1.0).await.unwrap(), 1);
        assert_eq!(session.memory().held() - held, 400 << 10);
        assert_eq!(calls.begin(&session, answer(4 << 20)).await.unwrap(), 2);
        let Broken(failure) = calls.wait(&session, 2, -1.0).await.unwrap_err();
        assert_eq!(failure.cause, FailureCause::Memory);
        assert!(calls.is_idle());
        drop(calls);
        assert_eq!(session.memory().held(), held);
    }
}
