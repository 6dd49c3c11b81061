//! Connections that pass through filters of modules, below TLS. A task owns the socket: it moves bytes between the
//! socket and an in-memory pipe to the server, through the filters. It reads no more than the other side accepts.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};

use crate::exchange::{Origin, Side};
use crate::fault::Fault;
use crate::memory::Pieces;
use crate::module::{ConnectionFiltered, ConnectionHandler, ConnectionState, Module};
use crate::task::Guard;

/// How many bytes may be in transit in one direction before reading pauses.
const BUFFER_BYTES: usize = 64 * 1024;

/// How many bytes are read at once.
const PIECE_BYTES: usize = 16 * 1024;

/// How many filter calls one chunk may cause: filters that respond to each other could loop forever.
const STEPS_MAX: usize = 1000;

/// The modules' state of a connection, for the requests on it.
pub struct Connection {
    pub origin: Origin,
    states: Vec<(Arc<Module>, ConnectionState)>,
}

impl Connection {
    /// A connection without filters.
    pub fn plain(origin: Origin) -> Connection {
        Connection { origin, states: Vec::new() }
    }

    pub(crate) fn state(&self, module: &Arc<Module>) -> Option<&ConnectionState> {
        self.states.iter().find(|(known, _)| Arc::ptr_eq(known, module)).map(|(_, state)| state)
    }
}

/// The filters of a connection, in order from the socket to the server.
pub struct Filters {
    handlers: Vec<(Arc<Module>, Box<dyn ConnectionHandler>)>,
    to_server: Pieces,
    to_peer: Pieces,
    guard: Arc<Guard>,
}

/// Bytes in transit: the next filter, their direction, and whether they are the last.
struct Transit {
    next: usize,
    to: Side,
    bytes: Bytes,
    is_last: bool,
}

impl Filters {
    /// Begins a connection: calls every module in order. An error ends the connection and is already counted.
    pub async fn begin(
        modules: &[Arc<Module>],
        origin: Origin,
        guard: Arc<Guard>,
    ) -> Result<(Filters, Connection), Fault> {
        let mut filters =
            Filters { handlers: Vec::new(), to_server: Pieces::default(), to_peer: Pieces::default(), guard };
        let mut states = Vec::new();
        for module in modules.iter().filter(|module| module.wants.connections && !module.is_skipped()) {
            if module.is_missing() {
                return Err(Fault::Failed);
            }
            let guard = Arc::clone(&filters.guard);
            let connected = module.runner.connect(&origin, &guard).await;
            if let Some(handler) = counted(module, connected)? {
                states.push((Arc::clone(module), handler.state()));
                filters.handlers.push((Arc::clone(module), handler));
            }
        }
        for index in 0..filters.handlers.len() {
            let (module, handler) = &mut filters.handlers[index];
            let started = handler.start(&filters.guard).await;
            let written = counted(module, started)?;
            filters.wrote(index, written).await?;
        }
        Ok((filters, Connection { origin, states }))
    }

