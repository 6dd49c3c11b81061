//! A small HTTP server for tests of drivers that send requests: each test decides how it responds, including
//! incorrectly.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, TcpStream};

/// A request as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// The path with the query.
    pub path: String,
    /// The names are in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// How the server reacts to a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A complete response: status, headers and body.
    Response(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// These bytes, whatever they mean; then the connection is closed.
    Raw(Vec<u8>),
    /// These bytes, and then the last one repeatedly while the client reads.
    Endless(Vec<u8>),
    /// Nothing, while the connection stays open.
    Stall,
    /// The connection ends at once.
    Cut,
}

impl Reply {
    /// A response without a body.
    pub fn status(status: u16) -> Reply {
        Reply::Response(status, Vec::new(), Vec::new())
    }

    /// A response with JSON.
    pub fn json(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply::Response(status, vec![("content-type", "application/json".into())], body.into())
    }
}

/// A server on a free port of the loopback interface. It runs on its own thread until it is dropped.
pub struct Peer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    _running: tokio::sync::oneshot::Sender<()>,
}

impl Peer {
    /// `answer` is called for each request, concurrently for different connections.
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Peer {
        Peer::start_at("127.0.0.1:0".parse().unwrap(), true, answer)
    }

    /// The same at the address of an earlier server that has ended; `records` tells whether requests are kept for
    /// [`Peer::requests`].
    pub fn start_at(
        address: SocketAddr,
        records: bool,
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Peer {
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (running, ended) = tokio::sync::oneshot::channel::<()>();
        let (log, answer) = (records.then(|| Arc::clone(&requests)), Arc::new(answer));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                let accept = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        let (answer, log) = (Arc::clone(&answer), log.clone());
                        tokio::spawn(async move { serve(stream, &*answer, log.as_deref()).await });
                    }
                };
                tokio::select! { _ = accept => {}, _ = ended => {} }
            });
        });
        Peer { address, requests, _running: running }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address with a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(
    stream: TcpStream,
    answer: &(dyn Fn(&Request) -> Reply + Send + Sync),
    log: Option<&Mutex<Vec<Request>>>,
) {
    let _ = stream.set_nodelay(true);
    let mut stream = BufStream::new(stream);
    while let Some(request) = read(&mut stream).await {
        if let Some(log) = log {
            log.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
        }
        let written = match answer(&request) {
            Reply::Response(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
                if status == 204 {
                    head = format!("HTTP/1.1 {status} x\r\n");
                }
                headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
                head.push_str("\r\n");
                let bytes = [head.as_bytes(), &body].concat();
                stream.write_all(&bytes).await.is_ok() && stream.flush().await.is_ok()
            }
            Reply::Raw(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.flush().await;
                false
            }
            Reply::Endless(bytes) => {
                let more = [bytes.last().copied().unwrap_or(b' '); 4096];
                let mut written = stream.write_all(&bytes).await;
                while written.is_ok() {
                    written = stream.write_all(&more).await;
                }
                false
            }
            Reply::Stall => {
                // Until the client closes the connection.
                let _ = stream.read_u8().await;
                false
            }
            Reply::Cut => false,
        };
        if !written {
            return;
        }
    }
}

async fn read(stream: &mut BufStream<TcpStream>) -> Option<Request> {
    let first = line(stream).await?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let line = line(stream).await?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { method, path, headers, body })
}

async fn line(stream: &mut BufStream<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let length = stream.read_line(&mut line).await.ok()?;
    (length > 0).then(|| line.trim_end().to_owned())
}
