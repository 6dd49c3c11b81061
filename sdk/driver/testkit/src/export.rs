//! Cases for exports and imports.

use std::time::Duration;

use snaphook_driver::{
    Append, Claim, ErrorKind, EventFilter, EventKind, EventQuery, EventStore, Expected, Group, LogRecord, PENDING_MAX,
    PendingEvent, Stream,
};

use crate::Subject;
use crate::sample::{any, append, append_one, create, digest, event};
use crate::subject::NOT_DURABLE;

const LEASE: Duration = Duration::from_secs(600);

async fn records(store: &dyn EventStore) -> Vec<LogRecord> {
    let mut export = store.export().await.unwrap();
    let mut records = Vec::new();
    loop {
        let more = export.next().await.unwrap();
        if more.is_empty() {
            assert_eq!(export.next().await.unwrap(), [], "the end stays the end");
            return records;
        }
        records.extend(more);
    }
}

/// Removes the times of delayed events, which are only exact to about a second.
fn undelayed(mut records: Vec<LogRecord>) -> Vec<LogRecord> {
    for record in &mut records {
        if let LogRecord::Pending { events, .. } = record {
            events.iter_mut().for_each(|event| event.due = 0);
        }
    }
    records
}

/// Imports records, a few at a time. Before the import is finished, everything can be compared.
async fn import(store: &dyn EventStore, left: &[LogRecord], expected: &[LogRecord]) {
    for part in left.chunks(7) {
        store.import(part).await.unwrap();
    }
    assert_eq!(undelayed(records(store).await), undelayed(expected.to_vec()));
    store.finish_import().await.unwrap();
}

fn group(name: &str) -> Group {
    Group { name: name.into(), filter: EventFilter { model: Some("m".into()), ..EventFilter::default() } }
}

