//! The files of instances.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snaphook_driver::{Budget, CarryOver, ErrorKind, InstanceQuery, ModelStore, Position};
use snaphook_driver_testkit::hostile;
use snaphook_driver_testkit::sample::{change, created, shape};
use tempfile::TempDir;

use super::{copy, file, flips, names, open_model, refused, tiny_disk};

const DEADLINE: Duration = Duration::from_secs(60);

async fn define(store: &dyn ModelStore, version: u64, carry: &CarryOver, position: Position) {
    store.define(0, None, &shape("m", version, &[], &[]), carry, position).await.unwrap();
}

/// All instances of the model, and the checkpoint.
async fn all(store: &dyn ModelStore) -> (Vec<(String, String)>, Position) {
    let query = InstanceQuery { limit: 1000, ..InstanceQuery::default() };
    let found = store.query("m", &query, &Budget::unlimited()).await.unwrap().items;
    let found = found.into_iter().map(|instance| (instance.id, instance.data.to_string())).collect();
    (found, store.checkpoint().await.unwrap())
}

/// A store with two instances, closed.
async fn fill(folder: &Path) {
    let store = open_model(folder).await.unwrap();
    store.reset("log").await.unwrap();
    define(&*store, 1, &CarryOver::default(), 1).await;
    let events = [created(2, "m", "a", &json!({"n": 1})), created(3, "m", "B", &json!({"n": 2}))];
    store.apply(0, &events, 3).await.unwrap();
    store.close().await.unwrap();
}

fn instances(folder: &Path) -> PathBuf {
    let instances = folder.join("instances");
    let models = names(&instances);
    assert_eq!(models.len(), 1, "{models:?}");
    instances.join(&models[0])
}

#[tokio::test]
async fn files_follow_the_instances() {
    let folder = TempDir::new().unwrap();
    let store = open_model(folder.path()).await.unwrap();
    define(&*store, 1, &CarryOver::default(), 1).await;
    let is_there = |id: &str, wanted: Option<Value>| {
        let started = Instant::now();
        let path = folder.path().join(format!("instances/m=1/{id}.json"));
        loop {
            let text = std::fs::read_to_string(&path).ok();
            let found = text.and_then(|text| Some(snaphook_driver::json::parse(&text).ok()?["data"].clone()));
            if found == wanted {
                return;
            }
            assert!(started.elapsed() < DEADLINE, "{id} is {found:?}, not {wanted:?}");
            std::thread::yield_now();
        }
    };
    store.apply(0, &[created(2, "m", "a", &json!({"n": 1})), created(3, "m", "B", &json!({}))], 3).await.unwrap();
    is_there("0=a", Some(json!({"n": 1})));
    is_there("1=b", Some(json!({})));
    let event = change(snaphook_driver::EventKind::InstanceUpdated, 4, "m", "a", Some("{\"n\":\n2}"));
    store.apply(0, &[event], 4).await.unwrap();
    let started = Instant::now();
    let path = folder.path().join("instances/m=1/0=a.json");
    while !std::fs::read_to_string(&path).unwrap().contains(r#""data_text":"{\"n\":\n2}""#) {
        assert!(started.elapsed() < DEADLINE);
        std::thread::yield_now();
    }
    let event = change(snaphook_driver::EventKind::InstanceDeleted, 5, "m", "B", None);
    store.apply(0, &[event], 5).await.unwrap();
    is_there("1=b", None);
    let carry = CarryOver { renames: vec![("n".into(), "k".into())], defaults: Vec::new() };
    define(&*store, 2, &carry, 6).await;
    is_there("0=a", Some(json!({"k": 2})));
    store.drop_model(0, "m", 7).await.unwrap();
    let started = Instant::now();
    while !names(&folder.path().join("instances")).is_empty() {
        assert!(started.elapsed() < DEADLINE);
        std::thread::yield_now();
    }
    store.close().await.unwrap();
}

