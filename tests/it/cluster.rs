//! Several nodes on one log: clients write to and read from all of them, while nodes and store servers are killed,
//! paused, cut off from each other, or out of disk space. No acknowledged write may be lost or duplicated, all nodes
//! must agree, listeners that move between nodes must see every event once, and post hooks must run in order.

mod across;
mod backend;
mod histories;
mod linear;
mod link;
mod listener;
mod nodes;
mod packaging;
mod references;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use self::backend::Backend;
use self::link::Break;
use self::listener::Listener;
use self::nodes::Nodes;
use crate::chance::Chance;
use crate::crash::ledger::{Attempt, Ledger, events_after};
use crate::crash::writer::{LedgerWriter, Servers};
use crate::crash::{self, CODES, MODEL, WRITERS};
use crate::support::{Client, eventually, list};

/// Rounds with faults; `cargo xtask test --long` runs more.
const ROUNDS: usize = 3;
const ROUNDS_LONG: usize = 20;

fn rounds() -> usize {
    if std::env::var_os("SNAPHOOK_TEST_LONG").is_some() { ROUNDS_LONG } else { ROUNDS }
}

/// What happens to the cluster during the writes of a round.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillNode,
    StopNode,
    PauseNode,
    /// The node cannot write to its disk.
    FillNode,
    KillStore,
    PauseStore,
    FillStore,
    /// The link between a node and its stores breaks.
    Break(Break),
}

const FAULTS: [Fault; 10] = [
    Fault::KillNode,
    Fault::StopNode,
    Fault::PauseNode,
    Fault::FillNode,
    Fault::KillStore,
    Fault::PauseStore,
    Fault::FillStore,
    Fault::Break(Break::Cut),
    Fault::Break(Break::Silent),
    Fault::Break(Break::Unanswered),
];

/// Runs rounds of writes to all nodes of a new cluster; the first round has no faults.
fn run(mut backend: Backend) {
    let mut chance = Chance::new();
    let mut nodes = Nodes::start(3, &backend);
    let mut ledger = Ledger::default();
    let attempts = crash::prepare(&nodes.client(0));
    let mut attempts = ledger.settle(&nodes.client(0), attempts);
    let listeners: Vec<_> = (0..3).map(|_| Listener::start(nodes.addresses(), chance.fork())).collect();
    for round in 0..=rounds() {
        let faults = if round == 0 { 0 } else { chance.within(1..4) };
        attempts.extend(write(&mut nodes, &mut backend, &ledger, &mut chance, round, faults));
        nodes.mend();
        attempts = ledger.settle(&nodes.client(round % 3), attempts);
        agree(&nodes, &listeners);
        if round == 0 {
            let repeated = crash::check_hooks(&nodes.client(0), &ledger);
            assert_eq!(repeated, 0, "without faults each post hook runs once");
        }
    }
    ledger.settle(&nodes.client(0), attempts);
    println!(
        "{} events, {} writes acknowledged, {} without an answer, {} of those stored",
        ledger.history.len(),
        ledger.acknowledged,
        ledger.unanswered,
        ledger.surfaced
    );
    crash::check_hooks(&nodes.client(1), &ledger);
    ledger.check_claims(&nodes.client(2), CODES);
    check_rebuilds(&nodes, backend.shares_models());
    listeners.into_iter().for_each(Listener::end);
}

/// Runs sixteen writers, each on all nodes in turn, and one that changes the model, during this many faults.
fn write(
    nodes: &mut Nodes,
    backend: &mut Backend,
    ledger: &Ledger,
    chance: &mut Chance,
    round: usize,
    faults: usize,
) -> Vec<Attempt> {
    let (acknowledged, ends) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let seen = nodes.head();
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let servers = Servers::Cluster { nodes: nodes.clients(), at: number, seen, ends: Arc::clone(&ends) };
            let writer = LedgerWriter::new(number, round, ledger, servers, chance.fork(), &acknowledged);
            std::thread::spawn(move || writer.run())
        })
        .collect();
    let definer = std::thread::spawn({
        let (clients, ends) = (nodes.clients(), Arc::clone(&ends));
        move || change_model(&clients, &ends)
    });
    let written = |more: usize| {
        let enough = acknowledged.load(Ordering::Relaxed) + more;
        eventually("the cluster is written to", || (acknowledged.load(Ordering::Relaxed) >= enough).then_some(()));
    };
    written(chance.within(100..400));
    for _ in 0..faults {
        let (fault, node) = (FAULTS[chance.below(FAULTS.len())], chance.below(3));
        let (server, whole) = (chance.below(backend.servers()), chance.one_in(2));
        let pause = Duration::from_millis(chance.within(100..3000) as u64);
        println!("round {round}: {fault:?}, node {node}, server {server}, {} ms, {whole}", pause.as_millis());
        match fault {
            Fault::KillNode => nodes.kill(node),
            Fault::StopNode => nodes.stop(node),
            Fault::PauseNode => nodes.pause(node, pause),
            Fault::KillStore => backend.kill(server, pause),
            Fault::PauseStore => backend.pause(server, pause),
            Fault::FillNode => nodes.fill(node, pause),
            Fault::FillStore => backend.fill(server, pause, whole),
            Fault::Break(how) => backend.break_off(node, (!whole).then_some(server), how, pause),
        }
        // The remaining nodes continue.
        written(chance.within(20..200));
        nodes.mend();
        written(chance.within(20..100));
    }
    ends.store(true, Ordering::Relaxed);
    definer.join().expect("the one that changes the model");
    writers.into_iter().flat_map(|writer| writer.join().expect("a writer")).collect()
}

