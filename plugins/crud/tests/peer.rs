//! Instances as records of another server: what the records look like, and what happens if the server fails, rejects
//! records, hangs, or is the wrong program.

mod common;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{define, instances, line, open, recording, records, try_open};
use serde_json::json;
use snaphook_driver::{CarryOver, ErrorKind, Event, EventKind};
use snaphook_driver_testkit::peer::{Peer, Reply, Request};
use snaphook_driver_testkit::rest::Records;
use snaphook_driver_testkit::sample::{Random, change, created, shape};
use tempfile::TempDir;

#[tokio::test]
async fn records_look_natural() {
    let (folder, all) = (TempDir::new().unwrap(), Records::default());
    let peer = recording(&all);
    let store = try_open(folder.path(), peer.url("/api/"), json!({"token": "t"})).await.unwrap();
    define(&*store, "film", 1).await;
    store.apply(0, &[created(2, "film", "a", &json!({"title": "x", "id": 7}))], 2).await.unwrap();
    let events = [
        change(EventKind::InstanceUpdated, 3, "film", "a", Some(r#"{"title":"y"}"#)),
        change(EventKind::InstanceUpdated, 4, "film", "a", Some(r#"{"title":"z"}"#)),
        created(5, "film", "b", &json!({})),
        change(EventKind::InstanceDeleted, 6, "film", "b", None),
    ];
    store.apply(2, &events, 6).await.unwrap();
    store.apply(6, &[change(EventKind::InstanceDeleted, 7, "film", "a", None)], 7).await.unwrap();
    let own = |position: u64| {
        let time = "2023-11-14T22:13:20.000Z";
        format!(
            r#""id":"a","_model_version":1,"_revision":1,"_position":{position},"_created_at":"{time}","_updated_at":"{time}""#
        )
    };
    let requests = peer.requests();
    let expected = [
        "GET /api/film".to_owned(),
        format!("POST /api/film {{{},\"title\":\"x\",\"_data\":{{\"id\":7}}}}", own(2)),
        format!("PUT /api/film/a {{{},\"title\":\"z\"}}", own(4)),
        "DELETE /api/film/a".to_owned(),
    ];
    assert_eq!(requests.iter().map(line).collect::<Vec<_>>(), expected);
    assert!(requests.iter().all(|request| request.header("authorization") == Some("Bearer t")));
    store.health().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn requests_follow_the_settings() {
    let folder = TempDir::new().unwrap();
    let peer = Peer::start(|_| Reply::status(200));
    let settings = json!({
        "paths": {"create": "/rows/{id}?table={model}", "update": "/rows/{id}/{model}", "delete": "/remove/{model}/{id}", "list": ""},
        "methods": {"create": "PUT", "update": "PATCH", "delete": "POST"},
        "id": "key",
        "id-in-updates": false,
        "headers": {"Prefer": "return=minimal"},
        "fields": {"model_version": "", "revision": "rev", "position": "", "created_at": "", "updated_at": "", "data": "value"},
    });
    let store = try_open(folder.path(), peer.url("?v=1"), settings).await.unwrap();
    define(&*store, "film", 1).await;
    store.apply(0, &[created(2, "film", "a", &json!({"n": 1}))], 2).await.unwrap();
    store.apply(0, &[change(EventKind::InstanceUpdated, 3, "film", "a", Some("{}"))], 3).await.unwrap();
    store.drop_model(0, "film", 4).await.unwrap();
    let expected = [
        r#"PUT /rows/a?v=1&table=film {"key":"a","rev":1,"value":{"n":1}}"#,
        r#"PATCH /rows/a/film?v=1 {"rev":1,"value":{}}"#,
        "POST /remove/film/a?v=1",
    ];
    assert_eq!(peer.requests().iter().map(line).collect::<Vec<_>>(), expected);
    assert!(peer.requests().iter().all(|request| request.header("prefer") == Some("return=minimal")));
}

/// A peer that fails at random, before or after it handles a request, finally has exactly the instances.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_the_peer_ends_up_right() {
    let (folder, all) = (TempDir::new().unwrap(), Records::default());
    // The percentage of requests that fail.
    let rate = Arc::new(AtomicU64::new(0));
    let peer = Peer::start_at(([127, 0, 0, 1], 0).into(), false, {
        let (rate, records, random) = (Arc::clone(&rate), all.clone(), Mutex::new(Random::new(3)));
        move |request| {
            let (fails, how) = {
                let mut random = random.lock().unwrap();
                ((random.below(100) as u64) < rate.load(Ordering::SeqCst), random.below(4))
            };
            match (fails, how) {
                (false, _) => records.answer(request),
                (true, 0) => Reply::status(503),
                (true, 1) => Reply::Cut,
                (true, 2) => {
                    records.answer(request);
                    Reply::Cut
                }
                (true, _) => {
                    records.answer(request);
                    Reply::status(500)
                }
            }
        }
    });
    let mut store = open(folder.path(), peer.url("")).await;
    define(&*store, "m", 1).await;
    let mut random = Random::new(17);
    let mut position = 1;
    let (mut version, mut failures) = (1, 0);
    for round in 0..60 {
        rate.store([0, 20, 20, 90][random.below(4)], Ordering::SeqCst);
        let (after, name) = (position, ["a", "b"][version as usize % 2]);
        let events: Vec<Event> = (0..1 + random.below(25))
            .map(|_| {
                position += 1;
                let id = format!("i{}", random.below(40));
                match random.below(4) {
                    0 => change(EventKind::InstanceDeleted, position, "m", &id, None),
                    1 => created(position, "m", &id, &json!({name: position})),
                    _ => change(
                        EventKind::InstanceUpdated,
                        position,
                        "m",
                        &id,
                        Some(&json!({name: position}).to_string()),
                    ),
                }
            })
            .collect();
        let replay = random.below(5) == 0;
        if replay {
            store.begin_replay().await.unwrap();
        }
        // Retries each call like Snaphook does, sometimes after a restart.
        let mut call = 0;
        loop {
            let result = match call {
                0 => store.apply(after, &events, position).await,
                1 if round % 7 == 0 => {
                    let other = ["a", "b"][(version as usize + 1) % 2];
                    let carry = CarryOver { renames: vec![(name.into(), other.into())], defaults: Vec::new() };
                    let new = shape("m", version + 1, &[], &[]);
                    store.define(position, None, &new, &carry, position + 1).await
                }
                1 => Ok(()),
                2 if replay => store.end_replay().await.map(|failed| assert!(failed.is_empty(), "{failed:?}")),
                _ => break,
            };
            match result {
                Ok(()) => {
                    if call == 1 && round % 7 == 0 {
                        (version, position) = (version + 1, position + 1);
                    }
                    call += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                    failures += 1;
                    rate.store(10, Ordering::SeqCst);
                    if random.below(2) == 0 && !replay {
                        drop(store);
                        store = open(folder.path(), peer.url("")).await;
                    }
                }
            }
        }
        if round % 10 == 9 {
            rate.store(0, Ordering::SeqCst);
            store.begin_replay().await.unwrap();
            assert!(store.end_replay().await.unwrap().is_empty());
            assert_eq!(records(&all, "/m"), instances(&*store, "m").await, "round {round}");
        }
    }
    assert!(failures > 3, "{failures}");
    store.reset("log").await.unwrap();
    assert!(records(&all, "/m").is_empty());
}

/// The process ends when only some records of a call have been sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_cut_off_is_made_good() {
    let (folder, all) = (TempDir::new().unwrap(), Records::default());
    // How many requests get a response; later ones get none.
    let left = Arc::new(AtomicI64::new(i64::MAX));
    let peer = Peer::start_at(([127, 0, 0, 1], 0).into(), false, {
        let (left, records) = (Arc::clone(&left), all.clone());
        move |request| match left.fetch_sub(1, Ordering::SeqCst) > 0 {
            true => records.answer(request),
            false => Reply::Stall,
        }
    });
    let store = open(folder.path(), peer.url("")).await;
    define(&*store, "m", 1).await;
    let first: Vec<Event> = (0..50).map(|n| created(2 + n, "m", &format!("i{n}"), &json!({"n": n}))).collect();
    store.apply(0, &first, 60).await.unwrap();
    let second: Vec<Event> = (0..100)
        .map(|n| match n % 3 {
            0 => change(EventKind::InstanceDeleted, 61 + n, "m", &format!("i{n}"), None),
            _ => created(61 + n, "m", &format!("i{n}"), &json!({"n": 1000 + n})),
        })
        .collect();
    left.store(30, Ordering::SeqCst);
    {
        let call = store.apply(60, &second, 200);
        assert!(tokio::time::timeout(Duration::from_millis(800), call).await.is_err(), "the peer stalls");
    }
    drop(store);
    left.store(i64::MAX, Ordering::SeqCst);
    let store = open(folder.path(), peer.url("")).await;
    assert_eq!(store.checkpoint().await.unwrap(), 60);
    assert_eq!(instances(&*store, "m").await.len(), 50, "nothing of the call is seen");
    assert_ne!(records(&all, "/m"), instances(&*store, "m").await, "the peer has a part of it");
    // The log may continue differently, for example if an event is skipped; the peer then follows it.
    store.apply(60, &second[..1], 200).await.unwrap();
    assert_eq!(records(&all, "/m"), instances(&*store, "m").await);
    assert_eq!(instances(&*store, "m").await.len(), 49);
}

#[tokio::test]
async fn a_rejected_record_is_named_and_holds_up_no_other() {
    let (folder, all) = (TempDir::new().unwrap(), Records::default());
    let peer = Peer::start({
        let records = all.clone();
        move |request| {
            let is_bad = request.body.windows(5).any(|part| part == b"\"bad\"");
            if is_bad { Reply::json(422, "no such field") } else { records.answer(request) }
        }
    });
    let store = open(folder.path(), peer.url("")).await;
    define(&*store, "m", 1).await;
    store.apply(0, &[created(2, "m", "x", &json!({"n": 1}))], 2).await.unwrap();
    let events = [
        created(3, "m", "a", &json!({"n": 1})),
        change(EventKind::InstanceUpdated, 4, "m", "x", Some(r#"{"bad":1}"#)),
        created(5, "m", "b", &json!({"n": 1})),
    ];
    let error = store.apply(2, &events, 5).await.unwrap_err();
    assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::Invalid, false));
    let text = error.to_string();
    assert!(text.contains("the peer answered 422: no such field") && text.contains("`x`"), "{text}");
    assert_eq!(store.checkpoint().await.unwrap(), 2, "nothing of the call is made");
    // Splits the call and then skips the event, like Snaphook does.
    store.apply(2, &events[..1], 3).await.unwrap();
    assert_eq!(store.apply(3, &events[1..2], 4).await.unwrap_err().kind(), ErrorKind::Invalid);
    store.apply(3, &events[2..], 5).await.unwrap();
    assert_eq!(records(&all, "/m"), instances(&*store, "m").await);
    // In a replay the model fails, and the record is sent again.
    store.begin_replay().await.unwrap();
    store
        .apply(5, &[created(6, "m", "y", &json!({"bad": 1})), created(7, "m", "z", &json!({"n": 2}))], 7)
        .await
        .unwrap();
    for _ in 0..2 {
        let failed = store.end_replay().await.unwrap();
        assert_eq!(failed.iter().map(|(model, _)| model.as_str()).collect::<Vec<_>>(), ["m"]);
    }
    assert!(records(&all, "/m").contains_key("z"));
    store.apply(7, &[change(EventKind::InstanceUpdated, 8, "m", "y", Some(r#"{"n":3}"#))], 8).await.unwrap();
    assert!(store.end_replay().await.unwrap().is_empty());
    assert_eq!(records(&all, "/m"), instances(&*store, "m").await);
}

#[tokio::test]
async fn a_replay_sends_each_instance_once() {
    let (folder, all) = (TempDir::new().unwrap(), Records::default());
    let peer = recording(&all);
    let store = open(folder.path(), peer.url("")).await;
    store.begin_replay().await.unwrap();
    define(&*store, "m", 1).await;
    for round in 0..20 {
        let from = 2 + round * 10;
        let events: Vec<Event> =
            (0..10).map(|n| created(from + n, "m", &format!("i{n}"), &json!({"n": from + n}))).collect();
        store.apply(0, &events, from + 9).await.unwrap();
    }
    assert_eq!(peer.requests().len(), 1, "only the list");
    assert!(store.end_replay().await.unwrap().is_empty());
    assert_eq!(peer.requests().len(), 1 + 10);
    assert_eq!(records(&all, "/m"), instances(&*store, "m").await);
}

#[tokio::test]
async fn what_a_lost_state_left_is_deleted_and_strangers_stay() {
    let (folder, all) = (TempDir::new().unwrap(), Records::default());
    let peer = recording(&all);
    {
        let store = open(folder.path(), peer.url("")).await;
        define(&*store, "m", 1).await;
        let events: Vec<Event> = (0..30).map(|n| created(2 + n, "m", &format!("i{n}"), &json!({}))).collect();
        store.apply(0, &events, 100).await.unwrap();
        store.close().await.unwrap();
    }
    all.all().get_mut("/m").unwrap().insert("stranger".into(), b"{\"id\":\"stranger\"}".to_vec());
    std::fs::remove_dir_all(folder.path().join("state")).unwrap();
    let store = open(folder.path(), peer.url("")).await;
    assert_eq!((store.log().await.unwrap(), store.checkpoint().await.unwrap()), (None, 0));
    store.reset("log").await.unwrap();
    define(&*store, "m", 1).await;
    store.apply(0, &[created(2, "m", "i7", &json!({"n": 7}))], 2).await.unwrap();
    assert_eq!(records(&all, "/m").into_keys().collect::<Vec<_>>(), ["i7", "stranger"]);
}

/// With a peer that is another kind of server, each call ends in time, with one clear message.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_peers_are_errors() {
    let answer = |reply: Reply| {
        move |request: &Request| if request.method == "GET" { Reply::json(200, "[]") } else { reply.clone() }
    };
    let head = |rest: &str| format!("HTTP/1.1 {rest}").into_bytes();
    for (what, reply, message) in [
        ("silence", Reply::Stall, "no response within 1.0 s"),
        ("a cut", Reply::Cut, "error sending request"),
        ("nonsense", Reply::Raw(b"x\r\n\r\n".to_vec()), "error sending request"),
        (
            "a redirect",
            Reply::Response(308, vec![("location", "http://other.example/".into())], vec![]),
            "not followed",
        ),
        (
            "a page",
            Reply::Response(200, vec![("content-type", "text/html".into())], b"<p>".to_vec()),
            "answered 200 with `text/html` instead of JSON",
        ),
        ("a gateway", Reply::Response(400, vec![("content-type", "text/html".into())], b"<p>".to_vec()), "gateway"),
        ("no access", Reply::json(401, "who are you"), "the peer answered 401: who are you"),
        ("not modified", Reply::status(304), "the peer answered 304"),
        ("endless", Reply::Endless(head("500 x\r\n\r\nx")), "the peer answered 500"),
        ("no such method", Reply::status(405), "the peer answered 405"),
        ("a long pause", Reply::Response(429, vec![("retry-after", "86400".into())], vec![]), "the peer answered 429"),
    ] {
        let folder = TempDir::new().unwrap();
        let peer = Peer::start(answer(reply));
        let store = try_open(folder.path(), peer.url(""), json!({"timeout": 1})).await.unwrap();
        define(&*store, "m", 1).await;
        let started = Instant::now();
        let error = store.apply(0, &[created(2, "m", "a", &json!({}))], 2).await.unwrap_err();
        assert!(error.to_string().contains(message), "{what}: {error}");
        assert!(error.to_string().len() < 500, "{what}: {error}");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error}");
        assert!(started.elapsed() < Duration::from_secs(15), "{what}: {:?}", started.elapsed());
        assert_eq!(store.checkpoint().await.unwrap(), 1, "{what}");
    }
    for (what, reply, message) in [
        ("no JSON", Reply::json(200, "<html>"), "list is not valid JSON"),
        ("no list", Reply::json(200, "{}"), "without the array"),
        ("endless", Reply::Endless(head("200 OK\r\n\r\n[")), "is incomplete or larger than"),
        ("cut", Reply::Raw(head("200 OK\r\ncontent-length: 100\r\n\r\n[")), "is incomplete or larger than"),
    ] {
        let folder = TempDir::new().unwrap();
        let peer = Peer::start(move |_| reply.clone());
        let store = try_open(folder.path(), peer.url(""), json!({"timeout": 2})).await.unwrap();
        let shape = shape("m", 1, &[], &[]);
        let error = store.define(0, None, &shape, &CarryOver::default(), 1).await.unwrap_err();
        assert!(error.to_string().contains(message), "{what}: {error}");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error}");
    }
}

#[tokio::test]
async fn settings_are_checked() {
    let folder = TempDir::new().unwrap();
    for (settings, word) in [
        (json!({"url": "x"}), "`url`"),
        (json!({"paths": {"create": "x"}}), "`paths.create`"),
        (json!({"paths": {"create": "/x"}}), "`paths.create` lacks `{model}`"),
        (json!({"paths": {"update": "/{model}"}}), "`paths.update` lacks `{id}`"),
        (json!({"paths": {"update": "/{model}-{id}"}}), "`paths.update`"),
        (json!({"paths": {"delete": "/x/{id}"}}), "`paths.delete` lacks `{model}`"),
        (json!({"paths": {"list": "/x"}}), "`paths.list` lacks `{model}`"),
        (json!({"headers": {"a b": "x"}}), "`headers.a b`"),
        (json!({"id-in-updates": 1}), "invalid type"),
        (json!({"paths": {"read": "/x"}}), "`read`"),
        (json!({"methods": {"delete": "delete"}}), "`methods.delete`"),
        (json!({"id": ""}), "`id`"),
        (json!({"id": "_position"}), "`_position`"),
        (json!({"fields": {"revision": "_data"}}), "`_data`"),
        (json!({"fields": {"data": ""}}), "`fields.data`"),
        (json!({"fields": {"other": "x"}}), "`other`"),
        (json!({"state": ""}), "`state`"),
        (json!({"timeout": 0}), "`timeout`"),
        (json!({"token": "a\nb"}), "`token`"),
        (json!({"other": 1}), "`other`"),
    ] {
        let error = try_open(folder.path(), "http://127.0.0.1:1".into(), settings.clone()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config, "{settings}");
        assert!(error.to_string().contains(word), "{settings}: {error}");
    }
    assert!(!folder.path().join("state").exists());
    let store = open(folder.path(), "http://127.0.0.1:1".into()).await;
    assert_eq!(store.health().await.unwrap_err().kind(), ErrorKind::Unavailable);
    let error = try_open(folder.path(), "http://127.0.0.1:1".into(), json!({})).await.err().unwrap();
    assert!(error.to_string().contains("in use"), "{error}");
}
