//! Cases for consumer groups.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use snaphook_driver::{
    Append, Delivery, ErrorKind, EventFilter, EventKind, EventStore, Group, NOTE_BYTES_MAX, Position, Stream,
};

use crate::Subject;
use crate::sample::{any, append, append_one, create, event};
use crate::subject::NOT_DURABLE;

const LEASE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(40);
const DEADLINE: Duration = Duration::from_secs(20);

fn group(name: &str) -> Group {
    Group { name: name.to_owned(), filter: EventFilter::default() }
}

fn positions(deliveries: &[Delivery]) -> Vec<Position> {
    deliveries.iter().map(|delivery| delivery.event.position).collect()
}

async fn ack(store: &dyn EventStore, group: &str, delivery: &Delivery) {
    store.ack(group, &[(delivery.event.position, delivery.token)]).await.unwrap();
}

/// Claims repeatedly until an event is delivered.
async fn claim_some(store: &dyn EventStore, group: &str, lease: Duration) -> Vec<Delivery> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let deliveries = store.claim(group, 10, lease).await.unwrap();
        if !deliveries.is_empty() {
            return deliveries;
        }
        assert!(Instant::now() < deadline, "nothing came to group `{group}`");
        tokio::task::yield_now().await;
    }
}

pub async fn streams_are_delivered_in_order(subject: &Subject) {
    let store = subject.event().await;
    store.create_group(&group("g"), 0).await.unwrap();
    assert_eq!(store.claim("g", 10, LEASE).await.unwrap(), []);
    assert_eq!(store.lag("g").await.unwrap(), (0, 0));
    let mut written = Vec::new();
    for number in 0..30 {
        written.push(append_one(&*store, any("m", ["a", "b", "c"][number % 3])).await);
    }
    assert_eq!(store.lag("g").await.unwrap(), (30, 0));
    let mut seen: HashMap<String, Vec<Position>> = HashMap::new();
    let mut done = 0;
    while done < 30 {
        let deliveries = store.claim("g", 2, LEASE).await.unwrap();
        assert!(!deliveries.is_empty() && deliveries.len() <= 2);
        for delivery in deliveries {
            assert_eq!(delivery.attempt, 1);
            seen.entry(delivery.event.instance.clone().unwrap()).or_default().push(delivery.event.position);
            ack(&*store, "g", &delivery).await;
            done += 1;
        }
        let (left, floor) = store.lag("g").await.unwrap();
        assert_eq!(left, 30 - done);
        assert!(written.iter().filter(|position| **position > floor).count() as u64 <= left + 2);
    }
    for positions in seen.values() {
        assert_eq!(positions.len(), 10);
        assert!(positions.is_sorted(), "{positions:?}");
    }
    assert_eq!(store.lag("g").await.unwrap(), (0, *written.last().unwrap()));
    assert_eq!(store.claim("g", 10, LEASE).await.unwrap(), []);
    store.close().await.unwrap();
}

pub async fn streams_do_not_wait_for_each_other(subject: &Subject) {
    let store = subject.event().await;
    store.create_group(&group("g"), 0).await.unwrap();
    let mut of = BTreeMap::new();
    for id in ["a", "a", "b", "a", "c", "b"] {
        of.entry(id).or_insert_with(Vec::new).push(append_one(&*store, any("m", id)).await);
    }
    // Only the oldest event of each stream is delivered, and none twice.
    let first = store.claim("g", 10, LEASE).await.unwrap();
    assert_eq!(positions(&first), [of["a"][0], of["b"][0], of["c"][0]]);
    assert_eq!(store.claim("g", 10, LEASE).await.unwrap(), []);
    ack(&*store, "g", &first[1]).await;
    let second = store.claim("g", 10, LEASE).await.unwrap();
    assert_eq!(positions(&second), [of["b"][1]]);
    // New events of other streams are delivered while `a` is held.
    let fresh = append_one(&*store, any("n", "a")).await;
    assert_eq!(positions(&store.claim("g", 10, LEASE).await.unwrap()), [fresh]);
    // The definition of a model is a separate stream.
    let defined = append_one(&*store, append(event(EventKind::ModelUpdated, &Stream::of_model("m"), Some("{}")))).await;
    assert_eq!(positions(&store.claim("g", 10, LEASE).await.unwrap()), [defined]);
    ack(&*store, "g", &first[0]).await;
    assert_eq!(positions(&store.claim("g", 10, LEASE).await.unwrap()), [of["a"][1]]);
    let (left, floor) = store.lag("g").await.unwrap();
    // Not acknowledged: both later events of `a`, the later one of `b`, `c`, and the two new ones.
    assert_eq!((left, floor), (6, of["a"][1] - 1));
    store.close().await.unwrap();
}