    /// Moves bytes until the connection has ended.
    pub async fn run<S>(mut self, socket: S, server: DuplexStream)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        if let Err(error) = self.pump(socket, server).await {
            tracing::debug!("a connection through modules ended early: {error}");
        }
    }

    async fn pump<S>(&mut self, socket: S, server: DuplexStream) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let (mut from_peer, mut peer) = tokio::io::split(socket);
        let (mut from_server, mut server) = tokio::io::split(server);
        let (mut peer_ended, mut server_ended, mut server_told) = (false, false, false);
        let (mut inward, mut outward) = (BytesMut::new(), BytesMut::new());
        loop {
            if peer_ended && self.to_server.is_empty() && !server_told {
                server_told = true;
                server.shutdown().await?;
            }
            if server_ended && self.to_peer.is_empty() {
                return peer.shutdown().await;
            }
            inward.reserve(PIECE_BYTES);
            outward.reserve(PIECE_BYTES);
            let may_read = self.to_server.is_empty() && self.to_peer.len() < BUFFER_BYTES;
            tokio::select! {
                read = from_peer.read_buf(&mut inward), if !peer_ended && may_read => {
                    peer_ended = read? == 0;
                    let bytes = inward.split().freeze();
                    self.through(Transit { next: 0, to: Side::Request, bytes, is_last: peer_ended }).await?;
                }
                read = from_server.read_buf(&mut outward), if !server_ended && self.to_peer.is_empty() => {
                    server_ended = read? == 0;
                    let bytes = outward.split().freeze();
                    let next = self.handlers.len();
                    self.through(Transit { next, to: Side::Response, bytes, is_last: server_ended }).await?;
                }
                written = server.write(self.to_server.first()), if !self.to_server.is_empty() => {
                    match written {
                        Ok(count) => self.to_server.advance(count),
                        // The server has stopped reading; its output may still be in transit.
                        Err(_) => {
                            self.to_server.clear();
                            peer_ended = true;
                            server_told = true;
                        }
                    }
                }
                written = peer.write(self.to_peer.first()), if !self.to_peer.is_empty() => {
                    let count = written?;
                    self.to_peer.advance(count);
                }
            }
        }
    }

    /// Passes bytes through the remaining filters in their direction.
    async fn through(&mut self, first: Transit) -> io::Result<()> {
        let mut steps = vec![first];
        let mut count = 0;
        while let Some(Transit { next, to, bytes, is_last }) = steps.pop() {
            // Towards the peer, `next` is one more than the index of the filter.
            let index = match to {
                Side::Request if next < self.handlers.len() => next,
                Side::Response if next > 0 => next - 1,
                Side::Request => {
                    self.to_server.push(bytes);
                    continue;
                }
                Side::Response => {
                    self.to_peer.push(bytes);
                    continue;
                }
            };
            count += 1;
            let (module, handler) = &mut self.handlers[index];
            if count > STEPS_MAX {
                let lie = Fault::Lied("its filter and that of another module keep writing to each other".to_owned());
                return Err(counted::<()>(module, Err(lie)).err().map_or_else(ended, ended_by));
            }
            let filtered = handler.filter(to, bytes.clone(), is_last, &self.guard).await;
            let filtered = counted(module, filtered).map_err(ended_by)?;
            let (same, other) = match (filtered.is_replaced, to) {
                (false, _) => (bytes, Bytes::new()),
                (true, Side::Request) => (filtered.to_server, filtered.to_peer),
                (true, Side::Response) => (filtered.to_peer, filtered.to_server),
            };
            let (onward, back) = match to {
                Side::Request => ((index + 1, Side::Request), (index, Side::Response)),
                Side::Response => ((index, Side::Response), (index + 1, Side::Request)),
            };
            if !other.is_empty() {
                steps.push(Transit { next: back.0, to: back.1, bytes: other, is_last: false });
            }
            if !same.is_empty() || is_last {
                steps.push(Transit { next: onward.0, to: onward.1, bytes: same, is_last });
            }
        }
        Ok(())
    }

    /// Passes on the output of a filter that was called without input.
    async fn wrote(&mut self, index: usize, written: ConnectionFiltered) -> Result<(), Fault> {
        if !written.is_replaced {
            return Ok(());
        }
        let steps = [
            Transit { next: index, to: Side::Response, bytes: written.to_peer, is_last: false },
            Transit { next: index + 1, to: Side::Request, bytes: written.to_server, is_last: false },
        ];
        for step in steps.into_iter().filter(|step| !step.bytes.is_empty()) {
            self.through(step).await.map_err(|_| Fault::Failed)?;
        }
        Ok(())
    }
}

/// Counts a failure.
fn counted<T>(module: &Module, result: Result<T, Fault>) -> Result<T, Fault> {
    result.inspect_err(|fault| module.standing.strike(fault))
}

fn ended_by(fault: Fault) -> io::Error {
    io::Error::other(fault.to_string())
}

fn ended() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}
