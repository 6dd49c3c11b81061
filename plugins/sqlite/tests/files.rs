//! Properties of stores in files: who may open them, unusable files, and the remaining files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};
use snaphook_driver::{
    Budget, DriverError, ErrorKind, ErrorQuery, EventFilter, EventQuery, EventStore, Group, ModelStore, OpenContext,
};
use snaphook_driver_testkit::sample::{append_all, create, created, shape};
use snaphook_sqlite::DRIVER;
use tempfile::TempDir;

fn context(folder: &Path, settings: Value) -> OpenContext {
    let Value::Object(settings) = settings else { panic!("settings are a table") };
    OpenContext::new(settings, folder)
}

async fn open_event(folder: &Path, path: &str) -> Result<Arc<dyn EventStore>, DriverError> {
    DRIVER.event.unwrap()(context(folder, json!({ "path": path }))).await
}

async fn open_model(folder: &Path, path: &str) -> Result<Arc<dyn ModelStore>, DriverError> {
    DRIVER.model.unwrap()(context(folder, json!({ "path": path }))).await
}

#[track_caller]
fn refused<T>(result: Result<T, DriverError>, kind: ErrorKind, words: &[&str]) {
    let error = result.err().expect("refused");
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "`{word}` in `{error}`");
    }
}

#[tokio::test]
async fn settings_are_checked() {
    let folder = TempDir::new().unwrap();
    for (settings, word) in [
        (json!({}), "path"),
        (json!({"path": 1}), "string"),
        (json!({"path": ""}), "empty"),
        (json!({"path": "x.db", "sync": true}), "sync"),
    ] {
        refused(DRIVER.event.unwrap()(context(folder.path(), settings.clone())).await, ErrorKind::Config, &[word]);
        refused(DRIVER.model.unwrap()(context(folder.path(), settings.clone())).await, ErrorKind::Config, &[word]);
        refused(DRIVER.error.unwrap()(context(folder.path(), settings)).await, ErrorKind::Config, &[word]);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_store_is_opened_once_at_a_time() {
    let folder = TempDir::new().unwrap();
    let store = open_event(folder.path(), "deep/er/events.db").await.unwrap();
    refused(open_event(folder.path(), "deep/er/events.db").await, ErrorKind::Config, &["in use", "events.db"]);
    // This also detects two stores that are configured with the same file by mistake.
    refused(open_model(folder.path(), "deep/er/events.db").await, ErrorKind::Config, &["in use"]);
    store.close().await.unwrap();
    let again = open_event(folder.path(), "deep/er/events.db").await.unwrap();
    // Dropping a store without closing it releases the file too.
    drop(again);
    open_event(folder.path(), "deep/er/events.db").await.unwrap();
}

#[tokio::test]
async fn files_of_others_are_refused() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    Connection::open(path("foreign.db")).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
    refused(
        open_event(folder.path(), "foreign.db").await,
        ErrorKind::Config,
        &["is not a Snaphook event log", "foreign.db"],
    );
    refused(open_model(folder.path(), "foreign.db").await, ErrorKind::Config, &["is not a Snaphook model store"]);
    open_event(folder.path(), "events.db").await.unwrap().close().await.unwrap();
    refused(open_model(folder.path(), "events.db").await, ErrorKind::Config, &["is not a Snaphook model store"]);
    Connection::open(path("events.db")).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    refused(open_event(folder.path(), "events.db").await, ErrorKind::Config, &["99", "newer"]);
    std::fs::write(path("noise.db"), "this is no database, whatever its name says. ".repeat(100)).unwrap();
    refused(open_event(folder.path(), "noise.db").await, ErrorKind::Corrupt, &["not an SQLite database", "noise.db"]);
    assert!(std::fs::read_to_string(path("noise.db")).unwrap().starts_with("this is no database"));
    std::fs::create_dir(path("folder.db")).unwrap();
    refused(open_model(folder.path(), "folder.db").await, ErrorKind::Unavailable, &["cannot be opened", "folder.db"]);
    std::fs::write(path("file"), "").unwrap();
    refused(open_event(folder.path(), "file/events.db").await, ErrorKind::Config, &["folder cannot be created"]);
}

/// Anything that can be rebuilt from the log must not prevent a start.
#[tokio::test]
async fn a_model_store_of_an_older_format_starts_empty() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("models.db");
    let write = |version: i32| {
        let old = Connection::open(&path).unwrap();
        old.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA application_id = 0x534e484d; PRAGMA user_version = {version};
             CREATE TABLE _state(one INTEGER PRIMARY KEY, checkpoint INTEGER NOT NULL); INSERT INTO _state VALUES (1, 9);
             CREATE TABLE _models(id TEXT PRIMARY KEY, shape TEXT NOT NULL); CREATE TABLE m(_id TEXT);"
        ))
        .unwrap();
        // As after a crash: the write-ahead log still contains changes that were not copied.
        std::mem::forget(old);
    };
    write(1);
    let store = open_model(folder.path(), "models.db").await.unwrap();
    assert_eq!(store.checkpoint().await.unwrap(), 0);
    assert_eq!(store.definitions().await.unwrap(), []);
    store.define(0, None, &shape("m", 1, &[], &[]), &Default::default(), 1).await.unwrap();
    store.apply(0, &[created(2, "m", "a", &json!({}))], 2).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = open_model(folder.path(), "models.db").await.unwrap();
    assert_eq!(store.checkpoint().await.unwrap(), 2);
    store.close().await.unwrap();
    drop(store);
    // A newer file belongs to a newer server, so it is neither used nor replaced.
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    refused(open_model(folder.path(), "models.db").await, ErrorKind::Config, &["99", "newer"]);
    assert!(path.exists());
}

