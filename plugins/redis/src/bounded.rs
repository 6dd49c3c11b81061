//! Limits how much a server may send: the client library buffers a value of any size until it is complete.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use snaphook_driver::PAYLOAD_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Maximum size of one response: the largest secret, or a page of names.
const RESPONSE_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 1024 * 1024;

/// How many more bytes may be read; shared with the [`Bounded`] that reads them.
#[derive(Clone)]
pub(crate) struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    pub(crate) fn new() -> Allowance {
        Allowance(Arc::new(AtomicUsize::new(RESPONSE_BYTES_MAX)))
    }

    /// Allows one more response. Only one command is in progress at a time.
    pub(crate) fn renew(&self) {
        self.0.store(RESPONSE_BYTES_MAX, Ordering::Relaxed);
    }
}

/// A stream that fails when the server sends more than allowed.
pub(crate) struct Bounded<S> {
    stream: S,
    allowance: Allowance,
}

impl<S> Bounded<S> {
    pub(crate) fn new(stream: S, allowance: Allowance) -> Bounded<S> {
        Bounded { stream, allowance }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        let left = self.allowance.0.load(Ordering::Relaxed);
        if read > left {
            let message = format!("the server sent a response of more than {RESPONSE_BYTES_MAX} bytes");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, message)));
        }
        self.allowance.0.store(left - read, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn reading_ends_at_the_bound_and_each_response_has_its_own() {
        let allowance = Allowance::new();
        let mut stream = Bounded::new(tokio::io::repeat(0), allowance.clone());
        let mut bytes = vec![0; RESPONSE_BYTES_MAX];
        stream.read_exact(&mut bytes).await.unwrap();
        stream.read_u8().await.unwrap_err();
        allowance.renew();
        stream.read_exact(&mut bytes).await.unwrap();
    }
}
