//! Backups of real stores: what comes back, what is refused, and where damage is found.

use std::path::Path;
use std::sync::Arc;

use snaphook_driver::{
    Append, Claim, ErrorRecord, Event, EventFilter, EventKind, Expected, Group, Json, Position, Stream,
};
use tokio::sync::mpsc;

use super::*;
use crate::config::Config;
use crate::drivers::Stores;
use crate::memory::MemoryBudget;

fn config(folder: &Path, more: &str) -> Config {
    let text = format!("[server]\nmount-address = '127.0.0.1:0'\n[auth]\nmode = 'open'\n{more}");
    Config::parse(&text, "config.toml", folder, None, &|_| None).unwrap()
}

fn event(kind: EventKind, instance: Option<&str>, data: &str) -> Event {
    Event {
        position: 0,
        id: uuid::Uuid::now_v7().to_string(),
        kind,
        model: "m".into(),
        model_version: 1,
        instance: instance.map(str::to_owned),
        revision: 1,
        data: Some(Json::trusted(data)),
        actor: None,
        cause: None,
        hooks: Vec::new(),
        request_id: None,
        trace: None,
        time: 1_700_000_000_000,
    }
}

async fn append(stores: &Stores, event: Event, key: &str) -> Position {
    let claims = vec![Claim::new(key)];
    let append = Append { claims, ..Append::new(event, Expected::Any) };
    stores.event.append(&[append], false).await.unwrap()[0].as_ref().unwrap().position
}

fn error(id: &str, event: Event) -> ErrorRecord {
    ErrorRecord {
        id: id.to_owned(),
        time: 1_700_000_000_000,
        model: "m".into(),
        phase: "postCreate".into(),
        hook: "h".into(),
        engine: "quickjs".into(),
        artifact: "sha256:ab".into(),
        event,
        attempts: 8,
        cause: "trap".into(),
        message: "no".into(),
        limit: None,
        log: Vec::new(),
    }
}

