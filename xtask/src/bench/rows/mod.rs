//! The rows: name, what is measured, and how. To add one, write a function and add a line to this table.

mod cluster;
mod compare;
mod definitions;
mod dev;
mod endpoints;
mod engines;
mod events;
mod hooks;
mod instances;
mod javascript;
mod modules;
mod neighbours;
mod queries;
mod start;
mod stores;

use std::time::Duration;

pub(crate) use compare::compare;

use super::Bench;
use super::http::{Client, request};
use super::load::{Load, LoadOutcome};
use super::report::Row;
use super::server::Server;
use crate::shell::Result;

/// Name, what is measured, how.
pub(crate) type RowEntry = (&'static str, &'static str, fn(&Bench) -> Result<Vec<Row>>);

pub(crate) const ROWS: [RowEntry; 32] = [
    ("generator", "what the load generator can do against a server that does nothing", instances::generator),
    ("cold-start", "process start to first answer, 10 models, cache warm", start::cold_start),
    ("idle-memory", "sqlite drivers, no hook bound", start::idle_memory),
    ("create", "durable creates without hooks", instances::create),
    ("javascript", "creates with QuickJS pre hooks, in times of creates without one", javascript::creates),
    ("get", "get by id", instances::get),
    ("hook-added", "what a pre hook adds to one change", hooks::added),
    ("v8-added", "what a V8 pre hook adds to one change", engines::v8_added),
    ("work", "hooks that compute, in all engines", engines::work),
    ("endpoint", "a component that answers requests", endpoints::endpoint),
    ("sandboxed-module", "what a component that takes part in requests adds to one", endpoints::module),
    ("fairness", "64 hooks that compute at once", engines::fairness),
    ("js-put", "PUT of a JS hook to the first run of the new code", hooks::put_to_first_run),
    ("js-bundle", "PUT of a bundle of 100 KB to its first run", javascript::bundle_to_first_run),
    ("first-start", "a start that has to compile the JavaScript runner", javascript::first_start),
    ("dev-save", "`snaphook dev`: save of a JS hook to bound", dev::save_to_bound),
    ("thousand-hooks", "1,000 JS hooks bound, idle", hooks::thousand),
    ("thousand-mixed", "1,000 hooks of mixed engines: memory, and creates on all their models", engines::mixed),
    ("queries", "sorted pages, scans beside gets, the past and the log, 300,000 instances", queries::queries),
    ("neighbours", "health and creates beside 16 requests that never end", neighbours::neighbours),
    ("modules", "what a native module that declines everything adds to a request", modules::declining),
    ("library", "a call of a driver in a library, against one that is linked", stores::library),
    ("remote", "creates on stores in another process", stores::remote),
    ("postgres", "one and three nodes on PostgreSQL, beside pgbench", cluster::postgres),
    ("nats", "one node on a NATS server, three nodes on three", cluster::nats),
    ("nodes", "a listener at another node, post hooks of a dead one, a new one with a million events", cluster::nodes),
    ("rebuild", "rebuild of the model store from the log", events::rebuild),
    ("rebuild-renames", "the same with changes of its model in the log", definitions::rebuild),
    ("changes", "creates of others while a model of 300,000 rows is changed", definitions::changes),
    ("wide", "a definition of 2,000 properties", definitions::wide),
    ("sse", "one event to 1,000 listeners", events::sse),
    ("flat", "cost of a create as the log grows", events::flat),
];

/// A typical model, with one index.
const MODEL: &str = r#"{"id": "order", "schema": {"type": "object", "required": ["customer", "total"], "properties": {
    "customer": {"type": "string"}, "total": {"type": "number", "minimum": 0}, "paid": {"type": "boolean"},
    "note": {"type": "string"}}}, "indexes": [["customer"]]}"#;

/// The body of creates.
const BODY: &str = r#"{"data":{"customer":"ada-lovelace","total":42.5,"paid":true,"note":"two of each"}}"#;

const INSTANCES: &str = "/models/order/instances";

/// A hook that checks the data and accepts it.
const PRE_HOOK: &str = r#"export function preCreate({ after }) {
  if (after.total > 1000000) throw new Reject("too much", { "/total": "at most a million" });
}"#;

/// Creates the model and returns the client that did so.
fn with_model(server: &Server) -> Result<Client> {
    let mut client = server.client()?;
    client.call("POST", "/models", MODEL)?;
    Ok(client)
}

fn bind(client: &mut Client, model: &str, phase: &str, source: &str) -> Result {
    bind_to(client, "quickjs", model, phase, source)
}

fn bind_to(client: &mut Client, engine: &str, model: &str, phase: &str, source: &str) -> Result {
    let path = format!("/models/{model}/hooks/{phase}?engine={engine}");
    client.call_with("PUT", &path, "text/javascript", source.as_bytes()).map(|_| ())
}

/// Sends creates as fast as possible.
fn press_creates(server: &Server, connections: usize, run: Duration) -> Result<LoadOutcome> {
    let requests = [request("POST", INSTANCES, "application/json", BODY.as_bytes())];
    Load { address: server.address, connections, requests: &requests, status: 201, run }.run()
}

/// The position of the last event.
fn head(client: &mut Client) -> Result<u64> {
    let page = client.call("GET", "/events?limit=1", "")?;
    page["head"].as_u64().ok_or_else(|| format!("the response of `GET /events` has no `head`: {page}"))
}

/// Imports creates until the log has that many events; fails after `within`. Returns the number of events.
fn fill(client: &mut Client, events: u64, within: Duration) -> Result<u64> {
    const LINES: u64 = 50_000;
    let start = std::time::Instant::now();
    let mut count = head(client)?;
    while count < events && start.elapsed() < within {
        let lines = LINES.min(events - count);
        let body = format!("{BODY}\n").repeat(lines as usize);
        let answer = client.call_with("POST", "/models/order/import", "application/x-ndjson", body.as_bytes())?;
        if answer["failed"] != 0 {
            return Err(format!("an import failed: {answer}"));
        }
        count = head(client)?;
    }
    Ok(count)
}
