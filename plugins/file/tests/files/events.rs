//! The files of the log.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use snaphook_driver::{
    Claim, ErrorKind, Event, EventFilter, EventQuery, EventStore, Expected, Group, Json, Stream, json,
};
use snaphook_driver_testkit::sample::{any, append_all, append_one, create, digest};
use tempfile::TempDir;

use super::{copy, file, flips, names, open_event, refused, tiny_disk};

const SEGMENT: &str = "00000000000000000001.jsonl";

async fn all(store: &dyn EventStore) -> Vec<Event> {
    let query = EventQuery { after: 0, limit: 1000, filter: EventFilter::default() };
    store.read(&query, None).await.unwrap().events
}

/// A log with three writes, the last one with two events, and a group with progress.
async fn fill(folder: &Path) {
    let store = open_event(folder).await.unwrap();
    append_one(&*store, create("m", "a", r#"{"n": 1}"#)).await;
    let mut claiming = any("m", "b");
    claiming.claims.push(Claim::new("k"));
    append_one(&*store, claiming).await;
    assert!(append_all(&*store, &[any("m", "c"), any("m", "d")], false).await.iter().all(Result::is_ok));
    let group = Group { name: "g".into(), filter: EventFilter::default() };
    store.create_group(&group, 0).await.unwrap();
    let claimed = store.claim("g", 2, Duration::from_secs(60)).await.unwrap();
    store.ack("g", &[(claimed[0].event.position, claimed[0].token)]).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn lines_are_json_that_says_what_happened() {
    let folder = TempDir::new().unwrap();
    fill(folder.path()).await;
    assert_eq!(names(folder.path()), [SEGMENT, "blobs", "groups.jsonl", "lock", "store.json"]);
    let text = std::fs::read_to_string(folder.path().join(SEGMENT)).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| json::parse(line).unwrap()).collect();
    assert_eq!(lines.len(), 5);
    assert_eq!((&lines[1]["event"]["type"], &lines[1]["event"]["data"]["n"]), (&"instance.created".into(), &1.into()));
    assert_eq!(lines[2]["claims"][0]["key"], "k");
    assert_eq!((&lines[3]["left"], &lines[4]["left"]), (&1.into(), &0.into()));
}

#[tokio::test]
async fn a_torn_tail_is_cut_wherever_it_ends() {
    let folder = TempDir::new().unwrap();
    fill(folder.path()).await;
    let segment = folder.path().join(SEGMENT);
    let bytes = std::fs::read(&segment).unwrap();
    let last = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(2).unwrap().0 + 1;
    for cut in last..bytes.len() {
        std::fs::write(&segment, &bytes[..cut]).unwrap();
        let store = open_event(folder.path()).await.unwrap();
        assert_eq!(store.head().await.unwrap(), 2, "{cut}");
        drop(store);
        assert_eq!(std::fs::metadata(&segment).unwrap().len(), last as u64);
    }
    // The possible remains of a write after a power failure, before and after the end of a line.
    for tail in [&[0; 3000][..], b"{\"crc\":\"0\0\0\0\0\0\0\0\0\0\"}\n", b"{\"crc\":\"0\0\0\0\0\0\0\0\0\0\"}\n\0\0"] {
        std::fs::write(&segment, [&bytes[..last], tail].concat()).unwrap();
        assert_eq!(open_event(folder.path()).await.unwrap().head().await.unwrap(), 2);
    }
    // The log continues after the truncated tail.
    let store = open_event(folder.path()).await.unwrap();
    assert_eq!(append_one(&*store, any("m", "e")).await, 3);
    store.close().await.unwrap();
    assert_eq!(all(&*open_event(folder.path()).await.unwrap()).await.len(), 3);
    // A first write that was interrupted leaves an empty log.
    for cut in [0, 1, 50] {
        std::fs::write(&segment, &bytes[..cut]).unwrap();
        let store = open_event(folder.path()).await.unwrap();
        assert_eq!((store.head().await.unwrap(), names(folder.path()).contains(&SEGMENT.to_owned())), (0, false));
    }
}

#[tokio::test]
async fn each_flipped_bit_is_noticed() {
    let folder = TempDir::new().unwrap();
    fill(folder.path()).await;
    for name in [SEGMENT, "groups.jsonl", "store.json"] {
        let path = folder.path().join(name);
        let bytes = std::fs::read(&path).unwrap();
        for (at, flipped) in flips(&bytes) {
            std::fs::write(&path, flipped).unwrap();
            assert!(open_event(folder.path()).await.is_err(), "byte {at} of {name}");
        }
        std::fs::write(&path, bytes).unwrap();
        open_event(folder.path()).await.unwrap();
    }
}

#[tokio::test]
async fn damage_is_named_with_its_place() {
    let folder = TempDir::new().unwrap();
    fill(folder.path()).await;
    let segment = folder.path().join(SEGMENT);
    let bytes = std::fs::read(&segment).unwrap();
    let third = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0 + 1;
    let mut flipped = bytes.clone();
    flipped[third + 100] ^= 1;
    std::fs::write(&segment, &flipped).unwrap();
    let offset = format!("offset `{third}`");
    let words = [SEGMENT, "line `3`", offset.as_str(), "expected checksum", "found"];
    refused(open_event(folder.path()).await, ErrorKind::Corrupt, &words);
    assert_eq!(std::fs::read(&segment).unwrap(), flipped, "a damaged file is left as it is");
    // A line that is missing or duplicated.
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    for lines in [[lines[0], lines[2], lines[3], lines[4]], [lines[0], lines[1], lines[1], lines[2]]] {
        std::fs::write(&segment, lines.concat()).unwrap();
        refused(open_event(folder.path()).await, ErrorKind::Corrupt, &["expected line", "found line"]);
    }
    // Reads verify lines too.
    std::fs::write(&segment, &bytes).unwrap();
    let store = open_event(folder.path()).await.unwrap();
    std::fs::write(&segment, &flipped).unwrap();
    let found = store.last(&Stream::of_instance("m", "b"), u64::MAX).await;
    refused(found, ErrorKind::Corrupt, &[SEGMENT, "position `2`"]);
}

#[tokio::test]
async fn a_damaged_blob_is_found_and_written_again() {
    let folder = TempDir::new().unwrap();
    let store = open_event(folder.path()).await.unwrap();
    let name = digest(b"code");
    store.put_blob(&name, b"code").await.unwrap();
    let path = folder.path().join("blobs").join(&name);
    for damaged in [&b"cod"[..], b"", b"code\0"] {
        std::fs::write(&path, damaged).unwrap();
        refused(store.get_blob(&name).await, ErrorKind::Corrupt, &[&name, &digest(damaged)]);
        store.put_blob(&name, b"code").await.unwrap();
        assert_eq!(store.get_blob(&name).await.unwrap().as_deref(), Some(&b"code"[..]));
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn files_of_others_stay_and_are_no_part_of_the_log() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("README"), "mine").unwrap();
    std::fs::write(folder.path().join("1.jsonl"), "mine").unwrap();
    std::fs::write(folder.path().join("report.new"), "mine").unwrap();
    std::fs::write(folder.path().join("groups.jsonl.new"), "half").unwrap();
    fill(folder.path()).await;
    std::fs::write(folder.path().join("blobs/README"), "mine").unwrap();
    std::fs::write(folder.path().join("blobs/ab.new"), "half").unwrap();
    let store = open_event(folder.path()).await.unwrap();
    assert_eq!(all(&*store).await.len(), 4);
    store.close().await.unwrap();
    drop(store);
    assert_eq!(names(&folder.path().join("blobs")), ["README"]);
    assert!(folder.path().join("README").exists() && folder.path().join("1.jsonl").exists());
    assert!(folder.path().join("report.new").exists() && !folder.path().join("groups.jsonl.new").exists());
    // Segments of another log, and segments whose marker is missing.
    let other = TempDir::new().unwrap();
    fill(other.path()).await;
    std::fs::copy(other.path().join(SEGMENT), folder.path().join(SEGMENT)).unwrap();
    refused(open_event(folder.path()).await, ErrorKind::Corrupt, &["expected a segment of the log", SEGMENT]);
    std::fs::copy(other.path().join("groups.jsonl"), folder.path().join("groups.jsonl")).unwrap();
    std::fs::remove_file(folder.path().join(SEGMENT)).unwrap();
    refused(open_event(folder.path()).await, ErrorKind::Config, &["groups.jsonl", "of the log"]);
    std::fs::remove_file(other.path().join("store.json")).unwrap();
    refused(open_event(other.path()).await, ErrorKind::Corrupt, &["store.json"]);
}

#[tokio::test]
async fn texts_come_back_byte_by_byte() {
    let folder = TempDir::new().unwrap();
    let texts = ["{\n  \"a\": 1\r\n}", " {} ", "{\"a\":\u{7f}1}", "no json", "", "\u{2028}", "[1,\n", "\"\\u0000\""];
    let store = open_event(folder.path()).await.unwrap();
    for (number, text) in texts.iter().enumerate() {
        let mut append = create("m", &format!("i{number}"), "{}");
        append.event.data = Some(Json::trusted(*text));
        append_one(&*store, append).await;
    }
    store.close().await.unwrap();
    drop(store);
    let store = open_event(folder.path()).await.unwrap();
    let found: Vec<String> = all(&*store).await.into_iter().map(|event| event.data.unwrap().to_string()).collect();
    assert_eq!(found, texts);
}

#[tokio::test]
async fn a_crash_at_any_moment_leaves_what_was_answered() {
    let folder = TempDir::new().unwrap();
    let store = open_event(folder.path()).await.unwrap();
    for round in 0..20_u64 {
        let batch = [any("m", "a"), any("m", &format!("b{round}"))];
        append_all(&*store, &batch, round % 2 == 0).await;
        let crashed = TempDir::new().unwrap();
        copy(folder.path(), crashed.path()).unwrap();
        assert_eq!(open_event(crashed.path()).await.unwrap().head().await.unwrap(), 2 * round + 2);
    }
}

#[tokio::test]
async fn progress_of_groups_stays_short() {
    let folder = TempDir::new().unwrap();
    let store = open_event(folder.path()).await.unwrap();
    append_one(&*store, any("m", "a")).await;
    let group = Group { name: "g".into(), filter: EventFilter::default() };
    store.create_group(&group, 0).await.unwrap();
    let note = "n".repeat(60_000);
    for _ in 0..100 {
        let claimed = store.claim("g", 1, Duration::from_secs(60)).await.unwrap();
        store.release("g", 1, claimed[0].token, Duration::ZERO, Some(&note)).await.unwrap();
    }
    let bytes = std::fs::metadata(file(folder.path(), "groups", ".jsonl")).unwrap().len();
    assert!(bytes < 2_000_000, "{bytes}");
    store.close().await.unwrap();
    drop(store);
    let store = open_event(folder.path()).await.unwrap();
    let claimed = store.claim("g", 1, Duration::from_secs(60)).await.unwrap();
    assert_eq!((claimed[0].attempt, claimed[0].note.as_ref()), (101, Some(&note)));
}

#[tokio::test]
async fn a_full_disk_stores_nothing() {
    let folder = TempDir::new().unwrap();
    let Some(disk) = tiny_disk(folder.path()) else { return };
    let path = disk.0.join("events");
    std::fs::write(disk.0.join("filler"), vec![0; 300_000]).unwrap();
    let store = open_event(&path).await.unwrap();
    let mut position = 0;
    let error = loop {
        let batch = [create("m", &format!("a{position}"), &format!("{{\"x\":\"{}\"}}", "y".repeat(20_000)))];
        match store.append(&batch, false).await {
            Ok(answers) => position = answers[0].as_ref().unwrap().position,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert_eq!((store.head().await.unwrap(), all(&*store).await.len() as u64), (position, position));
    refused(store.health().await, ErrorKind::Full, &[]);
    // After a crash at this point, everything acknowledged still exists.
    let crashed = TempDir::new().unwrap();
    copy(&path, crashed.path()).unwrap();
    assert_eq!(open_event(crashed.path()).await.unwrap().head().await.unwrap(), position);
    // Once there is free space, writing continues.
    std::fs::remove_file(disk.0.join("filler")).unwrap();
    store.health().await.unwrap();
    let next = create("m", "after", "{}");
    assert_eq!(next.expected, Expected::New);
    assert_eq!(append_all(&*store, &[next], false).await, [Ok(position + 1)]);
    drop(store);
    let store = open_event(&path).await.unwrap();
    assert_eq!(all(&*store).await.len() as u64, position + 1);
    drop(store);
}

#[tokio::test]
async fn a_closed_store_answers_that_it_is_closed() {
    let folder = TempDir::new().unwrap();
    let store = open_event(folder.path()).await.unwrap();
    store.close().await.unwrap();
    refused(store.append(&[any("m", "a")], false).await, ErrorKind::Unavailable, &["closed"]);
    refused(store.reserve(&[]).await, ErrorKind::Unavailable, &["closed"]);
}
