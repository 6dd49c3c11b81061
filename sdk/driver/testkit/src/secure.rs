//! Cases for the secure store.

use snaphook_driver::{ErrorKind, PAYLOAD_BYTES_MAX, Sealed};

use crate::Subject;
use crate::subject::NOT_DURABLE;

pub async fn secrets_are_kept(subject: &Subject) {
    let store = subject.secure().await;
    store.health().await.unwrap();
    assert_eq!(store.get("a").await.unwrap(), None);
    assert!(!store.delete("a").await.unwrap());
    let large: Vec<u8> = (0..PAYLOAD_BYTES_MAX).map(|index| (index % 251) as u8).collect();
    let long = "n".repeat(128);
    let (capitals, mixed) = ("N".repeat(128), "nN".repeat(64));
    for (name, bytes) in [
        ("a", &b""[..]),
        ("A", b"\x00\xff"),
        ("0._-", b"x"),
        ("con", b"y"),
        (&capitals, b"capitals"),
        (&mixed, b"mixed"),
        (&long, &large),
    ] {
        assert_eq!(store.put(name, bytes, None).await.unwrap(), 1, "{name}");
        assert!(store.get(name).await.unwrap() == Some(Sealed { bytes: bytes.to_vec(), version: 1 }), "{name}");
    }
    assert_eq!(store.get("a").await.unwrap().unwrap().bytes, b"");
    assert_eq!(store.list("N").await.unwrap(), [capitals.as_str()]);
    assert_eq!(store.list("n").await.unwrap(), [mixed.as_str(), long.as_str()]);
    assert_eq!(store.put("a", b"two", None).await.unwrap(), 2);
    assert_eq!(store.get("a").await.unwrap(), Some(Sealed { bytes: b"two".to_vec(), version: 2 }));
    assert!(store.delete("a").await.unwrap());
    assert!(!store.delete("a").await.unwrap());
    assert_eq!(store.get("a").await.unwrap(), None);
    assert_eq!(store.get("A").await.unwrap().unwrap().bytes, b"\x00\xff");
    assert_eq!(store.put("a", b"new", None).await.unwrap(), 1);
    store.close().await.unwrap();
}

pub async fn expected_versions(subject: &Subject) {
    let store = subject.secure().await;
    let conflict = |result: snaphook_driver::Result<u64>| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Conflict);
    };
    conflict(store.put("a", b"x", Some(1)).await);
    assert_eq!(store.put("a", b"one", Some(0)).await.unwrap(), 1);
    conflict(store.put("a", b"x", Some(0)).await);
    conflict(store.put("a", b"x", Some(2)).await);
    assert_eq!(store.put("a", b"two", Some(1)).await.unwrap(), 2);
    assert_eq!(store.get("a").await.unwrap().unwrap().bytes, b"two");
    store.close().await.unwrap();
}

pub async fn listing(subject: &Subject) {
    let store = subject.secure().await;
    assert_eq!(store.list("").await.unwrap(), Vec::<String>::new());
    for name in ["mail-key", "mail", "Mail", "a.b", "mail_2", "0"] {
        store.put(name, b"x", None).await.unwrap();
    }
    assert_eq!(store.list("").await.unwrap(), ["0", "Mail", "a.b", "mail", "mail-key", "mail_2"]);
    assert_eq!(store.list("mail").await.unwrap(), ["mail", "mail-key", "mail_2"]);
    assert_eq!(store.list("mail-").await.unwrap(), ["mail-key"]);
    assert_eq!(store.list("x").await.unwrap(), Vec::<String>::new());
    store.close().await.unwrap();
}

pub async fn concurrent_puts_count(subject: &Subject) {
    let store = subject.secure().await;
    let tasks: Vec<_> = (0..20)
        .map(|number: u8| {
            let store = store.clone();
            tokio::spawn(async move {
                (store.put("a", &[number], None).await.unwrap(), store.put("b", &[number], Some(0)).await.is_ok())
            })
        })
        .collect();
    let (mut versions, mut first) = (Vec::new(), 0);
    for task in tasks {
        let (version, was_first) = task.await.unwrap();
        versions.push(version);
        first += usize::from(was_first);
    }
    versions.sort_unstable();
    assert_eq!(versions, (1..=20).collect::<Vec<_>>());
    assert_eq!(first, 1);
    store.close().await.unwrap();
}

pub async fn survives_reopening(subject: &Subject) {
    let store = subject.secure().await;
    if !store.capabilities().durable {
        return subject.skip(NOT_DURABLE);
    }
    store.put("a", b"one", None).await.unwrap();
    store.put("a", b"two", None).await.unwrap();
    store.put("gone", b"x", None).await.unwrap();
    store.delete("gone").await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = subject.secure().await;
    assert_eq!(store.get("a").await.unwrap(), Some(Sealed { bytes: b"two".to_vec(), version: 2 }));
    assert_eq!(store.list("").await.unwrap(), ["a"]);
    store.close().await.unwrap();
}
