//! The socket to the bridge: a Unix socket that carries whole messages and descriptors.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram as StdUnixDatagram;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::message::{MESSAGE_BYTES_MAX, Order};

/// Maximum number of descriptors in a message: the client's connection and the one to the API.
const DESCRIPTORS: usize = 2;

/// The server's end.
pub(super) struct Control {
    /// Of the type SEQPACKET, which is used like datagrams but reports when the other end is closed.
    socket: UnixDatagram,
}

impl Control {
    /// Returns both ends: the server's and the bridge's.
    pub(super) fn pair() -> io::Result<(Control, OwnedFd)> {
        let (own, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let own = StdUnixDatagram::from(own);
        own.set_nonblocking(true)?;
        Ok((Control { socket: UnixDatagram::from_std(own)? }, other))
    }

    pub(super) async fn send(&self, order: &Order) -> io::Result<()> {
        self.send_with(order, &[]).await
    }

    /// Sends an order with descriptors, of which the bridge receives duplicates.
    pub(super) async fn send_with(&self, order: &Order, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let length = order.bytes().len();
        if length > MESSAGE_BYTES_MAX {
            let message = format!("it has {length} bytes, expected at most {MESSAGE_BYTES_MAX}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            let parts = [IoSlice::new(order.bytes())];
            Ok(sendmsg(&self.socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)?)
        };
        self.socket.async_io(Interest::WRITABLE, send).await.map(|_| ())
    }

    /// Receives the next message; empty when the bridge is gone.
    pub(super) async fn receive(&self) -> Vec<u8> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        loop {
            match self.socket.recv(&mut bytes).await {
                // A process that ends with unread messages resets the socket; its earlier messages follow.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                received => {
                    bytes.truncate(received.unwrap_or(0));
                    return bytes;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_stay_whole_and_the_end_is_seen() {
        let (own, other) = Control::pair().unwrap();
        let other = StdUnixDatagram::from(other);
        own.send(&Order::deactivate(7)).await.unwrap();
        own.send(&Order::deactivate(8)).await.unwrap();
        let mut bytes = [0; 64];
        assert_eq!(other.recv(&mut bytes).unwrap(), Order::deactivate(7).bytes().len());
        other.send(b"R").unwrap();
        // With a message that nobody has read.
        drop(other);
        assert_eq!(own.receive().await, b"R");
        assert!(own.receive().await.is_empty());
        assert!(own.send(&Order::deactivate(9)).await.is_err());
        let settings = [("key".to_owned(), "x".repeat(MESSAGE_BYTES_MAX).into())].into_iter().collect();
        let error = own.send(&Order::config_change(1, &settings)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
