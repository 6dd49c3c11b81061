//! The sources of connections: a TCP port or a Unix socket.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixSocket, UnixStream};

#[cfg(unix)]
use super::unix_socket::{self, SocketFile};
use crate::config::{Config, MountAddress};

/// Maximum number of connections waiting to be accepted.
pub(super) const BACKLOG: u32 = 1024;

/// The bound addresses of a configuration; nobody can connect yet.
pub struct BoundSockets {
    mount: Bound,
    redirect: Option<(TcpSocket, SocketAddr)>,
}

enum Bound {
    Tcp(TcpSocket, SocketAddr),
    #[cfg(unix)]
    Unix(UnixSocket, SocketFile),
}

/// The same, listening.
pub struct Listeners {
    pub(super) mount: Listener,
    /// The listener that redirects plain HTTP.
    pub(super) redirect: Option<TcpListener>,
}

pub(super) enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix {
        listener: UnixListener,
        /// Removed with it.
        _file: SocketFile,
    },
}

/// Binds the addresses, so that an address in use is detected before anything else is done. The error is a complete
/// message.
pub async fn bind(config: &Config) -> Result<BoundSockets, String> {
    let address = &config.server.mount_address;
    let mount = match address {
        MountAddress::Tcp(address) => bind_tcp(*address).map(|socket| Bound::Tcp(socket, *address)),
        #[cfg(unix)]
        MountAddress::Unix(path) => unix_socket::bind(path).await.map(|(socket, file)| Bound::Unix(socket, file)),
        #[cfg(not(unix))]
        MountAddress::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
    };
    let mount = mount.map_err(|error| unbound("mount-address", address, &error))?;
    let redirect = match config.server.redirect_http {
        Some(address) => {
            let socket = bind_tcp(address).map_err(|error| unbound("redirect-http", &address, &error))?;
            Some((socket, address))
        }
        None => None,
    };
    Ok(BoundSockets { mount, redirect })
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a server that was just stopped would keep the port in use.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn unbound(key: &str, address: &dyn std::fmt::Display, error: &io::Error) -> String {
    format!("`server.{key}` is `{address}`, which cannot be listened on: {error}")
}

impl BoundSockets {
    /// Starts listening.
    pub fn listen(self) -> Result<Listeners, String> {
        let mount = match self.mount {
            Bound::Tcp(socket, address) => {
                socket.listen(BACKLOG).map(Listener::Tcp).map_err(|error| unbound("mount-address", &address, &error))?
            }
            #[cfg(unix)]
            Bound::Unix(socket, file) => {
                let listener = socket.listen(BACKLOG);
                let listener = listener.map_err(|error| unbound("mount-address", &"a Unix socket", &error))?;
                Listener::Unix { listener, _file: file }
            }
        };
        let redirect = match self.redirect {
            Some((socket, address)) => {
                Some(socket.listen(BACKLOG).map_err(|error| unbound("redirect-http", &address, &error))?)
            }
            None => None,
        };
        Ok(Listeners { mount, redirect })
    }
}

impl Listeners {
    /// The address of the API, with the port chosen by the system if the configured port is 0.
    pub fn address(&self, config: &Config) -> MountAddress {
        self.mount.local_address().map_or_else(|| config.server.mount_address.clone(), MountAddress::Tcp)
    }
}

impl Listener {
    /// The address is that of the peer; `None`: a Unix socket.
    pub(super) async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                // Responses are small and complete: waiting to fill a packet only costs time. An error means that the
                // peer has disconnected, which reading detects.
                let _ = stream.set_nodelay(true);
                Ok((Socket::Tcp(stream), Some(SocketAddr::new(from.ip().to_canonical(), from.port()))))
            }
            #[cfg(unix)]
            Listener::Unix { listener, .. } => Ok((Socket::Unix(listener.accept().await?.0), None)),
        }
    }

    /// `None` for a Unix socket.
    fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            #[cfg(unix)]
            Listener::Unix { .. } => None,
        }
    }
}

/// Whether accepting failed because the peer had already disconnected.
pub(super) fn is_of_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// One end of a connection.
pub(super) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    /// The end after the filters of modules.
    Filtered(DuplexStream),
}

macro_rules! either {
    ($self:expr, $stream:ident => $result:expr) => {
        match $self {
            Socket::Tcp($stream) => $result,
            #[cfg(unix)]
            Socket::Unix($stream) => $result,
            Socket::Filtered($stream) => $result,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(&mut *self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(&mut *self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(&mut *self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        either!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut *self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut *self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
