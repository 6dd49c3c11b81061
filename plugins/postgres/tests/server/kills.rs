//! A server that is killed while several nodes append: acknowledged events are stored once, and rejected ones are not.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use snaphook_driver::{ErrorKind, EventFilter, Group, Position, Stream};
use snaphook_driver_testkit::run;
use snaphook_driver_testkit::sample::any;
use snaphook_driver_testkit::servers::{Signal, postgres};

use crate::common::{DEADLINE, all, client, eventually, open};

const NODES: usize = 3;
const ROUNDS: usize = 4;

/// The results that a node got.
#[derive(Default)]
struct Told {
    /// Positions by id.
    stored: BTreeMap<String, Position>,
    refused: BTreeSet<String>,
    uncertain: BTreeSet<String>,
}

#[test]
fn what_was_answered_survives_the_server() {
    run(async {
        let mut server = postgres::start(&[]);
        let url = postgres::url(&server);
        let mut stores = Vec::new();
        for node in 0..NODES {
            stores.push(open(&format!("killed{node}"), &url, "s").await);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let nodes: Vec<_> = stores
            .iter()
            .cloned()
            .enumerate()
            .map(|(node, store)| {
                let stop = Arc::clone(&stop);
                tokio::spawn(async move {
                    let (mut told, mut round) = (Told::default(), 0);
                    while !stop.load(Ordering::Relaxed) {
                        round += 1;
                        let batch: Vec<_> = (0..1 + round % 20).map(|row| any("m", &format!("{node}-{row}"))).collect();
                        let ids = batch.iter().map(|append| append.event.id.clone());
                        match store.append(&batch, false).await {
                            Ok(answers) => {
                                told.stored.extend(ids.zip(answers.iter().map(|a| a.as_ref().unwrap().position)))
                            }
                            Err(error) if error.kind() == ErrorKind::Uncertain => told.uncertain.extend(ids),
                            Err(error) => {
                                assert!(error.is_temporary(), "{error}");
                                told.refused.extend(ids);
                                eventually(|| store.health()).await;
                            }
                        }
                    }
                    told
                })
            })
            .collect();
        for round in 0..ROUNDS {
            // While the nodes are working.
            let head = eventually(|| stores[0].head()).await;
            let started = Instant::now();
            while eventually(|| stores[0].head()).await < head + 300 {
                assert!(started.elapsed() < DEADLINE, "nothing is appended");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if round % 2 == 0 {
                server.end(Signal::Quit);
                server.restart();
            } else {
                // One process of the server is killed; the server ends the others and restarts.
                let process = client(&url).await;
                let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'snaphook' AND state <> 'idle'
                           UNION ALL SELECT pg_backend_pid()";
                let process: i32 = process.query(sql, &[]).await.unwrap()[0].get(0);
                Command::new("kill").args(["-KILL", &process.to_string()]).status().unwrap();
            }
        }
        eventually(|| stores[0].health()).await;
        stop.store(true, Ordering::Relaxed);
        let events = {
            let mut told = Vec::new();
            for node in nodes {
                told.push(node.await.unwrap());
            }
            let events = all(&*stores[0]).await;
            let found: BTreeMap<String, Position> =
                events.iter().map(|event| (event.id.clone(), event.position)).collect();
            assert_eq!(found.len(), events.len(), "an event is there twice");
            let mut counts = (0, 0, 0);
            for told in &told {
                for (id, position) in &told.stored {
                    assert_eq!(found.get(id), Some(position), "answered and not there");
                }
                for id in &told.refused {
                    assert_eq!(found.get(id), None, "refused and there");
                }
                counts.0 += told.stored.len();
                counts.1 += told.refused.len();
                counts.2 += told.uncertain.len();
            }
            eprintln!("stored, refused, uncertain: {counts:?}");
            assert_eq!(counts.2, 0, "the server came back: every outcome can be found out");
            assert_eq!(counts.0, events.len());
            events
        };
        assert!(events.iter().map(|event| event.position).eq(1..=events.len() as Position));
        drop(server);
    });
}

/// A crash and restart of the server is hardly noticed, so keys and leases that a node has taken must survive it.
#[test]
fn what_a_node_has_taken_survives_the_server() {
    run(async {
        // The WAL writer is delayed: only commits that wait for the disk reach it.
        let server = postgres::start(&["wal_writer_delay=10000"]);
        let url = postgres::url(&server);
        let store = open("takes", &url, "s").await;
        let lease = Duration::from_secs(600);
        store.create_group(&Group { name: "g".into(), filter: EventFilter::default() }, 0).await.unwrap();
        for row in 0..2 {
            store.append(&[any("m", &format!("i{row}"))], false).await.unwrap().remove(0).unwrap();
        }
        let first = store.claim("g", 1, lease).await.unwrap();
        store.ack("g", &[(first[0].event.position, first[0].token)]).await.unwrap();
        let second = store.claim("g", 1, lease).await.unwrap();
        assert_eq!(second[0].event.position, 2);
        crash(&url).await;
        assert_eq!(eventually(|| store.claim("g", 10, lease)).await, [], "events are handed out twice");
        store.ack("g", &[(2, second[0].token)]).await.unwrap();
        assert_eq!(store.lag("g").await.unwrap(), (0, 2));

        let stream = Stream::of_instance("m", "i0");
        assert_eq!(store.reserve(&[("k".to_owned(), stream.clone())]).await.unwrap(), []);
        crash(&url).await;
        let holder = eventually(|| store.holder("k")).await.expect("the key is held");
        assert_eq!(holder.stream, stream);
        store.close().await.unwrap();
    });
}

/// Kills one process of the server, which then ends the others and restarts. Waits until they have ended.
async fn crash(url: &str) {
    let victim = client(url).await;
    let process: i32 = victim.query("SELECT pg_backend_pid()", &[]).await.unwrap()[0].get(0);
    let witness = client(url).await;
    Command::new("kill").args(["-KILL", &process.to_string()]).status().unwrap();
    let killed = Instant::now();
    while !(victim.is_closed() && witness.is_closed()) {
        assert!(killed.elapsed() < DEADLINE, "the server goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