/// Stores with a little of everything.
async fn filled(config: &Config, events: usize) -> Stores {
    let stores = Stores::open(config).await.unwrap();
    append(&stores, event(EventKind::ModelCreated, None, r#"{"n": 1.50}"#), "model").await;
    for index in 0..events {
        let text = "x".repeat(index % 97);
        let data = format!(r#"{{"n": {index}.10, "text": "{text}"}}"#);
        append(&stores, event(EventKind::InstanceCreated, Some(&format!("i{index}")), &data), &format!("k{index}"))
            .await;
    }
    stores.event.put_blob("ab", &[7; 1000]).await.unwrap();
    let group = Group { name: "g".into(), filter: EventFilter::default() };
    stores.event.create_group(&group, 0).await.unwrap();
    let lease = std::time::Duration::from_secs(60);
    let claimed = stores.event.claim("g", 3, lease).await.unwrap();
    stores.event.ack("g", &[(claimed[0].event.position, claimed[0].token)]).await.unwrap();
    let failed = Event { position: 2, ..event(EventKind::InstanceCreated, Some("i0"), "{}") };
    stores.error.record(&error("0190a6c4-0000-7000-8000-000000000001", failed.clone())).await.unwrap();
    let later = Event { position: 1_000_000, ..failed };
    stores.error.record(&error("0190a6c4-0000-7000-8000-000000000002", later)).await.unwrap();
    stores.vault.put("mail-key", b"hunter2hunter2").await.unwrap();
    stores
}

async fn archive(stores: &Stores) -> Vec<u8> {
    let (sender, mut pieces) = mpsc::channel(1);
    let budget = MemoryBudget::new(64 << 20);
    let memory = Arc::new(budget.whole());
    let (event, error, secure) = (stores.event.clone(), stores.error.clone(), stores.secure.clone());
    let work = export(event, error, secure, memory, sender).await.unwrap();
    let gather = async {
        let mut file = Vec::new();
        while let Some(piece) = pieces.recv().await {
            assert!(budget.used() >= piece.as_ref().len());
            file.extend_from_slice(piece.as_ref());
        }
        file
    };
    let (done, file) = tokio::join!(work, gather);
    done.unwrap();
    assert_eq!(budget.used(), 0);
    file
}

async fn restored(folder: &Path, file: &[u8], more: &str) -> Result<Restored, String> {
    let path = folder.join("the.backup");
    std::fs::write(&path, file).unwrap();
    restore(&path, &config(folder, more), |_, _| {}).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn everything_comes_back() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let stores = filled(&config(from.path(), ""), 300).await;
    let file = archive(&stores).await;
    assert!(!file.windows(7).any(|window| window == b"hunter2"));
    let key = std::fs::read(from.path().join("data/secret.key")).unwrap();

    let done = restored(to.path(), &file, "").await.unwrap();
    assert_eq!(done.counts, Counts { events: 301, claims: 301, blobs: 1, groups: 1, errors: 1, secrets: 1 });
    assert_eq!(done.header.head, 301);
    assert_eq!(done.header.log, stores.event.identity());
    assert_ne!(done.log, stores.event.identity());
    assert!(!to.path().join("data/secret.key").exists(), "the key is not in it, and another one would not do");

    std::fs::write(to.path().join("data/secret.key"), key).unwrap();
    let again = Stores::open(&config(to.path(), "")).await.unwrap();
    assert_eq!(again.event.identity(), done.log);
    assert_eq!(again.vault.get("mail-key").await.unwrap().unwrap().expose(), b"hunter2hunter2");
    // The same in every byte, but for its header.
    let (first, second) = (archive::records_of(&file), archive::records_of(&archive(&again).await));
    assert_eq!(first, second);
    assert!(again.event.holder("k7").await.unwrap().is_some());
    let stream = Stream::of_instance("m", "i42");
    assert_eq!(
        again.event.last(&stream, Position::MAX).await.unwrap(),
        stores.event.last(&stream, Position::MAX).await.unwrap()
    );
    again.close().await;
    stores.close().await;
}

#[tokio::test]
async fn any_driver_can_write_it() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let memory = "[driver-event-storage]\ndriver = 'memory'\n[driver-error-storage]\ndriver = 'memory'\n";
    let stores = filled(&config(from.path(), memory), 20).await;
    let file = archive(&stores).await;
    assert_eq!(restored(to.path(), &file, "").await.unwrap().counts.events, 21);
    let volatile = tempfile::tempdir().unwrap();
    let refused = restored(volatile.path(), &file, memory).await.unwrap_err();
    assert!(refused.contains("loses its data"), "{refused}");
}

#[tokio::test]
async fn every_damage_is_found() {
    let from = tempfile::tempdir().unwrap();
    let stores = filled(&config(from.path(), ""), 30).await;
    let file = archive(&stores).await;
    stores.close().await;
    let check = |bytes: &[u8]| verify(bytes, |_| {}).map(drop).map_err(|damage| damage.to_string());
    check(&file).unwrap();
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 1 << (at % 8);
        let told = check(&damaged).expect_err(&format!("byte {at} of {}", file.len()));
        assert!(told.contains("at byte "), "{told}");
        let cut = check(&file[..at]).expect_err(&format!("cut at {at}"));
        assert!(cut.contains("cut short") || cut.contains("not a backup"), "{cut}");
    }
    let mut longer = file.clone();
    longer.push(0);
    assert!(check(&longer).unwrap_err().contains("follows the end"));
    assert!(check(b"").is_err() && check(&[0; 100]).is_err());
    // Twice the same file is none.
    assert!(check(&[&file[..], &file[..]].concat()).is_err());
}

#[tokio::test]
async fn blocks_cannot_change_places() {
    let from = tempfile::tempdir().unwrap();
    let stores = Stores::open(&config(from.path(), "")).await.unwrap();
    let large = "x".repeat(1 << 20);
    for index in 0..3 {
        let data = format!(r#"{{"text": "{large}"}}"#);
        append(&stores, event(EventKind::InstanceCreated, Some(&format!("i{index}")), &data), &format!("k{index}"))
            .await;
    }
    let file = archive(&stores).await;
    stores.close().await;
    let blocks = archive::blocks_of(&file);
    assert!(blocks.len() >= 5, "{}", blocks.len());
    let check = |order: &[usize]| {
        let parts: Vec<&[u8]> = order.iter().map(|index| blocks[*index]).collect();
        verify(&parts.concat()[..], |_| {})
    };
    let all: Vec<usize> = (0..blocks.len()).collect();
    check(&all).unwrap();
    for [a, b] in [[1, 2], [2, 3]] {
        let mut order = all.clone();
        order.swap(a, b);
        check(&order).unwrap_err();
        let mut order = all.clone();
        order.remove(a);
        check(&order).unwrap_err();
    }
    // What is on its way is known from the heads alone.
    let mut scanner = Scanner::default();
    let mut last = 0.0;
    for piece in file.chunks(777) {
        scanner.push(piece);
        assert!(scanner.progress() >= last && scanner.progress() <= 1.0);
        last = scanner.progress();
    }
    assert!(last > 0.99, "{last}");
}

#[tokio::test]
async fn stores_that_hold_data_are_left_alone() {
    let from = tempfile::tempdir().unwrap();
    let stores = filled(&config(from.path(), ""), 5).await;
    let file = archive(&stores).await;
    // They are open: that is refused as well.
    let refused = restored(from.path(), &file, "").await.unwrap_err();
    assert!(refused.contains("in use"), "{refused}");
    stores.close().await;
    let refused = restored(from.path(), &file, "").await.unwrap_err();
    assert!(refused.contains("event") && refused.contains("error") && refused.contains("secure"), "{refused}");

    type Fill = fn(Arc<Stores>) -> futures::future::BoxFuture<'static, ()>;
    let cases: [(&str, Fill); 4] = [
        ("secure", |stores| Box::pin(async move { stores.vault.put("a", b"x").await.map(drop).unwrap() })),
        ("error", |stores| {
            let record =
                error("0190a6c4-0000-7000-8000-000000000001", event(EventKind::InstanceCreated, Some("i"), "{}"));
            Box::pin(async move { stores.error.record(&record).await.unwrap() })
        }),
        ("model", |stores| Box::pin(async move { stores.model.apply(0, &[], 1).await.unwrap() })),
        ("the log already contains data", |stores| {
            Box::pin(async move { stores.event.put_blob("aa", b"x").await.unwrap() })
        }),
    ];
    for (store, fill) in cases {
        let to = tempfile::tempdir().unwrap();
        let stores = Arc::new(Stores::open(&config(to.path(), "")).await.unwrap());
        fill(Arc::clone(&stores)).await;
        stores.close().await;
        let refused = restored(to.path(), &file, "").await.unwrap_err();
        assert!(refused.contains(store) && refused.contains("empty stores only"), "{store}: {refused}");
        let stores = Stores::open(&config(to.path(), "")).await.unwrap();
        assert_eq!(stores.event.head().await.unwrap(), 0, "{store}");
        stores.close().await;
    }
}

#[tokio::test]
async fn a_damaged_file_writes_nothing() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let stores = filled(&config(from.path(), ""), 50).await;
    let mut file = archive(&stores).await;
    stores.close().await;
    let last = file.len() - 3;
    file[last] ^= 4;
    let refused = restored(to.path(), &file, "").await.unwrap_err();
    assert!(refused.contains("at byte "), "{refused}");
    assert!(!to.path().join("data").exists());
}

#[tokio::test]
async fn errors_need_a_store_that_keeps_them() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let stores = filled(&config(from.path(), ""), 5).await;
    let file = archive(&stores).await;
    stores.close().await;
    let refused = restored(to.path(), &file, "[driver-error-storage]\ndriver = 'stdout'\n").await.unwrap_err();
    assert!(refused.contains("only forwards"), "{refused}");
    // It was not finished, so nobody takes what is there for a log.
    let opened = Stores::open(&config(to.path(), "")).await.err().unwrap().to_string();
    assert!(opened.contains("restore was interrupted"), "{opened}");
}
