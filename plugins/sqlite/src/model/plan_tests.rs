//! Checks how SQLite executes queries: which indexes it uses, and how many steps it needs.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, StatementStatus, params_from_iter};
use serde_json::{Value, json};
use snaphook_driver::compare::number_key;
use snaphook_driver::{
    Budget, CarryOver, Column, ColumnKind, Condition, Cursor, Event, EventKind, Filter, InstanceQuery, Json, Limits,
    ModelShape, ModelStore, Operator, SortKey,
};

use super::SqliteModelStore;
use super::condition::where_clause;
use super::migrate;
use super::names::Counter;
use super::order::{Order, pack};
use super::query::is_short;
use super::table::{COLUMNS, Table};
use crate::functions;

fn key(text: &str) -> SortKey {
    let (descending, path) = text.strip_prefix('-').map_or((false, text), |path| (true, path));
    SortKey { path: path.split('.').map(str::to_owned).collect::<Vec<_>>().into(), descending }
}

/// A table with these indexes, in memory.
fn table(indexes: &[&[&str]]) -> (Connection, Table) {
    let column = |name: &str, kind| Column { name: name.into(), kind };
    let shape = ModelShape {
        model: "m".into(),
        version: 1,
        columns: vec![
            column("status", ColumnKind::Text),
            column("total", ColumnKind::Number),
            column("any", ColumnKind::Any),
            column("two words", ColumnKind::Text),
        ],
        indexes: indexes.iter().map(|index| index.iter().map(|text| key(text)).collect()).collect(),
        unique: vec![vec!["status".into(), "any".into()]],
        record: Json::trusted("{}"),
    };
    made(&shape)
}

/// Creates the table of a shape in memory.
fn made(shape: &ModelShape) -> (Connection, Table) {
    let table = Table::follow(None, shape, &mut Counter(0));
    let connection = Connection::open_in_memory().unwrap();
    functions::register(&connection, &Arc::default()).unwrap();
    migrate::create(&connection, &table).unwrap();
    (connection, table)
}

fn first_page(filter: &[(&str, Operator)], sort: &[&str]) -> InstanceQuery {
    let condition =
        |(path, operator): &(&str, Operator)| Condition { path: key(path).path, operator: operator.clone() };
    InstanceQuery {
        filter: filter.iter().map(condition).collect::<Vec<_>>().into(),
        sort: sort.iter().map(|text| key(text)).collect(),
        limit: 10,
        cursor: None,
    }
}

/// SQLite's plans for all statements of one page.
fn plan(indexes: &[&[&str]], filter: &[(&str, Operator)], sort: &[&str], after: Option<&Cursor>) -> String {
    let (connection, table) = table(indexes);
    let query = first_page(filter, sort);
    let order = Order::new(&table, &query);
    let bounded = InstanceQuery { cursor: after.map(|_| String::new()), ..query.clone() };
    let statement = where_clause(&table, &query.filter, order.bounded(&bounded));
    let parts = order.parts(after).unwrap();
    let mut plans = Vec::new();
    for part in parts {
        let (sql, parameters) = order.statement(&table, COLUMNS, &statement, part, 10);
        let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let rows = explain.query_map(params_from_iter(&parameters), |row| row.get::<_, String>(3)).unwrap();
        plans.extend(rows.map(Result::unwrap));
    }
    plans.join("\n")
}

