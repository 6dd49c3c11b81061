//! Several nodes on shared stores, with real servers of PostgreSQL and NATS on the same cores.

use std::process::Command;
use std::time::{Duration, Instant};

use snaphook_driver_servers::{nats as nats_server, postgres as postgres_server};

use super::super::Bench;
use super::super::http::request;
use super::super::load::{Load, LoadOutcome};
use super::super::report::{Goal, Row, percentiles};
use super::super::server::Server;
use super::events::{Listeners, rebuild_on};
use super::{BODY, INSTANCES, bind, fill, press_creates, with_model};
use crate::needs;
use crate::shell::{Result, read};

const CONNECTIONS: usize = 63;

/// How often each side of a comparison runs; the median counts.
const ROUNDS: usize = 3;

pub(crate) fn postgres(bench: &Bench) -> Result<Vec<Row>> {
    needs::servers()?;
    let database = postgres_server::start(&[]);
    let url = postgres_server::url(&database);
    let stores = |schema: &str, models: Models| on_postgres(&url, schema, models);
    let mut rows = Vec::new();

    let insert = bench.scratch.path().join("insert.sql");
    std::fs::write(&insert, "INSERT INTO single (data) VALUES ('{\"customer\":\"ada-lovelace\",\"total\":42.5}');\n")
        .map_err(|error| format!("cannot write {}: {error}", insert.display()))?;
    let table = "CREATE TABLE single (id bigserial PRIMARY KEY, data text NOT NULL)";
    // A server that accepts connections may still be starting up.
    let begun = Instant::now();
    while let Err(error) = read(psql(&url)?.args(["-q", "-c", table])) {
        if begun.elapsed() > Duration::from_secs(30) {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let one = bench.server("postgres-one", &stores("one", Models::OfEachNode))?;
    with_model(&one)?;
    let sharing = bench.server("postgres-sharing", &stores("sharing", Models::Shared))?;
    with_model(&sharing)?;
    let three = Nodes::start(bench, "postgres-three", &stores("three", Models::OfEachNode), 3)?;
    let (mut inserts, mut creates, mut shared, mut of_three) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        inserts.push(single_inserts(&url, &insert, bench.run)?);
        creates.push(press_creates(&one, 64, bench.run)?);
        shared.push(press_creates(&sharing, 64, bench.run)?);
        of_three.push(three.press(bench.run)?);
    }
    let inserts = middle(inserts, |rate| *rate);
    let creates = middle(creates, LoadOutcome::per_second);
    let shared = middle(shared, LoadOutcome::per_second);
    let of_three = middle(of_three, LoadOutcome::per_second);
    let what = "create, one node, events in PostgreSQL, 64 connections";
    rows.push(Row::rate(what, Goal::AtLeast(inserts * 1.3), &creates, one.memory()?));
    let what = "create, one node, events and instances in PostgreSQL, 64 connections";
    rows.push(Row::rate(what, Goal::None, &shared, sharing.memory()?));
    rows.push(Row {
        what: "the first in times of single durable inserts of pgbench, 64 clients".into(),
        goal: Goal::AtLeast(1.3),
        unit: "",
        measured: creates.per_second() / inserts,
        detail: format!("pgbench {inserts:.0} /s"),
        memory: None,
    });
    rows.push(Row {
        what: "create, three nodes on PostgreSQL together, in times of one".into(),
        goal: Goal::AtLeast(1.0),
        unit: "",
        measured: of_three.per_second() / creates.per_second(),
        detail: format!("{:.0} /s, {}", of_three.per_second(), percentiles(&of_three)),
        memory: None,
    });
    three.stop()?;
    sharing.stop()?;
    one.stop()?;
    rows.push(rebuild_on(bench, "postgres", &stores("rebuild", Models::Shared), 100_000, 20_000.0)?);
    Ok(rows)
}

pub(crate) fn nats(bench: &Bench) -> Result<Vec<Row>> {
    let folder = needs::servers()?;
    let mut rows = Vec::new();
    {
        let bus = nats_server::start_in(&folder, "always");
        let server = bench.server("nats-one", &on_nats(&nats_server::url(&bus), 1))?;
        with_model(&server)?;
        let outcome = press_creates(&server, 64, bench.run)?;
        let what = "create, one node on one NATS server with fsync, 64 connections";
        rows.push(Row::rate(what, Goal::AtLeast(25_000.0), &outcome, server.memory()?));
        server.stop()?;
    }
    let buses = nats_server::cluster_in(&folder, 3, "always");
    let urls: Vec<String> = buses.iter().map(nats_server::url).collect();
    let nodes = Nodes::start(bench, "nats-three", &on_nats(&urls.join(","), 3), 3)?;
    let outcome = nodes.press(bench.run)?;
    let what = "create, three nodes on three NATS servers (R3) with fsync, together";
    rows.push(Row::rate(what, Goal::AtLeast(22_000.0), &outcome, nodes.0[0].memory()?));
    nodes.stop()?;
    Ok(rows)
}

pub(crate) fn nodes(bench: &Bench) -> Result<Vec<Row>> {
    let folder = needs::servers()?;
    let mut rows = Vec::new();
    let bus = nats_server::start_in(&folder, "always");
    let stores = on_nats(&nats_server::url(&bus), 1);
    let nodes = Nodes::start(bench, "nodes", &stores, 2)?;
    rows.push(other_listener(&nodes)?);
    rows.push(take_over(nodes)?);

    // A million events, and time for a snapshot.
    let first = bench.server("nodes-full", &stores)?;
    let mut client = first.client()?;
    let events = fill(&mut client, 1_000_000, Duration::from_secs(300))?;
    let second = bench.server("nodes-new", &stores)?;
    let row = Row::time("a new node on NATS is ready", Some(Duration::from_secs(30)), second.ready_after);
    rows.push(row.with_detail(format!("{events} events in the log")).with_memory(second.memory()?));
    second.stop()?;
    first.stop()?;
    Ok(rows)
}

/// The time from sending a create to one node until a listener at another node receives its event.
fn other_listener(nodes: &Nodes) -> Result<Row> {
    const LISTENERS: usize = 10;
    const EVENTS: usize = 200;
    let [here, there, ..] = &nodes.0[..] else { return Err("two nodes are needed".into()) };
    let mut client = here.client()?;
    let mut listeners = Listeners::connect(there, LISTENERS)?;
    let create = request("POST", INSTANCES, "application/json", BODY.as_bytes());
    let mut latencies = Vec::with_capacity(LISTENERS * EVENTS);
    for _ in 0..EVENTS {
        let sent_at = Instant::now();
        client.send(&create)?;
        listeners.wait_for_all(sent_at, &mut latencies)?;
    }
    let outcome = LoadOutcome::new(latencies, Duration::from_secs(1));
    let bound = Some(Duration::from_millis(100));
    let row = Row::time("SSE: an event to listeners at another node, p99", bound, outcome.percentile(0.99));
    Ok(row.with_detail(format!("{EVENTS} events: {}", percentiles(&outcome))))
}

/// One of two nodes is killed while both run post hooks; in the end every event's hook must have run.
fn take_over(mut nodes: Nodes) -> Result<Row> {
    const COUNT: usize = 400;
    const HOOK: &str = "export async function postCreate() { await new Promise((done) => setTimeout(done, 200)); }";
    let mut client = nodes.0[1].client()?;
    let model = r#"{"id": "slow", "schema": {"type": "object"}}"#;
    client.call("POST", "/models", model)?;
    bind(&mut client, "slow", "postCreate", HOOK)?;
    let create = request("POST", "/models/slow/instances", "application/json", br#"{"data":{}}"#);
    for _ in 0..COUNT {
        client.send(&create)?;
    }
    // Dropping the node kills it.
    drop(nodes.0.remove(0));
    let died_at = Instant::now();
    let backlog = |client: &mut super::super::http::Client| -> Result<u64> {
        let (_, body) = client.send(&request("GET", "/metrics", "", b""))?;
        let text = String::from_utf8_lossy(&body).into_owned();
        let line =
            text.lines().find(|line| line.starts_with("snaphook_post_hook_backlog{") && line.contains("\"slow\""));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(value.ok_or("no backlog of post hooks in the metrics")? as u64)
    };
    while backlog(&mut client)? > 0 {
        if died_at.elapsed() > Duration::from_secs(60) {
            return Err("post hooks of a dead node did not run within 60 s".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = died_at.elapsed();
    drop(client);
    nodes.stop()?;
    let row = Row::time("all post hooks of a dead node have run at another one", Some(Duration::from_secs(15)), took);
    Ok(row.with_detail(format!("{COUNT} events with hooks of 200 ms")))
}

struct Nodes(Vec<Server>);

impl Nodes {
    fn start(bench: &Bench, name: &str, stores: &str, count: usize) -> Result<Nodes> {
        let nodes = (0..count).map(|node| bench.server(&format!("{name}-{node}"), stores));
        let nodes = Nodes(nodes.collect::<Result<Vec<_>>>()?);
        with_model(&nodes.0[0])?;
        // Waits until each node knows the model, before it receives requests for instances.
        for node in &nodes.0[1..] {
            let deadline = Instant::now() + Duration::from_secs(10);
            while node.client()?.call("GET", "/models/order", "").is_err() {
                if Instant::now() > deadline {
                    return Err("a node does not see the changes of another one".into());
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(nodes)
    }

    /// Sends creates to all nodes at once.
    fn press(&self, run: Duration) -> Result<LoadOutcome> {
        let requests = [request("POST", INSTANCES, "application/json", BODY.as_bytes())];
        let connections = CONNECTIONS / self.0.len();
        let loads = self.0.iter().map(|node| Load {
            address: node.address,
            connections,
            requests: &requests,
            status: 201,
            run,
        });
        let outcomes: Vec<Result<LoadOutcome>> = std::thread::scope(|scope| {
            let threads: Vec<_> = loads.map(|load| scope.spawn(move || load.run())).collect();
            let ended = threads.into_iter().map(|thread| thread.join());
            ended.map(|outcome| outcome.unwrap_or_else(|_| Err("a load ended in a panic".into()))).collect()
        });
        Ok(LoadOutcome::beside(outcomes.into_iter().collect::<Result<Vec<_>>>()?))
    }

    fn stop(self) -> Result {
        self.0.into_iter().try_for_each(Server::stop)
    }
}

/// Where the nodes on PostgreSQL keep instances.
#[derive(Clone, Copy, PartialEq)]
enum Models {
    OfEachNode,
    Shared,
}

/// Configures stores on PostgreSQL for events and errors, and with [`Models::Shared`] for instances. Secrets stay in a
/// file of each node.
fn on_postgres(url: &str, schema: &str, models: Models) -> String {
    let store = |store: &&str| format!("[driver-{store}-storage]\ndriver = 'postgres'\nconnection = 'main'\n");
    let there: &[&str] = if models == Models::Shared { &["event", "error", "model"] } else { &["event", "error"] };
    let stores: String = there.iter().map(store).collect();
    format!("[connections.main]\ndriver = 'postgres'\nurl = '{url}'\nschema = '{schema}'\n{stores}")
}

/// Configures NATS for events. Everything else stays in files of each node.
fn on_nats(urls: &str, replicas: usize) -> String {
    format!(
        "[connections.bus]\ndriver = 'nats'\nurl = '{urls}'\nreplicas = {replicas}\n\
         [driver-event-storage]\ndriver = 'nats'\nconnection = 'bus'\npath = 'data/nats.db'\n"
    )
}

/// The rate of single inserts by 64 clients, per second.
fn single_inserts(url: &str, script: &std::path::Path, run: Duration) -> Result<f64> {
    let seconds = run.as_secs().max(1).to_string();
    let mut command = pgbench(url)?;
    command.args(["-n", "-M", "prepared", "-c", "64", "-j", "2", "-T", &seconds, "-f"]).arg(script);
    let said = read(&mut command)?;
    let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    rate.ok_or_else(|| format!("pgbench reports no rate: {said}"))
}

fn pgbench(url: &str) -> Result<Command> {
    client_of_postgres("pgbench", url)
}

fn psql(url: &str) -> Result<Command> {
    client_of_postgres("psql", url)
}

fn client_of_postgres(name: &str, url: &str) -> Result<Command> {
    let mut command = Command::new(postgres_server::program_of(name));
    let (user, rest) = url.trim_start_matches("postgres://").split_once('@').ok_or("an address without a user")?;
    let (address, database) = rest.split_once('/').ok_or("an address without a database")?;
    let (host, port) = address.rsplit_once(':').ok_or("an address without a port")?;
    let variables = [("PGUSER", user), ("PGHOST", host), ("PGPORT", port), ("PGDATABASE", database)];
    command.envs(variables);
    Ok(command)
}

fn middle<T>(mut values: Vec<T>, of: impl Fn(&T) -> f64) -> T {
    values.sort_by(|a, b| of(a).total_cmp(&of(b)));
    values.swap_remove(values.len() / 2)
}
