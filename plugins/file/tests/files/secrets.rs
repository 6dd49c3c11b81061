//! Properties of secrets in files.

use std::path::Path;

use serde_json::{Value, json};
use snaphook_driver::{DriverError, ErrorKind, OpenContext, SecureStore};
use snaphook_file::DRIVER;
use tempfile::TempDir;

async fn open(folder: &Path, settings: Value) -> Result<std::sync::Arc<dyn SecureStore>, DriverError> {
    let Value::Object(settings) = settings else { panic!("settings are a table") };
    DRIVER.secure.unwrap()(OpenContext::new(settings, folder)).await
}

fn files(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "lock").collect();
    names.sort();
    names
}

#[tokio::test]
async fn settings_are_checked() {
    let folder = TempDir::new().unwrap();
    for settings in [json!({}), json!({"path": ""}), json!({"path": "x", "other": 1})] {
        assert_eq!(open(folder.path(), settings).await.err().unwrap().kind(), ErrorKind::Config);
    }
    assert!(files(folder.path()).is_empty());
    std::fs::write(folder.path().join("taken"), "").unwrap();
    let error = open(folder.path(), json!({"path": "taken"})).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("taken"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_may_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = TempDir::new().unwrap();
    let store = open(folder.path(), json!({"path": "a/b"})).await.unwrap();
    store.put("Name", b"sealed", None).await.unwrap();
    store.put("Name", b"again", None).await.unwrap();
    let secrets = folder.path().join("a/b");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&secrets), 0o700);
    assert_eq!(files(&secrets), ["1=name.sealed"]);
    assert_eq!(mode(&secrets.join("1=name.sealed")), 0o600);
}

#[tokio::test]
async fn what_was_half_written_is_cleared_and_strangers_stay() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path(), json!({"path": "."})).await.unwrap();
    store.put("a", b"whole", None).await.unwrap();
    drop(store);
    std::fs::write(folder.path().join("0=a.new"), "half").unwrap();
    std::fs::write(folder.path().join("README"), "mine").unwrap();
    std::fs::write(folder.path().join("report.new"), "mine").unwrap();
    let store = open(folder.path(), json!({"path": "."})).await.unwrap();
    assert_eq!(files(folder.path()), ["0=a.sealed", "README", "report.new"]);
    assert_eq!(store.list("").await.unwrap(), ["a"]);
    assert_eq!(store.get("a").await.unwrap().unwrap().bytes, b"whole");
}

#[tokio::test]
async fn one_store_has_the_folder() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path(), json!({"path": "."})).await.unwrap();
    let error = open(folder.path(), json!({"path": "."})).await.err().unwrap();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("in use"), "{error}");
    store.put("a", b"1", None).await.unwrap();
    store.close().await.unwrap();
    let next = open(folder.path(), json!({"path": "."})).await.unwrap();
    assert_eq!(store.put("a", b"2", None).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(next.put("a", b"3", Some(1)).await.unwrap(), 2);
}

#[tokio::test]
async fn every_name_is_a_file_everywhere() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path(), json!({"path": "."})).await.unwrap();
    let names = snaphook_driver_testkit::hostile::secrets();
    for name in &names {
        store.put(name, b"x", None).await.unwrap();
    }
    let files = files(folder.path());
    let folded: std::collections::HashSet<String> = files.iter().map(|file| file.to_lowercase()).collect();
    assert_eq!(folded.len(), names.len());
    for file in files {
        let device = file.split(['.', ' ']).next().unwrap().to_uppercase();
        let number = |prefix: &str| device.strip_prefix(prefix).is_some_and(|rest| rest.len() == 1);
        let reserved = ["CON", "PRN", "AUX", "NUL"].contains(&device.as_str()) || number("COM") || number("LPT");
        assert!(!reserved && file.len() <= 200 && !file.ends_with(['.', ' ']) && !file.starts_with('.'), "{file}");
    }
}

#[tokio::test]
async fn files_of_before_are_found() {
    let folder = TempDir::new().unwrap();
    for (file, byte) in [("mail.sealed", b'a'), ("M=ail.sealed", b'b'), ("A=B=c.sealed", b'c'), ("0=new.sealed", b'd')]
    {
        std::fs::write(folder.path().join(file), [0, 0, 0, 0, 0, 0, 0, 7, byte]).unwrap();
    }
    std::fs::write(folder.path().join("no=secret.sealed"), "mine").unwrap();
    let store = open(folder.path(), json!({"path": "."})).await.unwrap();
    assert_eq!(store.list("").await.unwrap(), ["ABc", "Mail", "mail", "new"]);
    for (name, byte) in [("mail", b'a'), ("Mail", b'b'), ("ABc", b'c'), ("new", b'd')] {
        let sealed = store.get(name).await.unwrap().unwrap();
        assert_eq!((sealed.bytes.as_slice(), sealed.version), (&[byte][..], 7), "{name}");
    }
    assert!(folder.path().join("no=secret.sealed").exists());
}

#[tokio::test]
async fn damage_is_told() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path(), json!({"path": "."})).await.unwrap();
    std::fs::write(folder.path().join("0=a.sealed"), "short").unwrap();
    let error = store.get("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("0=a.sealed"), "{error}");
    std::fs::remove_file(folder.path().join("0=a.sealed")).unwrap();
    std::fs::remove_dir_all(folder.path()).unwrap();
    assert_eq!(store.health().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.put("a", b"x", None).await.unwrap_err().kind(), ErrorKind::Unavailable);
    std::fs::create_dir(folder.path()).unwrap();
}
