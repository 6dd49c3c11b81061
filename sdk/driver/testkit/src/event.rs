//! Cases for the event log itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use snaphook_driver::limits::MODEL_ID_BYTES_MAX;
use snaphook_driver::{
    Actor, ActorKind, Append, Cause, Claim, Conflict, Event, EventFilter, EventKind, EventQuery, EventStore, Expected,
    Holder, Json, PAGE_BYTES_MAX, PAYLOAD_BYTES_MAX, Position, Provenance, Require, Stream,
};

use crate::Subject;
use crate::sample::{any, append, append_all, append_one, create, digest, event, try_append, uuid};
use crate::subject::NOT_DURABLE;

/// Longer than anything that a case waits for.
const DEADLINE: Duration = Duration::from_secs(20);

fn query(after: Position, limit: u32) -> EventQuery {
    EventQuery { after, limit, filter: EventFilter::default() }
}

async fn all(store: &dyn EventStore, filter: EventFilter) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let after = events.last().map_or(0, |event| event.position);
        let page = store.read(&EventQuery { after, limit: 7, filter: filter.clone() }, None).await.unwrap();
        assert!(page.events.len() <= 7);
        if page.events.is_empty() {
            return events;
        }
        events.extend(page.events);
    }
}

fn claim(key: &str) -> Claim {
    Claim::new(key)
}

pub async fn a_log_has_an_identity(subject: &Subject) {
    let store = subject.event().await;
    let identity = store.identity().to_owned();
    let is_uuid = |text: &str| {
        let hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        text.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && text.split('-').all(hex)
    };
    assert!(is_uuid(&identity), "{identity}");
    append_one(&*store, any("m", "i")).await;
    assert_eq!(store.identity(), identity);
    let durable = store.capabilities().durable;
    store.close().await.unwrap();
    drop(store);
    let store = subject.event().await;
    // A store that is not durable now has a new log with another identity.
    assert_eq!(store.identity() == identity, durable);
    store.close().await.unwrap();
}

