//! Cases for claims that are reserved and released without an event.

use std::collections::BTreeSet;

use snaphook_driver::{Append, Claim, Conflict, EventStore, Holder, Stream};

use crate::Subject;
use crate::sample::{any, append_one, try_append};
use crate::subject::NOT_DURABLE;

fn key(text: &str, id: &str) -> (String, Stream) {
    (text.to_owned(), Stream::of_instance("m", id))
}

async fn holder(store: &dyn EventStore, key: &str) -> Option<String> {
    store.holder(key).await.unwrap().map(|holder| holder.stream.instance.unwrap())
}

pub async fn claims_ahead_of_their_event(subject: &Subject) {
    let store = subject.event().await;
    assert_eq!(store.reserve(&[]).await.unwrap(), []);
    assert_eq!(store.reserve(&[key("early", "a")]).await.unwrap(), []);
    let taking = |id: &str, key: &str| Append { claims: vec![Claim::new(key)], ..any("m", id) };
    let position = append_one(&*store, taking("a", "k")).await;
    let taken =
        store.reserve(&[key("k", "b"), key("l", "b"), key("k", "a"), key("é", "c"), key("l", "c")]).await.unwrap();
    let by = |id: &str| Holder::new(Stream::of_instance("m", id), position);
    assert_eq!(taken, [(0, by("a")), (4, by("b"))]);
    assert_eq!((holder(&*store, "k").await, holder(&*store, "l").await), (Some("a".into()), Some("b".into())));
    assert_eq!(holder(&*store, "é").await.as_deref(), Some("c"));
    // A model's own stream and an instance are different holders.
    assert_eq!(store.reserve(&[("l".into(), Stream::of_model("m"))]).await.unwrap().len(), 1);
    // From then on they are ordinary claims.
    assert!(matches!(try_append(&*store, taking("z", "l")).await, Err(Conflict::Claimed { .. })));
    append_one(&*store, Append { releases: vec!["l".into()], ..any("m", "b") }).await;
    assert_eq!(holder(&*store, "l").await, None);
    assert_eq!(store.head().await.unwrap(), position + 1);
    let durable = store.capabilities().durable;
    store.close().await.unwrap();
    drop(store);
    if !durable {
        return subject.skip(NOT_DURABLE);
    }
    let store = subject.event().await;
    assert_eq!(holder(&*store, "é").await.as_deref(), Some("c"));
    assert_eq!(holder(&*store, "early").await.as_deref(), Some("a"));
    store.close().await.unwrap();
}

pub async fn claims_are_forgotten_by_prefix(subject: &Subject) {
    let store = subject.event().await;
    let texts = ["a", "list 1", "list 1 a", "list 1 é", "list 1 🎈", "list 2 a", "list 2", "list", "z"];
    let keys: Vec<_> = texts.iter().map(|text| key(text, "i")).collect();
    assert_eq!(store.reserve(&keys).await.unwrap(), []);
    let all = async || {
        let (mut found, mut from) = (BTreeSet::new(), String::new());
        while let Some(key) = store.next_claim(&from).await.unwrap() {
            from = format!("{key}\0");
            found.insert(key);
        }
        found
    };
    assert_eq!(all().await, texts.iter().map(|text| (*text).to_owned()).collect());
    assert_eq!(store.next_claim("list 1 b").await.unwrap().as_deref(), Some("list 1 é"));
    assert_eq!(store.next_claim("zz").await.unwrap(), None);
    assert_eq!(store.forget_claims("list 3 ", 10).await.unwrap(), 0);
    assert_eq!(store.forget_claims("list 1 ", 2).await.unwrap(), 2);
    assert_eq!(store.forget_claims("list 1 ", 2).await.unwrap(), 1);
    assert_eq!(store.forget_claims("list 1 ", 2).await.unwrap(), 0);
    let rest = ["a", "list", "list 1", "list 2", "list 2 a", "z"];
    assert_eq!(all().await.into_iter().collect::<Vec<_>>(), rest);
    // A forgotten reservation is free again.
    assert_eq!(store.reserve(&[key("list 1 a", "j")]).await.unwrap(), []);
    store.close().await.unwrap();
}
