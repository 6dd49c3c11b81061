//! Several nodes with one log. Each node has its own connections.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use snaphook_driver::{Append, Claim, EventFilter, EventQuery, Expected, Group, Position, Require, Stream};
use snaphook_driver_testkit::run;
use snaphook_driver_testkit::sample::{any, append_one, create, try_append};

use crate::common::{DEADLINE, all, client, open, schema, url};

const LEASE: Duration = Duration::from_secs(60);

#[test]
fn nodes_that_open_at_once_make_one_log() {
    run(async {
        let (url, schema) = (url(), schema());
        let opening: Vec<_> = (0..8)
            .map(|node| {
                let (url, schema) = (url.clone(), schema.clone());
                tokio::spawn(async move { open(&format!("open{node}"), &url, &schema).await })
            })
            .collect();
        let mut identities = Vec::new();
        for opening in opening {
            identities.push(opening.await.unwrap().identity().to_owned());
        }
        identities.dedup();
        assert_eq!(identities.len(), 1, "{identities:?}");
    });
}

/// Whichever node appends, no reader skips an event, and conditions are enforced.
#[test]
fn readers_miss_nothing_that_other_nodes_append() {
    const NODES: usize = 4;
    const ROUNDS: usize = 60;
    run(async {
        let (url, schema) = (url(), schema());
        let mut stores = Vec::new();
        for node in 0..NODES {
            stores.push(open(&format!("node{node}"), &url, &schema).await);
        }
        let writers: Vec<_> = stores
            .iter()
            .cloned()
            .enumerate()
            .map(|(node, store)| {
                tokio::spawn(async move {
                    let mut count = 0;
                    for round in 0..ROUNDS {
                        // A key and a stream that all nodes compete for, and events of their own.
                        let wanted = Append {
                            claims: vec![Claim::new(format!("key{round}"))],
                            ..create("m", &format!("by {node} in {round}"), "{}")
                        };
                        let shared = create("m", &format!("shared{round}"), "{}");
                        let batch = [wanted, shared, any("m", "i"), any("n", &format!("{node}"))];
                        count += store.append(&batch, false).await.unwrap().iter().filter(|row| row.is_ok()).count();
                    }
                    count
                })
            })
            .collect();
        let reader = tokio::spawn({
            let store = Arc::clone(&stores[0]);
            async move {
                let (mut after, mut seen) = (0, Vec::new());
                let wanted = ROUNDS * (2 * NODES + 2);
                while seen.len() < wanted {
                    let query = EventQuery { after, limit: 50, filter: EventFilter::default() };
                    let page = store.read(&query, Some(DEADLINE)).await.unwrap();
                    assert!(!page.events.is_empty(), "{} of {wanted}", seen.len());
                    seen.extend(page.events.iter().map(|event| event.position));
                    after = page.reached;
                }
                seen
            }
        });
        let mut written = 0;
        for writer in writers {
            written += writer.await.unwrap();
        }
        let seen = reader.await.unwrap();
        assert_eq!(seen.len(), written);
        assert!(seen.iter().copied().eq(1..=written as Position), "no gaps, nothing twice");
        let events = all(&*stores[1]).await;
        assert!(events.is_sorted_by_key(|event| event.time));
        for round in 0..ROUNDS {
            let holder = stores[2].holder(&format!("key{round}")).await.unwrap().unwrap();
            let by = events.iter().filter(|event| {
                event.instance.as_ref().is_some_and(|id| id.starts_with("by") && id.ends_with(&format!(" {round}")))
            });
            assert_eq!(by.map(|event| event.stream()).collect::<Vec<_>>(), [holder.stream]);
        }
    });
}

