//! A model store that several nodes update while its server crashes: the result is the same as that of one node.

use std::cmp::Ordering;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snaphook_driver::compare::order;
use snaphook_driver::{
    Budget, CarryOver, ColumnKind, Condition, ErrorKind, Event, EventKind, Filter, Instance, InstanceQuery, Limits,
    ModelStore, Operator, Position, SortKey,
};
use snaphook_driver_testkit::run;
use snaphook_driver_testkit::sample::{Random, bare, change, created, shape, sort_key};
use snaphook_driver_testkit::servers::{Signal, postgres};
use snaphook_postgres::DRIVER;

use crate::common::{DEADLINE, client, context, eventually, schema, url};

async fn open(name: &str, url: &str, schema: &str) -> Arc<dyn ModelStore> {
    let settings = json!({"url": url, "schema": schema, "pool": 4});
    DRIVER.model.unwrap()(context(name, settings)).await.unwrap()
}

async fn all(store: &dyn ModelStore) -> Vec<Instance> {
    let mut query = InstanceQuery { limit: 1000, ..InstanceQuery::default() };
    let mut found = Vec::new();
    loop {
        let page = store.query("m", &query, &Budget::unlimited()).await.unwrap();
        found.extend(page.items);
        query.cursor = page.next;
        if query.cursor.is_none() {
            return found;
        }
    }
}

/// A step in the history of a model.
enum HistoryStep {
    Define(u64),
    Apply(Vec<Event>),
}

/// Definitions that rename `a` to `b` and back, with events between them.
fn history(seed: u64, versions: u64) -> Vec<(Position, HistoryStep)> {
    let mut random = Random::new(seed);
    let (mut position, mut steps) = (0, Vec::new());
    for version in 1..=versions {
        position += 1;
        steps.push((position, HistoryStep::Define(version)));
        for _ in 0..1 + random.below(8) {
            let events = (0..1 + random.below(40)).map(|_| {
                position += 1;
                let id = format!("i{:03}", random.below(200));
                let data = json!({turn(version): random.below(1000), "x": "y".repeat(random.below(50))});
                match random.below(6) {
                    0 => change(EventKind::InstanceDeleted, position, "m", &id, None),
                    1 | 2 => created(position, "m", &id, &data),
                    _ => change(EventKind::InstanceUpdated, position, "m", &id, Some(&data.to_string())),
                }
            });
            let events = events.collect();
            steps.push((position, HistoryStep::Apply(events)));
        }
    }
    steps
}

fn turn(version: u64) -> &'static str {
    if version % 2 == 1 { "a" } else { "b" }
}

fn definition(version: u64) -> (snaphook_driver::ModelShape, CarryOver) {
    let shape = shape("m", version, &[(turn(version), ColumnKind::Integer)], &[&[turn(version)]]);
    let renames = if version > 1 { vec![(turn(version - 1).to_owned(), turn(version).to_owned())] } else { Vec::new() };
    (shape, CarryOver { renames, defaults: Vec::new() })
}

/// Applies the log on one node, from any checkpoint that other nodes have reached.
async fn follow(store: &dyn ModelStore, steps: &[(Position, HistoryStep)], prepares: bool) {
    let mut after = 0;
    for (to, step) in steps {
        match step {
            HistoryStep::Apply(events) => eventually(|| store.apply(after, events, *to)).await,
            HistoryStep::Define(version) => {
                let (new, carry) = definition(*version);
                if prepares && let Err(error) = store.prepare(&new, &carry).await {
                    assert!(error.is_temporary(), "{error}");
                }
                eventually(|| store.define(after, None, &new, &carry, *to)).await;
            }
        }
        after = *to;
        tokio::task::yield_now().await;
    }
}

#[test]
fn nodes_that_apply_the_same_log_make_what_one_makes() {
    run(async {
        let (url, steps) = (url(), Arc::new(history(3, 6)));
        let alone = open("alone", &url, &schema()).await;
        follow(&*alone, &steps, false).await;
        let shared = schema();
        let mut nodes = Vec::new();
        for node in 0..3 {
            let (store, steps) = (open(&format!("model{node}"), &url, &shared).await, Arc::clone(&steps));
            nodes.push(tokio::spawn(async move {
                follow(&*store, &steps, node > 0).await;
                store
            }));
        }
        for node in nodes {
            let store = node.await.unwrap();
            assert_eq!(store.checkpoint().await.unwrap(), alone.checkpoint().await.unwrap());
            assert_eq!(store.definitions().await.unwrap(), alone.definitions().await.unwrap());
            assert_eq!(all(&*store).await, all(&*alone).await);
            let filter = Condition { path: vec!["b".to_owned()].into(), operator: Operator::Gte(json!(0)) }.into();
            let count = store.count("m", &filter, &Budget::unlimited()).await.unwrap();
            assert_eq!(count, alone.count("m", &filter, &Budget::unlimited()).await.unwrap());
            store.close().await.unwrap();
        }
        alone.close().await.unwrap();
    });
}

