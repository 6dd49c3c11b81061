//! The server's end of a worker's socket.
//!
//! It waits for writability only while a write is blocked: a socket registered for both would be notified after every
//! frame that the worker reads, which would wake the server in the middle of the run.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// Reads and writes like a stream.
pub(super) struct Socket {
    readable: AsyncFd<UnixStream>,
    /// Registered only while a write waits.
    writable: Option<AsyncFd<UnixStream>>,
}

impl Socket {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Socket { readable: watch(stream, Interest::READABLE)?, writable: None })
    }
}

#[expect(deprecated, reason = "for types that may give away another descriptor later, which a stream does not")]
fn watch(stream: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(stream, interest)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.readable.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            match ready.try_io(|socket| socket.get_ref().read(unfilled)) {
                Ok(Ok(read)) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.readable.get_ref().write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                written => {
                    self.writable = None;
                    return Poll::Ready(written);
                }
            }
            match &self.writable {
                Some(writable) => ready!(writable.poll_write_ready(context))?.clear_ready(),
                None => {
                    let other = self.readable.get_ref().try_clone()?;
                    self.writable = Some(watch(other, Interest::WRITABLE)?);
                }
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.readable.get_ref().shutdown(std::net::Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_has_no_room_waits_until_it_is_read() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut ours, mut theirs) = (Socket::new(ours).unwrap(), Socket::new(theirs).unwrap());
        let sent: Vec<u8> = (0..3_000_000u32).map(|number| number.to_le_bytes()[0]).collect();
        let mut received = vec![0; sent.len()];
        let (written, read) = tokio::join!(ours.write_all(&sent), theirs.read_exact(&mut received));
        assert!(written.is_ok() && read.is_ok() && received == sent);
        drop(ours);
        assert_eq!(theirs.read(&mut received).await.unwrap(), 0);
        assert_eq!(theirs.write(&sent).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
