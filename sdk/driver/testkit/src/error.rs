//! Cases for the error store.

use snaphook_driver::{ErrorQuery, ErrorRecord, ErrorStore, EventKind, Json, PAGE_BYTES_MAX, Stream};

use crate::Subject;
use crate::sample::event;
use crate::subject::{NOT_DURABLE, NOT_READABLE};

pub(crate) fn record(id: &str, model: &str, hook: &str) -> ErrorRecord {
    let mut event = event(EventKind::InstanceCreated, &Stream::of_instance(model, "ü"), Some(r#"{"n": 1.50}"#));
    event.position = 7;
    ErrorRecord {
        id: id.to_owned(),
        time: 1_700_000_000_123,
        model: model.to_owned(),
        phase: "postCreate".into(),
        hook: hook.to_owned(),
        engine: "quickjs".into(),
        artifact: "sha256:ab".into(),
        event,
        attempts: 8,
        cause: "trap".into(),
        message: "line one\nline \"two\" 🎈".into(),
        limit: Some("timeout 500 ms".into()),
        log: vec!["a".into(), String::new(), "\u{1}".into()],
    }
}

async fn list(
    store: &dyn ErrorStore,
    model: Option<&str>,
    hook: Option<&str>,
    after: Option<&str>,
    limit: u32,
) -> String {
    let query = ErrorQuery {
        model: model.map(str::to_owned),
        hook: hook.map(str::to_owned),
        after: after.map(str::to_owned),
        limit,
    };
    let page = store.list(&query).await.unwrap();
    page.records.into_iter().map(|record| record.id).collect::<Vec<_>>().join(" ")
}

pub async fn records_are_kept(subject: &Subject) {
    let store = subject.error().await;
    store.health().await.unwrap();
    let first = record("b", "m", "h");
    store.record(&first).await.unwrap();
    if !store.capabilities().readable {
        assert_eq!(store.get("b").await.unwrap(), None);
        assert!(!store.remove("b").await.unwrap());
        assert_eq!(list(&*store, None, None, None, 10).await, "");
        assert_eq!(store.count(&ErrorQuery::default()).await.unwrap(), 0);
        store.close().await.unwrap();
        return;
    }
    assert_eq!(store.get("b").await.unwrap(), Some(first.clone()));
    assert_eq!(store.get("absent").await.unwrap(), None);
    // A record with the same id replaces the first one, in every search.
    let second = ErrorRecord { attempts: 9, limit: None, log: Vec::new(), ..record("b", "n", "i") };
    store.record(&second).await.unwrap();
    assert_eq!(store.get("b").await.unwrap(), Some(second));
    assert_eq!(list(&*store, Some("m"), None, None, 10).await, "");
    assert_eq!(list(&*store, Some("n"), Some("i"), None, 10).await, "b");
    assert!(store.remove("b").await.unwrap());
    assert!(!store.remove("b").await.unwrap());
    assert_eq!(store.get("b").await.unwrap(), None);
    store.close().await.unwrap();
}

pub async fn records_are_listed(subject: &Subject) {
    let store = subject.error().await;
    if !store.capabilities().readable {
        return subject.skip(NOT_READABLE);
    }
    for (id, model, hook) in [("d", "m", "h"), ("a", "m", "i"), ("c", "n", "h"), ("b", "m", "h")] {
        store.record(&record(id, model, hook)).await.unwrap();
    }
    assert_eq!(list(&*store, None, None, None, 10).await, "a b c d");
    assert_eq!(list(&*store, None, None, None, 3).await, "a b c");
    assert_eq!(list(&*store, None, None, Some("b"), 10).await, "c d");
    assert_eq!(list(&*store, None, None, Some("bb"), 1).await, "c");
    assert_eq!(list(&*store, None, None, Some("d"), 10).await, "");
    assert_eq!(list(&*store, Some("m"), None, None, 10).await, "a b d");
    assert_eq!(list(&*store, None, Some("h"), None, 10).await, "b c d");
    assert_eq!(list(&*store, Some("m"), Some("h"), Some("b"), 10).await, "d");
    assert_eq!(list(&*store, Some("M"), None, None, 10).await, "");
    for (model, hook, expected) in
        [(None, None, 4), (Some("m"), None, 3), (None, Some("h"), 3), (Some("m"), Some("h"), 2), (Some("x"), None, 0)]
    {
        // `count` ignores the cursor and the limit.
        let query = ErrorQuery {
            model: model.map(str::to_owned),
            hook: hook.map(str::to_owned),
            after: Some("c".into()),
            limit: 1,
        };
        assert_eq!(store.count(&query).await.unwrap(), expected, "{query:?}");
    }
    store.close().await.unwrap();
}

pub async fn pages_end_early(subject: &Subject) {
    let store = subject.error().await;
    if !store.capabilities().readable {
        return subject.skip(NOT_READABLE);
    }
    for number in 0..10 {
        let mut large = record(&number.to_string(), "m", "h");
        large.event.data = Some(Json::trusted(format!("\"{}\"", "x".repeat(PAGE_BYTES_MAX / 6))));
        store.record(&large).await.unwrap();
    }
    let mut query = ErrorQuery { limit: 1000, ..ErrorQuery::default() };
    let mut ids = Vec::new();
    loop {
        let page = store.list(&query).await.unwrap();
        let bytes: usize =
            page.records.iter().filter_map(|record| record.event.data.as_ref()).map(|data| data.len()).sum();
        assert!(bytes <= PAGE_BYTES_MAX && !page.records.is_empty(), "{bytes}");
        query.after = page.records.last().map(|record| record.id.clone());
        ids.extend(page.records.into_iter().map(|record| record.id));
        if !page.full {
            break;
        }
    }
    assert_eq!(ids.concat(), "0123456789");
    // `full` is `false` on a page with the last record, even if the page reaches the limit.
    for (limit, full) in [(2, true), (3, false)] {
        let after = Some("6".to_owned());
        let page = store.list(&ErrorQuery { after, limit, ..ErrorQuery::default() }).await.unwrap();
        assert_eq!((page.records.len() as u32, page.full), (limit, full));
    }
    store.close().await.unwrap();
}

pub async fn survives_reopening(subject: &Subject) {
    let store = subject.error().await;
    if !store.capabilities().readable {
        return subject.skip(NOT_READABLE);
    }
    if !store.capabilities().durable {
        return subject.skip(NOT_DURABLE);
    }
    let kept = record("a", "m", "h");
    store.record(&kept).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = subject.error().await;
    assert_eq!(store.get("a").await.unwrap(), Some(kept));
    store.close().await.unwrap();
}
