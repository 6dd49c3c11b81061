//! Records that the peer rejects, and requests in progress when a call fails or is dropped.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{define, instances, line, open, recording, records, try_open};
use serde_json::json;
use snaphook_driver::{CarryOver, ErrorKind, Event, EventKind};
use snaphook_driver_testkit::peer::{Peer, Reply, Request};
use snaphook_driver_testkit::rest::Records;
use snaphook_driver_testkit::sample::{change, created, shape};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);

fn page(status: u16) -> Reply {
    Reply::Response(status, vec![("content-type", "text/html".into())], b"<html>no".to_vec())
}

/// A response about the record or the model leaves the store available; any other error response is a failure of the
/// peer.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_about_the_record() {
    use ErrorKind::{Invalid, Unavailable};
    for (create, update, kind) in [
        (Reply::json(404, "{}"), Reply::json(404, "{}"), Invalid),
        (Reply::status(410), Reply::status(404), Invalid),
        (Reply::status(404), Reply::status(404), Invalid),
        (Reply::json(400, "{}"), Reply::status(404), Invalid),
        (Reply::status(413), Reply::status(404), Invalid),
        (Reply::json(422, "{}"), Reply::status(404), Invalid),
        // The peer reports both that the record exists and that it does not.
        (Reply::status(409), Reply::status(404), Invalid),
        (Reply::status(409), Reply::json(200, "[]"), Invalid),
        (Reply::status(409), Reply::json(422, "{}"), Invalid),
        // Too large for the peer, or for a proxy in front of it.
        (page(413), Reply::status(404), Invalid),
        (Reply::status(401), Reply::status(404), Unavailable),
        (Reply::status(403), Reply::status(404), Unavailable),
        (page(404), Reply::status(404), Unavailable),
        (page(400), Reply::status(404), Unavailable),
        (page(409), Reply::status(404), Unavailable),
        (Reply::status(409), page(404), Unavailable),
    ] {
        let (folder, all) = (TempDir::new().unwrap(), Records::default());
        let what = format!("{create:?} {update:?}");
        let is_refused = |request: &Request| request.path == "/bad" || request.path.starts_with("/bad/");
        let peer = Peer::start({
            let records = all.clone();
            move |request| match request.method.as_str() {
                "POST" if is_refused(request) => create.clone(),
                "PUT" if is_refused(request) => update.clone(),
                _ => records.answer(request),
            }
        });
        let store = open(folder.path(), peer.url("")).await;
        define(&*store, "bad", 1).await;
        define(&*store, "good", 2).await;
        let error = store.apply(2, &[created(3, "bad", "a", &json!({}))], 3).await.unwrap_err();
        assert_eq!((error.kind(), error.is_temporary()), (kind, kind == Unavailable), "{what}: {error}");
        assert!(
            error.to_string().contains("the peer answered 4") || error.to_string().contains("[]"),
            "{what}: {error}"
        );
        if kind == Invalid {
            store.apply(2, &[created(4, "good", "a", &json!({"n": 1}))], 4).await.unwrap();
            assert_eq!(records(&all, "/good"), instances(&*store, "good").await, "{what}");
        }
    }
}

