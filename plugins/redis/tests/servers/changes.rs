//! Changes happen exactly once, wherever the connection breaks.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use snaphook_driver::ErrorKind;
use snaphook_driver_testkit::cut::{Cut, Direction, Proxy};
use snaphook_driver_testkit::run;
use snaphook_driver_testkit::servers::redis::{DURABLE, start};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::{ask, open, open_at};

/// Bytes between two cuts of a request. A response is cut after every byte.
const STEP: usize = 23;

#[test]
fn a_connection_may_break_anywhere() {
    run(async {
        let server = start(DURABLE);
        let proxy = Proxy::start(server.address()).await;
        let store = open(json!({"url": format!("redis://{}", proxy.address()), "prefix": "cut"})).await.unwrap();
        proxy.arm(None);
        assert_eq!(store.put("a", b"0", Some(0)).await.unwrap(), 1);
        let (to_host, to_driver) = proxy.disarm();
        assert!(to_host > 400 && (4..100).contains(&to_driver), "{to_host} {to_driver}");
        let cuts = (1..=to_host).step_by(STEP).map(|after| (Direction::ToHost, after));
        let cuts = cuts.chain([(Direction::ToHost, to_host)]);
        let cuts = cuts.chain((1..=to_driver).map(|after| (Direction::ToDriver, after)));
        let mut version = 1;
        for (direction, after) in cuts {
            let cut = format!("{direction:?} {after}");
            proxy.arm(Some(Cut { direction, after }));
            // Each version is stored exactly once.
            let bytes = version.to_string();
            assert_eq!(store.put("a", bytes.as_bytes(), None).await.unwrap(), version + 1, "{cut}");
            version += 1;
            proxy.arm(Some(Cut { direction, after }));
            let expected = Some(version);
            assert_eq!(store.put("a", bytes.as_bytes(), expected).await.unwrap(), version + 1, "{cut}");
            version += 1;
            proxy.arm(Some(Cut { direction, after }));
            assert_eq!(store.get("a").await.unwrap().unwrap().version, version, "{cut}");
            assert_eq!(store.put("b", b"x", None).await.unwrap(), 1, "{cut}");
            proxy.arm(Some(Cut { direction, after }));
            assert!(store.delete("b").await.unwrap(), "{cut}");
        }
        proxy.disarm();
        assert_eq!(store.list("").await.unwrap(), ["a"]);
    });
}

/// A command reaches the server after the driver has given it up and made other changes. It must not undo them.
#[test]
fn a_command_that_comes_late_changes_nothing() {
    run(async {
        let server = start(DURABLE);
        let (address, hold) = holding_proxy(server.address()).await;
        let store = open(json!({"url": format!("redis://{address}"), "prefix": "late"})).await.unwrap();
        assert_eq!(store.put("a", b"1", None).await.unwrap(), 1);
        hold.send_replace(true);
        // The first attempt is delayed; on another connection, the driver finds that it had no effect.
        assert_eq!(store.put("a", b"2", None).await.unwrap(), 2);
        assert_eq!(store.put("a", b"3", None).await.unwrap(), 3);
        let commands = async || -> u64 {
            let text: String = redis::from_redis_value(ask(&server, &["INFO", "commandstats"]).await.unwrap()).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("cmdstat_eval:calls=")).unwrap();
            line.split(',').next().unwrap().parse().unwrap()
        };
        let before = commands().await;
        hold.send_replace(false);
        while commands().await == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let sealed = store.get("a").await.unwrap().unwrap();
        assert_eq!((sealed.version, &*sealed.bytes), (3, &b"3"[..]));
    });
}

/// Forwards connections. While `hold` is set, it delays the requests of the first connection, even if the driver has
/// closed that.
async fn holding_proxy(server: SocketAddr) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (hold, held) = watch::channel(false);
    tokio::spawn(async move {
        let mut is_first = true;
        while let Ok((driver, _)) = listener.accept().await {
            let mut held = if std::mem::take(&mut is_first) { held.clone() } else { watch::channel(false).1 };
            let ((mut from, mut to), server) = (driver.into_split(), TcpStream::connect(server).await.unwrap());
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to).await });
            tokio::spawn(async move {
                let mut bytes = vec![0; 16 * 1024];
                while let Ok(length @ 1..) = from.read(&mut bytes).await {
                    // Other connections have no sender, so this returns at once.
                    let _ = held.wait_for(|is_held| !is_held).await;
                    to_server.write_all(&bytes[..length]).await.unwrap();
                }
            });
        }
    });
    (address, hold)
}

