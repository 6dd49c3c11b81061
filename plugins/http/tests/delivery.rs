//! Delivery to collectors that fail, reject, hang, or recover later.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snaphook_driver::{DriverError, ErrorKind, ErrorRecord, ErrorStore, Event, EventKind, Json, OpenContext};
use snaphook_driver_testkit::peer::{Peer, Reply, Request};
use snaphook_http::DRIVER;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);

fn record(id: &str, data: &str) -> ErrorRecord {
    let event = Event {
        position: 1,
        id: "e".into(),
        kind: EventKind::InstanceCreated,
        model: "m".into(),
        model_version: 1,
        instance: Some("a".into()),
        revision: 1,
        data: Some(Json::trusted(data)),
        actor: None,
        cause: None,
        hooks: Vec::new(),
        request_id: None,
        trace: None,
        time: 0,
    };
    ErrorRecord {
        id: id.into(),
        time: 0,
        model: "m".into(),
        phase: "postCreate".into(),
        hook: "h".into(),
        engine: "quickjs".into(),
        artifact: "sha256:ab".into(),
        event,
        attempts: 1,
        cause: "trap".into(),
        message: "m".into(),
        limit: None,
        log: Vec::new(),
    }
}

async fn open(folder: &Path, url: String, more: Value) -> Result<Arc<dyn ErrorStore>, DriverError> {
    let Value::Object(mut settings) = json!({ "buffer": "buffer", "timeout": 1, "url": url }) else { unreachable!() };
    settings.extend(more.as_object().cloned().unwrap_or_default());
    DRIVER.error.unwrap()(OpenContext::new(settings, folder)).await
}

