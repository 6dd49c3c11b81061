//! Clients that write one instance after another over HTTP/1.1 or HTTP/2, and record the results. Nothing is sent
//! twice.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::eventually;

/// Concurrent requests per HTTP/2 connection.
const STREAMS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// How the server is reached.
#[derive(Clone)]
pub(super) enum Way {
    Tcp(SocketAddr),
    /// With the server's certificate.
    Tls(SocketAddr, String),
    Unix(PathBuf),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Way {
    async fn connect(&self, protocol: Protocol) -> io::Result<Box<dyn Stream>> {
        let tcp = |address: SocketAddr| async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(stream)
        };
        match self {
            Way::Tcp(address) => Ok(Box::new(tcp(*address).await?)),
            Way::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
            Way::Tls(address, certificate) => {
                let mut roots = RootCertStore::empty();
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate");
                roots.add(certificate).expect("a certificate");
                let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
                let config = config.with_safe_default_protocol_versions().expect("versions");
                let mut config = config.with_root_certificates(roots).with_no_client_auth();
                config.alpn_protocols = match protocol {
                    Protocol::Http1 => vec![b"http/1.1".to_vec()],
                    Protocol::Http2 => vec![b"h2".to_vec()],
                };
                let name = ServerName::try_from("localhost").expect("a name");
                Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, tcp(*address).await?).await?))
            }
        }
    }

    /// Sends one request on a separate connection.
    #[track_caller]
    pub(super) fn post(&self, path: &str, body: &Value) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let status = runtime.block_on(async {
            let stream = TokioIo::new(self.connect(Protocol::Http1).await.expect("a server"));
            let (mut sender, connection) = conn::http1::handshake(stream).await.expect("a connection");
            tokio::spawn(connection);
            sender.send_request(request(Protocol::Http1, path, body)).await.expect("a response").status()
        });
        assert!(status.is_success(), "{status}");
    }
}

fn request(protocol: Protocol, path: &str, body: &Value) -> Request<Full<Bytes>> {
    let request = match protocol {
        Protocol::Http1 => Request::post(path).header("host", "localhost"),
        Protocol::Http2 => Request::post(format!("http://localhost{path}")),
    };
    request.header("content-type", "application/json").body(Full::from(body.to_string())).expect("a request")
}

/// The clients, on a separate thread.
pub(super) struct Load {
    shared: Arc<SharedLoad>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct SharedLoad {
    next: AtomicUsize,
    ends: AtomicBool,
    /// Ids of instances whose creation returned 201.
    answered: Mutex<BTreeSet<String>>,
    /// Ids of instances whose creation got no response.
    unanswered: Mutex<BTreeSet<String>>,
    /// Responses that violate the contract.
    faults: Mutex<Vec<String>>,
    connections: AtomicUsize,
    /// The number of responses with `Connection: close`.
    told: AtomicUsize,
}

impl Load {
    pub(super) fn start(way: Way, protocol: Protocol, connections: usize) -> Load {
        let shared = Arc::<SharedLoad>::default();
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                runtime.expect("a runtime").block_on(async {
                    let clients = (0..connections).map(|_| {
                        let (shared, way) = (Arc::clone(&shared), way.clone());
                        tokio::spawn(async move { shared.client(&way, protocol).await })
                    });
                    for client in clients.collect::<Vec<_>>() {
                        client.await.expect("no panic");
                    }
                });
            }
        });
        Load { shared, thread: Mutex::new(Some(thread)) }
    }

    /// Waits until this many writes were acknowledged.
    #[track_caller]
    pub(super) fn wait_for(&self, writes: usize) {
        eventually("writes are answered", || (self.answered().len() >= writes).then_some(()));
    }

    /// Waits until the server accepts no more connections.
    #[track_caller]
    pub(super) fn join(&self) {
        let thread = lock(&self.thread).take().expect("it is joined once");
        eventually("the clients have ended", || thread.is_finished().then_some(()));
        thread.join().expect("no panic");
    }

    /// Ends the load while the server keeps running.
    #[track_caller]
    pub(super) fn end(&self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        self.join();
    }

    /// No response was cut off, and each one reported success.
    #[track_caller]
    pub(super) fn check(&self) {
        let faults = lock(&self.shared.faults);
        assert!(faults.is_empty(), "{} faults: {:?}", faults.len(), faults.iter().take(5).collect::<Vec<_>>());
    }

    /// Sorted ids.
    pub(super) fn answered(&self) -> Vec<String> {
        lock(&self.shared.answered).iter().cloned().collect()
    }

    pub(super) fn unanswered(&self) -> Vec<String> {
        lock(&self.shared.unanswered).iter().cloned().collect()
    }

    pub(super) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub(super) fn was_told(&self) -> usize {
        self.shared.told.load(Ordering::SeqCst)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SharedLoad {
    /// Opens one connection after another until the server accepts no more.
    async fn client(&self, way: &Way, protocol: Protocol) {
        while !self.ends.load(Ordering::SeqCst)
            && let Ok(stream) = way.connect(protocol).await
        {
            let stream = TokioIo::new(stream);
            match protocol {
                Protocol::Http1 => {
                    let Ok((mut sender, connection)) = conn::http1::handshake(stream).await else { return };
                    self.connections.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(connection);
                    while !self.ends.load(Ordering::SeqCst) && sender.ready().await.is_ok() {
                        let (id, request) = self.next(protocol);
                        let response = sender.send_request(request).await;
                        self.note(id, response).await;
                    }
                }
                Protocol::Http2 => {
                    let Ok((sender, connection)) = conn::http2::handshake(TokioExecutor::new(), stream).await else {
                        return;
                    };
                    self.connections.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(connection);
                    let streams = (0..STREAMS).map(|_| async {
                        let mut sender = sender.clone();
                        while !self.ends.load(Ordering::SeqCst) && sender.ready().await.is_ok() {
                            let (id, request) = self.next(protocol);
                            let response = sender.send_request(request).await;
                            self.note(id, response).await;
                        }
                    });
                    futures::future::join_all(streams).await;
                }
            }
        }
    }

    fn next(&self, protocol: Protocol) -> (String, Request<Full<Bytes>>) {
        let id = format!("{protocol:?}-{:06}", self.next.fetch_add(1, Ordering::SeqCst));
        let request = request(protocol, "/models/order/instances", &json!({"id": id, "data": {"n": 1}}));
        (id, request)
    }

    async fn note(&self, id: String, response: hyper::Result<Response<Incoming>>) {
        let Ok(response) = response else {
            lock(&self.unanswered).insert(id);
            return;
        };
        let status = response.status();
        let is_last = response.headers().get("connection").is_some_and(|value| value == "close");
        self.told.fetch_add(is_last.into(), Ordering::SeqCst);
        match response.into_body().collect().await {
            Ok(_) if status == 201 => {
                lock(&self.answered).insert(id);
            }
            Ok(body) => {
                let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
                lock(&self.faults).push(format!("{id}: {status} {text}"));
            }
            Err(error) => lock(&self.faults).push(format!("{id}: {status}, broken off: {error}")),
        }
    }
}