#[test]
fn what_one_node_prepares_serves_another() {
    run(async {
        let (url, shared) = (url(), schema());
        let (first, second) = (open("prepares", &url, &shared).await, open("defines", &url, &shared).await);
        let (old, none) = definition(1);
        first.define(0, None, &old, &none, 1).await.unwrap();
        let events: Vec<_> = (2..5000).map(|n| created(n, "m", &format!("i{n}"), &json!({"a": n}))).collect();
        first.apply(1, &events, 5000).await.unwrap();
        let (new, carry) = definition(2);
        let tickets = tokio::join!(first.prepare(&new, &carry), second.prepare(&new, &carry));
        assert!(tickets.0.is_ok() || tickets.1.is_ok(), "{tickets:?}");
        // Events of both nodes reach the prepared table.
        first.apply(5000, &[created(5001, "m", "x", &json!({"a": 1}))], 5001).await.unwrap();
        second.apply(5001, &[change(EventKind::InstanceDeleted, 5002, "m", "i7", None)], 5002).await.unwrap();
        second.define(5002, Some(&old), &new, &carry, 5003).await.unwrap();
        for store in [&first, &second] {
            assert_eq!(store.definitions().await.unwrap(), std::slice::from_ref(&new));
            let found = all(&**store).await;
            assert_eq!(found.len(), 4998);
            assert!(found.iter().all(|instance| instance.data.as_str().starts_with("{\"b\":")));
            assert_eq!(store.get("m", "i7").await.unwrap(), None);
            assert_eq!(store.get("m", "i8").await.unwrap().unwrap().data.as_str(), "{\"b\":8}");
        }
        first.close().await.unwrap();
        second.close().await.unwrap();
    });
}

/// A crash undoes the last steps of a copy, and the copying node only gets a new connection and does not notice.
#[test]
fn a_copy_that_lost_a_step_is_never_used() {
    run(async {
        let (url, schema) = (url(), schema());
        let store = open("copies", &url, &schema).await;
        let (old, none) = definition(1);
        store.define(0, None, &old, &none, 1).await.unwrap();
        let events: Vec<_> = (2..20_000).map(|n| created(n, "m", &format!("i{n}"), &json!({"a": n}))).collect();
        for part in events.chunks(2000) {
            let to = part.last().unwrap().position;
            store.apply(part[0].position - 1, part, to).await.unwrap();
        }
        let (new, carry) = definition(2);
        let preparing = {
            let (store, new, carry) = (Arc::clone(&store), new.clone(), carry.clone());
            tokio::spawn(async move { store.prepare(&new, &carry).await })
        };
        // A lock of this row stops the copy between two steps.
        let admin = client(&url).await;
        let lock = format!("SELECT FROM {schema}.model_state FOR UPDATE");
        let copy = format!(
            "SELECT 'm' || number, touched::text FROM {schema}.model_tables WHERE prepared AND NOT complete AND number > 1"
        );
        let rows = async |table: &str| -> i64 {
            admin.query_one(&format!("SELECT count(*) FROM {schema}.{table}"), &[]).await.unwrap().get(0)
        };
        let begun = Instant::now();
        let (table, touched, before) = loop {
            assert!(begun.elapsed() < DEADLINE && !preparing.is_finished(), "the copy is not seen at work");
            admin.batch_execute(&format!("BEGIN; {lock}")).await.unwrap();
            if let Some(row) = admin.query_opt(&copy, &[]).await.unwrap() {
                let (table, touched): (String, String) = (row.get(0), row.get(1));
                let before = rows(&table).await;
                if before > 0 {
                    break (table, touched, before);
                }
            }
            admin.batch_execute("COMMIT").await.unwrap();
        };
        admin
            .batch_execute(&format!("CREATE TABLE {schema}.kept AS SELECT id FROM {schema}.{table}; COMMIT"))
            .await
            .unwrap();
        // At least one more step, which is then undone.
        loop {
            assert!(begun.elapsed() < DEADLINE && !preparing.is_finished(), "the copy does not go on");
            admin.batch_execute(&format!("BEGIN; {lock}")).await.unwrap();
            if rows(&table).await > before {
                break;
            }
            admin.batch_execute("COMMIT").await.unwrap();
        }
        let back = format!(
            "DELETE FROM {schema}.{table} WHERE id NOT IN (SELECT id FROM {schema}.kept);
             UPDATE {schema}.model_tables SET touched = '{touched}' WHERE prepared; DROP TABLE {schema}.kept; COMMIT"
        );
        admin.batch_execute(&back).await.unwrap();
        let error = preparing.await.unwrap().unwrap_err();
        assert!(error.is_temporary(), "{error}");
        store.define(20_000 - 1, Some(&old), &new, &carry, 20_000).await.unwrap();
        assert_eq!(all(&*store).await.len(), events.len());
        store.close().await.unwrap();
    });
}

