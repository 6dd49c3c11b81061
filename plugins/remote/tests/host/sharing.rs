//! Stores with the same `connection` share its HTTP connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use snaphook_driver::wire::Opened;
use snaphook_driver::{OpenContext, Store};
use snaphook_driver_testkit::run;
use snaphook_remote::connect;
use snaphook_remote::host::{HostLimits, HostOptions};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::support::serve_secrets;

/// How many stores are opened until one of them finds a free connection.
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

async fn open(settings: &Value) -> Opened {
    let Value::Object(settings) = settings.clone() else { unreachable!("it is a table") };
    connect(Store::Secure, &OpenContext::new(settings, "")).await.unwrap()
}

#[test]
fn one_connection_serves_all_stores_that_name_it() {
    run(async {
        let (host, _) = serve_secrets(HostOptions::default(), HostLimits::default()).await;
        let (address, count) = relay(host).await;
        let count = || count.load(Ordering::SeqCst);
        let url = format!("http://{address}");
        let apart = json!({"url": url});
        let opened = (open(&apart).await, open(&apart).await);
        assert_eq!(count(), 2, "each has its own without a name");
        drop(opened);
        let shared = json!({"connection": {"name": "main", "settings": {"url": url}}});
        let mut opened = Vec::new();
        // A connection is not free at once when its response has arrived, so a store may need another one. But soon one
        // is free, and then a store needs none.
        let needs_none = loop {
            let before = count();
            opened.push(open(&shared).await);
            if count() == before || opened.len() == OPENED_MAX {
                break count() == before;
            }
        };
        assert!(needs_none, "{} connections for {OPENED_MAX} stores", count() - 2);
    });
}
