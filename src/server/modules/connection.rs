//! A connection with the filters of modules, which are between the socket and TLS.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use snaphook_modules::task;
use snaphook_modules::{Chain, Connection, Filters, Memory, Origin};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::server::io::GuardedStream;
use crate::server::listener::Socket;

/// Bytes between the filters and the server, in each direction.
const PIPE_BYTES: usize = 64 * 1024;

/// Time limit for sending the last bytes after the server has finished a connection.
const LAST_BYTES_MAX: Duration = Duration::from_secs(20);

/// The modules' state of a connection: created at its first request, or at its start if modules have connection hooks.
pub(in crate::server) struct Origins {
    peer: Option<SocketAddr>,
    is_secure: bool,
    connection: OnceLock<Arc<Connection>>,
}

impl Origins {
    pub(in crate::server) fn of(peer: Option<SocketAddr>, is_secure: bool) -> Origins {
        Origins { peer, is_secure, connection: OnceLock::new() }
    }

    pub(in crate::server) fn connection(&self) -> Arc<Connection> {
        Arc::clone(self.connection.get_or_init(|| Arc::new(Connection::plain(self.origin()))))
    }

    fn origin(&self) -> Origin {
        let peer = self.peer.map_or_else(|| "unix".into(), |peer| peer.to_string().into());
        Origin { peer, is_secure: self.is_secure }
    }
}

/// Serves a connection through the filters of the modules. `serve` gets the server's end.
pub(in crate::server) async fn serve<F>(
    socket: GuardedStream<Socket>,
    chain: Arc<Chain>,
    origins: Origins,
    memory: Arc<dyn Memory>,
    serve: impl FnOnce(GuardedStream<Socket>, Origins) -> F,
) where
    F: Future<Output = ()>,
{
    let (server, filters_end) = tokio::io::duplex(PIPE_BYTES);
    let (sender, begun) = oneshot::channel();
    let origin = origins.origin();
    let moving = task::run(Some(memory), move |guard| async move {
        // On an error, which was counted, the connection ends here.
        if let Ok((filters, connection)) = Filters::begin(chain.modules(), origin, guard).await {
            drop(chain);
            // The server's side waits for it.
            let _ = sender.send(connection);
            filters.run(socket, filters_end).await;
        }
    });
    let served = async move {
        if let Ok(connection) = begun.await {
            // It is only set here.
            let _ = origins.connection.set(Arc::new(connection));
            serve(GuardedStream::new(Socket::Filtered(server)), origins).await;
        }
    };
    let (mut moving, mut served) = (pin!(moving), pin!(served));
    tokio::select! {
        moved = &mut moving => match moved {
            Ok(()) => served.await,
            Err(_) => tracing::debug!("a connection is cut off: a module did not return in time"),
        },
        () = &mut served => {
            if timeout(LAST_BYTES_MAX, moving).await.is_err() {
                tracing::debug!("a connection is cut off: its peer does not accept the last bytes");
            }
        }
    }
}