pub async fn events_come_back_as_they_were(subject: &Subject) {
    let store = subject.event().await;
    let stream = Stream::of_instance("m", "Ünï-cödé~1");
    let mut full = event(
        EventKind::InstanceUpdated,
        &stream,
        Some(r#"{ "b" : 1.50, "a":12345678901234567890.123456789, "é":"\u00e9 🎈" }"#),
    );
    full.model_version = 7;
    full.revision = 9_007_199_254_740_993;
    full.actor = Some(Arc::new(
        Actor::new(ActorKind::Oidc, "admin 'x' \"y\" ü")
            .with_claims(&Json::trusted(r#"{ "n" : 1.50, "é":"\u00e9\u0000 🎈" }"#)),
    ));
    full.cause = Some(Cause { position: 41, hook: "m.postCreate/h".into(), depth: 3 });
    full.hooks = vec![
        Provenance { name: "h".into(), engine: "quickjs".into(), artifact: "sha256:ab".into(), ms: 0.25 },
        Provenance { name: "ü".into(), engine: "component".into(), artifact: "sha256:cd".into(), ms: 17.0 },
    ];
    full.request_id = Some("req-1".into());
    full.trace = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 a=1,b=x y".into());
    full.time = 1_700_000_000_123;
    let mut bare = event(EventKind::InstanceDeleted, &stream, None);
    bare.time = full.time;
    let mut definition = event(EventKind::ModelCreated, &Stream::of_model("m"), Some("null"));
    definition.id = "NOT A UUID".into();
    definition.request_id = Some(uuid());
    definition.time = -1;
    let mut expected = Vec::new();
    for event in [definition, full, bare] {
        let position = append_one(&*store, append(event.clone())).await;
        expected.push(Event { position, ..event });
    }
    assert_eq!(all(&*store, EventFilter::default()).await, expected);
    store.close().await.unwrap();
}

pub async fn positions_rise_and_head_follows(subject: &Subject) {
    let store = subject.event().await;
    assert_eq!(store.head().await.unwrap(), 0);
    assert_eq!(store.read(&query(0, 10), None).await.unwrap().head, 0);
    assert_eq!(append_all(&*store, &[], false).await, []);
    let mut last = 0;
    for size in [1, 3, 10] {
        let batch: Vec<Append> = (0..size).map(|_| any("m", "a")).collect();
        for answer in append_all(&*store, &batch, false).await {
            let position = answer.unwrap();
            assert!(position > last, "{position} after {last}");
            last = position;
        }
        assert_eq!(store.head().await.unwrap(), last);
        assert_eq!(store.read(&query(last, 1), None).await.unwrap().head, last);
    }
    store.health().await.unwrap();
    store.close().await.unwrap();
}

pub async fn expectations_are_checked(subject: &Subject) {
    let store = subject.event().await;
    for (name, stream) in [("instance", Stream::of_instance("m", "a")), ("model", Stream::of_model("m"))] {
        let (created, updated, deleted) = match stream.instance {
            Some(_) => (EventKind::InstanceCreated, EventKind::InstanceUpdated, EventKind::InstanceDeleted),
            None => (EventKind::ModelCreated, EventKind::ModelUpdated, EventKind::ModelDeleted),
        };
        let attempt = |kind, expected| {
            let append = Append { expected, ..append(event(kind, &stream, Some("{}"))) };
            let store = &store;
            async move { try_append(&**store, append).await }
        };
        let none = Err(Conflict::Stream { last: 0, ended: false });
        assert_eq!(attempt(updated, Expected::At(1)).await, none, "{name}");
        let first = attempt(created, Expected::New).await.unwrap();
        let exists = Err(Conflict::Stream { last: first, ended: false });
        assert_eq!(attempt(created, Expected::New).await, exists, "{name}");
        assert_eq!(attempt(updated, Expected::At(first + 1)).await, exists, "{name}");
        assert_eq!(attempt(updated, Expected::At(0)).await, exists, "{name}");
        let second = attempt(updated, Expected::At(first)).await.unwrap();
        assert!(attempt(updated, Expected::At(first)).await.is_err(), "{name}");
        let third = attempt(updated, Expected::Any).await.unwrap();
        assert!(first < second && second < third);
        let gone = attempt(deleted, Expected::At(third)).await.unwrap();
        let ended = Err(Conflict::Stream { last: gone, ended: true });
        assert_eq!(attempt(updated, Expected::At(gone)).await, ended, "{name}");
        assert_eq!(attempt(updated, Expected::At(third)).await, ended, "{name}");
        attempt(created, Expected::New).await.unwrap();
    }
    store.close().await.unwrap();
}

pub async fn rows_fail_for_themselves(subject: &Subject) {
    let store = subject.event().await;
    let batch = [create("m", "a", "{}"), create("m", "a", "{}"), create("m", "b", "{}")];
    let answers = append_all(&*store, &batch, false).await;
    let first = *answers[0].as_ref().unwrap();
    assert_eq!(answers[1], Err(Conflict::Stream { last: first, ended: false }));
    assert!(*answers[2].as_ref().unwrap() > first);
    assert_eq!(all(&*store, EventFilter::default()).await.len(), 2);
    let answers = append_all(&*store, &[create("m", "a", "{}"), create("m", "b", "{}")], false).await;
    assert!(answers.iter().all(Result::is_err));
    assert_eq!(all(&*store, EventFilter::default()).await.len(), 2);
    // A model that only appears in a failed row does not affect later appends.
    let ghost = Append { expected: Expected::At(9), ..create("ghost", "a", "{}") };
    let answers = append_all(&*store, &[ghost, create("other", "a", "{}")], false).await;
    assert!(answers[0].is_err() && answers[1].is_ok());
    append_one(&*store, create("ghost", "a", "{}")).await;
    let models: Vec<String> = all(&*store, EventFilter::default()).await.into_iter().map(|event| event.model).collect();
    assert_eq!(models, ["m", "m", "other", "ghost"]);
    store.close().await.unwrap();
}

pub async fn atomic_batches_are_all_or_nothing(subject: &Subject) {
    let store = subject.event().await;
    if !store.capabilities().atomic_batch {
        let error = store.append(&[create("m", "a", "{}")], true).await.unwrap_err();
        assert_eq!(error.kind(), snaphook_driver::ErrorKind::Unsupported);
        return subject.skip("the store has no atomic batches (capability `atomic_batch`)");
    }
    let first = append_one(&*store, create("m", "a", "{}")).await;
    let mut claiming = create("new", "b", "{}");
    claiming.claims = vec![claim("k")];
    let answers = append_all(&*store, &[claiming, create("m", "a", "{}"), create("m", "c", "{}")], true).await;
    let conflict = Err(Conflict::Stream { last: first, ended: false });
    assert_eq!(answers, [Err(Conflict::Batch), conflict, Err(Conflict::Batch)]);
    assert_eq!(store.head().await.unwrap(), first);
    assert_eq!(store.holder("k").await.unwrap(), None);
    assert_eq!(store.last(&Stream::of_instance("new", "b"), Position::MAX).await.unwrap(), None);
    let answers = append_all(&*store, &[create("new", "b", "{}"), create("m", "c", "{}")], true).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(all(&*store, EventFilter::default()).await.len(), 3);
    // The same instance several times, and a key that moves from one instance to another.
    let instance = Stream::of_instance("m", "life");
    let deletion = append(event(EventKind::InstanceDeleted, &instance, None));
    let life = [
        Append { claims: vec![claim("life")], ..create("m", "life", "{}") },
        any("m", "life"),
        Append { releases: vec!["life".into()], ..deletion },
        Append { claims: vec![claim("life")], ..create("m", "heir", "{}") },
        create("m", "life", "{}"),
    ];
    let failing = [&life[..], &[Append { claims: vec![claim("life")], ..create("m", "late", "{}") }]].concat();
    let answers = append_all(&*store, &failing, true).await;
    assert!(matches!(&answers[5], Err(Conflict::Claimed { key, .. }) if key == "life"), "{answers:?}");
    assert!(answers[..5].iter().all(|answer| *answer == Err(Conflict::Batch)), "{answers:?}");
    assert_eq!((store.holder("life").await.unwrap(), all(&*store, EventFilter::default()).await.len()), (None, 3));
    let answers = append_all(&*store, &life, true).await;
    let heir = *answers[3].as_ref().unwrap();
    let holder = store.holder("life").await.unwrap().unwrap();
    assert_eq!((holder.stream.instance.as_deref(), holder.position), (Some("heir"), heir));
    let last = store.last(&instance, Position::MAX).await.unwrap().unwrap();
    assert_eq!((last.position, last.kind), (*answers[4].as_ref().unwrap(), EventKind::InstanceCreated));
    assert_eq!(all(&*store, EventFilter::default()).await.len(), 8);
    store.close().await.unwrap();
}

pub async fn required_streams_must_not_have_moved(subject: &Subject) {
    let store = subject.event().await;
    let model = Stream::of_model("m");
    let require = |stream: &Stream, position| Require { stream: stream.clone(), position };
    let with = |requires| Append { requires, ..any("m", "x") };
    try_append(&*store, with(vec![require(&model, 0)])).await.unwrap();
    assert_eq!(
        try_append(&*store, with(vec![require(&model, 5)])).await,
        Err(Conflict::Required { stream: model.clone(), last: 0 })
    );
    let defined = append_one(&*store, append(event(EventKind::ModelCreated, &model, Some("{}")))).await;
    try_append(&*store, with(vec![require(&model, defined)])).await.unwrap();
    let instance = Stream::of_instance("m", "y");
    let moved = append_one(&*store, any("m", "y")).await;
    try_append(&*store, with(vec![require(&model, defined), require(&instance, moved)])).await.unwrap();
    let changed = append_one(&*store, append(event(EventKind::HookUpdated, &model, Some("{}")))).await;
    assert_eq!(
        try_append(&*store, with(vec![require(&instance, moved), require(&model, defined)])).await,
        Err(Conflict::Required { stream: model.clone(), last: changed })
    );
    // Within a batch, a row sees the effects of the rows before it.
    let update = append(event(EventKind::ModelUpdated, &model, Some("{}")));
    let answers = append_all(&*store, &[update, with(vec![require(&model, changed)])], false).await;
    let last = *answers[0].as_ref().unwrap();
    assert_eq!(answers[1], Err(Conflict::Required { stream: model.clone(), last }));
    if store.capabilities().atomic_batch {
        let update = append(event(EventKind::ModelUpdated, &model, Some("{}")));
        let answers = append_all(&*store, &[update, with(vec![require(&model, last)])], true).await;
        assert_eq!(answers[0], Err(Conflict::Batch));
        try_append(&*store, with(vec![require(&model, last)])).await.unwrap();
    }
    store.close().await.unwrap();
}

pub async fn claims_are_exclusive(subject: &Subject) {
    let store = subject.event().await;
    let taking =
        |id: &str, keys: &[&str]| Append { claims: keys.iter().map(|key| claim(key)).collect(), ..any("m", id) };
    let long = format!("long {}", "x".repeat(64 * 1024 - 5));
    let first = append_one(&*store, taking("a", &["k", "", "Ü", &long])).await;
    let holder = Holder::new(Stream::of_instance("m", "a"), first);
    for key in ["k", "", "Ü", &long] {
        assert_eq!(store.holder(key).await.unwrap(), Some(holder.clone()), "{}", key.len());
        let conflict = Conflict::Claimed { key: key.to_owned(), holder: holder.clone() };
        assert_eq!(try_append(&*store, taking("b", &["free", key])).await, Err(conflict));
    }
    assert_eq!(store.holder("free").await.unwrap(), None);
    assert_eq!(store.holder("K").await.unwrap(), None);
    // The same holder claims the key again: the position of the claim changes.
    let again = append_one(&*store, taking("a", &["k"])).await;
    assert_eq!(store.holder("k").await.unwrap().unwrap().position, again);
    // The same id of another model is another stream.
    let other = Append { claims: vec![claim("k")], ..any("n", "a") };
    assert!(try_append(&*store, other).await.is_err());
    // A definition can claim keys too, for itself or for instances.
    let model = Stream::of_model("m");
    let mut definition = append(event(EventKind::ModelUpdated, &model, Some("{}")));
    definition.claims = vec![
        claim("own"),
        Claim { holder: Some(Stream::of_instance("m", "c")), ..claim("theirs") },
        Claim { holder: Some(Stream::of_instance("m", "a")), ..claim("k") },
    ];
    let defined = append_one(&*store, definition).await;
    assert_eq!(store.holder("own").await.unwrap(), Some(Holder::new(model, defined)));
    assert_eq!(store.holder("theirs").await.unwrap().unwrap().stream, Stream::of_instance("m", "c"));
    assert_eq!(store.holder("k").await.unwrap().unwrap().position, defined);
    store.close().await.unwrap();
}

pub async fn claims_move_and_are_released(subject: &Subject) {
    let store = subject.event().await;
    let change = |id: &str, claims: &[&str], releases: &[&str]| Append {
        claims: claims.iter().map(|key| claim(key)).collect(),
        releases: releases.iter().map(|key| (*key).to_owned()).collect(),
        ..any("m", id)
    };
    append_one(&*store, change("a", &["one"], &["nobody has it"])).await;
    append_one(&*store, change("a", &["two"], &["one"])).await;
    assert_eq!(store.holder("one").await.unwrap(), None);
    append_one(&*store, change("b", &["one"], &[])).await;
    // An event that both releases and claims: releases come first.
    let position = append_one(&*store, change("c", &["one"], &["one"])).await;
    let holder = Holder::new(Stream::of_instance("m", "c"), position);
    assert_eq!(store.holder("one").await.unwrap(), Some(holder));
    // A row with a conflict releases nothing.
    let answer = try_append(&*store, change("a", &["one"], &["two"])).await;
    assert!(matches!(answer, Err(Conflict::Claimed { .. })), "{answer:?}");
    assert!(store.holder("two").await.unwrap().is_some());
    // If two appends replace the same holder, only one succeeds.
    let held = store.holder("one").await.unwrap().unwrap().position;
    let replacing = |id: &str, position| Append {
        claims: vec![Claim { replaces: Some(position), ..claim("one") }],
        ..any("m", id)
    };
    let answers = append_all(&*store, &[replacing("d", held), replacing("e", held)], false).await;
    let position = *answers[0].as_ref().unwrap();
    let holder = Holder::new(Stream::of_instance("m", "d"), position);
    assert_eq!(answers[1], Err(Conflict::Claimed { key: "one".into(), holder: holder.clone() }));
    assert_eq!(store.holder("one").await.unwrap(), Some(holder));
    // Expectations are checked before claims.
    let both = Append { expected: Expected::At(1), ..change("zzz", &["one"], &[]) };
    assert!(matches!(try_append(&*store, both).await, Err(Conflict::Stream { .. })));
    store.close().await.unwrap();
}

pub async fn claims_expire(subject: &Subject) {
    const HOUR: i64 = 3_600_000;
    let store = subject.event().await;
    let at = |id: &str, time: i64, claims: Vec<Claim>| {
        let mut append = Append { claims, ..any("m", id) };
        append.event.time = time;
        append
    };
    let start = any("m", "x").event.time;
    let expiring = |key: &str, expires: i64, value: &str| Claim {
        expires: Some(expires),
        value: Some(value.to_owned()),
        ..claim(key)
    };
    let value = "v".repeat(256);
    let first = append_one(&*store, at("a", start, vec![expiring("k", start + HOUR, &value), claim("stays")])).await;
    let held = Holder {
        stream: Stream::of_instance("m", "a"),
        position: first,
        expires: Some(start + HOUR),
        value: Some(value),
    };
    assert_eq!(store.holder("k").await.unwrap(), Some(held.clone()));
    // Until it expires, the key is held like any other, and the conflict contains the value stored with the claim.
    let early = try_append(&*store, at("b", start + HOUR - 1, vec![claim("k")])).await;
    assert_eq!(early, Err(Conflict::Claimed { key: "k".into(), holder: held.clone() }));
    let store = if store.capabilities().durable {
        store.close().await.unwrap();
        subject.event().await
    } else {
        store
    };
    assert_eq!(store.holder("k").await.unwrap(), Some(held));
    // From then on nobody holds it; the new claim has its own expiry.
    let second = append_one(&*store, at("b", start + HOUR, vec![expiring("k", start + 3 * HOUR, "2")])).await;
    let holder = store.holder("k").await.unwrap().unwrap();
    assert_eq!((holder.position, holder.value.as_deref()), (second, Some("2")));
    assert!(try_append(&*store, at("c", start + 2 * HOUR, vec![claim("k")])).await.is_err());
    // The same holder may extend the claim, even to one that never expires.
    append_one(&*store, at("b", start + 2 * HOUR, vec![claim("k")])).await;
    assert!(try_append(&*store, at("c", start + 9 * HOUR, vec![claim("k")])).await.is_err());
    // Expired claims are removed while other events are appended.
    let many = (0..700).map(|number| expiring(&format!("many {number}"), start + 10 * HOUR, "")).collect();
    append_one(&*store, at("d", start + 9 * HOUR, many)).await;
    assert!(store.holder("many 699").await.unwrap().is_some());
    for hours in 11..15 {
        append_one(&*store, at("e", start + hours * HOUR, Vec::new())).await;
    }
    for number in 0..700 {
        assert_eq!(store.holder(&format!("many {number}")).await.unwrap(), None, "{number}");
    }
    assert!(store.holder("stays").await.unwrap().is_some());
    store.close().await.unwrap();
}

pub async fn claims_within_one_batch(subject: &Subject) {
    let store = subject.event().await;
    let taking = |id: &str, key: &str| Append { claims: vec![claim(key)], ..any("m", id) };
    let answers = append_all(&*store, &[taking("a", "k"), taking("b", "k"), taking("c", "l")], false).await;
    let first = *answers[0].as_ref().unwrap();
    let holder = Holder::new(Stream::of_instance("m", "a"), first);
    assert_eq!(answers[1], Err(Conflict::Claimed { key: "k".into(), holder }));
    assert!(answers[2].is_ok());
    let releasing = Append { releases: vec!["k".into()], ..any("m", "a") };
    let answers = append_all(&*store, &[releasing, taking("b", "k")], false).await;
    assert!(answers.iter().all(Result::is_ok));
    // One event that gives the same key to two holders.
    let two = Append {
        claims: vec![
            Claim { holder: Some(Stream::of_instance("m", "1")), ..claim("x") },
            Claim { holder: Some(Stream::of_instance("m", "2")), ..claim("x") },
        ],
        ..any("m", "z")
    };
    assert!(matches!(try_append(&*store, two).await, Err(Conflict::Claimed { .. })));
    assert_eq!(store.holder("x").await.unwrap(), None);
    // The same key twice for the same holder is one claim.
    let twice = Append { claims: vec![claim("y"), claim("y")], ..any("m", "z") };
    try_append(&*store, twice).await.unwrap();
    // Many keys of one event.
    let many = Append { claims: (0..5000).map(|number| claim(&format!("key {number}"))).collect(), ..any("m", "many") };
    try_append(&*store, many).await.unwrap();
    assert!(store.holder("key 4999").await.unwrap().is_some());
    store.close().await.unwrap();
}

pub async fn filters_and_pages(subject: &Subject) {
    let store = subject.event().await;
    let kinds = [EventKind::InstanceCreated, EventKind::InstanceUpdated, EventKind::InstanceDeleted];
    let mut written = Vec::new();
    for number in 0..60 {
        let stream = match number % 5 {
            0 => Stream::of_model(format!("m{}", number % 3)),
            rest => Stream::of_instance(format!("m{}", number % 3), format!("i{rest}")),
        };
        let kind = if stream.instance.is_none() { EventKind::ModelUpdated } else { kinds[number % 2 + number % 7 / 6] };
        let event = event(kind, &stream, Some("{}"));
        let position = append_one(&*store, append(event.clone())).await;
        written.push(Event { position, ..event });
    }
    let mut filters = Vec::new();
    for model in [None, Some("m0"), Some("m2"), Some("absent")] {
        for instance in [None, Some("i1"), Some("absent")] {
            for definitions_only in [false, true] {
                for kinds in [&[][..], &kinds[..1], &[EventKind::ModelUpdated, EventKind::InstanceDeleted]] {
                    filters.push(EventFilter {
                        model: model.map(str::to_owned),
                        instance: instance.filter(|_| model.is_some()).map(str::to_owned),
                        definitions_only,
                        kinds: kinds.to_vec(),
                    });
                }
            }
        }
    }
    for filter in filters {
        let expected: Vec<&Event> = written.iter().filter(|event| filter.matches(event)).collect();
        let found = all(&*store, filter.clone()).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{filter:?}");
        let middle = written[30].position;
        let page = store.read(&EventQuery { after: middle, limit: 1000, filter: filter.clone() }, None).await.unwrap();
        let expected: Vec<&Event> = expected.into_iter().filter(|event| event.position > middle).collect();
        assert_eq!(page.events.iter().collect::<Vec<_>>(), expected, "{filter:?}");
        assert_eq!(page.head, written[59].position);
    }
    let page = store.read(&query(Position::MAX, 10), None).await.unwrap();
    assert_eq!((page.events.len(), page.head), (0, written[59].position));
    store.close().await.unwrap();
}

pub async fn waiting_ends_with_a_matching_event(subject: &Subject) {
    let store = subject.event().await;
    append_one(&*store, any("m", "a")).await;
    // Without new events, an empty page is returned after the timeout.
    let started = Instant::now();
    let page = store.read(&query(1, 10), Some(Duration::from_millis(50))).await.unwrap();
    assert!(page.events.is_empty() && started.elapsed() >= Duration::from_millis(50));
    // With an existing event, the page is returned at once.
    assert_eq!(store.read(&query(0, 10), Some(DEADLINE)).await.unwrap().events.len(), 1);
    // An event that does not match does not end the wait; one that matches does.
    let filter = EventFilter { model: Some("n".into()), ..EventFilter::default() };
    let waiting = EventQuery { after: 0, limit: 10, filter };
    let reader = tokio::spawn({
        let store = store.clone();
        async move { store.read(&waiting, Some(DEADLINE)).await.unwrap() }
    });
    for _ in 0..20 {
        append_one(&*store, any("m", "b")).await;
        tokio::task::yield_now().await;
    }
    assert!(!reader.is_finished());
    let started = Instant::now();
    let position = append_one(&*store, any("n", "a")).await;
    let page = reader.await.unwrap();
    assert!(started.elapsed() < DEADLINE / 2);
    assert_eq!(page.events.iter().map(|event| event.position).collect::<Vec<_>>(), [position]);
    assert!(page.head >= position);
    store.close().await.unwrap();
}

pub async fn last_of_a_stream(subject: &Subject) {
    let store = subject.event().await;
    let stream = Stream::of_instance("m", "a");
    assert_eq!(store.last(&stream, Position::MAX).await.unwrap(), None);
    let mut positions = Vec::new();
    for _ in 0..5 {
        positions.push(append_one(&*store, any("m", "a")).await);
        append_one(&*store, any("m", "b")).await;
        append_one(&*store, append(event(EventKind::ModelUpdated, &Stream::of_model("m"), Some("{}")))).await;
    }
    let last = |at_most| {
        let (store, stream) = (&store, &stream);
        async move { store.last(stream, at_most).await.unwrap().map(|event| event.position) }
    };
    assert_eq!(last(Position::MAX).await, positions.last().copied());
    assert_eq!(last(0).await, None);
    assert_eq!(last(positions[0] - 1).await, None);
    for pair in positions.windows(2) {
        assert_eq!(last(pair[0]).await, Some(pair[0]));
        assert_eq!(last(pair[1] - 1).await, Some(pair[0]));
    }
    let definition = store.last(&Stream::of_model("m"), Position::MAX).await.unwrap().unwrap();
    assert_eq!((definition.instance, definition.kind), (None, EventKind::ModelUpdated));
    assert_eq!(store.last(&Stream::of_model("absent"), Position::MAX).await.unwrap(), None);
    assert_eq!(store.last(&Stream::of_instance("m", "A"), Position::MAX).await.unwrap(), None);
    store.close().await.unwrap();
}

pub async fn odd_names(subject: &Subject) {
    let store = subject.event().await;
    let uuid = "0190a6c4-5f8b-7cde-8f01-23456789abcd";
    let names = [
        "a",
        "A",
        "%",
        "_",
        "'; DROP TABLE events; --",
        "a/b",
        "a.b",
        "~",
        "ü",
        "u\u{308}",
        "日本語",
        "🎈",
        " ",
        "0",
        "00",
        "null",
        "sqlite_master",
        uuid,
        &uuid.to_uppercase(),
        &uuid.replace('-', ""),
        &"x".repeat(MODEL_ID_BYTES_MAX),
    ];
    for model in names {
        for id in names {
            append_one(&*store, create(model, id, "{}")).await;
        }
    }
    for model in names {
        let filter = EventFilter { model: Some(model.into()), ..EventFilter::default() };
        let found: Vec<String> = all(&*store, filter).await.into_iter().filter_map(|event| event.instance).collect();
        assert_eq!(found, names, "{model}");
        for id in names {
            let event = store.last(&Stream::of_instance(model, id), Position::MAX).await.unwrap().unwrap();
            assert_eq!((event.model.as_str(), event.instance.as_deref()), (model, Some(id)));
        }
    }
    store.close().await.unwrap();
}

pub async fn large_events(subject: &Subject) {
    let store = subject.event().await;
    let mut expected = Vec::new();
    for size in [0, 1, 1000, 4096, 65_536, 1_000_000, PAYLOAD_BYTES_MAX - 10] {
        let data = format!("{{\"é\":\"{}\"}}", "x".repeat(size.saturating_sub(9)));
        let position = append_one(&*store, create("m", &format!("size{size}"), &data)).await;
        expected.push((position, data));
    }
    for (position, data) in &expected {
        let page = store.read(&query(position - 1, 1), None).await.unwrap();
        assert!(page.events[0].data.as_ref().is_some_and(|found| found.as_str() == data), "{}", data.len());
    }
    assert_eq!(all(&*store, EventFilter::default()).await.len(), expected.len());
    // A page ends before it is too large, and reports that; the next pages contain the rest.
    for number in 0..3 {
        let data = format!("{{\"é\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES_MAX - 10));
        expected.push((append_one(&*store, create("m", &format!("more{number}"), &data)).await, data));
    }
    let (mut after, mut positions) = (0, Vec::new());
    loop {
        let page = store.read(&query(after, 100), None).await.unwrap();
        let bytes: usize = page.events.iter().map(|event| event.data.as_ref().map_or(0, |data| data.len())).sum();
        assert!(bytes <= PAGE_BYTES_MAX, "{bytes}");
        positions.extend(page.events.iter().map(|event| event.position));
        let Some(next) = page.next() else { break };
        after = next;
    }
    assert_eq!(positions, expected.iter().map(|(position, _)| *position).collect::<Vec<_>>());
    store.close().await.unwrap();
}

pub async fn many_events(subject: &Subject) {
    let count = subject.share(100_000);
    let store = subject.event().await;
    for start in (0..count).step_by(1000) {
        let batch: Vec<Append> = (start..start + 1000)
            .map(|number| create(&format!("m{}", number % 10), &uuid(), &format!("{{\"n\":{number}}}")))
            .collect();
        assert!(append_all(&*store, &batch, false).await.iter().all(Result::is_ok));
    }
    let filter = EventFilter { model: Some("m7".into()), ..EventFilter::default() };
    let (mut after, mut found) = (0, 0);
    loop {
        let page = store.read(&EventQuery { after, limit: 1000, filter: filter.clone() }, None).await.unwrap();
        let Some(last) = page.events.last() else { break };
        after = last.position;
        for event in &page.events {
            assert_eq!(event.data.as_ref().map(Json::as_str), Some(format!("{{\"n\":{}}}", found * 10 + 7).as_str()));
            found += 1;
        }
    }
    assert_eq!(found, count / 10);
    store.close().await.unwrap();
}

pub async fn a_reader_misses_nothing(subject: &Subject) {
    const COUNT: usize = 2000;
    let store = subject.event().await;
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let (mut after, mut seen) = (0, Vec::new());
                while seen.len() < COUNT {
                    let page = store.read(&query(after, 50), Some(DEADLINE)).await.unwrap();
                    assert!(!page.events.is_empty(), "nothing after {after}");
                    assert!(page.head >= page.events.last().unwrap().position);
                    seen.extend(page.events.iter().map(|event| event.position));
                    after = seen.last().copied().unwrap();
                }
                seen
            })
        })
        .collect();
    let writer = {
        let store = store.clone();
        tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Handle::current();
            let mut positions = Vec::new();
            while positions.len() < COUNT {
                let batch: Vec<Append> = (0..1 + positions.len() % 7).map(|_| any("m", "a")).collect();
                let answers = runtime.block_on(store.append(&batch, false)).unwrap();
                positions.extend(answers.into_iter().map(|answer| answer.unwrap().position));
            }
            positions
        })
    };
    let written = writer.await.unwrap();
    for reader in readers {
        let seen = reader.await.unwrap();
        assert_eq!(seen, written[..seen.len()]);
    }
    store.close().await.unwrap();
}

