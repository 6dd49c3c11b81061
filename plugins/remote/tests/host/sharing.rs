//! Stores with the same `connection` share its HTTP connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use snaphook_driver::{OpenContext, Store};
use snaphook_driver_testkit::run;
use snaphook_remote::connect;
use snaphook_remote::host::{HostLimits, HostOptions};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::support::serve_secrets;

/// Pairs of stores that are opened until a pair finds its connection free.
const OPENED_MAX: usize = 20;

/// Forwards connections to the host and counts them.
async fn relay(host: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut host = TcpStream::connect(host).await.unwrap();
                // Either side may close the connection.
                let _ = copy_bidirectional(&mut client, &mut host).await;
            });
        }
    });
    (address, count)
}

/// Opens the same store twice, one after the other.
async fn open_two(settings: &Value) {
    let open = async || {
        let Value::Object(settings) = settings.clone() else { unreachable!("it is a table") };
        connect(Store::Secure, &OpenContext::new(settings, "")).await.unwrap()
    };
    let first = open().await;
    let second = open().await;
    drop((first, second));
}

#[test]
fn one_connection_serves_all_stores_that_name_it() {
    run(async {
        let (host, _) = serve_secrets(HostOptions::default(), HostLimits::default()).await;
        let (address, count) = relay(host).await;
        let url = format!("http://{address}");
        open_two(&json!({"url": url})).await;
        assert_eq!(count.swap(0, Ordering::SeqCst), 2, "each has its own without a name");
        let shared = json!({"connection": {"name": "main", "settings": {"url": url}}});
        // A connection is not free at once when its answer has come, so a store may need another one; but once enough
        // are free, no store does.
        let mut before = 0;
        for _ in 0..OPENED_MAX {
            open_two(&shared).await;
            match count.load(Ordering::SeqCst) {
                now if now == before => return,
                now => before = now,
            }
        }
        panic!("{before} connections, though no two stores were opened at once");
    });
}
