//! A TCP proxy on the loopback interface that cuts a connection after a number of bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the driver to its host: requests.
    ToHost,
    /// From the host back to the driver: responses.
    ToDriver,
}

/// Where to cut a connection: after this many bytes in that direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub direction: Direction,
    pub after: usize,
}

/// Forwards connections to a host until it is dropped.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<Mutex<ProxyState>>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct ProxyState {
    /// The next cut; each is made once.
    cut: Option<Cut>,
    to_host: usize,
    to_driver: usize,
}

impl Proxy {
    /// A proxy before the host at that address, on a free port.
    pub async fn start(host: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state: Arc<Mutex<ProxyState>> = Arc::default();
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((driver, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    if let Ok(host) = TcpStream::connect(host).await {
                        relay(driver, host, &state).await;
                    }
                });
            }
        });
        Proxy { address, state, accepting }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Restarts the count of bytes and sets the next cut.
    pub fn arm(&self, cut: Option<Cut>) {
        *locked(&self.state) = ProxyState { cut, ..ProxyState::default() };
    }

    /// Removes the cut. Returns how many bytes passed since [`Proxy::arm`]: to the host, and to the driver.
    pub fn disarm(&self) -> (usize, usize) {
        let mut state = locked(&self.state);
        state.cut = None;
        (state.to_host, state.to_driver)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Ends as soon as either direction ends, and closes both sockets.
async fn relay(driver: TcpStream, host: TcpStream, state: &Mutex<ProxyState>) {
    let _ = (driver.set_nodelay(true), host.set_nodelay(true));
    let ((from_driver, to_driver), (from_host, to_host)) = (driver.into_split(), host.into_split());
    tokio::select! {
        () = pass(from_driver, to_host, Direction::ToHost, state) => {}
        () = pass(from_host, to_driver, Direction::ToDriver, state) => {}
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    state: &Mutex<ProxyState>,
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        let (passing, is_cut) = locked(state).count(direction, length);
        if to.write_all(&bytes[..passing]).await.is_err() || is_cut {
            return;
        }
    }
}

impl ProxyState {
    /// How many of these bytes pass, and whether the connection ends with them.
    fn count(&mut self, direction: Direction, length: usize) -> (usize, bool) {
        let passed = match direction {
            Direction::ToHost => &mut self.to_host,
            Direction::ToDriver => &mut self.to_driver,
        };
        let before = *passed;
        *passed += length;
        match self.cut {
            Some(cut) if cut.direction == direction && cut.after <= *passed => {
                self.cut = None;
                (cut.after - before, true)
            }
            _ => (length, false),
        }
    }
}

fn locked(state: &Mutex<ProxyState>) -> MutexGuard<'_, ProxyState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
