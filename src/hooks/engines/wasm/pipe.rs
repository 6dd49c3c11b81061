//! The standard output of a command, which is its answer.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::hooks::engines::limits::{Broken, OUTPUT_BYTES_MAX};

/// Collects a command's standard output: its answer.
#[derive(Clone, Default)]
pub(super) struct AnswerPipe(Arc<Mutex<Vec<u8>>>);

impl AnswerPipe {
    /// Takes everything written so far.
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, bytes: &[u8]) -> Result<(), Broken> {
        let mut answer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let length = answer.len() + bytes.len();
        if length > OUTPUT_BYTES_MAX {
            return Err(Broken::output("what it wrote to its standard output", length));
        }
        answer.extend_from_slice(bytes);
        Ok(())
    }
}

impl IsTerminal for AnswerPipe {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for AnswerPipe {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for AnswerPipe {
    async fn ready(&mut self) {}
}

impl OutputStream for AnswerPipe {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes).map_err(|broken| StreamError::Trap(wasmtime::Error::new(broken)))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

impl AsyncWrite for AnswerPipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(self.push(bytes).map(|()| bytes.len()).map_err(std::io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