/// Crashes while changes are only in the journal, while they are in some of the files, and with a journal truncated
/// anywhere.
#[tokio::test]
async fn a_crash_at_any_moment_leaves_a_whole_state() {
    let folder = TempDir::new().unwrap();
    fill(folder.path()).await;
    let store = open_model(folder.path()).await.unwrap();
    let mut states = vec![all(&*store).await];
    let swap = CarryOver { renames: vec![("n".into(), "k".into()), ("k".into(), "n".into())], defaults: Vec::new() };
    let mut crashed = Vec::new();
    for round in 0..60_u64 {
        let position = 4 + round;
        match round % 4 {
            0 => define(&*store, round + 2, &swap, position).await,
            1 => {
                let events = [created(position, "m", &format!("i{}", round % 7), &json!({"n": round}))];
                store.apply(0, &events, position).await.unwrap();
            }
            2 => {
                let id = ["a", "i1", "i3"][round as usize % 3];
                let kind = snaphook_driver::EventKind::InstanceUpdated;
                store.apply(0, &[change(kind, position, "m", id, Some("{\"k\":7}"))], position).await.unwrap();
            }
            _ => {
                let kind = snaphook_driver::EventKind::InstanceDeleted;
                store.apply(0, &[change(kind, position, "m", "i1", None)], position).await.unwrap();
            }
        }
        states.push(all(&*store).await);
        if round % 3 == 0 {
            crashed.push(crash(folder.path()));
        }
        if round % 20 == 10 {
            // Let some of the files be written in the meantime.
            tokio::time::timeout(DEADLINE, wait_for_files(folder.path())).await.unwrap();
        }
    }
    drop(store);
    for copied in crashed {
        let state = all(&*open_model(copied.path()).await.unwrap()).await;
        assert!(state.1 == 0 || states.contains(&state), "{state:?}");
    }
    // Dropped without closing, as if the process had been killed.
    let journal = |folder: &Path| names(folder).into_iter().rfind(|name| name.starts_with("journal-")).unwrap();
    let bytes = std::fs::read(folder.path().join(journal(folder.path()))).unwrap();
    for cut in (0..=bytes.len()).step_by(37) {
        let copied = TempDir::new().unwrap();
        copy(folder.path(), copied.path()).unwrap();
        std::fs::write(copied.path().join(journal(copied.path())), &bytes[..cut]).unwrap();
        let state = all(&*open_model(copied.path()).await.unwrap()).await;
        // A journal that ends before changes that are already in files is not the result of a server crash; the store
        // may start empty.
        assert!(state.1 == 0 || states.contains(&state), "{cut}: {state:?}");
    }
    assert_eq!(all(&*open_model(folder.path()).await.unwrap()).await, states[60]);
}

/// A copy as a crash at this moment would leave it. No crash leaves files from before one state and a state from after
/// it, so the copy is repeated if the state was replaced in the meantime.
fn crash(folder: &Path) -> TempDir {
    let started = Instant::now();
    loop {
        let state = || (std::fs::read(folder.join("state.json")).unwrap(), names(folder));
        let (before, copied) = (state(), TempDir::new().unwrap());
        if copy(folder, copied.path()).is_ok() && state() == before {
            return copied;
        }
        assert!(started.elapsed() < DEADLINE);
    }
}