#[test]
fn conditions_hold_across_nodes() {
    run(async {
        let (url, schema) = (url(), schema());
        let (one, other) = (open("one", &url, &schema).await, open("other", &url, &schema).await);
        let first = append_one(&*one, create("m", "a", "{}")).await;
        assert!(try_append(&*other, create("m", "a", "{}")).await.is_err());
        let next = Append { expected: Expected::At(first), ..any("m", "a") };
        let second = append_one(&*other, next.clone()).await;
        assert!(try_append(&*one, next).await.is_err());
        let requires = vec![Require { stream: Stream::of_instance("m", "a"), position: first }];
        assert!(try_append(&*one, Append { requires, ..any("m", "b") }).await.is_err());
        // All nodes see a reservation.
        assert_eq!(one.reserve(&[("k".into(), Stream::of_instance("m", "a"))]).await.unwrap(), []);
        let taken = other.reserve(&[("k".into(), Stream::of_instance("m", "b"))]).await.unwrap();
        assert_eq!(taken[0].1.position, second);
        let claiming = Append { claims: vec![Claim::new("k")], ..any("m", "b") };
        assert!(try_append(&*other, claiming).await.is_err());
    });
}

#[test]
fn a_waiting_reader_wakes_when_another_node_appends() {
    run(async {
        let (url, schema) = (url(), schema());
        let (writer, reader) = (open("writer", &url, &schema).await, open("reader", &url, &schema).await);
        let mut times = Vec::new();
        for round in 0..20 {
            let query = EventQuery { after: round, limit: 10, filter: EventFilter::default() };
            let waiting = tokio::spawn({
                let reader = Arc::clone(&reader);
                async move {
                    let page = reader.read(&query, Some(DEADLINE)).await.unwrap();
                    assert_eq!(page.events.len(), 1);
                    Instant::now()
                }
            });
            // Usually the reader waits by then; otherwise it finds the event at once.
            while Arc::strong_count(&reader) == 1 {
                tokio::task::yield_now().await;
            }
            append_one(&*writer, any("m", "i")).await;
            let appended = Instant::now();
            times.push(waiting.await.unwrap().saturating_duration_since(appended));
        }
        times.sort_unstable();
        // Ignores outliers during which the machine was busy.
        assert!(times[15] < Duration::from_millis(100), "{times:?}");
    });
}

/// Any user who can log in can send notifications.
#[test]
fn what_strangers_tell_disturbs_nobody() {
    run(async {
        let (url, schema) = (url(), schema());
        let store = open("told", &url, &schema).await;
        append_one(&*store, any("m", "i")).await;
        let waiting = tokio::spawn({
            let store = Arc::clone(&store);
            async move {
                let query = EventQuery { after: 1, limit: 10, filter: EventFilter::default() };
                store.read(&query, Some(DEADLINE)).await.unwrap().events[0].position
            }
        });
        let client = client(&url).await;
        for told in ["", "x", "9223372036854775807", "-1"] {
            client.batch_execute(&format!("NOTIFY snaphook_{schema}, '{told}'")).await.unwrap();
        }
        let query = EventQuery { after: 1, limit: 10, filter: EventFilter::default() };
        let page = store.read(&query, Some(Duration::from_millis(100))).await.unwrap();
        assert_eq!((page.events.len(), page.head), (0, 1));
        assert!(!waiting.is_finished());
        append_one(&*store, any("m", "i")).await;
        assert_eq!(waiting.await.unwrap(), 2);
    });
}

