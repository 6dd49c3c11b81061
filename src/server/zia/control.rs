//! The socket to the bridge: a Unix socket of whole messages, with descriptors beside them.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv,
    sendmsg, socketpair,
};
use tokio::io::unix::AsyncFd;

use super::message::{MESSAGE_BYTES_MAX, Order};

/// Descriptors with one message: the client's and the API's.
const DESCRIPTORS: usize = 2;

/// The server's end.
pub(super) struct Control {
    socket: AsyncFd<OwnedFd>,
}

impl Control {
    /// And the bridge's end.
    pub(super) fn pair() -> io::Result<(Control, OwnedFd)> {
        let (own, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&own, true)?;
        Ok((Control { socket: AsyncFd::new(own)? }, other))
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
        loop {
            let mut ready = self.socket.writable().await?;
            let sent = ready.try_io(|socket| {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                if !descriptors.is_empty() {
                    ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
                }
                let parts = [IoSlice::new(order.bytes())];
                Ok(sendmsg(socket.as_fd(), &parts, &mut ancillary, SendFlags::NOSIGNAL)?)
            });
            match sent {
                Ok(sent) => return sent.map(|_| ()),
                Err(_would_block) => {}
            }
        }
    }

    /// The next message; empty when the bridge is gone.
    pub(super) async fn receive(&self) -> Vec<u8> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        loop {
            let Ok(mut ready) = self.socket.readable().await else { return Vec::new() };
            let received = ready.try_io(|socket| Ok(recv(socket.as_fd(), bytes.as_mut_slice(), RecvFlags::empty())?));
            match received {
                // A process that ends with unread messages resets the socket; what it sent before follows.
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Ok(received) => {
                    bytes.truncate(received.map_or(0, |(length, _)| length));
                    return bytes;
                }
                Err(_would_block) => {}
            }
        }
    }
}