#[test]
fn filters_and_sorts_are_answered_from_indexes() {
    let indexes: &[&[&str]] = &[&["status", "-total"], &["-total"], &["deep.name"], &["any"], &["two words"]];
    let is = |text: &str| Operator::Eq(json!(text));
    let real = |value: f64| pack(0, Sql::Blob(number_key(&value.to_string())));
    let text = |class: i64, text: &str| pack(class, Sql::Text(text.into()));
    let none = |class: i64| pack(class, Sql::Null);
    type Case = (Vec<(&'static str, Operator)>, &'static [&'static str], Option<Vec<Value>>);
    let cases: Vec<Case> = vec![
        (vec![], &[], None),
        (vec![], &[], Some(vec![])),
        (vec![("any", is("a"))], &[], None),
        (vec![("any", is("a"))], &[], Some(vec![])),
        (vec![("any", Operator::In(vec![json!(5), Value::Null]))], &[], None),
        (vec![("any", Operator::Exists(false))], &[], None),
        (vec![("total", Operator::Exists(false))], &[], None),
        (vec![("two words", is("a"))], &[], None),
        (vec![("status", is("a")), ("any", is("b"))], &[], None),
        (vec![], &["-total"], None),
        (vec![], &["-total"], Some(vec![real(1.5)])),
        (vec![], &["-total"], Some(vec![none(1)])),
        (vec![], &["status", "-total"], None),
        (vec![], &["status", "-total"], Some(vec![text(0, "a"), real(2.0)])),
        (vec![], &["status", "-total"], Some(vec![text(0, "a"), none(1)])),
        (vec![], &["status", "-total"], Some(vec![none(1), real(2.0)])),
        (vec![], &["any"], Some(vec![text(2, "a")])),
        (vec![], &["any"], Some(vec![none(3)])),
        (vec![("status", is("a"))], &["-total"], None),
        (vec![("status", is("a"))], &["-total"], Some(vec![real(1.5)])),
        (vec![("status", is("a"))], &["status", "-total"], None),
        (vec![("status", is("a"))], &["status", "-total"], Some(vec![text(0, "a"), real(1.5)])),
        (vec![("status", is("a"))], &["-total", "status"], None),
        (vec![("status", is("a")), ("total", Operator::Eq(json!(5)))], &["status"], None),
        (vec![("status", is("a")), ("total", Operator::Lt(json!(5)))], &["-total"], None),
        (vec![("total", Operator::Gt(json!(5)))], &["-total"], None),
        (vec![("total", Operator::Gt(json!(5)))], &["-total"], Some(vec![real(9.5)])),
        (vec![("total", Operator::Exists(true))], &["-total"], None),
        (vec![("total", Operator::Ne(json!(5)))], &["-total"], None),
        (vec![("deep.name", Operator::Gte(json!("a")))], &["deep.name"], None),
        (vec![("deep.name", Operator::Like("ab%".into()))], &["deep.name"], None),
        (vec![("any", Operator::Lt(json!(5)))], &["any"], None),
        (vec![("two words", Operator::Lt(json!("a")))], &["two words"], None),
    ];
    for (filter, sort, keys) in cases {
        let cursor = keys.map(|keys| Cursor { keys, id: "x".into() });
        let plan = plan(indexes, &filter, sort, cursor.as_ref());
        let from_index = plan.lines().all(|line| line.contains("USING INDEX"));
        assert!(from_index, "{filter:?} by {sort:?} after {cursor:?}:\n{plan}");
    }
}

/// Then only rows with equal keys are sorted by id, so at most the rows with one value.
#[test]
fn an_index_serves_the_other_direction_too() {
    let indexes: &[&[&str]] = &[&["status", "-total"], &["-total"], &["any"]];
    let is = |text: &str| Operator::Eq(json!(text));
    let real = || pack(0, Sql::Blob(number_key("1.5")));
    for (filter, sort, keys, parts) in [
        (vec![], "total", None, 2),
        (vec![], "total", Some(real()), 3),
        (vec![], "total", Some(pack(1, Sql::Null)), 1),
        (vec![], "-any", None, 5),
        (vec![], "-any", Some(pack(1, Sql::Blob(number_key("5")))), 5),
        (vec![("status", is("a"))], "total", None, 2),
        (vec![("total", Operator::Gt(json!(5)))], "total", None, 1),
        (vec![("total", Operator::Gt(json!(5)))], "total", Some(real()), 2),
    ] {
        let cursor = keys.map(|key| Cursor { keys: vec![key], id: "x".into() });
        let plan = plan(indexes, &filter, &[sort], cursor.as_ref());
        let name = format!("{filter:?} by {sort} after {cursor:?}:\n{plan}");
        assert_eq!(plan.lines().filter(|line| line.starts_with("SEARCH m1 USING INDEX")).count(), parts, "{name}");
        let rest = plan.lines().filter(|line| !line.starts_with("SEARCH m1 USING INDEX"));
        assert!(rest.into_iter().all(|line| line == "USE TEMP B-TREE FOR LAST TERM OF ORDER BY"), "{name}");
    }
}

#[test]
fn short_queries() {
    let indexes: &[&[&str]] = &[&["status", "-total"], &["-total"]];
    for (filter, sort, short) in [
        (vec![], vec![], true),
        (vec![], vec!["-total"], true),
        // Rows with equal values must be sorted by id.
        (vec![], vec!["total"], false),
        (vec![], vec!["any"], false),
        (vec!["status"], vec!["-total"], true),
        // All rows with this status must be sorted by id.
        (vec!["status"], vec![], false),
        // Many rows may be skipped.
        (vec!["any"], vec!["-total"], false),
        (vec!["status", "total"], vec![], true),
        (vec!["status", "any"], vec![], true),
        (vec!["status", "any"], vec!["-total"], false),
    ] {
        let query = InstanceQuery {
            filter: filter
                .iter()
                .map(|path| {
                    let value = if *path == "total" { json!(1) } else { json!("a") };
                    Condition { path: key(path).path, operator: Operator::Eq(value) }
                })
                .collect::<Vec<_>>()
                .into(),
            sort: sort.iter().map(|text| key(text)).collect(),
            limit: 10,
            cursor: None,
        };
        assert_eq!(is_short(&table(indexes).1, &query), short, "{filter:?} by {sort:?}");
    }
}

#[test]
fn equality_and_ranges_are_searched_not_scanned() {
    let indexes: &[&[&str]] = &[&["status", "-total"], &["deep.name"], &["any"]];
    for (path, operator, terms) in [
        ("status", Operator::Eq(json!("a")), 2),
        ("status", Operator::In(vec![json!("a"), json!("b")]), 2),
        ("status", Operator::Gt(json!("a")), 2),
        ("deep.name", Operator::Eq(json!("a")), 2),
        ("deep.name", Operator::Like("abc%".into()), 3),
        ("any", Operator::Lte(json!(5)), 2),
        ("any", Operator::Eq(json!(true)), 2),
    ] {
        let plan = plan(indexes, &[(path, operator.clone())], &[], None);
        let searched = plan
            .lines()
            .any(|line| line.starts_with("SEARCH m1 USING INDEX") && line.matches(" AND ").count() + 1 >= terms);
        assert!(searched, "{path} {operator:?}: {plan}");
    }
}

/// An index on the first sort key serves every page: rows with equal keys are sorted, and no other rows are read.
#[test]
fn an_index_on_the_first_sort_key_serves_all_pages() {
    let number = |class: i64, text: &str| pack(class, Sql::Blob(number_key(text)));
    let text = |class: i64, text: &str| pack(class, Sql::Text(text.into()));
    let none = |class: i64| pack(class, Sql::Null);
    for (index, sort, keys, parts) in [
        ("total", &["total", "any"][..], vec![number(0, "5"), text(2, "x")], 3),
        ("total", &["total", "-any"], vec![number(0, "5"), none(3)], 3),
        ("total", &["total", "two words", "status"], vec![number(0, "5"), text(0, "x"), text(0, "y")], 3),
        ("total", &["total", "any"], vec![none(1), text(2, "x")], 1),
        // The index is read backwards, class by class.
        ("-total", &["total", "any"], vec![number(0, "5"), text(2, "x")], 3),
        ("any", &["-any", "total"], vec![number(1, "5"), none(1)], 5),
    ] {
        let cursor = Cursor { keys, id: "x".into() };
        let plan = plan(&[&[index]], &[], sort, Some(&cursor));
        let name = format!("{sort:?} after {cursor:?} by {index}:\n{plan}");
        assert_eq!(plan.lines().filter(|line| line.starts_with("SEARCH m1 USING INDEX")).count(), parts, "{name}");
        assert!(!plan.contains("SCAN"), "{name}");
        // Rows that equal the cursor in the index's key are sorted as a whole.
        assert!(plan.matches("USE TEMP B-TREE FOR ORDER BY").count() <= 1, "{name}");
    }
}

/// Steps of SQLite's virtual machine for one page, over a table of 20,000 rows with 10 rows for each value of `a`.
fn steps(sort: &[&str], filter: &[(&str, Operator)], cursor: bool) -> i32 {
    let shape = ModelShape {
        model: "m".into(),
        version: 1,
        columns: vec![Column { name: "a".into(), kind: ColumnKind::Integer }],
        indexes: vec![vec![key("a")]],
        unique: Vec::new(),
        record: Json::trusted("{}"),
    };
    let (connection, table) = made(&shape);
    for row in 0..20_000 {
        let data = json!({"a": row / 10, "c": (row * 7919) % 1000}).to_string();
        let mut insert = connection.prepare_cached(&table.writes[0]).unwrap();
        insert.execute((format!("i{row:05}"), 1, 1, row, 0, data)).unwrap();
    }
    let query = first_page(filter, sort);
    let order = Order::new(&table, &query);
    let number = |class: i64, text: &str| pack(class, Sql::Blob(number_key(text)));
    let keys = [number(0, "1000"), number(1, "500")];
    let cursor = cursor.then(|| Cursor { keys: keys[..sort.len()].to_vec(), id: "i10005".into() });
    let bounded = InstanceQuery { cursor: cursor.as_ref().map(|_| String::new()), ..query.clone() };
    let filter = where_clause(&table, &query.filter, order.bounded(&bounded));
    let mut steps = 0;
    let mut left = 11;
    for part in order.parts(cursor.as_ref()).unwrap() {
        let (sql, parameters) = order.statement(&table, "rowid", &filter, part, left);
        let mut statement = connection.prepare(&sql).unwrap();
        let mut rows = statement.query(params_from_iter(&parameters)).unwrap();
        while rows.next().unwrap().is_some() {
            left -= 1;
        }
        drop(rows);
        steps += statement.get_status(StatementStatus::VmStep);
        if left == 0 {
            break;
        }
    }
    steps
}

#[test]
fn later_pages_cost_what_the_first_one_costs() {
    for sort in [&["a", "c"][..], &["a", "-c"], &["a"], &["-a", "c"], &["-a"]] {
        let (first, later) = (steps(sort, &[], false), steps(sort, &[], true));
        assert!(first < 3000 && later < 3000, "{sort:?}: {first} and {later} steps");
    }
    for (sort, operator) in [
        (["a", "c"], Operator::Gte(json!(500))),
        (["a", "c"], Operator::Lt(json!(1001))),
        (["-a", "c"], Operator::Lte(json!(1500))),
        (["-a", "c"], Operator::Gt(json!(999))),
    ] {
        let filter = [("a", operator)];
        let later = steps(&sort, &filter, true);
        assert!(later < 3000, "{sort:?} and {filter:?}: {later} steps");
    }
    // Without an index, the whole table is read.
    assert!(steps(&["c"], &[], false) > 100_000);
}

fn create(position: u64, id: &str, data: String) -> Event {
    snaphook_driver::json::from_tree(json!({
        "position": position, "id": id, "type": EventKind::InstanceCreated.as_str(), "model": "m", "model_version": 1,
        "instance": id, "revision": 1, "data": null, "actor": null, "cause": null, "request_id": null,
        "time": "1970-01-01T00:00:00.000Z",
    }))
    .map(|event| Event { data: Some(Json::trusted(data)), ..event })
    .unwrap()
}

/// A store with one model and rows of a certain size.
async fn filled(folder: &tempfile::TempDir, rows: u64, text: &str) -> SqliteModelStore {
    let store = SqliteModelStore::open(&folder.path().join("models.db")).unwrap();
    let shape = ModelShape {
        model: "m".into(),
        version: 1,
        columns: vec![Column { name: "n".into(), kind: ColumnKind::Integer }],
        indexes: Vec::new(),
        unique: Vec::new(),
        record: Json::trusted("{}"),
    };
    store.define(0, None, &shape, &CarryOver::default(), 1).await.unwrap();
    let events: Vec<Event> =
        (0..rows).map(|row| create(row + 2, &format!("i{row:06}"), json!({"n": row, "t": text}).to_string())).collect();
    store.apply(0, &events, rows + 1).await.unwrap();
    store
}

fn like(pattern: &str) -> Filter {
    Condition { path: vec!["t".to_owned()].into(), operator: Operator::Like(pattern.into()) }.into()
}

const GENEROUS: Limits =
    Limits { steps: u64::MAX, time: Duration::from_secs(3600), memory: 64 << 20, wait: Duration::from_secs(3600) };

/// Long reads have a few separate permits; short reads finish in the meantime, and a read that waits too long gets an
/// error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_reads_do_not_hold_up_short_ones() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = Arc::new(filled(&folder, 5, &"a".repeat(100_000)).await);
    let slow = like(&format!("%{}_b%", "a".repeat(400)));
    let budget = Budget::new(GENEROUS);
    let long: Vec<_> = (0..8)
        .map(|_| {
            let (store, slow, budget) = (Arc::clone(&store), slow.clone(), budget.clone());
            tokio::spawn(async move { store.count("m", &slow, &budget).await })
        })
        .collect();
    while budget.steps() < 1_000_000 {
        tokio::task::yield_now().await;
    }
    let short = Budget::new(GENEROUS);
    assert!(store.get("m", "i000003").await.unwrap().is_some());
    let found = store
        .count("m", &Condition { path: vec!["n".to_owned()].into(), operator: Operator::Eq(json!(3)) }.into(), &short)
        .await;
    assert_eq!(found.unwrap(), 1);
    assert!(long.iter().all(|task| !task.is_finished()), "the test needs long reads that still run");
    let impatient = Budget::new(Limits { wait: Duration::from_millis(20), ..GENEROUS });
    let error = store.count("m", &slow, &impatient).await.unwrap_err();
    assert_eq!(error.kind(), snaphook_driver::ErrorKind::Overloaded, "{error}");
    budget.cancel();
    for task in long {
        assert!(task.await.unwrap().is_err());
    }
    store.close().await.unwrap();
}

/// Sort keys that no index provides are kept in memory while SQLite sorts.
#[tokio::test]
async fn long_sort_keys_are_counted() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = filled(&folder, 50, &"a".repeat(100_000)).await;
    let query = InstanceQuery { sort: vec![key("t")], limit: 1, ..InstanceQuery::default() };
    let error = store.query("m", &query, &Budget::new(Limits { memory: 1_000_000, ..GENEROUS })).await.unwrap_err();
    assert_eq!(error.kind(), snaphook_driver::ErrorKind::TooComplex, "{error}");
    assert!(error.message().contains("memory"), "{error}");
    let query = InstanceQuery { sort: vec![key("-n")], limit: 1, ..InstanceQuery::default() };
    let page = store.query("m", &query, &Budget::new(Limits { memory: 1_000_000, ..GENEROUS })).await.unwrap();
    assert_eq!(page.items[0].id, "i000049");
    store.close().await.unwrap();
}
