//! Properties of stores in files: who may open them, unusable or damaged files, and the remains after a crash.

mod errors;
mod events;
mod models;
mod secrets;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use snaphook_driver::{DriverError, ErrorKind, ErrorStore, EventStore, ModelStore, OpenContext};
use snaphook_file::DRIVER;

type Opened<T> = Result<Arc<T>, DriverError>;

fn context(folder: &Path, settings: Value) -> OpenContext {
    let Value::Object(settings) = settings else { panic!("settings are a table") };
    OpenContext::new(settings, folder)
}

async fn open_event(folder: &Path) -> Opened<dyn EventStore> {
    DRIVER.event.unwrap()(context(folder, json!({ "path": "." }))).await
}

async fn open_model(folder: &Path) -> Opened<dyn ModelStore> {
    DRIVER.model.unwrap()(context(folder, json!({ "path": "." }))).await
}

async fn open_error(folder: &Path) -> Opened<dyn ErrorStore> {
    DRIVER.error.unwrap()(context(folder, json!({ "path": "." }))).await
}

#[track_caller]
fn refused<T>(result: Result<T, DriverError>, kind: ErrorKind, words: &[&str]) {
    let error = result.err().expect("refused");
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "`{word}` in `{error}`");
    }
}

/// Names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The only file whose name has this beginning and end.
fn file(folder: &Path, start: &str, end: &str) -> PathBuf {
    let found: Vec<String> =
        names(folder).into_iter().filter(|name| name.starts_with(start) && name.ends_with(end)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    folder.join(&found[0])
}

/// Copies a folder in the state that a crash would leave.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => std::fs::copy(entry.path(), target).map(drop)?,
        }
    }
    Ok(())
}

/// The bytes with one bit flipped in each byte, in turn.
fn flips(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
    (0..bytes.len()).map(|at| {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        (at, flipped)
    })
}

/// A memory file system of one MiB; `None` if it cannot be mounted.
fn tiny_disk(folder: &Path) -> Option<TinyDisk> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let mount = folder.join("tiny");
    std::fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&mount).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no file system can be mounted here");
        return None;
    }
    Some(TinyDisk(mount))
}

struct TinyDisk(PathBuf);

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn settings_are_checked() {
    let folder = tempfile::TempDir::new().unwrap();
    for (settings, word) in [
        (json!({}), "path"),
        (json!({"path": 1}), "string"),
        (json!({"path": ""}), "empty"),
        (json!({"path": "x", "sync": 1}), "sync"),
    ] {
        let context = || context(folder.path(), settings.clone());
        refused(DRIVER.event.unwrap()(context()).await, ErrorKind::Config, &[word]);
        refused(DRIVER.model.unwrap()(context()).await, ErrorKind::Config, &[word]);
        refused(DRIVER.error.unwrap()(context()).await, ErrorKind::Config, &[word]);
    }
    assert!(names(folder.path()).is_empty());
}

#[tokio::test]
async fn a_folder_has_one_store_that_is_opened_once() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = open_event(folder.path()).await.unwrap();
    refused(open_event(folder.path()).await, ErrorKind::Config, &["in use"]);
    refused(open_model(folder.path()).await, ErrorKind::Config, &["in use"]);
    refused(open_error(folder.path()).await, ErrorKind::Config, &["in use"]);
    store.close().await.unwrap();
    // Another type of store is also rejected while nobody has the folder open; dropping a store without closing it
    // releases its folder too.
    refused(open_model(folder.path()).await, ErrorKind::Config, &["event log"]);
    drop(open_event(folder.path()).await.unwrap());
    refused(open_error(folder.path()).await, ErrorKind::Config, &["event log"]);
    open_event(folder.path()).await.unwrap();
    let models = tempfile::TempDir::new().unwrap();
    drop(open_model(models.path()).await.unwrap());
    open_model(models.path()).await.unwrap();
    refused(open_event(models.path()).await, ErrorKind::Config, &["model store"]);
}

#[tokio::test]
async fn a_store_of_another_process_is_refused() {
    use std::io::{BufRead as _, BufReader};
    const FOLDER: &str = "SNAPHOOK_FILE_TEST_FOLDER";
    if let Some(folder) = std::env::var_os(FOLDER) {
        // The child process: it keeps the store open until its input ends.
        let _store = open_event(Path::new(&folder)).await.unwrap();
        println!("\nit is open");
        std::io::stdin().lines().for_each(drop);
        return;
    }
    let folder = tempfile::TempDir::new().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_store_of_another_process_is_refused", "--nocapture"])
        .env(FOLDER, folder.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "it is open"));
    refused(open_event(folder.path()).await, ErrorKind::Config, &["in use", "another process"]);
    // The lock is released however the process ends.
    child.kill().unwrap();
    child.wait().unwrap();
    open_event(folder.path()).await.unwrap();
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_named() {
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("taken"), "").unwrap();
    for path in ["taken", "taken/deeper"] {
        let context = || context(folder.path(), json!({ "path": path }));
        refused(DRIVER.event.unwrap()(context()).await, ErrorKind::Config, &["taken"]);
        refused(DRIVER.model.unwrap()(context()).await, ErrorKind::Config, &["taken"]);
        refused(DRIVER.error.unwrap()(context()).await, ErrorKind::Config, &["taken"]);
    }
}
