//! Servers that are killed and paused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use snaphook_driver::{ErrorKind, SecureStore};
use snaphook_driver_testkit::run;
use snaphook_driver_testkit::servers::redis::{DURABLE, start};
use snaphook_driver_testkit::servers::{Signal, free_port};
use tokio::time::Instant;

use crate::support::{ask, eventually, open, open_at};

const WRITERS: usize = 4;
const KILLS: usize = 5;

/// Puts increasing numbers until `stop` is set. Returns the last acknowledged version and number, and the last number.
async fn put_until(store: Arc<dyn SecureStore>, name: String, stop: Arc<AtomicBool>) -> (u64, u64, u64) {
    let (mut version, mut acknowledged, mut number) = (0, 0, 0_u64);
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        match store.put(&name, number.to_string().as_bytes(), None).await {
            Ok(new) => {
                // A put with an unknown outcome may have increased the version.
                assert!(new > version, "{name}: {new} after {version}");
                (version, acknowledged) = (new, number);
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Uncertain), "{error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    (version, acknowledged, number)
}

#[test]
fn what_was_acknowledged_survives_kills() {
    run(async {
        let mut server = start(DURABLE);
        let store = open_at(&server, "kills").await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| tokio::spawn(put_until(store.clone(), format!("w{writer}"), stop.clone())))
            .collect();
        let mut version = 0;
        for _ in 0..KILLS {
            // While the writers are putting.
            let ahead = version + 50;
            version = eventually(async || match store.get("w0").await? {
                Some(sealed) if sealed.version >= ahead => Ok(sealed.version),
                _ => Err(snaphook_driver::DriverError::new(ErrorKind::Unavailable, "get", "not yet")),
            })
            .await;
            server.end(Signal::Kill);
            server.restart();
        }
        stop.store(true, Ordering::Relaxed);
        for (writer, task) in writers.into_iter().enumerate() {
            let (version, acknowledged, last) = task.await.unwrap();
            let sealed = eventually(async || store.get(&format!("w{writer}")).await).await.unwrap();
            let number: u64 = String::from_utf8(sealed.bytes).unwrap().parse().unwrap();
            assert!(sealed.version >= version && (acknowledged..=last).contains(&number), "{writer}: {number}");
        }
        store.health().await.unwrap();
        // Checks it again after another kill, with a new client.
        server.end(Signal::Kill);
        server.restart();
        let fresh = eventually(async || {
            open(json!({"host": "127.0.0.1", "port": server.address().port(), "prefix": "kills"})).await
        })
        .await;
        assert_eq!(eventually(async || fresh.list("").await).await.len(), WRITERS);
    });
}

#[test]
fn a_server_that_hangs_is_late_and_comes_back() {
    run(async {
        let server = start(DURABLE);
        let store = open_at(&server, "hangs").await.unwrap();
        assert_eq!(store.put("a", b"1", None).await.unwrap(), 1);
        server.pause();
        let started = Instant::now();
        let (got, listed, put, health) =
            tokio::join!(store.get("a"), store.list(""), store.put("a", b"2", Some(1)), store.health());
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        assert_eq!(got.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(listed.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(health.unwrap_err().kind(), ErrorKind::Unavailable);
        let error = put.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Uncertain | ErrorKind::Unavailable), "{error}");
        server.resume();
        let sealed = eventually(async || store.get("a").await).await.unwrap();
        let next = sealed.version + 1;
        assert!(matches!((sealed.version, &*sealed.bytes), (1, b"1") | (2, b"2")), "{sealed:?}");
        assert_eq!(store.put("a", b"3", Some(sealed.version)).await.unwrap(), next);
        store.health().await.unwrap();
    });
}

#[test]
fn a_server_that_is_gone_is_told_at_once() {
    run(async {
        let mut server = start(DURABLE);
        let store = open_at(&server, "gone").await.unwrap();
        assert_eq!(store.put("a", b"1", None).await.unwrap(), 1);
        server.end(Signal::Kill);
        let started = Instant::now();
        assert_eq!(store.get("a").await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(store.put("a", b"2", None).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        server.restart();
        assert_eq!(eventually(async || store.put("a", b"2", None).await).await, 2);
    });
}

#[test]
fn a_server_that_becomes_a_replica_is_told_apart() {
    run(async {
        let server = start(DURABLE);
        let store = open_at(&server, "replica").await.unwrap();
        assert_eq!(store.put("a", b"1", None).await.unwrap(), 1);
        let port = free_port().to_string();
        ask(&server, &["REPLICAOF", "127.0.0.1", &port]).await.unwrap();
        let error = store.put("a", b"2", None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(error.message(), "the server is a replica, expected the primary");
        ask(&server, &["REPLICAOF", "NO", "ONE"]).await.unwrap();
        assert_eq!(store.put("a", b"2", None).await.unwrap(), 2);
    });
}

/// A script may only use keys of one node.
#[test]
fn a_cluster_keeps_all_keys_on_one_node() {
    run(async {
        let port: &'static str = free_port().to_string().leak();
        let own: &[&str] = &["--cluster-enabled", "yes", "--cluster-port", port];
        let server = start([DURABLE, own].concat().leak());
        let error = open_at(&server, "cluster").await.unwrap().put("a", b"1", None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        ask(&server, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await.unwrap();
        let store = open_at(&server, "cluster").await.unwrap();
        assert_eq!(eventually(async || store.put("a", b"1", None).await).await, 1);
        assert_eq!(store.put("b", b"2", Some(0)).await.unwrap(), 1);
        assert_eq!(store.list("").await.unwrap(), ["a", "b"]);
        assert!(store.delete("a").await.unwrap());
        assert_eq!(store.get("b").await.unwrap().unwrap().bytes, b"2");
    });
}