/// Fills a log with a variety of data: groups in each state, claims that moved, blobs, unusual names.
async fn fill(store: &dyn EventStore) {
    append_one(store, append(event(EventKind::ModelCreated, &Stream::of_model("m"), Some(r#"{"n": 1.50}"#)))).await;
    for index in 0..40 {
        let id = format!("i{:02}", index % 20);
        let claims = vec![Claim::new(format!("k\u{0}{id}ü"))];
        append_one(store, Append { claims, ..any("m", &id) }).await;
    }
    let holder = Some(Stream::of_instance("other", "ö"));
    let claims = vec![Claim { holder, expires: Some(9_000_000_000_000), value: Some("ü".into()), ..Claim::new("") }];
    append_one(store, Append { claims, releases: vec!["k\u{0}i03ü".into()], ..any("n", "Ünï") }).await;
    store.put_blob(&digest(b""), b"").await.unwrap();
    store.put_blob(&digest(&[0, 255, 7]), &[0, 255, 7]).await.unwrap();
    for name in ["late", "done", "part"] {
        store.create_group(&group(name), 0).await.unwrap();
    }
    loop {
        let some = store.claim("done", 100, LEASE).await.unwrap();
        if some.is_empty() {
            break;
        }
        let done: Vec<_> = some.iter().map(|delivery| (delivery.event.position, delivery.token)).collect();
        store.ack("done", &done).await.unwrap();
    }
    let some = store.claim("part", 12, LEASE).await.unwrap();
    let done: Vec<_> = some[..5].iter().map(|delivery| (delivery.event.position, delivery.token)).collect();
    store.ack("part", &done).await.unwrap();
    let delayed = &some[5];
    store.release("part", delayed.event.position, delayed.token, LEASE, Some("ü\0 noted")).await.unwrap();
    store.release("part", some[6].event.position, some[6].token, Duration::ZERO, None).await.unwrap();
}

pub async fn a_copy_has_everything(subject: &Subject) {
    let store = subject.event().await;
    fill(&*store).await;
    let copied = records(&*store).await;
    let rank = |record: &LogRecord| match record {
        LogRecord::Event(_) => 0,
        LogRecord::Claim { .. } => 1,
        LogRecord::Blob { .. } => 2,
        LogRecord::Group { .. } | LogRecord::Pending { .. } => 3,
    };
    assert!(copied.is_sorted_by_key(rank));
    let count = |wanted| copied.iter().filter(|record| rank(record) == wanted).count();
    assert_eq!((count(0), count(1), count(2)), (42, 20, 2));
    let names: Vec<&str> = copied
        .iter()
        .filter_map(|record| match record {
            LogRecord::Group { group, .. } => Some(group.name.as_str()),
            LogRecord::Pending { events, .. } => {
                assert!(events.len() <= PENDING_MAX && events.is_sorted_by_key(|event| event.position));
                None
            }
            _ => None,
        })
        .collect();
    assert_eq!(names, ["done", "late", "part"]);

    let other = subject.another();
    let restored = other.event().await;
    import(&*restored, &copied, &copied).await;
    assert_ne!(restored.identity(), store.identity());
    let check = async |restored: &dyn EventStore| {
        // Delays are accurate to the millisecond, and everything else is exact.
        let again = records(restored).await;
        assert_eq!(again.len(), copied.len());
        for (found, expected) in again.iter().zip(&copied) {
            match (found, expected) {
                (LogRecord::Pending { events: found, .. }, LogRecord::Pending { events: expected, .. }) => {
                    for (found, expected) in found.iter().zip(expected) {
                        let exact = |event: &PendingEvent| (event.position, event.attempt, event.note.clone());
                        assert_eq!(exact(found), exact(expected));
                        assert!((found.due - expected.due).abs() <= 1000, "{found:?} {expected:?}");
                    }
                }
                _ => assert_eq!(found, expected),
            }
        }
    };
    check(&*restored).await;
    let restored = if restored.capabilities().durable {
        restored.close().await.unwrap();
        drop(restored);
        let restored = other.event().await;
        check(&*restored).await;
        restored
    } else {
        restored
    };
    // The copy continues where the original was: streams, claims, positions, groups.
    assert_eq!(restored.head().await.unwrap(), store.head().await.unwrap());
    let conflict = restored.append(&[create("m", "i00", "{}")], false).await.unwrap();
    assert!(conflict[0].is_err(), "{conflict:?}");
    let taken = Append { claims: vec![Claim::new("k\u{0}i04ü")], ..create("m", "new", "{}") };
    assert!(restored.append(&[taken], false).await.unwrap()[0].is_err());
    let free = Append { claims: vec![Claim::new("k\u{0}i03ü")], expected: Expected::New, ..create("m", "new", "{}") };
    assert_eq!(append_one(&*restored, free).await, store.head().await.unwrap() + 1);
    assert_eq!(restored.get_blob(&digest(&[0, 255, 7])).await.unwrap(), Some(vec![0, 255, 7]));
    let delivered = |claimed: Vec<snaphook_driver::Delivery>| {
        claimed.into_iter().map(|delivery| (delivery.event.position, delivery.attempt)).collect::<Vec<_>>()
    };
    let new = restored.head().await.unwrap();
    assert_eq!(delivered(restored.claim("done", 100, LEASE).await.unwrap()), [(new, 1)]);
    // Leased and released events are delivered again, with increasing attempts; delayed and acknowledged ones are not.
    let part = delivered(restored.claim("part", 8, LEASE).await.unwrap());
    assert_eq!(part.iter().filter(|(_, attempt)| *attempt == 2).count(), 6, "{part:?}");
    assert_eq!(restored.lag("late").await.unwrap().0, 42);
    restored.close().await.unwrap();
    store.close().await.unwrap();
}

pub async fn a_copy_is_of_one_moment(subject: &Subject) {
    let store = subject.event().await;
    store.create_group(&group("g"), 0).await.unwrap();
    for index in 0..3000 {
        let claims = vec![Claim::new(format!("k{index:04}"))];
        append_one(&*store, Append { claims, ..any("m", &format!("i{index}")) }).await;
    }
    let mut export = store.export().await.unwrap();
    let head = store.head().await.unwrap();
    assert_eq!(export.head(), head);
    // The export contains nothing that happens after this point, no matter when a part is read.
    let first = export.next().await.unwrap();
    let claims = vec![Claim::new("later")];
    append_one(&*store, Append { claims, releases: vec!["k0001".into()], ..any("first of its model", "i") }).await;
    store.put_blob(&digest(b"later"), b"later").await.unwrap();
    let claimed = store.claim("g", 10, LEASE).await.unwrap();
    let done: Vec<_> = claimed.iter().map(|delivery| (delivery.event.position, delivery.token)).collect();
    store.ack("g", &done).await.unwrap();
    store.create_group(&group("later"), 0).await.unwrap();
    let mut copied = first;
    loop {
        let more = export.next().await.unwrap();
        if more.is_empty() {
            break;
        }
        copied.extend(more);
    }
    let events = copied.iter().filter(|record| matches!(record, LogRecord::Event(_))).count();
    let claims = copied.iter().filter(|record| matches!(record, LogRecord::Claim { .. })).count();
    assert_eq!((events, claims), (3000, 3000));
    assert_eq!(copied[6000..], [LogRecord::Group { group: group("g"), cursor: 0 }]);
    drop(export);
    append_one(&*store, any("m", "after")).await;
    store.close().await.unwrap();
}

pub async fn only_an_empty_log_takes_a_copy(subject: &Subject) {
    let store = subject.event().await;
    append_one(&*store, any("m", "i")).await;
    let copied = records(&*store).await;
    assert_eq!(store.import(&copied).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(store.head().await.unwrap(), 1);
    let folders = (subject.another(), subject.another());
    let other = folders.0.event().await;
    other.put_blob(&digest(b"x"), b"x").await.unwrap();
    assert_eq!(other.import(&copied).await.unwrap_err().kind(), ErrorKind::Conflict);
    let other = folders.1.event().await;
    other.create_group(&group("g"), 0).await.unwrap();
    assert_eq!(other.import(&copied).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(other.head().await.unwrap(), 0);
    store.close().await.unwrap();
}

pub async fn part_of_a_log_does_not_open(subject: &Subject) {
    let store = subject.event().await;
    if !store.capabilities().durable {
        return subject.skip(NOT_DURABLE);
    }
    for index in 0..10 {
        append_one(&*store, any("m", &format!("i{index}"))).await;
    }
    let copied = records(&*store).await;
    let other = subject.another();
    let part = other.event().await;
    part.import(&copied[..5]).await.unwrap();
    part.close().await.unwrap();
    drop(part);
    let refused = other.try_event().await.err().expect("part of a log is no log");
    assert_eq!(refused.kind(), ErrorKind::Config);
    assert!(refused.to_string().contains("restore"), "{refused}");
    // The original log is unchanged.
    let page = store.read(&EventQuery { after: 0, limit: 100, filter: EventFilter::default() }, None).await.unwrap();
    assert_eq!(page.events.len(), 10);
    store.close().await.unwrap();
}

pub async fn an_interrupted_import_goes_on(subject: &Subject) {
    let store = subject.event().await;
    if !store.capabilities().durable {
        return subject.skip(NOT_DURABLE);
    }
    fill(&*store).await;
    let copied = records(&*store).await;
    // Cuts among the events, the claims, the blobs and the groups.
    for cut in [1, 30, 50, copied.len() - 4, copied.len() - 1, copied.len()] {
        let other = subject.another();
        let part = other.event().await;
        part.import(&copied[..cut]).await.unwrap();
        part.close().await.unwrap();
        drop(part);
        let part = other.resumed_event().await;
        let head = part.export().await.unwrap().head();
        let is_left = |record: &&LogRecord| !matches!(record, LogRecord::Event(event) if event.position <= head);
        let left: Vec<_> = copied.iter().filter(is_left).cloned().collect();
        import(&*part, &left, &copied).await;
        part.close().await.unwrap();
        drop(part);
        let whole = other.event().await;
        assert_eq!(undelayed(records(&*whole).await), undelayed(copied.clone()), "after {cut} records");
        whole.close().await.unwrap();
    }
    store.close().await.unwrap();
}