pub async fn leases_end_and_tokens_grow_old(subject: &Subject) {
    let store = subject.event().await;
    store.create_group(&group("g"), 0).await.unwrap();
    let position = append_one(&*store, any("m", "a")).await;
    let later = append_one(&*store, any("m", "a")).await;
    let old = store.claim("g", 10, SHORT).await.unwrap().remove(0);
    assert_eq!((old.event.position, old.attempt), (position, 1));
    let new = claim_some(&*store, "g", LEASE).await.remove(0);
    assert_eq!((new.event.position, new.attempt), (position, 2));
    assert_ne!(new.token, old.token);
    // The old owner has lost its lease.
    assert!(!store.renew("g", position, old.token, LEASE, None).await.unwrap());
    store.release("g", position, old.token, Duration::ZERO, None).await.unwrap();
    ack(&*store, "g", &old).await;
    store.ack("g", &[(position, 0), (later, new.token), (later + 100, 1)]).await.unwrap();
    assert_eq!(store.claim("g", 10, LEASE).await.unwrap(), []);
    assert_eq!(store.lag("g").await.unwrap().0, 2);
    // The new owner renews its lease.
    assert!(store.renew("g", position, new.token, SHORT, None).await.unwrap());
    assert!(store.renew("g", position, new.token, LEASE, None).await.unwrap());
    assert_eq!(store.claim("g", 10, LEASE).await.unwrap(), []);
    ack(&*store, "g", &new).await;
    assert!(!store.renew("g", position, new.token, LEASE, None).await.unwrap());
    assert_eq!(positions(&store.claim("g", 10, LEASE).await.unwrap()), [later]);
    store.close().await.unwrap();
}

pub async fn released_events_come_back_after_their_delay(subject: &Subject) {
    let store = subject.event().await;
    store.create_group(&group("g"), 0).await.unwrap();
    let first = append_one(&*store, any("m", "a")).await;
    append_one(&*store, any("m", "a")).await;
    let other = append_one(&*store, any("m", "b")).await;
    let deliveries = store.claim("g", 10, LEASE).await.unwrap();
    assert_eq!(positions(&deliveries), [first, other]);
    let started = Instant::now();
    let delay = Duration::from_millis(80);
    store.release("g", first, deliveries[0].token, delay, None).await.unwrap();
    store.release("g", other, deliveries[1].token, Duration::ZERO, None).await.unwrap();
    // Without a delay it is delivered again at once; with a delay not before, and no event of its stream overtakes it.
    let again = store.claim("g", 10, LEASE).await.unwrap();
    assert_eq!(positions(&again), [other]);
    assert_eq!(again[0].attempt, 2);
    let again = claim_some(&*store, "g", LEASE).await;
    assert!(started.elapsed() >= delay);
    assert_eq!(positions(&again), [first]);
    assert_eq!(again[0].attempt, 2);
    // A released event has no owner.
    store.release("g", first, again[0].token, LEASE, None).await.unwrap();
    ack(&*store, "g", &again[0]).await;
    assert!(!store.renew("g", first, again[0].token, LEASE, None).await.unwrap());
    assert_eq!(store.lag("g").await.unwrap().0, 3);
    store.close().await.unwrap();
}

pub async fn notes_stay_with_their_event(subject: &Subject) {
    let mut store = subject.event().await;
    store.create_group(&group("g"), 0).await.unwrap();
    let (first, second) = (append_one(&*store, any("m", "a")).await, append_one(&*store, any("m", "a")).await);
    let long = "ü".repeat(NOTE_BYTES_MAX / 2);
    let mut expected: Option<String> = None;
    for (round, note) in [None, Some("one\0 \"'"), None, Some(&*long), Some("")].into_iter().enumerate() {
        let delivery = claim_some(&*store, "g", LEASE).await.remove(0);
        assert_eq!((delivery.event.position, &delivery.note), (first, &expected), "{round}");
        if round == 3 {
            // A note can be stored while the event is processed; a later renewal without a note keeps it.
            assert!(store.renew("g", first, delivery.token, LEASE, note).await.unwrap());
            assert!(store.renew("g", first, delivery.token, LEASE, None).await.unwrap());
            store.release("g", first, delivery.token, Duration::ZERO, None).await.unwrap();
        } else {
            store.release("g", first, delivery.token, Duration::ZERO, note).await.unwrap();
        }
        expected = note.map(str::to_owned).or(expected);
        // The old owner can no longer store a note.
        assert!(!store.renew("g", first, delivery.token, LEASE, Some("late")).await.unwrap());
        store.release("g", first, delivery.token, Duration::ZERO, Some("late")).await.unwrap();
        if store.capabilities().durable {
            store.close().await.unwrap();
            drop(store);
            store = subject.event().await;
        }
    }
    let delivery = claim_some(&*store, "g", LEASE).await.remove(0);
    assert_eq!(delivery.note.as_deref(), Some(""));
    ack(&*store, "g", &delivery).await;
    // The note belongs to the event, not to the stream.
    let next = claim_some(&*store, "g", LEASE).await.remove(0);
    assert_eq!((next.event.position, next.note), (second, None));
    store.close().await.unwrap();
}

