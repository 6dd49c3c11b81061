//! Standard output and error of a guest: each line becomes a line of the hook's log. For a command, standard output is
//! its answer instead: see pipe.rs.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::hooks::context::LogLevel;
use crate::hooks::engines::limits::Broken;
use crate::hooks::session::{HostError, Session};

/// Longest line; a longer one is split into several. The session limits the total.
const LINE_BYTES_MAX: usize = 8 << 10;

/// How many lines of standard error are kept separately: the last ones tell why a program gave up.
const LAST_LINES_MAX: usize = 8;

/// The last line of a component of componentize-py whose code raised an exception.
const PYTHON_PANIC: &str = "Python function threw an unexpected exception";

/// Where lines go while a call runs. Shared by both streams of a store.
#[derive(Default)]
pub(super) struct LogLines {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    session: Option<Arc<Session>>,
    /// Unfinished lines of standard output and standard error.
    rest: [Vec<u8>; 2],
    /// The last lines of standard error, together with errors of the log.
    last: VecDeque<String>,
}

fn remember(last: &mut VecDeque<String>, line: String) {
    if last.len() == LAST_LINES_MAX {
        last.pop_front();
    }
    last.push_back(line);
}

impl LogLines {
    /// An error that the guest logged by another way than its standard error.
    pub(super) fn said(&self, message: &str) {
        remember(&mut self.inner().last, message.to_owned());
    }

    /// What was written last to standard error, an unfinished line included, or to the log as an error.
    pub(super) fn last_words(&self) -> String {
        let inner = self.inner();
        let rest = String::from_utf8_lossy(&inner.rest[Stream::Error as usize]);
        let lines = inner.last.iter().map(String::as_str).chain([&*rest]);
        // Rust's own line of each panic tells authors nothing.
        let mut lines: Vec<&str> =
            lines.filter(|line| !line.is_empty() && !line.starts_with("note: run with")).collect();
        // Nor does the panic of Python's runtime, which follows the exception: its place and its words.
        let exception = match &lines[..] {
            [exception @ .., place, PYTHON_PANIC] if place.starts_with("thread '") => exception.len(),
            lines => lines.len(),
        };
        if exception > 0 {
            lines.truncate(exception);
        }
        lines.join("\n")
    }

    pub(super) fn begin(&self, session: Option<Arc<Session>>) {
        let mut inner = self.inner();
        inner.session = session;
        inner.last.clear();
    }

    /// Text without a final line break counts as a line.
    pub(super) fn end(&self) {
        let mut inner = self.inner();
        for (index, level) in [LogLevel::Info, LogLevel::Warn].into_iter().enumerate() {
            let rest = std::mem::take(&mut inner.rest[index]);
            if let Some(session) = inner.session.as_ref().filter(|_| !rest.is_empty()) {
                // The call is over, so exceeding a limit has no further effect.
                let _ = session.log(level, String::from_utf8_lossy(&rest).into_owned());
            }
        }
        inner.session = None;
    }

    fn write(&self, stream: Stream, level: LogLevel, bytes: &[u8]) -> Result<(), Broken> {
        let mut inner = self.inner();
        let Inner { session, rest, last } = &mut *inner;
        let Some(session) = session.as_ref() else { return Ok(()) };
        let rest = &mut rest[stream as usize];
        for &byte in bytes {
            if byte != b'\n' {
                rest.push(byte);
            }
            if byte == b'\n' || rest.len() >= LINE_BYTES_MAX {
                let line = String::from_utf8_lossy(rest).into_owned();
                rest.clear();
                if stream == Stream::Error {
                    remember(last, line.clone());
                }
                if let Err(HostError::Fatal(failure)) = session.log(level, line) {
                    return Err(Broken(failure));
                }
            }
        }
        Ok(())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is stopped while it waits only ends through this; its last output tells where it was.
impl Drop for LogLines {
    fn drop(&mut self) {
        self.end();
    }
}

/// One of the two streams.
#[derive(Clone)]
pub(super) struct LogPipe {
    lines: Arc<LogLines>,
    stream: Stream,
    level: LogLevel,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Output,
    Error,
}

impl LogPipe {
    pub(super) const fn new(lines: Arc<LogLines>, stream: Stream, level: LogLevel) -> Self {
        LogPipe { lines, stream, level }
    }
}

impl IsTerminal for LogPipe {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogPipe {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for LogPipe {
    async fn ready(&mut self) {}
}

impl OutputStream for LogPipe {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.lines
            .write(self.stream, self.level, &bytes)
            .map_err(|broken| StreamError::Trap(wasmtime::Error::new(broken)))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

impl AsyncWrite for LogPipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(
            self.lines.write(self.stream, self.level, bytes).map(|()| bytes.len()).map_err(std::io::Error::other),
        )
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Phase;
    use crate::hooks::testing::Bench;

    #[test]
    fn what_a_guest_said_last_is_about_its_own_code() {
        let words = |text: &str| {
            let lines = LogLines::default();
            lines.begin(Some(Bench::new().session("invoice", Phase::PreCreate, "h", "")));
            lines.write(Stream::Error, LogLevel::Warn, text.as_bytes()).unwrap();
            lines.last_words()
        };
        let panic = "thread '<unnamed>' (1) panicked at src/lib.rs:1:2:\n";
        let note = "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n";
        assert_eq!(words(&format!("\n{panic}no\n{note}")), format!("{panic}no"));
        let trace = "Traceback (most recent call last):\n  File \"/0/app.py\", line 4, in check\nValueError: no";
        assert_eq!(words(&format!("{trace}\n\n{panic}{PYTHON_PANIC}\n{note}")), trace);
        // Without an exception it is all there is.
        assert_eq!(words(&format!("{panic}{PYTHON_PANIC}\n")), format!("{panic}{PYTHON_PANIC}"));
    }

    #[test]
    fn an_unfinished_line_of_a_call_that_was_stopped_is_kept() {
        let session = Bench::new().session("invoice", Phase::PreCreate, "h", "");
        let lines = LogLines::default();
        lines.begin(Some(Arc::clone(&session)));
        lines.write(Stream::Output, LogLevel::Info, b"one\ntwo").unwrap();
        drop(lines);
        let log: Vec<_> = session.finish().0.into_iter().map(|line| line.message).collect();
        assert_eq!(log, ["one", "two"]);
    }
}