#[test]
fn handles_share_a_store_and_prefixes_part_them() {
    run(async {
        let server = start(DURABLE);
        let (one, other) = (open_at(&server, "x").await.unwrap(), open_at(&server, "x").await.unwrap());
        let apart = open_at(&server, "x:secret").await.unwrap();
        assert_eq!(one.put("a", b"1", Some(0)).await.unwrap(), 1);
        assert_eq!(other.put("a", b"2", Some(0)).await.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(other.put("a", b"2", Some(1)).await.unwrap(), 2);
        let error = one.put("a", b"3", Some(1)).await.unwrap_err();
        assert_eq!(error.message(), "secret `a` has version 2, expected 1");
        assert_eq!(one.get("a").await.unwrap().unwrap().bytes, b"2");
        assert_eq!((apart.list("").await.unwrap(), apart.get("a").await.unwrap()), (vec![], None));
        one.close().await.unwrap();
        drop(one);
        assert!(other.delete("a").await.unwrap());
    });
}

#[test]
fn long_lists_come_in_pages() {
    run(async {
        let server = start(DURABLE);
        let store = open_at(&server, "pages").await.unwrap();
        let names: Vec<String> = (0..2500).map(|number| format!("n{number:04}")).collect();
        // The same data as the driver writes, but faster.
        let mut words = vec!["ZADD", "{pages}:secrets"];
        words.extend(names.iter().flat_map(|name| ["0", name.as_str()]));
        ask(&server, &words).await.unwrap();
        assert_eq!(store.list("").await.unwrap(), names);
        assert_eq!(store.list("n2").await.unwrap(), names[2000..]);
        assert_eq!(store.list("n20").await.unwrap().len(), 100);
        for prefix in ["n2500", "N", "-", "(n", "[", "n\u{0}", "ü", "n0000x"] {
            assert_eq!(store.list(prefix).await.unwrap(), [""; 0], "{prefix}");
        }
        assert_eq!(store.list(&"n".repeat(129)).await.unwrap(), [""; 0]);
    });
}

#[test]
fn names_and_sizes_that_no_secret_has() {
    run(async {
        let server = start(DURABLE);
        let store = open_at(&server, "names").await.unwrap();
        for name in ["", "-a", ".", "a b", "a\r\nFLUSHALL\r\n", "{other}", "a:b", "ü", "a\u{0}", &"n".repeat(129)] {
            for kind in [
                store.get(name).await.unwrap_err().kind(),
                store.put(name, b"x", None).await.unwrap_err().kind(),
                store.delete(name).await.unwrap_err().kind(),
            ] {
                assert_eq!(kind, ErrorKind::Invalid, "{name:?}");
            }
        }
        let large = vec![0; snaphook_driver::PAYLOAD_BYTES_MAX + 1];
        assert_eq!(store.put("a", &large, None).await.unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(store.list("").await.unwrap(), [""; 0]);
    });
}

#[test]
fn what_others_wrote_is_damage() {
    run(async {
        let server = start(DURABLE);
        let store = open_at(&server, "damage").await.unwrap();
        let kind = |error: snaphook_driver::DriverError| error.kind();
        for (words, name) in [
            (&["SET", "{damage}:secret:text", "x"][..], "text"),
            (&["HSET", "{damage}:secret:half", "version", "1"], "half"),
            (&["HSET", "{damage}:secret:odd", "version", "one", "bytes", "x"], "odd"),
            (&["HSET", "{damage}:secret:zero", "version", "0", "bytes", "x"], "zero"),
        ] {
            ask(&server, words).await.unwrap();
            let error = store.get(name).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
            assert!(error.to_string().contains("use a `prefix` that nobody else uses"), "{error}");
        }
        assert_eq!(store.put("text", b"x", None).await.map_err(kind), Err(ErrorKind::Corrupt));
        assert_eq!(store.delete("text").await.map_err(kind), Err(ErrorKind::Corrupt));
        ask(&server, &["SET", "{damage}:secrets", "x"]).await.unwrap();
        // Nothing is written if the second key has the wrong type.
        assert_eq!(store.put("new", b"x", None).await.map_err(kind), Err(ErrorKind::Corrupt));
        assert_eq!(store.get("new").await.unwrap(), None);
        assert_eq!(store.list("").await.map_err(kind), Err(ErrorKind::Corrupt));
        ask(&server, &["DEL", "{damage}:secrets"]).await.unwrap();
        ask(&server, &["ZADD", "{damage}:secrets", "0", "not a name"]).await.unwrap();
        assert_eq!(store.list("").await.map_err(kind), Err(ErrorKind::Corrupt));
    });
}