pub async fn blobs(subject: &Subject) {
    let store = subject.event().await;
    let bytes: Vec<u8> = (0..PAYLOAD_BYTES_MAX).map(|index| (index % 251) as u8).collect();
    let (first, second) = (digest(&bytes), digest(b""));
    assert_eq!(store.get_blob(&first).await.unwrap(), None);
    store.put_blob(&first, &bytes).await.unwrap();
    store.put_blob(&second, b"").await.unwrap();
    store.put_blob(&first, &bytes).await.unwrap();
    assert!(store.get_blob(&first).await.unwrap().as_deref() == Some(&bytes[..]));
    assert_eq!(store.get_blob(&second).await.unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(store.head().await.unwrap(), 0);
    store.close().await.unwrap();
}

pub async fn survives_reopening(subject: &Subject) {
    let store = subject.event().await;
    if !store.capabilities().durable {
        return subject.skip(NOT_DURABLE);
    }
    let (mut positions, blob) = (BTreeSet::new(), digest(b"bytes"));
    for round in 0..3 {
        let store = if round == 0 { store.clone() } else { subject.event().await };
        assert_eq!(store.head().await.unwrap(), positions.last().copied().unwrap_or(0));
        for id in ["a", "b"] {
            let mut next = any("m", id);
            next.claims = vec![claim(id)];
            positions.insert(append_one(&*store, next).await);
        }
        let stream = Stream::of_model("m");
        positions.insert(append_one(&*store, append(event(EventKind::ModelUpdated, &stream, Some("{}")))).await);
        store.put_blob(&blob, b"bytes").await.unwrap();
        let found: BTreeSet<Position> =
            all(&*store, EventFilter::default()).await.into_iter().map(|event| event.position).collect();
        assert_eq!(found, positions);
        let taking = Append { claims: vec![claim("a")], ..any("m", "c") };
        assert!(try_append(&*store, taking).await.is_err());
        assert_eq!(store.get_blob(&blob).await.unwrap().as_deref(), Some(&b"bytes"[..]));
        store.close().await.unwrap();
    }
}