pub async fn what_is_done(subject: &Subject) {
    let store = subject.event().await;
    store.create_group(&group("g"), 0).await.unwrap();
    let stream = |id| Stream::of_instance("m", id);
    let mut positions = Vec::new();
    for id in ["a", "a", "b"] {
        positions.push(append_one(&*store, any("m", id)).await);
    }
    let done = async |expected: [bool; 3]| {
        for ((id, position), expected) in ["a", "a", "b"].into_iter().zip(&positions).zip(expected) {
            assert_eq!(store.is_done("g", &stream(id), *position).await.unwrap(), expected, "{id} {position}");
        }
    };
    done([false; 3]).await;
    let deliveries = store.claim("g", 10, LEASE).await.unwrap();
    done([false; 3]).await;
    ack(&*store, "g", &deliveries[1]).await;
    done([false, false, true]).await;
    ack(&*store, "g", &deliveries[0]).await;
    done([true, false, true]).await;
    ack(&*store, "g", &claim_some(&*store, "g", LEASE).await[0]).await;
    done([true; 3]).await;
    assert_eq!(store.is_done("none", &stream("a"), 1).await.unwrap_err().kind(), ErrorKind::Invalid);
    store.close().await.unwrap();
}

pub async fn filters_and_starts(subject: &Subject) {
    let store = subject.event().await;
    let mut created = Vec::new();
    for id in ["a", "b", "c"] {
        created.push(append_one(&*store, create("m", id, "{}")).await);
        append_one(&*store, create("n", id, "{}")).await;
        append_one(&*store, any("m", id)).await;
    }
    let filter =
        EventFilter { model: Some("m".into()), kinds: vec![EventKind::InstanceCreated], ..EventFilter::default() };
    let creations = Group { name: "creations".into(), filter };
    store.create_group(&creations, 0).await.unwrap();
    assert_eq!(store.lag("creations").await.unwrap().0, 3);
    let deliveries = store.claim("creations", 10, LEASE).await.unwrap();
    assert_eq!(positions(&deliveries), created);
    for delivery in &deliveries {
        ack(&*store, "creations", delivery).await;
    }
    assert_eq!(store.lag("creations").await.unwrap(), (0, store.head().await.unwrap()));
    // A group that starts in the middle.
    store.create_group(&Group { name: "late".into(), ..creations.clone() }, created[1]).await.unwrap();
    assert_eq!(positions(&store.claim("late", 10, LEASE).await.unwrap()), [created[2]]);
    // Created again with another filter: the progress stays; events that no longer match are not delivered.
    let updated = append_one(&*store, any("m", "a")).await;
    append_one(&*store, create("m", "d", "{}")).await;
    let filter = EventFilter { kinds: vec![EventKind::InstanceUpdated], ..creations.filter.clone() };
    let updates = Group { name: "creations".into(), filter };
    store.create_group(&updates, 0).await.unwrap();
    assert_eq!(positions(&store.claim("creations", 10, LEASE).await.unwrap()), [updated]);
    store.create_group(&Group { name: "late".into(), filter: updates.filter.clone() }, 0).await.unwrap();
    let late = store.claim("late", 10, LEASE).await.unwrap();
    assert!(late.iter().all(|delivery| delivery.event.kind == EventKind::InstanceUpdated), "{late:?}");
    store.close().await.unwrap();
}

pub async fn groups_are_listed_and_forgotten(subject: &Subject) {
    let store = subject.event().await;
    let position = append_one(&*store, any("m", "a")).await;
    assert_eq!(store.groups().await.unwrap(), Vec::<String>::new());
    for name in ["b", "a", "ü/'\""] {
        store.create_group(&group(name), 0).await.unwrap();
    }
    assert_eq!(store.groups().await.unwrap(), ["a", "b", "ü/'\""]);
    // Each group has its own progress.
    for name in ["a", "b", "ü/'\""] {
        let deliveries = store.claim(name, 10, LEASE).await.unwrap();
        assert_eq!(positions(&deliveries), [position], "{name}");
    }
    store.drop_group("a").await.unwrap();
    store.drop_group("a").await.unwrap();
    store.drop_group("never there").await.unwrap();
    assert_eq!(store.groups().await.unwrap(), ["b", "ü/'\""]);
    store.create_group(&group("a"), 0).await.unwrap();
    assert_eq!(store.claim("a", 10, LEASE).await.unwrap()[0].attempt, 1);
    store.close().await.unwrap();
}

