//! The files of recorded errors.

use snaphook_driver::{ErrorKind, ErrorQuery, ErrorRecord, EventKind, Json, Stream};
use snaphook_driver_testkit::sample::event;
use tempfile::TempDir;

use super::{flips, names, open_error, refused};

fn record(id: &str, data: &str) -> ErrorRecord {
    let mut event = event(EventKind::InstanceCreated, &Stream::of_instance("m", "i"), Some("{}"));
    event.data = Some(Json::trusted(data));
    ErrorRecord {
        id: id.to_owned(),
        time: 1_700_000_000_123,
        model: "m".into(),
        phase: "postCreate".into(),
        hook: "h".into(),
        engine: "quickjs".into(),
        artifact: "sha256:ab".into(),
        event,
        attempts: 8,
        cause: "trap".into(),
        message: "line one\nline two".into(),
        limit: None,
        log: Vec::new(),
    }
}

#[tokio::test]
async fn a_record_is_a_line_of_json() {
    let folder = TempDir::new().unwrap();
    let store = open_error(folder.path()).await.unwrap();
    let records = [record("A", "{\n\"n\": 1.50}"), record("a/b", "no json"), record("b", r#"{"n": 1.50}"#)];
    for record in &records {
        store.record(record).await.unwrap();
    }
    store.close().await.unwrap();
    refused(store.record(&records[0]).await, ErrorKind::Unavailable, &["closed"]);
    drop(store);
    let text = std::fs::read_to_string(folder.path().join("0=b.error.json")).unwrap();
    let found = snaphook_driver::json::parse(&text).unwrap();
    assert_eq!((&found["record"]["hook"], found["data"]["n"].to_string()), (&"h".into(), "1.50".into()));
    let store = open_error(folder.path()).await.unwrap();
    let page = store.list(&ErrorQuery { limit: 10, ..ErrorQuery::default() }).await.unwrap();
    assert_eq!(page.records, records);
}

#[tokio::test]
async fn what_was_half_written_is_cleared_and_strangers_stay() {
    let folder = TempDir::new().unwrap();
    drop(open_error(folder.path()).await.unwrap());
    std::fs::write(folder.path().join("0=a.error.json.new"), "half").unwrap();
    std::fs::write(folder.path().join("mine.json"), "mine").unwrap();
    let store = open_error(folder.path()).await.unwrap();
    assert_eq!(store.count(&ErrorQuery::default()).await.unwrap(), 0);
    assert_eq!(names(folder.path()), ["lock", "mine.json", "store.json"]);
}

#[tokio::test]
async fn each_flipped_bit_is_noticed() {
    let folder = TempDir::new().unwrap();
    let store = open_error(folder.path()).await.unwrap();
    store.record(&record("a", r#"{"n": 1}"#)).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let path = folder.path().join("0=a.error.json");
    let bytes = std::fs::read(&path).unwrap();
    for (_, flipped) in flips(&bytes) {
        std::fs::write(&path, flipped).unwrap();
        refused(open_error(folder.path()).await, ErrorKind::Corrupt, &["0=a.error.json", "expected"]);
    }
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    refused(open_error(folder.path()).await, ErrorKind::Corrupt, &["0=a.error.json"]);
}
