//! A client that disconnects during an append, or a host that is stopped during one: the append completes, and health
//! calls wait for it.

use std::sync::Arc;

use async_trait::async_trait;
use snaphook_driver::wire::{Client, Method, Opened, Service, Transport, encode, proto};
use snaphook_driver::{EventStore, Position, Result, Store};
use snaphook_driver_testkit::run;
use snaphook_driver_testkit::sample::any;
use snaphook_remote::host::{Host, HostLimits, HostOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

use crate::support::{DEADLINE, in_memory, open, serve};

/// An in-memory log whose appends wait for a permit.
struct Gate {
    service: Service,
    arrived: Semaphore,
    passing: Semaphore,
}

impl Gate {
    async fn new() -> (Arc<Gate>, Opened) {
        let service = Service::new(in_memory(Store::Event).await);
        let description = service.describe(1);
        let gate = Arc::new(Gate { service, arrived: Semaphore::new(0), passing: Semaphore::new(0) });
        let store = Client::new(Arc::new(Gated(Arc::clone(&gate))), description).into_opened(Store::Event);
        (gate, store)
    }

    async fn arrival(&self) {
        tokio::time::timeout(DEADLINE, self.arrived.acquire()).await.expect("an append comes").unwrap().forget();
    }
}

struct Gated(Arc<Gate>);

#[async_trait]
impl Transport for Gated {
    async fn call(&self, method: Method, request: Vec<u8>) -> Result<Vec<u8>> {
        if method == Method::EventAppend {
            self.0.arrived.add_permits(1);
            self.0.passing.acquire().await.unwrap().forget();
        }
        self.0.service.call(method, &request).await
    }
}

/// The request to append one event, as bytes.
fn request() -> Vec<u8> {
    let body = encode(&proto::EventAppendRequest { appends: vec![(&any("m", "a")).into()], atomic: false });
    let head = "POST /event/append HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n";
    [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
}

async fn head(store: &dyn EventStore) -> Position {
    store.head().await.unwrap()
}

#[test]
fn an_append_goes_on_without_its_client() {
    run(async {
        let (gate, store) = Gate::new().await;
        let address = serve(store, HostOptions::default(), HostLimits::default()).await;
        let Opened::Event(store) = open(&format!("http://{address}"), "protobuf", None, Store::Event).await.unwrap()
        else {
            panic!("it was asked for")
        };
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(&request()).await.unwrap();
        gate.arrival().await;
        drop(client);
        let health = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.health().await }
        });
        // Reads are still served.
        for _ in 0..50 {
            assert_eq!(head(&*store).await, 0);
        }
        assert!(!health.is_finished(), "the store is said to be settled while an append is under way");
        gate.passing.add_permits(1);
        tokio::time::timeout(DEADLINE, health).await.expect("health answers").unwrap().unwrap();
        assert_eq!(head(&*store).await, 1);
    });
}

/// The host knows of an append once it has received the head. From then on, health calls wait for it.
#[test]
fn health_waits_for_an_append_that_is_still_coming() {
    run(async {
        let (gate, store) = Gate::new().await;
        let address = serve(store, HostOptions::default(), HostLimits::default()).await;
        let Opened::Event(store) = open(&format!("http://{address}"), "protobuf", None, Store::Event).await.unwrap()
        else {
            panic!("it was asked for")
        };
        let request = request();
        let end = request.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 2;
        let (head_lines, body) = request.split_at(end);
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(head_lines).await.unwrap();
        client.write_all(b"Expect: 100-continue\r\n\r\n").await.unwrap();
        let mut line = [0; 12];
        tokio::time::timeout(DEADLINE, client.read_exact(&mut line)).await.expect("the host asks for it").unwrap();
        assert_eq!(&line, b"HTTP/1.1 100");
        let health = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.health().await }
        });
        for _ in 0..50 {
            assert_eq!(head(&*store).await, 0);
        }
        assert!(!health.is_finished(), "the store is said to be settled while an append is coming");
        // The body, without the empty line, which was already sent.
        client.write_all(&body[2..]).await.unwrap();
        gate.passing.add_permits(1);
        tokio::time::timeout(DEADLINE, health).await.expect("health answers").unwrap().unwrap();
        assert_eq!(head(&*store).await, 1);
    });
}

#[test]
fn a_host_that_stops_leaves_no_append_behind() {
    run(async {
        let (gate, store) = Gate::new().await;
        let Opened::Event(behind) = store.clone() else { panic!("it was asked for") };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let host = Host::new(listener, vec![store], HostOptions::default()).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(host.serve(async move { stopped.await.unwrap_or_default() }));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(&request()).await.unwrap();
        gate.arrival().await;
        drop(client);
        stop.send(()).unwrap();
        // The host accepts no more connections, but still runs.
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(!serving.is_finished(), "the host ends while an append is under way");
        gate.passing.add_permits(1);
        tokio::time::timeout(DEADLINE, serving).await.expect("the host ends").unwrap().unwrap();
        assert_eq!(head(&*behind).await, 1);
    });
}
