//! Measures appends to PostgreSQL: durable batches by one or several nodes, then how fast the log is read.
//!
//! `cargo run --release -p snaphook-postgres --example postgres_append [URL] [SECONDS] [NODES]` prints one line per
//! measurement. Without URL (or with `-`), it starts its own server, as the tests do. For comparison: `pgbench` with 64
//! clients that insert single rows of the same size, on the same server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use snaphook_driver::{
    Append, Claim, Event, EventFilter, EventKind, EventQuery, EventStore, Expected, Json, OpenContext, Require, Stream,
};
use snaphook_driver_testkit::servers::postgres;
use snaphook_postgres::PostgresEventStore;

const BATCH: u64 = 64;

fn uuid(number: u64) -> String {
    // Ordered by time at the front and mixed at the end, like UUIDv7.
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(
        "{:08x}-{:04x}-7{:03x}-8{:03x}-{:012x}",
        number >> 20,
        number >> 4 & 0xffff,
        mixed >> 52,
        mixed >> 40 & 0xfff,
        mixed & 0xffff_ffff_ffff
    )
}

fn create(number: u64, with_claims: bool) -> Append {
    let data = json!({"title": format!("film {number}"), "year": 1900 + number % 120, "text": "x".repeat(340)});
    let claims = if with_claims { vec![Claim::new(format!("film title {number}"))] } else { Vec::new() };
    Append {
        event: Event {
            position: 0,
            id: uuid(number * 2),
            kind: EventKind::InstanceCreated,
            model: format!("film{}", number % 3),
            model_version: 1,
            instance: Some(uuid(number * 2 + 1)),
            revision: 1,
            data: Some(Json::from_value(&data)),
            actor: None,
            cause: None,
            hooks: Vec::new(),
            request_id: Some(uuid(number * 3)),
            trace: None,
            time: 1_700_000_000_000,
        },
        expected: Expected::New,
        requires: vec![Require { stream: Stream::of_model(format!("film{}", number % 3)), position: 0 }],
        quiet: None,
        claims,
        releases: Vec::new(),
    }
}

async fn open(url: &str, name: &str) -> PostgresEventStore {
    let connection = json!({"name": name, "settings": {"url": url, "schema": "append_example"}});
    let settings = [("connection".to_owned(), connection)].into_iter().collect();
    PostgresEventStore::open(&OpenContext::new(settings, ".")).await.expect("the store opens")
}

async fn measure(stores: &[Arc<PostgresEventStore>], seconds: f64, round: u64, with_claims: bool) {
    let started = Instant::now();
    let nodes: Vec<_> = stores
        .iter()
        .enumerate()
        .map(|(node, store)| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                let (mut number, mut times) = ((round << 48) + ((node as u64) << 40), Vec::new());
                while started.elapsed().as_secs_f64() < seconds {
                    let batch: Vec<Append> =
                        (number..number + BATCH).map(|number| create(number, with_claims)).collect();
                    number += BATCH;
                    let begun = Instant::now();
                    let answers = store.append(&batch, false).await.expect("the batch is appended");
                    assert!(answers.iter().all(Result::is_ok));
                    times.push(begun.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times: Vec<Duration> = Vec::new();
    for node in nodes {
        times.extend(node.await.expect("a node"));
    }
    let rate = (times.len() as u64 * BATCH) as f64 / started.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{} node(s), batches of {BATCH}, {} claims: {rate:7.0} events/s; per batch p50 {:?}, p99 {:?}, max {:?}",
        stores.len(),
        if with_claims { "with" } else { "without" },
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().filter(|url| url != "-");
    let seconds: f64 = arguments.next().map_or(5.0, |text| text.parse().expect("a number of seconds"));
    let nodes: usize = arguments.next().map_or(3, |text| text.parse().expect("a number of nodes"));
    let server = url.is_none().then(|| postgres::start(&[]));
    let url = url.unwrap_or_else(|| server.as_ref().map(postgres::url).expect("a server"));
    println!("{url}");
    let mut stores = Vec::new();
    for node in 0..nodes {
        stores.push(Arc::new(open(&url, &format!("node{node}")).await));
    }
    let base = stores[0].head().await.expect("a head");
    for (round, (count, with_claims)) in [(1, false), (nodes, false), (1, true)].into_iter().enumerate() {
        measure(&stores[..count], seconds, base + round as u64 + 1, with_claims).await;
    }
    let started = Instant::now();
    let (mut after, mut read) = (base, 0);
    loop {
        let query = EventQuery { after, limit: 1000, filter: EventFilter::default() };
        let page = stores[0].read(&query, None).await.expect("a page");
        let Some(last) = page.events.last() else { break };
        (after, read) = (last.position, read + page.events.len());
    }
    println!("read: {:7.0} events/s", read as f64 / started.elapsed().as_secs_f64());
    for store in stores {
        store.close().await.expect("the store closes");
    }
}
