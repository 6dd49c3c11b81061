//! The network between a node and a server of its stores: a proxy that can be interrupted for a while.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// How a link is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    /// Closes existing connections and all new ones.
    Cut,
    /// Forwards nothing until the link is restored, then everything.
    Silent,
    /// Forwards requests but drops responses; when the link is restored, its connections are closed.
    Unanswered,
}

pub(super) struct Link {
    address: SocketAddr,
    shared: Arc<SharedLink>,
}

#[derive(Default)]
struct SharedLink {
    state: Mutex<LinkState>,
    changed: Condvar,
}

#[derive(Default)]
struct LinkState {
    broken: Option<Break>,
    is_closed: bool,
    /// Both sockets of each connection.
    open: BTreeMap<u64, [TcpStream; 2]>,
    opened: u64,
}

impl Link {
    /// A link to the server at this address.
    pub(super) fn to(server: SocketAddr) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared: Arc<SharedLink> = Arc::default();
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for node in listener.incoming().flatten() {
                if accepting.lock().is_closed {
                    return;
                }
                accepting.connect(node, server);
            }
        });
        Link { address, shared }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn break_off(&self, how: Break) {
        let mut state = self.shared.lock();
        state.broken = Some(how);
        if how == Break::Cut {
            state.end_all();
        }
    }

    pub(super) fn mend(&self) {
        let mut state = self.shared.lock();
        if state.broken.take() == Some(Break::Unanswered) {
            state.end_all();
        }
        self.shared.changed.notify_all();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_closed = true;
        state.broken = None;
        state.end_all();
        self.shared.changed.notify_all();
        drop(state);
        // Wakes the accept loop, which then ends.
        let _ = TcpStream::connect(self.address);
    }
}

impl SharedLink {
    fn lock(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().expect("no panic while locked")
    }

    fn connect(self: &Arc<Self>, node: TcpStream, server: SocketAddr) {
        if self.lock().broken == Some(Break::Cut) {
            return;
        }
        // If the server is down, close the connection.
        let Ok(server) = TcpStream::connect(server) else { return };
        let both = || Some([node.try_clone().ok()?, server.try_clone().ok()?]);
        let (Some(requests), Some([of_node, of_server]), Some(kept)) = (both(), both(), both()) else { return };
        kept.iter().for_each(|stream| stream.set_nodelay(true).expect("a socket"));
        let mut state = self.lock();
        let number = state.opened;
        state.opened += 1;
        state.open.insert(number, kept);
        drop(state);
        for (ends, is_response) in [(requests, false), ([of_server, of_node], true)] {
            let shared = Arc::clone(self);
            std::thread::spawn(move || shared.pass(number, ends, is_response));
        }
    }

    /// Forwards data from the first socket to the second until either closes.
    fn pass(&self, number: u64, [mut from, mut to]: [TcpStream; 2], is_response: bool) {
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            let is_held = |state: &mut LinkState| {
                matches!(state.broken, Some(Break::Silent)) || is_response && state.broken == Some(Break::Unanswered)
            };
            drop(self.changed.wait_while(self.lock(), is_held).expect("no panic while locked"));
            if to.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        if let Some(ends) = self.lock().open.remove(&number) {
            end(&ends);
        }
    }
}

impl LinkState {
    fn end_all(&mut self) {
        std::mem::take(&mut self.open).values().for_each(end);
    }
}

fn end(ends: &[TcpStream; 2]) {
    for stream in ends {
        // The other side may already have closed it.
        let _ = stream.shutdown(Shutdown::Both);
    }
}