/// Switches the model from one index to another, on one node after another.
fn change_model(nodes: &[Client], ends: &AtomicBool) {
    for (number, index) in ["pad", "n"].into_iter().cycle().enumerate() {
        if ends.load(Ordering::Relaxed) {
            return;
        }
        let body = crash::definition(index);
        let request = nodes[number % nodes.len()].request("PUT", &format!("/models/{MODEL}")).json(&body);
        // A stopped node does not respond, and one of two concurrent changes is rejected.
        if let Ok(response) = request.try_send() {
            assert!(matches!(response.status, 200 | 409 | 503), "{}: {}", response.status, response.text());
        }
        // Paces the changes, so that the writers make progress in between.
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// All nodes have the same log and the same instances, and each listener received every event.
#[track_caller]
fn agree(nodes: &Nodes, listeners: &[Listener]) {
    let of = |node: usize, head: u64| {
        nodes.reach(node, head);
        let api = nodes.client(node);
        (nodes.log(node), [MODEL, "log"].map(|model| list(&api, model)))
    };
    // Post hooks may still be writing.
    let all = eventually("nothing is written any more", || {
        let head = nodes.head();
        let all: Vec<_> = (0..3).map(|node| of(node, head)).collect();
        (nodes.head() == head).then_some(all)
    });
    for (node, (log, instances)) in all.iter().enumerate().skip(1) {
        assert!(*log == all[0].0, "node {node} has another log than node 0");
        assert!(*instances == all[0].1, "node {node} has other instances than node 0");
    }
    let positions: Vec<u64> = all[0].0.iter().map(position).collect();
    listeners.iter().for_each(|listener| listener.check(&positions));
}

fn position(event: &Value) -> u64 {
    event["position"].as_u64().expect("a position")
}

/// Rebuilds a node's model store, which must be the same afterwards. `false`: something was written meanwhile, by a hook
/// that ran again because its acknowledgement was lost.
#[track_caller]
fn is_rebuilt(nodes: &Nodes, node: usize, shares_models: bool) -> bool {
    let (api, head) = (nodes.client(node), nodes.head());
    nodes.reach(node, head);
    let before = [MODEL, "log"].map(|model| list(&api, model));
    api.request("POST", "/rebuild").send().expect(202);
    let other = nodes.client((node + 1) % 3);
    eventually("the rebuild is done", || {
        // Nodes that share the model store wait for the rebuild too.
        let answer = other.get(&format!("/models/{MODEL}/instances?limit=1"));
        assert!(answer.status == 200 || shares_models && answer.status == 503, "{}", answer.text());
        let progress = api.get("/rebuild").expect(200).json();
        assert_ne!(progress["state"], "failed", "{progress}");
        (progress["state"] == "done").then_some(())
    });
    eventually("all nodes are ready", || {
        (0..3).all(|node| nodes.client(node).get("/readyz").status == 200).then_some(())
    });
    let after = [MODEL, "log"].map(|model| list(&api, model));
    if nodes.head() != head {
        return false;
    }
    for (before, after) in before.iter().zip(&after) {
        let differing = before.iter().zip(after).find(|(before, after)| before != after);
        let numbers = (before.len(), after.len());
        assert!(before == after, "a rebuild of node {node} makes another model store: {differing:?}, {numbers:?}");
    }
    true
}

/// Every node's model store equals a rebuild from the log; the other nodes keep serving meanwhile.
#[track_caller]
fn check_rebuilds(nodes: &Nodes, shares_models: bool) {
    for node in 0..3 {
        eventually("nothing is written during a rebuild", || is_rebuilt(nodes, node, shares_models).then_some(()));
    }
    let events = events_after(&nodes.client(0), 0, MODEL);
    assert_eq!(events_after(&nodes.client(2), 0, MODEL), events);
}

#[test]
fn nodes_on_postgres_with_models_of_their_own() {
    run(Backend::postgres(false));
}

#[test]
fn nodes_on_postgres_that_share_their_models() {
    run(Backend::postgres(true));
}

#[test]
fn nodes_on_three_nats_servers() {
    run(Backend::nats());
}
