//! The socket to the bridge: a Unix socket of whole messages, with descriptors beside them.

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

/// Descriptors with one message: the client's and the API's.
const DESCRIPTORS: usize = 2;

/// The server's end.
pub(super) struct Control {
    /// Of the type SEQPACKET: unlike datagrams it says when the other end is gone. Sending and receiving are the same.
    socket: UnixDatagram,
}

impl Control {
    /// And the bridge's end.
    pub(super) fn pair() -> io::Result<(Control, OwnedFd)> {
        let (own, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let own = StdUnixDatagram::from(own);
        own.set_nonblocking(true)?;
        Ok((Control { socket: UnixDatagram::from_std(own)? }, other))
    }

    pub(super) async fn send(&self, order: &Order) -> io::Result<()> {
        self.send_with(order, &[]).await
    }

    /// With descriptors, which the bridge gets copies of.
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

    /// The next message; empty when the bridge is gone.
    pub(super) async fn receive(&self) -> Vec<u8> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        loop {
            match self.socket.recv(&mut bytes).await {
                // A process that ends with unread messages resets the socket; what it sent before follows.
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