async fn wait_for_files(folder: &Path) {
    while names(folder).iter().filter(|name| name.starts_with("journal-")).count() > 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn files_that_do_not_fit_are_not_served() {
    let origin = TempDir::new().unwrap();
    fill(origin.path()).await;
    let with = async |change: &dyn Fn(&Path)| {
        let folder = TempDir::new().unwrap();
        copy(origin.path(), folder.path()).unwrap();
        change(folder.path());
        let store = open_model(folder.path()).await.unwrap();
        let found = (store.log().await.unwrap(), all(&*store).await);
        // The store works again at once.
        if found.1.1 == 0 {
            define(&*store, 1, &CarryOver::default(), 1).await;
            store.apply(0, &[created(2, "m", "a", &json!({}))], 2).await.unwrap();
            store.close().await.unwrap();
            drop(store);
            assert_eq!(all(&*open_model(folder.path()).await.unwrap()).await.0.len(), 1);
        }
        found
    };
    let whole = with(&|_| {}).await;
    assert_eq!((whole.0.as_deref(), whole.1.0.len(), whole.1.1), (Some("log"), 2, 3));
    let empty = (None, (Vec::new(), 0));
    let one = |folder: &Path| instances(folder).join("0=a.json");
    for (path, bytes) in [one(origin.path()), origin.path().join("state.json")]
        .map(|path| (path.strip_prefix(origin.path()).unwrap().to_owned(), std::fs::read(&path).unwrap()))
    {
        for (at, flipped) in flips(&bytes).filter(|(at, _)| at % 5 == 0) {
            assert_eq!(with(&|folder| std::fs::write(folder.join(&path), &flipped).unwrap()).await, empty, "{at}");
        }
    }
    assert_eq!(with(&|folder| std::fs::remove_file(one(folder)).unwrap()).await, empty);
    assert_eq!(with(&|folder| std::fs::remove_file(folder.join("state.json")).unwrap()).await.1.1, 0);
    let doubled = |folder: &Path| assert!(std::fs::copy(one(folder), instances(folder).join("0=c.json")).is_ok());
    assert_eq!(with(&doubled).await, empty);
    // Files of other programs are not instances.
    let foreign = |folder: &Path| std::fs::write(instances(folder).join("README"), "mine").unwrap();
    assert_eq!(with(&foreign).await, whole);
}

#[tokio::test]
async fn what_another_start_of_the_system_left_open_is_not_trusted() {
    let folder = TempDir::new().unwrap();
    fill(folder.path()).await;
    // Opened but not closed.
    drop(open_model(folder.path()).await.unwrap());
    assert_eq!(all(&*open_model(folder.path()).await.unwrap()).await.1, 3);
    let path = folder.path().join("state.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let (_, body) = text.trim_end().split_once(',').unwrap();
    let (before, rest) = body.split_once(r#""boot":""#).unwrap();
    if rest.starts_with('"') {
        return;
    }
    let body = format!(r#"{before}"boot":"x{}"#, &rest[1..]);
    std::fs::write(&path, format!("{{\"crc\":\"{:08x}\",{body}\n", crc32fast::hash(body.as_bytes()))).unwrap();
    assert_eq!(all(&*open_model(folder.path()).await.unwrap()).await.1, 0);
}

#[tokio::test]
async fn every_name_is_a_file_everywhere() {
    let folder = TempDir::new().unwrap();
    let mut position = 0;
    for model in hostile::MODELS.iter().chain(&["é", "a/b", "UPPER", ""]) {
        // A new store for each model: closing a store writes files for at most five seconds, which may not be enough
        // for all models on a busy disk.
        let store = open_model(folder.path()).await.unwrap();
        position += 1;
        store.define(0, None, &shape(model, 1, &[], &[]), &CarryOver::default(), position).await.unwrap();
        for id in hostile::INSTANCES.iter().chain(&["é", "..", "a/b", "a\0", "É"]) {
            position += 1;
            store.apply(0, &[created(position, model, id, &json!({}))], position).await.unwrap();
        }
        store.close().await.unwrap();
    }
    let root = folder.path().join("instances");
    let models = names(&root);
    assert_eq!(models.len(), hostile::MODELS.len() + 4);
    let folded =
        |names: &[String]| names.iter().map(|name| name.to_lowercase()).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(folded(&models).len(), models.len());
    for model in models {
        let files = names(&root.join(&model));
        assert_eq!((files.len(), folded(&files).len()), (hostile::INSTANCES.len() + 5, hostile::INSTANCES.len() + 5));
        assert!(files.iter().chain([&model]).all(|name| name.len() <= 200 && name.contains('=')), "{files:?}");
    }
    let store = open_model(folder.path()).await.unwrap();
    assert!(store.get("a/b", "a\0").await.unwrap().is_some() && store.get("con", "CON").await.unwrap().is_some());
}

#[tokio::test]
async fn folders_that_no_model_has_are_removed_and_their_names_are_not_used_again() {
    let folder = TempDir::new().unwrap();
    fill(folder.path()).await;
    let root = folder.path().join("instances");
    std::fs::create_dir(root.join("m=7")).unwrap();
    std::fs::write(root.join("m=7/0=a.json"), "old").unwrap();
    std::fs::create_dir(root.join("mine")).unwrap();
    let store = open_model(folder.path()).await.unwrap();
    store.drop_model(0, "m", 4).await.unwrap();
    define(&*store, 1, &CarryOver::default(), 5).await;
    store.apply(0, &[created(6, "m", "b", &json!({}))], 6).await.unwrap();
    let started = Instant::now();
    while names(&root) != ["m=8", "mine"] {
        assert!(started.elapsed() < DEADLINE, "{:?}", names(&root));
        std::thread::yield_now();
    }
    drop(store);
    assert_eq!(all(&*open_model(folder.path()).await.unwrap()).await, (vec![("b".into(), "{}".into())], 6));
}

#[tokio::test]
async fn a_full_disk_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let Some(disk) = tiny_disk(folder.path()) else { return };
    let path = disk.0.join("models");
    std::fs::write(disk.0.join("filler"), vec![0; 300_000]).unwrap();
    let store = open_model(&path).await.unwrap();
    define(&*store, 1, &CarryOver::default(), 1).await;
    let mut position = 1;
    let error = loop {
        let data = json!({"x": "y".repeat(20_000)});
        match store.apply(0, &[created(position + 1, "m", &format!("i{position}"), &data)], position + 1).await {
            Ok(()) => position += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert_eq!((all(&*store).await.0.len() as u64 + 1, all(&*store).await.1), (position, position));
    std::fs::remove_file(disk.0.join("filler")).unwrap();
    let started = Instant::now();
    loop {
        // Changes that wait to be written to files may still take up the free space.
        let applied = store.apply(0, &[created(position + 1, "m", "after", &json!({}))], position + 1).await;
        if applied.is_ok() {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "{applied:?}");
        tokio::task::yield_now().await;
    }
    drop(store);
    assert_eq!(all(&*open_model(&path).await.unwrap()).await.1, position + 1);
}

#[tokio::test]
async fn a_closed_store_answers_that_it_is_closed() {
    let folder = TempDir::new().unwrap();
    fill(folder.path()).await;
    let store = open_model(folder.path()).await.unwrap();
    store.close().await.unwrap();
    refused(store.apply(0, &[], 9).await, ErrorKind::Unavailable, &["closed"]);
    assert_eq!(file(folder.path(), "state", ".json"), folder.path().join("state.json"));
    assert!(!std::fs::read_to_string(folder.path().join("state.json")).unwrap().contains(r#""closed":null"#));
}
