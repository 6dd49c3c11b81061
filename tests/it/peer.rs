//! A small HTTP server that hooks talk to: it returns the test's responses and records the requests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::support::PATIENCE;

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// The path and the query.
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    /// All values of a header.
    pub(crate) fn headers(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }
}

/// A response.
#[derive(Clone, Debug)]
pub(crate) struct PeerResponse {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Announces a body but never sends it.
    stalls: bool,
}

impl PeerResponse {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        PeerResponse { status, headers: Vec::new(), body: body.into(), stalls: false }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        PeerResponse::new(200, body)
    }

    /// A redirect.
    pub(crate) fn redirect(status: u16, location: &str) -> Self {
        PeerResponse::new(status, "").header("location", location)
    }

    /// Sends the head without the body, and waits until the other side gives up.
    pub(crate) fn stalled() -> Self {
        PeerResponse { stalls: true, ..PeerResponse::ok("never sent") }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

type Handler = dyn Fn(&Asked) -> PeerResponse + Send + Sync;

/// The server; it stops when dropped.
pub(crate) struct Peer {
    address: SocketAddr,
    shared: Arc<SharedPeer>,
    thread: Option<JoinHandle<()>>,
}

struct SharedPeer {
    handler: Box<Handler>,
    asked: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
    ends: AtomicBool,
}

impl Peer {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) fn start(handler: impl Fn(&Asked) -> PeerResponse + Send + Sync + 'static) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(SharedPeer {
            handler: Box::new(handler),
            asked: Mutex::default(),
            connections: AtomicUsize::new(0),
            ends: AtomicBool::new(false),
        });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if shared.ends.load(Ordering::SeqCst) {
                        return;
                    }
                    shared.connections.fetch_add(1, Ordering::SeqCst);
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || shared.serve(stream));
                }
            }
        });
        Peer { address, shared, thread: Some(thread) }
    }

    /// Responds to everything with the same text.
    pub(crate) fn saying(text: &'static str) -> Peer {
        Peer::start(move |_| PeerResponse::ok(text))
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// `http://127.0.0.1:PORT` and the path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().expect("no panic while locked").clone()
    }

    /// The number of connections, including those without requests.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        // Wakes the listener.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl SharedPeer {
    fn serve(&self, stream: TcpStream) {
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let mut stream = BufReader::new(stream);
        // Until the other side closes the connection.
        while let Some(asked) = read(&mut stream) {
            self.asked.lock().expect("no panic while locked").push(asked.clone());
            let answer = (self.handler)(&asked);
            if !write(stream.get_mut(), &asked, &answer) {
                return;
            }
            if answer.stalls {
                let _ = stream.read(&mut [0]);
                return;
            }
        }
    }
}

fn read(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let mut body = vec![0; length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some(Asked { method, target, headers, body })
}

/// Whether the complete response was sent.
fn write(stream: &mut TcpStream, asked: &Asked, answer: &PeerResponse) -> bool {
    let mut wire = format!("HTTP/1.1 {} Answer\r\ncontent-length: {}\r\n", answer.status, answer.body.len());
    for (name, value) in &answer.headers {
        wire.push_str(&format!("{name}: {value}\r\n"));
    }
    wire.push_str("\r\n");
    let mut wire = wire.into_bytes();
    if asked.method != "HEAD" && !answer.stalls {
        wire.extend_from_slice(&answer.body);
    }
    stream.write_all(&wire).is_ok()
}