pub async fn unknown_groups_are_refused(subject: &Subject) {
    let store = subject.event().await;
    let invalid = ErrorKind::Invalid;
    assert_eq!(store.claim("g", 1, LEASE).await.unwrap_err().kind(), invalid);
    assert_eq!(store.ack("g", &[(1, 1)]).await.unwrap_err().kind(), invalid);
    assert_eq!(store.release("g", 1, 1, LEASE, None).await.unwrap_err().kind(), invalid);
    assert_eq!(store.renew("g", 1, 1, LEASE, None).await.unwrap_err().kind(), invalid);
    assert_eq!(store.lag("g").await.unwrap_err().kind(), invalid);
    store.close().await.unwrap();
}

/// A stream that is stuck behind a long backlog, among many other streams.
pub async fn a_long_backlog(subject: &Subject) {
    const COUNT: usize = 20_000;
    let store = subject.event().await;
    store.create_group(&group("g"), 0).await.unwrap();
    for start in (0..COUNT).step_by(1000) {
        let batch: Vec<Append> = (start..start + 1000)
            .map(|number| if number % 2 == 0 { any("m", "stuck") } else { any("m", &format!("i{number}")) })
            .collect();
        assert!(store.append(&batch, false).await.unwrap().iter().all(Result::is_ok));
    }
    let stuck = store.claim("g", 1, LEASE).await.unwrap().remove(0);
    assert_eq!(stuck.event.instance.as_deref(), Some("stuck"));
    let mut done = 0;
    loop {
        let deliveries = store.claim("g", 500, LEASE).await.unwrap();
        if deliveries.is_empty() {
            break;
        }
        done += deliveries.len();
        let tokens: Vec<(Position, u64)> =
            deliveries.iter().map(|delivery| (delivery.event.position, delivery.token)).collect();
        store.ack("g", &tokens).await.unwrap();
    }
    assert_eq!(done, COUNT / 2);
    assert_eq!(store.lag("g").await.unwrap(), (COUNT as u64 / 2, stuck.event.position - 1));
    // Then the stuck stream continues, one event at a time.
    let mut next = stuck;
    for _ in 0..100 {
        let before = next.event.position;
        ack(&*store, "g", &next).await;
        next = store.claim("g", 500, LEASE).await.unwrap().remove(0);
        assert!(next.event.position > before && next.event.instance.as_deref() == Some("stuck"));
    }
    assert_eq!(store.lag("g").await.unwrap().0, COUNT as u64 / 2 - 100);
    store.close().await.unwrap();
}

pub async fn progress_survives_reopening(subject: &Subject) {
    let store = subject.event().await;
    if !store.capabilities().durable {
        return subject.skip(NOT_DURABLE);
    }
    store.create_group(&group("g"), 0).await.unwrap();
    let mut written = Vec::new();
    for id in ["a", "b", "c", "a", "b", "c", "d"] {
        written.push(append_one(&*store, any("m", id)).await);
    }
    let deliveries = store.claim("g", 3, LEASE).await.unwrap();
    assert_eq!(positions(&deliveries), written[..3]);
    // `a` is done, `b` is held, `c` failed once and is delayed.
    ack(&*store, "g", &deliveries[0]).await;
    store.release("g", written[2], deliveries[2].token, Duration::ZERO, None).await.unwrap();
    let lag = store.lag("g").await.unwrap();
    store.close().await.unwrap();
    drop(store);

    let store = subject.event().await;
    assert_eq!(store.groups().await.unwrap(), ["g"]);
    assert_eq!(store.lag("g").await.unwrap(), lag);
    // Leases do not survive a restart; attempts do.
    let again = store.claim("g", 10, LEASE).await.unwrap();
    assert_eq!(positions(&again), [written[1], written[2], written[3], written[6]]);
    assert_eq!(again.iter().map(|delivery| delivery.attempt).collect::<Vec<_>>(), [2, 2, 1, 1]);
    // Tokens from before the restart are invalid.
    ack(&*store, "g", &deliveries[1]).await;
    assert_eq!(store.lag("g").await.unwrap(), lag);
    for delivery in &again {
        ack(&*store, "g", delivery).await;
    }
    let rest = store.claim("g", 10, LEASE).await.unwrap();
    assert_eq!(positions(&rest), [written[4], written[5]]);
    for delivery in &rest {
        ack(&*store, "g", delivery).await;
    }
    store.close().await.unwrap();
    drop(store);

    let store = subject.event().await;
    assert_eq!(store.claim("g", 10, LEASE).await.unwrap(), []);
    assert_eq!(store.lag("g").await.unwrap(), (0, *written.last().unwrap()));
    store.close().await.unwrap();
}
