//! Measures how fast a log is applied to instances in PostgreSQL, and how long reads of them take.
//!
//! `cargo run --release -p snaphook-postgres --example apply [URL] [INSTANCES] [BATCH]` prints one line per
//! measurement. Without URL (or with `-`), it starts its own server, as the tests do.

use std::time::Instant;

use serde_json::json;
use snaphook_driver::{
    Budget, CarryOver, Column, ColumnKind, Condition, Event, EventKind, Filter, InstanceQuery, Json, ModelShape,
    ModelStore, OpenContext, Operator, SortKey,
};
use snaphook_driver_testkit::servers::postgres;
use snaphook_postgres::PostgresModelStore;

fn event(number: u64) -> Event {
    let data = json!({"title": format!("film {number}"), "year": 1900 + number % 120, "text": "x".repeat(340)});
    Event {
        position: number + 2,
        id: format!("e{number}"),
        kind: EventKind::InstanceCreated,
        model: "film".into(),
        model_version: 1,
        instance: Some(format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
        revision: 1,
        data: Some(Json::from_value(&data)),
        actor: None,
        cause: None,
        hooks: Vec::new(),
        request_id: None,
        trace: None,
        time: 1_700_000_000_000,
    }
}

fn key(property: &str) -> SortKey {
    SortKey { path: vec![property.to_owned()].into(), descending: false }
}

async fn timed<T>(what: &str, work: impl Future<Output = snaphook_driver::Result<T>>) -> T {
    let started = Instant::now();
    let value = work.await.expect("the call succeeds");
    println!("{what}: {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    value
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().filter(|url| url != "-");
    let mut number = |default: u64| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (count, batch) = (number(100_000), number(1000));
    let server = url.is_none().then(|| postgres::start(&[]));
    let url = url.unwrap_or_else(|| server.as_ref().map(postgres::url).unwrap_or_default());
    let connection = json!({"name": "main", "settings": {"url": url, "schema": "apply_example"}});
    let settings = [("connection".to_owned(), connection)].into_iter().collect();
    let store = PostgresModelStore::open(&OpenContext::new(settings, ".")).await.expect("the store opens");
    store.reset("example").await.expect("the store is emptied");
    let column = |name: &str, kind| Column { name: name.to_owned(), kind };
    let shape = ModelShape {
        model: "film".into(),
        version: 1,
        columns: vec![column("title", ColumnKind::Text), column("year", ColumnKind::Integer)],
        indexes: vec![vec![key("year"), key("title")]],
        unique: Vec::new(),
        record: Json::trusted("{}"),
    };
    store.define(0, None, &shape, &CarryOver::default(), 1).await.expect("the model is defined");
    let batches: Vec<Vec<Event>> =
        (0..count).step_by(batch as usize).map(|from| (from..count.min(from + batch)).map(event).collect()).collect();
    let started = Instant::now();
    let mut after = 1;
    for events in &batches {
        let to = events.last().map_or(after, |event| event.position);
        store.apply(after, events, to).await.expect("the batch is applied");
        after = to;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("apply, batches of {batch}: {:.0} events/s", count as f64 / seconds);
    let unlimited = Budget::unlimited();
    let filter = Filter::from(Condition { path: vec!["year".to_owned()].into(), operator: Operator::Eq(json!(1950)) });
    let page = InstanceQuery { filter: filter.clone(), sort: vec![key("title")], limit: 20, cursor: None };
    let first = timed("page of 20 by an index", store.query("film", &page, &unlimited)).await;
    let next = InstanceQuery { cursor: first.next, ..page };
    timed("the next one", store.query("film", &next, &unlimited)).await;
    timed("count by an index", store.count("film", &filter, &unlimited)).await;
    timed("count of all", store.count("film", &Filter::default(), &unlimited)).await;
    let text = Filter::from(Condition { path: vec!["text".to_owned()].into(), operator: Operator::Eq(json!("none")) });
    timed("count without an index", store.count("film", &text, &unlimited)).await;
    let sorted = InstanceQuery { sort: vec![key("text")], limit: 20, ..InstanceQuery::default() };
    timed("page of 20 without an index", store.query("film", &sorted, &unlimited)).await;
    timed("one instance", store.get("film", "0000000000000000")).await;
    let next = ModelShape { version: 2, indexes: vec![vec![key("title")]], ..shape };
    timed("prepare of another index", store.prepare(&next, &CarryOver::default())).await;
    timed("define", store.define(after, None, &next, &CarryOver::default(), after + 1)).await;
    store.close().await.expect("the store closes");
}