/// A peer that assigns its own ids to records.
#[tokio::test(flavor = "multi_thread")]
async fn records_under_ids_of_the_peer_go_again() {
    for (found, reply, expected) in [
        ("12", Reply::json(201, r#"{"id":12}"#), "`12` instead of `a`, which was deleted again"),
        ("12", Reply::json(201, r#"[{"id":"12"}]"#), "`12` instead of `a`, which was deleted again"),
        ("kept", Reply::json(201, r#"{"id":"kept"}"#), "`kept` instead of `a`, which could not be deleted again"),
        (
            "other",
            Reply::json(200, r#"{"id":"other"}"#),
            "`other` instead of `a`, which is the record of another instance",
        ),
    ] {
        let (folder, all) = (TempDir::new().unwrap(), Records::default());
        let is_own = Arc::new(AtomicBool::new(true));
        let peer = Peer::start({
            let (records, is_own) = (all.clone(), Arc::clone(&is_own));
            move |request| match (request.method.as_str(), request.path.as_str()) {
                ("POST", _) if !is_own.load(Ordering::SeqCst) => {
                    records.all().entry("/m".into()).or_default().insert(found.into(), b"{}".to_vec());
                    reply.clone()
                }
                ("DELETE", "/m/kept") => Reply::json(409, "{}"),
                _ => records.answer(request),
            }
        });
        let store = open(folder.path(), peer.url("")).await;
        define(&*store, "m", 1).await;
        store.apply(1, &[created(2, "m", "other", &json!({}))], 2).await.unwrap();
        is_own.store(false, Ordering::SeqCst);
        let error = store.apply(2, &[created(3, "m", "a", &json!({}))], 3).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains("put `{id}` into `paths.create`"), "{text}");
        let left: Vec<String> = records(&all, "/m").into_keys().collect();
        let expected = if found == "kept" { vec!["kept", "other"] } else { vec!["other"] };
        assert_eq!(left, expected);
    }
}

/// A peer that does not delete `x` until `frees` is set.
fn keeping(all: &Records, frees: &Arc<AtomicBool>) -> Peer {
    let (records, frees) = (all.clone(), Arc::clone(frees));
    Peer::start(move |request| match request.method.as_str() {
        "DELETE" if request.path.ends_with("/x") && !frees.load(Ordering::SeqCst) => {
            Reply::json(409, r#"{"error":"something refers to it"}"#)
        }
        _ => records.answer(request),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_the_peer_keeps_hold_up_no_drop_reset_or_definition() {
    let (folder, all, frees) = (TempDir::new().unwrap(), Records::default(), Arc::new(AtomicBool::new(false)));
    let peer = keeping(&all, &frees);
    let ids = || records(&all, "/m").into_keys().collect::<Vec<_>>();
    let events = |from: u64| ["x", "y"].map(|id| created(from + u64::from(id == "y"), "m", id, &json!({"n": from})));
    let store = open(folder.path(), peer.url("")).await;
    define(&*store, "m", 1).await;
    store.apply(1, &events(2), 3).await.unwrap();
    // If an event deletes the record, that event fails.
    let deleted = change(EventKind::InstanceDeleted, 4, "m", "x", None);
    assert_eq!(store.apply(3, std::slice::from_ref(&deleted), 4).await.unwrap_err().kind(), ErrorKind::Invalid);
    store.drop_model(3, "m", 4).await.unwrap();
    assert_eq!((ids(), store.checkpoint().await.unwrap()), (vec!["x".to_owned()], 4));
    // The model is defined again and the instance is created again: the record is updated.
    define(&*store, "m", 5).await;
    assert_eq!(ids(), ["x"]);
    store.apply(5, &events(6), 7).await.unwrap();
    assert_eq!(records(&all, "/m"), instances(&*store, "m").await);

    store.reset("log").await.unwrap();
    assert_eq!((ids(), store.checkpoint().await.unwrap()), (vec!["x".to_owned()], 0));
    drop(store);
    // After a restart, the record is still owed. That makes no model unavailable.
    let store = open(folder.path(), peer.url("")).await;
    define(&*store, "m", 1).await;
    store.begin_replay().await.unwrap();
    store.apply(1, &events(2)[1..], 3).await.unwrap();
    let failed = store.end_replay().await.unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(ids(), ["x", "y"]);
    frees.store(true, Ordering::SeqCst);
    assert!(store.end_replay().await.unwrap().is_empty());
    assert_eq!(ids(), ["y"]);

    // The same for a record that a lost state left.
    frees.store(false, Ordering::SeqCst);
    store.apply(3, &[created(4, "m", "x", &json!({}))], 4).await.unwrap();
    drop(store);
    std::fs::remove_dir_all(folder.path().join("state")).unwrap();
    let store = open(folder.path(), peer.url("")).await;
    define(&*store, "m", 1).await;
    assert_eq!(ids(), ["x"]);
    frees.store(true, Ordering::SeqCst);
    store.apply(1, &[created(2, "m", "z", &json!({}))], 2).await.unwrap();
    store.begin_replay().await.unwrap();
    assert!(store.end_replay().await.unwrap().is_empty());
    assert_eq!(ids(), ["z"]);
}

/// In a replay, the error contains the reason.
#[tokio::test]
async fn a_model_that_fails_in_a_replay_says_why() {
    let folder = TempDir::new().unwrap();
    let peer = Peer::start(|request| match request.method.as_str() {
        "GET" => Reply::json(200, "[]"),
        _ => Reply::json(422, "no such field"),
    });
    let store = open(folder.path(), peer.url("")).await;
    store.begin_replay().await.unwrap();
    define(&*store, "m", 1).await;
    let events: Vec<Event> = (2..5).map(|at| created(at, "m", &format!("i{at}"), &json!({}))).collect();
    store.apply(1, &events, 5).await.unwrap();
    let failed = store.end_replay().await.unwrap();
    let texts: BTreeMap<&str, String> =
        failed.iter().map(|(model, error)| (model.as_str(), error.to_string())).collect();
    assert!(texts["m"].contains("count `3`") && texts["m"].contains("answered 422: no such field"), "{texts:?}");
}

/// After a call has failed, it sends nothing more to the peer: it waits for requests in progress, and sends no others.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_failed_sends_nothing_more() {
    let folder = TempDir::new().unwrap();
    let peer = Peer::start(|request| match (request.method.as_str(), request.path.as_str()) {
        ("GET", _) => Reply::json(200, "[]"),
        _ if request.body.windows(4).any(|part| part == b"slow") => Reply::Stall,
        _ => Reply::status(401),
    });
    let store = try_open(folder.path(), peer.url(""), json!({"timeout": 1})).await.unwrap();
    define(&*store, "m", 1).await;
    let mut events = vec![created(2, "m", "a", &json!({"slow": 1}))];
    events.extend((3..100).map(|at| created(at, "m", &format!("i{at}"), &json!({}))));
    let started = Instant::now();
    let error = store.apply(1, &events, 100).await.unwrap_err();
    assert!(error.to_string().contains("the peer answered 401"), "{error}");
    assert!(started.elapsed() >= Duration::from_secs(1), "the slow request was left behind: {:?}", started.elapsed());
    let sent = peer.requests().len() - 1;
    assert!(sent <= 16, "{sent} requests after the first had failed");
    let slow = peer.requests().iter().filter(|request| line(request).contains("slow")).count();
    assert_eq!(slow, 1, "no further attempt");
}

/// A dropped call leaves requests in progress; the next call waits for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_requests_of_one_that_was_dropped() {
    let (folder, all) = (TempDir::new().unwrap(), Records::default());
    let times = Arc::new(Mutex::new(Vec::new()));
    let peer = Peer::start_at(([127, 0, 0, 1], 0).into(), false, {
        let (records, times) = (all.clone(), Arc::clone(&times));
        move |request| {
            if request.method != "GET" {
                times.lock().unwrap().push(Instant::now());
                if times.lock().unwrap().len() == 1 {
                    return Reply::Stall;
                }
            }
            records.answer(request)
        }
    });
    let store = try_open(folder.path(), peer.url(""), json!({"timeout": 1})).await.unwrap();
    define(&*store, "m", 1).await;
    let events = [created(2, "m", "a", &json!({"n": 1}))];
    let arrived = async {
        let started = Instant::now();
        while times.lock().unwrap().is_empty() {
            assert!(started.elapsed() < DEADLINE, "no request arrives");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        result = store.apply(1, &events, 2) => panic!("{result:?}"),
        () = arrived => {}
    }
    store.apply(1, &events, 2).await.unwrap();
    let times = times.lock().unwrap().clone();
    let pause = times[1].duration_since(times[0]);
    assert!(pause >= Duration::from_millis(900), "the request of before was still under way: {pause:?}");
    assert_eq!(records(&all, "/m"), instances(&*store, "m").await);
}

/// Readers see the instances as before a change until the peer has it, however long that takes.
#[tokio::test(flavor = "multi_thread")]
async fn reads_go_on_while_a_model_changes() {
    let (folder, all) = (TempDir::new().unwrap(), Records::default());
    let peer = recording(&all);
    let store = open(folder.path(), peer.url("")).await;
    define(&*store, "m", 1).await;
    let events: Vec<Event> = (0..300).map(|n| created(2 + n, "m", &format!("i{n}"), &json!({"a": n}))).collect();
    store.apply(1, &events, 400).await.unwrap();
    let carry = CarryOver { renames: vec![("a".into(), "b".into())], defaults: Vec::new() };
    let (new, reads) = (shape("m", 2, &[], &[]), AtomicUsize::new(0));
    let change = store.define(400, None, &new, &carry, 401);
    let read = async {
        loop {
            let found = instances(&*store, "m").await;
            assert!(
                found.values().all(|data| data.get("a").is_some())
                    || found.values().all(|data| data.get("b").is_some())
            );
            reads.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
    };
    tokio::select! { result = change => result.unwrap(), () = read => {} }
    assert!(reads.load(Ordering::SeqCst) > 0);
    assert_eq!(records(&all, "/m"), instances(&*store, "m").await);
    assert!(records(&all, "/m").values().all(|data| data.get("b").is_some()));
}
