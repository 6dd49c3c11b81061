//! An HTTP peer for hooks that responds when the test permits it, which shows the concurrent requests.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::support::eventually;

/// Listens until the test ends.
pub(crate) struct Gate {
    address: SocketAddr,
    shared: Arc<SharedGate>,
}

#[derive(Default)]
struct SharedGate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    is_open: bool,
    /// Paths that may pass although the gate is closed.
    let_in: BTreeSet<String>,
    /// Paths of waiting requests.
    waiting: Vec<String>,
    /// Paths of all requests, in order of arrival.
    seen: Vec<String>,
}

impl Gate {
    /// A closed gate: each request waits for its response.
    pub(crate) fn closed() -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(SharedGate::default());
        std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let shared = Arc::clone(&shared);
                    // Errors are ignored: a killed client drops its connection.
                    std::thread::spawn(move || drop(shared.answer(stream)));
                }
            }
        });
        Gate { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A grant that lets the hooks of a model call the gate.
    pub(crate) fn grant(&self, model: &str, more: &str) -> String {
        format!(
            "[[grants]]\nmodel = '{model}'\nphase = ['postCreate', 'postUpdate', 'postDelete']\nhttp = ['{}/*']\n\
             timeout = '60 s'\n{more}\n",
            self.url()
        )
    }

    /// Lets all requests pass, now and later.
    pub(crate) fn open(&self) {
        self.shared.lock().is_open = true;
        self.shared.changed.notify_all();
    }

    /// Lets the requests of one path pass.
    pub(crate) fn let_in(&self, path: &str) {
        self.shared.lock().let_in.insert(path.to_owned());
        self.shared.changed.notify_all();
    }

    /// Paths of the requests that are waiting now.
    pub(crate) fn waiting(&self) -> Vec<String> {
        self.shared.lock().waiting.clone()
    }

    /// Paths of all requests so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.shared.lock().seen.clone()
    }

    /// Waits until this many requests wait at the same time.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize) -> Vec<String> {
        eventually(&format!("{count} requests wait at once"), || {
            Some(self.waiting()).filter(|waiting| waiting.len() >= count)
        })
    }
}

impl SharedGate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut length = 0;
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.trim().is_empty() {
                break;
            }
        }
        reader.read_exact(&mut vec![0; length])?;
        let mut state = self.lock();
        state.seen.push(path.clone());
        state.waiting.push(path.clone());
        self.changed.notify_all();
        while !state.is_open && !state.let_in.contains(&path) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(index) = state.waiting.iter().position(|waiting| *waiting == path) {
            state.waiting.remove(index);
        }
        drop(state);
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}