/// Nobody gets an event before earlier ones of its stream, or while somebody else has it.
#[test]
fn members_on_several_nodes_share_a_group() {
    const EVENTS: usize = 300;
    const STREAMS: usize = 15;
    run(async {
        let (url, schema) = (url(), schema());
        let mut stores = Vec::new();
        for node in 0..3 {
            stores.push(open(&format!("member{node}"), &url, &schema).await);
        }
        stores[0].create_group(&Group { name: "g".into(), filter: EventFilter::default() }, 0).await.unwrap();
        let done: Arc<Mutex<HashMap<String, Vec<Position>>>> = Arc::default();
        let held: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
        let members: Vec<_> = stores
            .iter()
            .cloned()
            .enumerate()
            .map(|(node, store)| {
                let (done, held) = (Arc::clone(&done), Arc::clone(&held));
                tokio::spawn(async move {
                    let started = Instant::now();
                    let mut round = node;
                    while done.lock().unwrap().values().map(Vec::len).sum::<usize>() < EVENTS {
                        assert!(started.elapsed() < DEADLINE);
                        let claimed = store.claim("g", 4, LEASE).await.unwrap();
                        for delivery in &claimed {
                            let id = delivery.event.instance.clone().unwrap();
                            let before = held.lock().unwrap().insert(id.clone(), node);
                            assert_eq!(before, None, "{id} has two owners");
                        }
                        for delivery in claimed {
                            round += 1;
                            let (id, position) = (delivery.event.instance.clone().unwrap(), delivery.event.position);
                            held.lock().unwrap().remove(&id);
                            if round.is_multiple_of(7) {
                                store.release("g", position, delivery.token, Duration::ZERO, None).await.unwrap();
                                continue;
                            }
                            done.lock().unwrap().entry(id).or_default().push(position);
                            store.ack("g", &[(position, delivery.token)]).await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for number in 0..EVENTS {
            append_one(&*stores[number % 3], any("m", &format!("i{}", number * 7 % STREAMS))).await;
        }
        for member in members {
            member.await.unwrap();
        }
        let done = done.lock().unwrap().clone();
        assert_eq!((done.len(), done.values().map(Vec::len).sum::<usize>()), (STREAMS, EVENTS));
        assert!(done.values().all(|positions| positions.is_sorted_by(|one, next| one < next)), "{done:?}");
        assert_eq!(stores[1].lag("g").await.unwrap(), (0, EVENTS as Position));
    });
}

#[test]
fn a_node_that_ends_gives_its_leases_back() {
    run(async {
        let (url, schema) = (url(), schema());
        let (one, other) = (open("ends", &url, &schema).await, open("stays", &url, &schema).await);
        one.create_group(&Group { name: "g".into(), filter: EventFilter::default() }, 0).await.unwrap();
        for id in ["a", "b", "c"] {
            append_one(&*one, any("m", id)).await;
        }
        assert_eq!(one.claim("g", 2, LEASE).await.unwrap().len(), 2);
        let mine = other.claim("g", 10, LEASE).await.unwrap();
        assert_eq!(mine.len(), 1);
        one.close().await.unwrap();
        let taken = other.claim("g", 10, LEASE).await.unwrap();
        assert_eq!(taken.iter().map(|delivery| delivery.attempt).collect::<Vec<_>>(), [2, 2]);
        // The other node's leases are not released with them.
        assert!(other.renew("g", mine[0].event.position, mine[0].token, LEASE, None).await.unwrap());
    });
}

/// Unclaimed events take no rows, however many there are.
#[test]
fn a_backlog_is_one_row() {
    run(async {
        let (url, schema) = (url(), schema());
        let store = open("backlog", &url, &schema).await;
        store.create_group(&Group { name: "g".into(), filter: EventFilter::default() }, 0).await.unwrap();
        for start in 0..20 {
            let batch: Vec<Append> = (0..1000).map(|row| any("m", &format!("i{start}-{row}"))).collect();
            store.append(&batch, false).await.unwrap();
        }
        assert_eq!(store.lag("g").await.unwrap(), (20_000, 0));
        let claimed = store.claim("g", 10, LEASE).await.unwrap();
        assert_eq!(claimed.len(), 10);
        let rows = client(&url).await.query_one(&format!("SELECT count(*) FROM {schema}.pending"), &[]).await.unwrap();
        assert_eq!(rows.get::<_, i64>(0), 10);
        let done: Vec<_> = claimed.iter().map(|delivery| (delivery.event.position, delivery.token)).collect();
        store.ack("g", &done).await.unwrap();
        let rows = client(&url).await.query_one(&format!("SELECT count(*) FROM {schema}.pending"), &[]).await.unwrap();
        assert_eq!(rows.get::<_, i64>(0), 0);
        assert_eq!(store.lag("g").await.unwrap(), (19_990, 10));
    });
}
