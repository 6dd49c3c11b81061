//! When an event is sent, and when it is sent again: attempts, delays that receivers request, 410, restarts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{KEY, bind, create, errors, lines, log_lines, start};
use crate::peer::{Asked, Peer, PeerResponse};
use crate::support::eventually;
use crate::workbench::append_config;

fn ids(asked: &[Asked]) -> BTreeSet<String> {
    asked.iter().flat_map(|asked| asked.headers("webhook-id")).map(str::to_owned).collect()
}

#[test]
fn each_attempt_is_a_line_of_the_log() {
    let attempts = AtomicUsize::new(0);
    let peer = Peer::start(move |_| match attempts.fetch_add(1, Ordering::SeqCst) {
        0 => PeerResponse::new(500, "out of\r\n\u{1b}[31m paper"),
        1 => PeerResponse::new(503, "").header("retry-after", "0"),
        _ => PeerResponse::ok("thanks"),
    });
    let (server, api) = start(&[peer.url("/*")], "", "");
    let bound = bind(&api, "order", "postCreate", &peer.url("/in-secret-path?token=secret-token"));
    assert_eq!((&bound[0]["engine"], &bound[0]["url"]), (&json!("webhook"), &json!(peer.url("/…"))));
    let position = create(&api, "order", "o-1");
    let lines = lines(&api, "order", 3);
    let url = peer.url("/…");
    for (line, (start, end)) in lines.iter().zip([
        (
            format!("failed (exception): event {position}, attempt 1: POST {url} returned 500 in "),
            ": out of\\r\\n\\u{1b}[31m paper",
        ),
        (
            format!("failed (exception): event {position}, attempt 2: POST {url} returned 503 in "),
            "; again in 0 ms at the earliest, as requested",
        ),
        (format!("event {position}, attempt 3: POST {url} returned 200 in "), " ms"),
    ]) {
        assert!(line.starts_with(&start) && line.ends_with(end), "{line}\n{start}…{end}");
    }
    assert_eq!(lines.len(), 3, "{lines:?}");
    let asked = peer.asked();
    assert_eq!((asked.len(), ids(&asked).len()), (3, 1), "the id is the same at each attempt");
    assert!(
        asked.iter().all(|again| again.body == asked[0].body && again.target == "/in-secret-path?token=secret-token")
    );
    // The digits in the body are those of the log.
    assert!(String::from_utf8_lossy(&asked[0].body).contains(r#""data":{"n":1.5}"#), "{:?}", asked[0]);
    let stats = api.get("/models/order/hooks/postCreate/stats").expect(200).json();
    let stats = &stats["items"][0];
    // The default of webhooks, not that of code.
    assert_eq!((&bound[0]["grants"]["timeout"], &stats["wall_ms"]["limit"]), (&json!("15 s"), &json!(15_000.0)));
    assert_eq!((&stats["runs"], &stats["failures"]["exception"]), (&json!(3), &json!(2)), "{stats}");
    errors(&api, 0);
    // Only the store contains the complete URL: no response and no log line shows it.
    for path in ["/models/order/hooks", "/events", "/models/order/hooks/postCreate/log"] {
        let text = api.get(path).expect(200).text();
        assert!(!text.contains("secret-token") && !text.contains("secret-path"), "{path}: {text}");
    }
    let log = server.log().concat();
    assert!(!log.contains("secret-token") && !log.contains("secret-path"), "{log}");
    // It is not code of any kind.
    for accept in ["text/javascript", "application/wasm"] {
        api.request("GET", "/models/order/hooks/postCreate")
            .header("Accept", accept)
            .send()
            .expect_problem(404, "not-found");
    }
    // After a restart it is bound before it is used again.
    let server = server.restart();
    let bound = server.client().get("/models/order/hooks/postCreate").expect(200).json();
    assert_eq!((&bound[0]["url"], &bound[0]["secret"], &bound[0]["state"]), (&json!(url), &json!("key"), &json!("ok")));
}

#[test]
fn a_receiver_says_when_it_wants_the_event_again() {
    let times = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&times);
    let peer = Peer::start(move |_| {
        let mut times = kept.lock().expect("no panic while locked");
        times.push(Instant::now());
        if times.len() == 1 {
            PeerResponse::new(429, "").header("retry-after", "2")
        } else {
            PeerResponse::new(204, "")
        }
    });
    let (_server, api) = start(&[peer.url("/*")], "", "");
    bind(&api, "order", "postCreate", &peer.url("/"));
    create(&api, "order", "o-1");
    let lines = lines(&api, "order", 2);
    assert!(lines[0].ends_with("; again in 2 s at the earliest, as requested"), "{lines:?}");
    let times = times.lock().expect("no panic while locked");
    assert!(times[1] - times[0] >= Duration::from_secs(2), "{times:?}");
}

#[test]
fn a_receiver_that_is_gone_gets_nothing_more() {
    let is_back = Arc::new(AtomicBool::new(false));
    let back = Arc::clone(&is_back);
    let peer = Peer::start(move |_| PeerResponse::new(if back.load(Ordering::SeqCst) { 204 } else { 410 }, ""));
    let (_server, api) = start(&[peer.url("/*")], "", "");
    bind(&api, "order", "postCreate", &peer.url("/"));
    create(&api, "order", "o-1");
    let record = errors(&api, 1).remove(0);
    assert_eq!(record["attempts"], 1, "{record}");
    assert!(record["message"].as_str().is_some_and(|text| text.contains("returned 410")), "{record}");
    assert_eq!(api.get("/models/order/hooks/postCreate").expect(200).json()[0]["state"], "unavailable");
    create(&api, "order", "o-2");
    let records = errors(&api, 2);
    assert!(
        records[1]["message"].as_str().is_some_and(|text| text.contains("until the hook is bound again")),
        "{records:?}"
    );
    assert_eq!(peer.asked().len(), 1);
    // Bound again, it is used again, and the kept events can be sent.
    is_back.store(true, Ordering::SeqCst);
    bind(&api, "order", "postCreate", &peer.url("/"));
    assert_eq!(api.get("/models/order/hooks/postCreate").expect(200).json()[0]["state"], "ok");
    create(&api, "order", "o-3");
    api.request("POST", "/errors/retry").send().expect(202);
    errors(&api, 0);
    eventually("all three", || (ids(&peer.asked()).len() == 3).then_some(()));
}

/// The attempts of code are used up within half a minute.
#[test]
fn a_receiver_that_is_away_is_asked_for_longer_than_code() {
    let is_back = Arc::new(AtomicBool::new(false));
    let back = Arc::clone(&is_back);
    let peer = Peer::start(move |_| PeerResponse::new(if back.load(Ordering::SeqCst) { 204 } else { 503 }, ""));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    let closed = format!("http://{closed}/a-key-in-the-path");
    let (server, api) = start(&[peer.url("/*"), closed.clone()], "max-attempts = 2", "");
    bind(&api, "order", "postCreate", &peer.url("/"));
    bind(&api, "order", "postDelete", &closed);
    create(&api, "order", "o-1");
    create(&api, "order", "o-2");
    api.delete("/models/order/instances/o-2").expect(204);
    eventually("more tries than code has", || (peer.asked().len() >= 6).then_some(()));
    errors(&api, 0);
    is_back.store(true, Ordering::SeqCst);
    // The number of attempts survives the server.
    let server = server.kill_and_restart();
    eventually("both are taken", || (ids(&peer.asked()).len() == 2).then_some(()));
    let api = server.client();
    // Attempts to reach the unreachable receiver continue, and messages show only its address.
    let lines = eventually("it is asked more often than code would be", || {
        let log = api.get("/models/order/hooks/postDelete/log").expect(200).text();
        (log.matches("attempt ").count() >= 2).then_some(log)
    });
    assert!(!lines.contains("a-key-in-the-path") && !server.log().concat().contains("a-key-in-the-path"), "{lines}");
    errors(&api, 0);
}

#[test]
fn what_is_never_taken_ends_in_the_error_store() {
    let peer = Peer::start(|_| PeerResponse::new(500, "no"));
    let (_server, api) = start(&[peer.url("/*")], "webhook-attempts = 3", "");
    bind(&api, "order", "postCreate", &peer.url("/"));
    let position = create(&api, "order", "o-1");
    let record = errors(&api, 1).remove(0);
    assert_eq!(
        (&record["attempts"], &record["engine"], &record["event"]["position"]),
        (&json!(3), &json!("webhook"), &json!(position))
    );
    assert_eq!(peer.asked().len(), 3);
    assert_eq!(log_lines(&api, "order").len(), 3);
}

#[test]
fn nothing_is_lost_when_the_server_is_killed() {
    let holds = Arc::new(AtomicBool::new(true));
    let held = Arc::clone(&holds);
    let peer = Peer::start(move |_| {
        while held.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        PeerResponse::new(204, "")
    });
    let (server, api) = start(&[peer.url("/*")], "", "timeout = '60 s'");
    bind(&api, "order", "postCreate", &peer.url("/"));
    for number in 0..40 {
        create(&api, "order", &format!("o-{number}"));
    }
    // During the first deliveries, whose outcome is unknown.
    eventually("some are under way", || (peer.asked().len() >= 4).then_some(()));
    let before = ids(&peer.asked());
    let server = server.kill_and_restart();
    holds.store(false, Ordering::SeqCst);
    let events = server.client().get("/events?limit=1000&type=instance.created").expect(200).json();
    let events: BTreeSet<_> = events["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|event| event["id"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(events.len(), 40);
    eventually("each event has come", || (ids(&peer.asked()) == events).then_some(()));
    // The interrupted deliveries arrived twice with the same id, which lets a receiver recognize them.
    let again = eventually("those that were under way come again", || {
        let asked = peer.asked();
        let count = |id: &String| asked.iter().filter(|asked| asked.headers("webhook-id") == [id.as_str()]).count();
        before.iter().all(|id| count(id) >= 2).then_some(asked.len())
    });
    assert!(again < 40 * 3, "{again}");
    errors_none(&server);
}

#[track_caller]
fn errors_none(server: &crate::support::Server) {
    errors(&server.client(), 0);
}

#[test]
fn a_secret_and_a_grant_that_are_missing_are_named() {
    let peer = Peer::start(|_| PeerResponse::new(204, ""));
    let (server, api) = start(&["https://elsewhere.example/".to_owned()], "max-attempts = 1", "");
    bind(&api, "order", "postCreate", &peer.url("/in"));
    create(&api, "order", "o-1");
    let record = errors(&api, 1).remove(0);
    let message = record["message"].as_str().expect("a message");
    assert!(message.contains("which no grant opens") && peer.connections() == 0, "{message}");
    append_config(&server, &crate::workbench::lines_to_add(message));
    api.request("DELETE", "/secrets/key").send().expect(204);
    let retry = |record: &serde_json::Value| {
        let path = format!("/errors/{}/retry", record["id"].as_str().expect("an id"));
        api.request("POST", &path).send().expect(200).json()["succeeded"].as_u64().expect("a number")
    };
    eventually("the grant is in force", || {
        assert_eq!(retry(&record), 0);
        let message = errors(&api, 1)[0]["message"].as_str().expect("a message").to_owned();
        message.contains("there is no secret `key`; `snaphook secret set key` stores it").then_some(())
    });
    assert_eq!(peer.connections(), 0);
    super::set_secret(&api, KEY);
    assert_eq!(retry(&record), 1);
    assert_eq!(peer.asked().len(), 1);
}

#[test]
fn what_cannot_work_is_refused_when_it_is_bound() {
    let (_server, api) = start(&["https://a.example/".to_owned()], "", "");
    let bound = |phase: &str, url: &str, secret: &str| {
        let chain = json!({"chain": [{"engine": "webhook", "url": url, "secret": secret}]});
        api.put(&format!("/models/order/hooks/{phase}"), &chain)
    };
    for phase in ["preCreate", "preUpdate", "preDelete"] {
        let problem = bound(phase, "https://a.example/", "key").expect_problem(422, "invalid");
        assert!(problem.to_string().contains("a webhook is sent after the change"), "{problem}");
    }
    for (url, secret, expected) in [
        ("a.example", "key", "is not a valid URL"),
        ("ftp://a.example/", "key", "expected `https://`"),
        ("https://u:p@a.example/", "key", "a user name or a password"),
        ("https://a.example/x/%2e%2e%2fy", "key", "segment"),
        ("https://a.example/", "", "the name of a secret"),
        ("https://a.example/", KEY, "the name of a secret"),
        ("https://a.example/", "snaphook.token", "the name of a secret"),
    ] {
        let problem = bound("postCreate", url, secret).expect_problem(422, "invalid");
        assert!(problem.to_string().contains(expected), "{url}: {problem}");
    }
    let source =
        api.request("PUT", "/models/order/hooks/postCreate?engine=webhook").body("text/javascript", "x").send();
    assert!(source.expect_problem(422, "invalid").to_string().contains("runs no code"));
    let shadow =
        json!({"chain": [{"engine": "webhook", "url": "https://a.example/", "secret": "key", "mode": "shadow"}]});
    api.put("/models/order/hooks/postCreate", &shadow).expect_problem(422, "invalid");
    assert_eq!(api.get("/models/order/hooks/postCreate").expect(200).json(), json!([]));
}
