//! A host with stores in memory, and raw requests to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use snaphook_driver::wire::Opened;
use snaphook_driver::{OpenContext, Result, SecureStore, Store};
use snaphook_remote::connect;
use snaphook_remote::host::{Host, HostLimits, HostOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Longer than any operation that the tests wait for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A store of the driver `memory`.
pub(crate) async fn in_memory(store: Store) -> Opened {
    Opened::open(&snaphook_memory::DRIVER, store, OpenContext::new(serde_json::Map::new(), "")).await.unwrap()
}

/// The address of a host, which runs until the test ends.
pub(crate) async fn serve(store: Opened, options: HostOptions, limits: HostLimits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let host = Host::new(listener, vec![store], options).unwrap().with_limits(limits);
    tokio::spawn(host.serve(std::future::pending()));
    address
}

/// Opens the driver's store at an address.
pub(crate) async fn open(url: &str, encoding: &str, token: Option<&str>, store: Store) -> Result<Opened> {
    let settings = json!({"url": url, "encoding": encoding, "token": token});
    connect(store, &OpenContext::new(settings.as_object().unwrap().clone(), "")).await
}

/// A host with secrets, and the store behind it.
pub(crate) async fn serve_secrets(options: HostOptions, limits: HostLimits) -> (SocketAddr, Arc<dyn SecureStore>) {
    let opened = in_memory(Store::Secure).await;
    let Opened::Secure(store) = opened.clone() else { unreachable!("it was asked for") };
    (serve(opened, options, limits).await, store)
}

/// A response: its status, and everything received as text.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) text: String,
}

/// Sends bytes on a new connection and reads until the host closes it.
pub(crate) async fn send(address: SocketAddr, bytes: &str) -> Reply {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    read_to_end(&mut stream).await
}

pub(crate) async fn read_to_end(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    // A connection that is reset has ended too.
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("the host closes it");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Reply { status, text }
}

/// A POST request that closes the connection. Each line of `headers` ends with a line break.
pub(crate) fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nConnection: close\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
}
