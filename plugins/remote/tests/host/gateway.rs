//! A gateway between driver and host may respond in place of the host. Such a response is never mistaken for the
//! store's, and the failure is temporary.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use snaphook_driver::wire::Opened;
use snaphook_driver::{ErrorKind, EventFilter, EventQuery, Store};
use snaphook_driver_testkit::peer::{Peer, Reply};
use snaphook_driver_testkit::run;
use snaphook_driver_testkit::sample::any;

use crate::support::open;

const PAGE: &str = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>";

/// Responses of gateways.
fn replies() -> Vec<Reply> {
    let html = || vec![("content-type", "text/html".to_owned())];
    let page = |status| Reply::Response(status, html(), PAGE.into());
    vec![
        page(502),
        page(503),
        page(504),
        page(500),
        page(429),
        page(408),
        // A page that is not an error, such as the login page of a network.
        page(200),
        Reply::Response(200, html(), Vec::new()),
        Reply::Response(200, html(), b"{}".to_vec()),
        Reply::status(200),
        Reply::status(204),
        Reply::Response(200, vec![("content-type", "application/json".into())], PAGE.into()),
        Reply::json(502, r#"{"message": "upstream connect error", "kind": "ERROR_KIND_CONFLICT"}"#),
        Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{}".to_vec()),
        Reply::Cut,
    ]
}

/// A gateway that responds to `open` as the host would, and to every other call with the reply of that number.
fn gateway(encoding: &'static str, number: Arc<AtomicUsize>) -> Peer {
    Peer::start(move |request| match (request.path.ends_with("/open"), encoding) {
        (true, "json") => {
            Reply::json(200, json!({"handle": "1", "capabilities": {"atomicBatch": true}, "log": "l"}).to_string())
        }
        (true, _) => Reply::Response(200, vec![("content-type", "application/x-protobuf".into())], vec![8, 1]),
        (false, _) => replies().swap_remove(number.load(Ordering::SeqCst)),
    })
}

#[test]
fn a_page_of_a_gateway_is_no_answer() {
    run(async {
        for encoding in ["json", "protobuf"] {
            let number = Arc::new(AtomicUsize::new(0));
            let peer = gateway(encoding, Arc::clone(&number));
            let secrets = open(&peer.url(""), encoding, None, Store::Secure).await.unwrap();
            let events = open(&peer.url(""), encoding, None, Store::Event).await.unwrap();
            let (Opened::Secure(secrets), Opened::Event(events)) = (secrets, events) else {
                panic!("they were asked for")
            };
            let query = EventQuery { after: 0, limit: 1, filter: EventFilter::default() };
            for (index, reply) in replies().iter().enumerate() {
                number.store(index, Ordering::SeqCst);
                let changes = [
                    secrets.put("a", b"x", None).await.unwrap_err(),
                    secrets.delete("a").await.unwrap_err(),
                    events.append(&[any("m", "a")], false).await.unwrap_err(),
                    events.ack("g", &[(1, 1)]).await.unwrap_err(),
                ];
                let reads = [
                    secrets.get("a").await.unwrap_err(),
                    secrets.list("").await.unwrap_err(),
                    secrets.health().await.unwrap_err(),
                    events.read(&query, None).await.unwrap_err(),
                    events.head().await.unwrap_err(),
                ];
                for (errors, kind) in [(&changes[..], ErrorKind::Uncertain), (&reads, ErrorKind::Unavailable)] {
                    for error in errors {
                        assert_eq!(error.kind(), kind, "{encoding}, {reply:?}: {error}");
                        assert!(error.is_temporary(), "{encoding}, {reply:?}: {error}");
                        assert!(!error.to_string().contains("nginx"), "{error}");
                    }
                }
            }
        }
    });
}

#[test]
fn opening_behind_a_gateway_says_what_stands_there() {
    run(async {
        for (status, kind) in [
            (502, ErrorKind::Unavailable),
            (503, ErrorKind::Unavailable),
            (200, ErrorKind::Unavailable),
            (404, ErrorKind::Config),
            (301, ErrorKind::Config),
            (401, ErrorKind::Config),
        ] {
            let peer = Peer::start(move |_| Reply::Response(status, Vec::new(), PAGE.into()));
            let error = open(&peer.url(""), "json", None, Store::Secure).await.err().unwrap();
            assert_eq!(error.kind(), kind, "{status}: {error}");
            assert!(error.to_string().contains(&peer.url("")), "{error}");
        }
        // No server at this address.
        let gone = Peer::start(|_| Reply::Cut).url("");
        let error = open(&gone, "json", None, Store::Secure).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    });
}