#[tokio::test]
async fn a_log_from_before_traces_is_read_and_written() {
    let folder = TempDir::new().unwrap();
    let store = open_event(folder.path(), "events.db").await.unwrap();
    append_all(&*store, &[create("m", "a", "{}")], false).await;
    store.close().await.unwrap();
    let file = folder.path().join("events.db");
    Connection::open(&file).unwrap().execute_batch("ALTER TABLE events DROP COLUMN trace").unwrap();
    let store = open_event(folder.path(), "events.db").await.unwrap();
    let mut traced = create("m", "b", "{}");
    traced.event.trace = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned());
    append_all(&*store, &[traced.clone()], false).await;
    let query = EventQuery { after: 0, limit: 10, filter: EventFilter::default() };
    let events = store.read(&query, None).await.unwrap().events;
    assert_eq!(events.iter().map(|event| event.trace.clone()).collect::<Vec<_>>(), [None, traced.event.trace]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn instances_are_copied_into_their_file_when_nothing_is_written() {
    let folder = TempDir::new().unwrap();
    let store = open_model(folder.path(), "models.db").await.unwrap();
    store.define(0, None, &shape("m", 1, &[], &[]), &Default::default(), 1).await.unwrap();
    let look = Connection::open(folder.path().join("models.db")).unwrap();
    let pages = || {
        look.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))
            .unwrap()
    };
    for round in 0..3 {
        let position = 2 + round;
        store.apply(0, &[created(position, "m", &format!("i{round}"), &json!({}))], position).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while pages().0 != pages().1 {
            assert!(Instant::now() < deadline, "{:?} in round {round}", pages());
            tokio::task::yield_now().await;
        }
        assert!(store.get("m", &format!("i{round}")).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn damage_is_told() {
    let folder = TempDir::new().unwrap();
    let store = open_model(folder.path(), "models.db").await.unwrap();
    store.define(0, None, &shape("m", 1, &[], &[]), &Default::default(), 1).await.unwrap();
    let events: Vec<_> = (2..200)
        .map(|position| created(position, "m", &format!("i{position}"), &json!({"x": "y".repeat(200)})))
        .collect();
    store.apply(0, &events, 200).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let path = folder.path().join("models.db");
    let mut bytes = std::fs::read(&path).unwrap();
    // The first pages stay intact, but the pages with the rows do not.
    for byte in &mut bytes[4 * 4096..] {
        *byte = 0xa5;
    }
    std::fs::write(&path, bytes).unwrap();
    let outcome = async {
        let store = open_model(folder.path(), "models.db").await?;
        for position in 2..200 {
            store.get("m", &format!("i{position}")).await?;
        }
        Ok(())
    };
    refused(outcome.await, ErrorKind::Corrupt, &["damaged"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_stores_nothing() {
    let folder = TempDir::new().unwrap();
    let mount = folder.path().join("tiny");
    std::fs::create_dir(&mount).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&mount)
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("skipped: no file system can be mounted here");
        return;
    }
    let unmount = Unmount(mount.clone());
    std::fs::write(mount.join("filler"), vec![0; 300_000]).unwrap();
    let store = open_event(&mount, "events.db").await.unwrap();
    let mut position = 0;
    let error = loop {
        let batch = [create("m", &format!("a{position}"), &format!("{{\"x\":\"{}\"}}", "y".repeat(20_000)))];
        match store.append(&batch, false).await {
            Ok(answers) => position = answers[0].as_ref().unwrap().position,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert!(error.is_temporary());
    assert_eq!(store.head().await.unwrap(), position);
    // Once there is free space, writing continues automatically.
    std::fs::remove_file(mount.join("filler")).unwrap();
    store.health().await.unwrap();
    let answers = append_all(&*store, &[create("m", "after", "{}")], false).await;
    assert_eq!(answers[0], Ok(position + 1));
    position += 1;
    let query = snaphook_driver::EventQuery { after: 0, limit: 1000, filter: Default::default() };
    assert_eq!(store.read(&query, None).await.unwrap().events.len() as u64, position);
    drop(store);
    let store = open_event(&mount, "events.db").await.unwrap();
    assert_eq!(store.head().await.unwrap(), position);
    drop(store);
    drop(unmount);
}

#[cfg(target_os = "linux")]
struct Unmount(PathBuf);

#[cfg(target_os = "linux")]
impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Even while reads are in progress.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_store_is_one_file() {
    let folder = TempDir::new().unwrap();
    for round in 0..5 {
        let events = open_event(folder.path(), "events.db").await.unwrap();
        let models = open_model(folder.path(), "models.db").await.unwrap();
        let errors = DRIVER.error.unwrap()(context(folder.path(), json!({"path": "errors.db"}))).await.unwrap();
        let group = Group { name: "g".into(), filter: EventFilter::default() };
        events.create_group(&group, 0).await.unwrap();
        let batch: Vec<_> = (0..100).map(|row| create("m", &format!("i{round}-{row}"), "{}")).collect();
        let position = events.append(&batch, false).await.unwrap().pop().unwrap().unwrap().position;
        assert!(!events.claim("g", 100, Duration::from_secs(60)).await.unwrap().is_empty());
        models.define(0, None, &shape("m", 1, &[], &[]), &Default::default(), position).await.unwrap();
        errors.list(&ErrorQuery { model: None, hook: None, after: None, limit: 10 }).await.unwrap();
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (events, models) = (Arc::clone(&events), Arc::clone(&models));
                tokio::spawn(async move {
                    let query = EventQuery { after: 0, limit: 1000, filter: EventFilter::default() };
                    while events.read(&query, None).await.is_ok()
                        && models.count("m", &snaphook_driver::Filter::default(), &Budget::unlimited()).await.is_ok()
                    {
                    }
                })
            })
            .collect();
        events.read(&EventQuery { after: 0, limit: 1000, filter: EventFilter::default() }, None).await.unwrap();
        models.close().await.unwrap();
        events.close().await.unwrap();
        errors.close().await.unwrap();
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with("-lock"))
            .collect();
        names.sort();
        assert_eq!(names, ["errors.db", "events.db", "events.db-groups", "models.db"], "round {round}");
        for reader in readers {
            reader.await.unwrap();
        }
        let error = events.append(&batch, false).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}

#[tokio::test]
async fn commits_find_room_in_the_log_and_a_crash_loses_none_of_them() {
    let (folder, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = open_event(folder.path(), "events.db").await.unwrap();
    let mut lengths = std::collections::BTreeSet::new();
    for number in 0..100 {
        append_all(&*store, &[create("m", &format!("i{number}"), "{}")], false).await;
        lengths.insert(std::fs::metadata(folder.path().join("events.db-wal")).unwrap().len());
    }
    // Each commit writes several pages, so without lengthening the file in advance there would be more lengths.
    assert!(lengths.len() <= 10, "{lengths:?}");
    // As after a power failure: zeros follow the log.
    for name in ["events.db", "events.db-wal"] {
        std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    store.close().await.unwrap();
    let store = open_event(copy.path(), "events.db").await.unwrap();
    assert_eq!(store.head().await.unwrap(), 100);
    append_all(&*store, &[create("m", "another", "{}")], false).await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_log_beside_the_file_stays_short() {
    let folder = TempDir::new().unwrap();
    let store = open_event(folder.path(), "events.db").await.unwrap();
    let data = format!("{{\"x\":\"{}\"}}", "y".repeat(3000));
    let mut largest = 0;
    for number in 0..400 {
        let batch: Vec<_> = (0..200).map(|row| create("m", &format!("i{number}-{row}"), &data)).collect();
        append_all(&*store, &batch, false).await;
        largest = largest.max(std::fs::metadata(folder.path().join("events.db-wal")).unwrap().len());
    }
    // 80,000 events of 3 KB pass through a log of 64 MiB, which may grow further while it is copied.
    assert!(largest < 200 << 20, "{largest}");
    store.close().await.unwrap();
    assert!(!folder.path().join("events.db-wal").exists());
}