#[test]
fn a_server_that_dies_takes_no_more_than_the_end() {
    run(async {
        let mut server = postgres::start(&[]);
        let url = postgres::url(&server);
        let steps = Arc::new(history(5, 8));
        let store = open("dies", &url, "s").await;
        let alone = open("stays", &crate::common::url(), &schema()).await;
        follow(&*alone, &steps, false).await;
        for round in 1..=4 {
            let work = {
                let (store, steps) = (Arc::clone(&store), Arc::clone(&steps));
                tokio::spawn(async move {
                    let mut after = 0;
                    for (to, step) in steps.iter() {
                        let done = match step {
                            HistoryStep::Apply(events) => store.apply(after, events, *to).await,
                            HistoryStep::Define(version) => {
                                let (new, carry) = definition(*version);
                                store.define(after, None, &new, &carry, *to).await
                            }
                        };
                        if let Err(error) = done {
                            // After the restart, the server may be at an earlier checkpoint.
                            assert!(error.is_temporary() || error.kind() == ErrorKind::Conflict, "{error}");
                            return;
                        }
                        after = *to;
                    }
                })
            };
            let last = steps.last().unwrap().0;
            while !work.is_finished() {
                let checkpoint = store.checkpoint().await.unwrap();
                if checkpoint >= last * round / 5 {
                    break;
                }
                tokio::task::yield_now().await;
            }
            if round % 2 == 0 {
                server.end(Signal::Quit);
                work.await.unwrap();
                server.restart();
            } else {
                // One process of the server is killed; the server ends the others and restarts.
                let witness = client(&url).await;
                let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'snaphook' AND state <> 'idle'
                           UNION ALL SELECT pg_backend_pid()";
                let process: i32 = witness.query(sql, &[]).await.unwrap()[0].get(0);
                Command::new("kill").args(["-KILL", &process.to_string()]).status().unwrap();
                work.await.unwrap();
                let killed = Instant::now();
                while !witness.is_closed() {
                    assert!(killed.elapsed() < DEADLINE, "the server goes on");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            // The instances are those of the log up to the checkpoint.
            let checkpoint = eventually(|| store.checkpoint()).await;
            let part: Vec<_> = history(5, 8).into_iter().filter(|(to, _)| *to <= checkpoint).collect();
            assert_eq!(part.last().map_or(0, |(to, _)| *to), checkpoint, "a batch is whole");
            let same = open("part", &crate::common::url(), &schema()).await;
            follow(&*same, &part, false).await;
            assert_eq!(store.definitions().await.unwrap(), same.definitions().await.unwrap());
            assert!(all(&*store).await == all(&*same).await, "round {round}, checkpoint {checkpoint}");
            same.close().await.unwrap();
        }
        follow(&*store, &steps, false).await;
        assert_eq!(all(&*store).await, all(&*alone).await);
        store.close().await.unwrap();
        alone.close().await.unwrap();
    });
}

/// Columns contain only the beginning of long values, but results do not depend on that.
#[test]
fn long_values_compare_as_wholes() {
    run(async {
        let store = open("long", &url(), &schema()).await;
        let long = "x".repeat(297);
        let texts: Vec<Value> = ["", "a", "b", "ba", "\0", "é"]
            .iter()
            .flat_map(|end| {
                [format!("{long}{end}"), format!("{long}xx{end}"), format!("{long}xxx{end}"), (*end).into()]
            })
            .map(Value::from)
            .chain([json!(5), json!(true), Value::Null, json!([1])])
            .collect();
        let mut random = Random::new(9);
        let rows: Vec<(String, Value)> = (0..150)
            .map(|row| {
                let (t, u) = (random.pick(&texts).clone(), random.pick(&texts).clone());
                (format!("i{row:03}"), json!({"t": t, "u": u}))
            })
            .collect();
        let indexes: [&[&[&str]]; 4] =
            [&[&["t", "-u", "v"]], &[&["t", "-u"]], &[&["-t"], &["u"]], &[&["-t", "u"], &["-u", "t"]]];
        for indexes in indexes {
            store.reset("log").await.unwrap();
            let columns = [("t", ColumnKind::Any), ("u", ColumnKind::Any), ("v", ColumnKind::Any)];
            store.define(0, None, &shape("m", 1, &columns, indexes), &CarryOver::default(), 1).await.unwrap();
            let events: Vec<_> =
                rows.iter().zip(2..).map(|((id, data), position)| created(position, "m", id, data)).collect();
            store.apply(1, &events, 1000).await.unwrap();
            for _ in 0..100 {
                let value = random.pick(&texts).clone();
                let operator = match random.below(10) {
                    0 => Operator::Eq(value),
                    1 => Operator::Ne(value),
                    2 => Operator::Lt(value),
                    3 => Operator::Lte(value),
                    4 => Operator::Gt(value),
                    5 => Operator::Gte(value),
                    6 => Operator::In(vec![value, random.pick(&texts).clone()]),
                    7 => Operator::Nin(vec![value, random.pick(&texts).clone()]),
                    8 => Operator::Like(format!("{}%", value.as_str().unwrap_or("x"))),
                    _ => Operator::Like(format!("{long}x%a")),
                };
                let path = vec![(*random.pick(&["t", "u"])).to_owned()].into();
                let filter: Filter =
                    if random.below(3) > 0 { Condition { path, operator }.into() } else { Filter::default() };
                let sorts: [&[&str]; 7] = [&[], &["t"], &["-t"], &["t", "-u"], &["-t", "u"], &["u", "t"], &["-u"]];
                let sort: Vec<SortKey> = random.pick(&sorts).iter().map(|text| sort_key(text)).collect();
                let mut expected: Vec<&(String, Value)> =
                    rows.iter().filter(|(_, data)| filter.matches(&bare(data))).collect();
                expected.sort_by(|left, right| match order(&bare(&left.1), &bare(&right.1), &sort) {
                    Ordering::Equal => left.0.cmp(&right.0),
                    other => other,
                });
                let expected: Vec<&str> = expected.iter().map(|(id, _)| id.as_str()).collect();
                let limit = [7, 40, 1000][random.below(3)];
                let mut query = InstanceQuery { filter: filter.clone(), sort, limit, cursor: None };
                let mut found = Vec::new();
                loop {
                    let page = store.query("m", &query, &Budget::unlimited()).await.unwrap();
                    found.extend(page.items.into_iter().map(|instance| instance.id));
                    query.cursor = page.next;
                    if query.cursor.is_none() {
                        break;
                    }
                }
                assert_eq!(found, expected, "{query:?} with indexes {indexes:?}");
                let count = store.count("m", &filter, &Budget::unlimited()).await.unwrap();
                assert_eq!(count as usize, found.len());
            }
        }
        store.close().await.unwrap();
    });
}

/// Long reads have a few turns of their own. Short reads are executed meanwhile, and a read that waits too long gets an
/// error.
#[test]
fn long_reads_do_not_hold_up_short_ones() {
    const GENEROUS: Limits =
        Limits { steps: u64::MAX, time: Duration::from_secs(3600), memory: 64 << 20, wait: Duration::from_secs(3600) };
    run(async {
        let store = open("lanes", &url(), &schema()).await;
        store.define(0, None, &definition(1).0, &CarryOver::default(), 1).await.unwrap();
        let text = "a".repeat(100_000);
        let events: Vec<_> =
            (2..7).map(|row| created(row, "m", &format!("i{row}"), &json!({"a": row, "t": text}))).collect();
        store.apply(1, &events, 10).await.unwrap();
        let like = Operator::Like(format!("%{}_b%", "a".repeat(400)));
        let slow: Filter = Condition { path: vec!["t".to_owned()].into(), operator: like }.into();
        let budget = Budget::new(GENEROUS);
        let long: Vec<_> = (0..8)
            .map(|_| {
                let (store, slow, budget) = (Arc::clone(&store), slow.clone(), budget.clone());
                tokio::spawn(async move { store.count("m", &slow, &budget).await })
            })
            .collect();
        while budget.steps() < 1_000_000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(store.get("m", "i3").await.unwrap().is_some());
        for path in ["a", "x"] {
            let filter = Condition { path: vec![path.to_owned()].into(), operator: Operator::Exists(true) }.into();
            let found = store.count("m", &filter, &Budget::new(GENEROUS)).await.unwrap();
            assert_eq!(found, if path == "a" { 5 } else { 0 });
        }
        store.apply(10, &[created(11, "m", "late", &json!({"a": 1}))], 11).await.unwrap();
        assert!(long.iter().all(|task| !task.is_finished()), "the test needs long reads that still run");
        let impatient = Budget::new(Limits { wait: Duration::from_millis(20), ..GENEROUS });
        let error = store.count("m", &slow, &impatient).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
        budget.cancel();
        for task in long {
            assert!(task.await.unwrap().is_err());
        }
        store.close().await.unwrap();
    });
}