fn ids(request: &Request) -> Vec<String> {
    let records = snaphook_driver::json::parse_bytes(&request.body).unwrap();
    records.as_array().unwrap().iter().map(|record| record["id"].as_str().unwrap().to_owned()).collect()
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < DEADLINE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_post_of_records() {
    let folder = TempDir::new().unwrap();
    let collector = Peer::start(|_| Reply::status(204));
    let store = open(folder.path(), collector.url("/errors?x=1"), json!({"token": "t"})).await.unwrap();
    store.record(&record("a", "{\n  \"n\": 1.50,\r\n \"t\":\"\\n\"}")).await.unwrap();
    until("the record arrives", || !collector.requests().is_empty()).await;
    store.close().await.unwrap();
    let request = &collector.requests()[0];
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/errors?x=1"));
    assert_eq!(request.header("authorization"), Some("Bearer t"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    let text = String::from_utf8(request.body.clone()).unwrap();
    assert!(text.starts_with("[{\"id\":\"a\",\"time\":\"1970-01-01T00:00:00.000Z\""), "{text}");
    assert!(text.contains(r#""data":{   "n": 1.50,   "t":"\n"}"#), "{text}");
    assert_eq!(store.record(&record("b", "{}")).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

/// All records arrive in order, despite failures.
#[tokio::test(flavor = "multi_thread")]
async fn failures_are_retried_in_order() {
    let folder = TempDir::new().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let collector = Peer::start({
        let count = Arc::clone(&count);
        move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::status(500),
            1 => Reply::Cut,
            3 => Reply::Stall,
            5 => Reply::Response(429, vec![("retry-after", "1".into())], Vec::new()),
            7 => Reply::Raw(b"nonsense\r\n\r\n".to_vec()),
            9 => Reply::Response(302, vec![("location", "/other".into())], Vec::new()),
            11 => Reply::json(403, r#"{"error":"no"}"#),
            // The records count as accepted although the body never ends.
            12 => Reply::Endless(b"HTTP/1.1 200 OK\r\n\r\nx".to_vec()),
            _ => Reply::status(200),
        }
    });
    let store = open(folder.path(), collector.url(""), json!({"batch": 1})).await.unwrap();
    let expected: Vec<String> = (0..8).map(|number| number.to_string()).collect();
    for id in &expected {
        store.record(&record(id, "{}")).await.unwrap();
    }
    until("all batches are taken", || count.load(Ordering::SeqCst) >= 15).await;
    store.health().await.unwrap();
    store.close().await.unwrap();
    let all: Vec<String> = collector.requests().iter().flat_map(ids).collect();
    let mut distinct = all.clone();
    distinct.dedup();
    assert_eq!(distinct, expected, "{all:?}");
    assert_eq!(all.len(), 15, "each failure is one more attempt");
    // Nothing is left for the next start.
    drop(store);
    let store = open(folder.path(), collector.url(""), json!({})).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(collector.requests().len(), 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_record_is_kept_and_takes_no_other_with_it() {
    let folder = TempDir::new().unwrap();
    let collector = Peer::start(|request| {
        let is_bad = ids(request).iter().any(|id| id.starts_with("bad"));
        if is_bad { Reply::json(400, "\u{1b}[31mno such field") } else { Reply::status(201) }
    });
    {
        // The records wait in the buffer together.
        let down = open(folder.path(), "http://127.0.0.1:1".into(), json!({})).await.unwrap();
        for id in ["a", "bad1", "b", "bad2", "c"] {
            down.record(&record(id, "{}")).await.unwrap();
        }
        down.close().await.unwrap();
    }
    let store = open(folder.path(), collector.url(""), json!({})).await.unwrap();
    store.record(&record("d", "{}")).await.unwrap();
    store.close().await.unwrap();
    let taken = collector.requests().into_iter().filter(|request| !ids(request).iter().any(|id| id.starts_with("bad")));
    assert_eq!(taken.flat_map(|request| ids(&request)).collect::<String>(), "abcd");
    let text = std::fs::read_to_string(folder.path().join("buffer/rejected.ndjson")).unwrap();
    let rejected: Vec<Value> = text.lines().map(|line| snaphook_driver::json::parse(line).unwrap()).collect();
    let found: Vec<&str> = rejected.iter().map(|line| line["record"]["id"].as_str().unwrap()).collect();
    assert_eq!(found, ["bad1", "bad2"]);
    assert_eq!(rejected[0]["reason"], "the peer answered 400:  [31mno such field");
}

/// A gateway that accepts less than a batch, and for a while nothing, in front of a collector that rejects nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_says_is_not_about_a_record() {
    let folder = TempDir::new().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let page = |status| Reply::Response(status, vec![("content-type", "text/html".into())], b"<html>no".to_vec());
    let collector = Peer::start({
        let count = Arc::clone(&count);
        move |request| match count.fetch_add(1, Ordering::SeqCst) {
            _ if ids(request).len() > 1 => page(413),
            1 => page(400),
            2 => page(404),
            3 => page(200),
            _ => Reply::status(200),
        }
    });
    {
        // The records wait in the buffer together.
        let down = open(folder.path(), "http://127.0.0.1:1".into(), json!({})).await.unwrap();
        for id in ["a", "b", "c"] {
            down.record(&record(id, "{}")).await.unwrap();
        }
        down.close().await.unwrap();
    }
    let store = open(folder.path(), collector.url(""), json!({})).await.unwrap();
    until("all records are taken", || count.load(Ordering::SeqCst) >= 7).await;
    store.close().await.unwrap();
    let sent: Vec<String> = collector.requests().iter().map(|request| ids(request).concat()).collect();
    assert_eq!(sent, ["abc", "a", "a", "a", "a", "b", "c"]);
    assert!(!folder.path().join("buffer/rejected.ndjson").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_buffer_says_so_and_empties_when_the_collector_is_back() {
    let folder = TempDir::new().unwrap();
    let is_up = Arc::new(AtomicUsize::new(0));
    let collector = Peer::start({
        let is_up = Arc::clone(&is_up);
        move |_| Reply::status(if is_up.load(Ordering::SeqCst) > 0 { 200 } else { 503 })
    });
    let store = open(folder.path(), collector.url(""), json!({"buffer-bytes": 16 << 20, "timeout": 30})).await.unwrap();
    let large = format!("\"{}\"", "x".repeat((5 << 20) + 1000));
    let mut stored = Vec::new();
    let error = loop {
        let id = stored.len().to_string();
        match store.record(&record(&id, &large)).await {
            Ok(()) => stored.push(id),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), stored.len()), (ErrorKind::Full, 3), "{error}");
    assert!(store.health().await.unwrap_err().to_string().contains("nearly full"));
    is_up.store(1, Ordering::SeqCst);
    let started = Instant::now();
    while store.record(&record("last", &large)).await.is_err() {
        assert!(started.elapsed() < DEADLINE, "the buffer does not empty");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.close().await.unwrap();
    stored.push("last".into());
    let mut all: Vec<String> = collector.requests().iter().flat_map(ids).collect();
    all.dedup();
    assert_eq!(all, stored);
    let left: u64 = std::fs::read_dir(folder.path().join("buffer"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(left < 12 << 20, "{left} bytes are left of what is delivered");
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_is_bounded() {
    let folder = TempDir::new().unwrap();
    let collector = Peer::start(|_| Reply::Stall);
    let store = open(folder.path(), collector.url(""), json!({"timeout": 600})).await.unwrap();
    store.record(&record("a", "{}")).await.unwrap();
    let started = Instant::now();
    store.close().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
    // The store can be opened again even if somebody, such as a host, still holds the closed one.
    let collector = Peer::start(|_| Reply::status(200));
    open(folder.path(), collector.url(""), json!({})).await.unwrap().close().await.unwrap();
    assert_eq!(ids(&collector.requests()[0]), ["a"]);
}

/// Set in the environment of the process that is killed.
const CHILD: &str = "SNAPHOOK_HTTP_TEST_FOLDER";

/// Every acknowledged record arrives although the process was killed, and nothing that arrives is damaged.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_survive_a_kill() {
    let folder = TempDir::new().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "record_until_killed", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let (mut line, mut count) = (String::new(), 0);
        while lines.read_line(&mut line).unwrap() > 0 {
            if let Some((_, id)) = line.split_once("id:")
                && line.ends_with('\n')
            {
                acknowledged.push(id.trim().to_owned());
                count += 1;
            }
            line.clear();
            if count == 20 + round * 31 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
    }
    let collector = Peer::start(|_| Reply::status(200));
    let store = open(folder.path(), collector.url(""), json!({"batch": 7})).await.unwrap();
    store.close().await.unwrap();
    let arrived: Vec<String> = collector.requests().iter().flat_map(ids).collect();
    for id in &acknowledged {
        assert!(arrived.contains(id), "{id} is lost of {acknowledged:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn record_until_killed() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let collector = Peer::start(|_| Reply::status(500));
    let store = open(Path::new(&folder), collector.url(""), json!({})).await.unwrap();
    let started = Instant::now();
    for number in 0.. {
        if started.elapsed() > DEADLINE {
            break;
        }
        let ids = [0, 1, 2].map(|part| format!("{}-{number}-{part}", std::process::id()));
        let records = ids.clone().map(|id| record(&id, "{\"x\":1}"));
        let [a, b, c] = &records;
        let (a, b, c) = tokio::join!(store.record(a), store.record(b), store.record(c));
        a.and(b).and(c).unwrap();
        ids.iter().for_each(|id| println!("id:{id}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_checked() {
    let folder = TempDir::new().unwrap();
    for (settings, word) in [
        (json!({"url": ""}), "`url`"),
        (json!({"url": 1}), "invalid type"),
        (json!({"buffer": ""}), "`buffer`"),
        (json!({"buffer-bytes": 1}), "`buffer-bytes`"),
        (json!({"batch": 0}), "`batch`"),
        (json!({"timeout": 0}), "`timeout`"),
        (json!({"token": "a\nb"}), "`token`"),
        (json!({"other": 1}), "`other`"),
    ] {
        let error = open(folder.path(), "http://127.0.0.1:1/".into(), settings.clone()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config, "{settings}");
        assert!(error.to_string().contains(word), "{settings}: {error}");
    }
    assert!(!folder.path().join("buffer").exists());
    std::fs::write(folder.path().join("buffer"), "").unwrap();
    let error = open(folder.path(), "http://127.0.0.1:1/".into(), json!({})).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}
