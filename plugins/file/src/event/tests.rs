//! Logs with several segments, and failures that no file system produces on demand.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use snaphook_driver::{ErrorKind, EventFilter, EventQuery, EventStore, LogRecord, Position, Stream};
use snaphook_driver_testkit::sample::{any, append_all, append_one, create};
use tempfile::TempDir;

use super::*;

fn open(folder: &Path) -> Result<FileEventStore> {
    FileEventStore::open_with(folder, 2000, false)
}

async fn positions(store: &FileEventStore, filter: EventFilter) -> Vec<Position> {
    let page = store.read(&EventQuery { after: 0, limit: 1000, filter }, None).await.unwrap();
    page.events.into_iter().map(|event| event.position).collect()
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let is_segment =
        |path: &PathBuf| path.extension().is_some_and(|end| end == "jsonl") && !path.ends_with("groups.jsonl");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(is_segment).collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn a_log_goes_over_many_segments() {
    let folder = TempDir::new().unwrap();
    for round in 0..4 {
        let store = open(folder.path()).unwrap();
        for number in 0..10 {
            append_all(&store, &[any("m", "a"), create("m", &format!("{round}-{number}"), "{}")], true).await;
        }
        let head = store.head().await.unwrap();
        assert_eq!(head, 20 * (round + 1));
        assert_eq!(positions(&store, EventFilter::default()).await, (1..=head).collect::<Vec<_>>());
        let filter = EventFilter { model: Some("m".into()), instance: Some("a".into()), ..EventFilter::default() };
        assert_eq!(positions(&store, filter).await, (1..=head).step_by(2).collect::<Vec<_>>());
        for skip in 0..head / 2 {
            let found = store.last_but(&Stream::of_instance("m", "a"), Position::MAX, skip).await.unwrap();
            assert_eq!(found.unwrap().position, head - 1 - 2 * skip);
        }
        store.close().await.unwrap();
    }
    let paths = segments(folder.path());
    assert!(paths.len() > 5, "{paths:?}");
    // Only the last segment may have a torn tail.
    let middle = std::fs::read(&paths[2]).unwrap();
    std::fs::write(&paths[2], &middle[..middle.len() - 10]).unwrap();
    assert_eq!(open(folder.path()).err().unwrap().kind(), ErrorKind::Corrupt);
    // Only the last segments may be missing.
    std::fs::remove_file(&paths[2]).unwrap();
    let error = open(folder.path()).err().unwrap();
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("follows position"), "{error}");
}

#[tokio::test]
async fn positions_of_an_imported_log_may_have_gaps() {
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let store = open(folders[0].path()).unwrap();
    let records: Vec<LogRecord> = [3, 7, 8, 20]
        .map(|position| {
            let event = any("m", &format!("i{position}")).event;
            LogRecord::Event(snaphook_driver::Event { position, ..event })
        })
        .to_vec();
    store.import(&records).await.unwrap();
    assert_eq!(store.import(&records[..1]).await.unwrap_err().kind(), ErrorKind::Conflict);
    store.finish_import().await.unwrap();
    assert_eq!(append_one(&store, any("m", "next")).await, 21);
    store.close().await.unwrap();
    let store = open(folders[0].path()).unwrap();
    assert_eq!(positions(&store, EventFilter::default()).await, [3, 7, 8, 20, 21]);
    let found = store.last(&Stream::of_instance("m", "i7"), 19).await.unwrap().unwrap();
    assert_eq!(found.position, 7);
    let page = EventQuery { after: 5, limit: 2, filter: EventFilter::default() };
    assert_eq!(store.read(&page, None).await.unwrap().events[0].position, 7);
}

/// A file that cannot be written simulates a failing disk, which also prevents the write from being undone.
#[tokio::test]
async fn a_disk_that_fails_leaves_it_uncertain_until_it_works_again() {
    let folder = TempDir::new().unwrap();
    let store = FileEventStore::open(folder.path()).unwrap();
    append_one(&store, any("m", "a")).await;
    let path = segments(folder.path()).remove(0);
    let writable = swap(&store, Arc::new(File::open(&path).unwrap()));
    let error = store.append(&[any("m", "b")], false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Uncertain, "{error}");
    assert!(store.health().await.is_err());
    assert_eq!(store.append(&[any("m", "b")], false).await.unwrap_err().kind(), ErrorKind::Unavailable);
    // A part of the failed write follows the end of the log.
    std::fs::write(&path, [&std::fs::read(&path).unwrap()[..], b"{\"crc\":"].concat()).unwrap();
    swap(&store, writable);
    store.health().await.unwrap();
    assert_eq!(store.head().await.unwrap(), 1);
    assert_eq!(append_one(&store, any("m", "c")).await, 2);
    drop(store);
    assert_eq!(positions(&FileEventStore::open(folder.path()).unwrap(), EventFilter::default()).await, [1, 2]);
}

fn swap(store: &FileEventStore, file: Arc<File>) -> Arc<File> {
    locked(&store.shared.writer).as_mut().unwrap().replace_file(file)
}

#[tokio::test]
async fn claims_without_an_event_wait_for_the_next_write() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path()).unwrap();
    append_one(&store, any("m", "a")).await;
    let key = |text: &str| (text.to_owned(), Stream::of_instance("m", "a"));
    store.reserve(&[key("one"), key("two")]).await.unwrap();
    store.forget_claims("two", 10).await.unwrap();
    append_one(&store, any("m", "a")).await;
    store.reserve(&[key("three")]).await.unwrap();
    // As if the process had been killed: changes without a following append are lost, all others are kept.
    drop(store);
    let store = open(folder.path()).unwrap();
    assert!(store.holder("one").await.unwrap().is_some());
    assert_eq!((store.holder("two").await.unwrap(), store.holder("three").await.unwrap()), (None, None));
    // Large changes are written at once.
    let many: Vec<_> = (0..200).map(|number| key(&format!("{number} {}", "x".repeat(10_000)))).collect();
    store.reserve(&many).await.unwrap();
    drop(store);
    let store = open(folder.path()).unwrap();
    assert!(store.holder(&many[199].0).await.unwrap().is_some());
}

#[tokio::test]
async fn claims_alone_do_not_end_a_segment() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path()).unwrap();
    let key = |number: u64| (format!("{number} {}", "x".repeat(60_000)), Stream::of_instance("m", "a"));
    // Each reservation is larger than the limit for waiting changes and than a segment.
    for number in 0..60 {
        store.reserve(&[key(number)]).await.unwrap();
    }
    assert_eq!(segments(folder.path()).len(), 1);
    append_one(&store, any("m", "a")).await;
    append_one(&store, any("m", "a")).await;
    drop(store);
    assert_eq!(segments(folder.path()).len(), 2);
    let store = open(folder.path()).unwrap();
    assert_eq!(store.head().await.unwrap(), 2);
    for number in 0..60 {
        assert!(store.holder(&key(number).0).await.unwrap().is_some(), "{number}");
    }
}
