//! The nodes of a cluster: one server with its own folder each.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use snaphook_driver_testkit::servers::free_port;

use super::across;
use super::backend::{Backend, limit_files};
use crate::crash::GRANT;
use crate::support::{Client, Server, ServerOptions, eventually};

pub(super) struct Nodes {
    /// In order; [`Nodes::mend`] restarts those that have ended.
    servers: Vec<Node>,
    addresses: Vec<SocketAddr>,
    /// The prefix of the command that starts a node.
    environment: &'static [&'static str],
}

enum Node {
    Runs(Server),
    Ended(Server),
}

impl Nodes {
    /// Starts this many nodes on the stores of the backend, one after another.
    pub(super) fn start(count: usize, backend: &Backend) -> Nodes {
        let start = |node| {
            let tables = format!("{}{GRANT}{}", backend.tables(node), across::GRANT);
            let options =
                ServerOptions { tables, by: backend.environment(), port: free_port(), ..ServerOptions::default() };
            Server::start_with(options)
        };
        let servers: Vec<Server> = (0..count).map(start).collect();
        let addresses = servers.iter().map(Server::address).collect();
        Nodes { servers: servers.into_iter().map(Node::Runs).collect(), addresses, environment: backend.environment() }
    }

    /// The addresses, which stay the same after a restart.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    pub(super) fn client(&self, node: usize) -> Client {
        Client::new(self.addresses[node], "/")
    }

    pub(super) fn clients(&self) -> Vec<Client> {
        (0..self.addresses.len()).map(|node| self.client(node)).collect()
    }

    /// The position of the last event in the log.
    #[track_caller]
    pub(super) fn head(&self) -> u64 {
        let metrics = self.client(0).get("/metrics").expect(200).text();
        let gauge = |name: &str| -> u64 {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name} in\n{metrics}")).parse().expect("a number")
        };
        gauge("snaphook_log_head")
    }

    /// Waits until a node has applied the log up to this position.
    #[track_caller]
    pub(super) fn reach(&self, node: usize, position: u64) {
        let api = self.client(node);
        eventually("a node catches up", || {
            let request = api.request("GET", "/models").header("Snaphook-Min-Position", &position.to_string());
            (request.send().status == 200).then_some(())
        });
    }

    /// The complete log, as one node returns it.
    #[track_caller]
    pub(super) fn log(&self, node: usize) -> Vec<Value> {
        let (api, mut events, mut after) = (self.client(node), Vec::new(), String::from("0"));
        loop {
            let mut page = api.get(&format!("/events?after={after}&limit=1000")).expect(200).json();
            if let Value::Array(items) = page["items"].take() {
                events.extend(items);
            }
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => return events,
            }
        }
    }

    /// The folder with a node's configuration and data.
    pub(super) fn directory(&self, node: usize) -> &Path {
        match &self.servers[node] {
            Node::Runs(server) | Node::Ended(server) => server.directory(),
        }
    }

    /// Starts a stopped node, which must fail. Returns its output.
    #[track_caller]
    pub(super) fn refusal(&self, node: usize) -> String {
        let environment = self.environment;
        let output = Command::new(environment[0])
            .args(&environment[1..])
            .args([env!("CARGO_BIN_EXE_snaphook"), "serve"])
            .current_dir(self.directory(node))
            .output()
            .expect("the binary starts");
        assert!(!output.status.success(), "it started");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub(super) fn kill(&mut self, node: usize) {
        self.end(node, Signal::KILL);
    }

    pub(super) fn stop(&mut self, node: usize) {
        self.end(node, Signal::TERM);
    }

    /// The node cannot write to its disk for that time.
    pub(super) fn fill(&mut self, node: usize, time: Duration) {
        if let Node::Runs(server) = &self.servers[node] {
            limit_files(server.pid(), Some(1));
            std::thread::sleep(time);
            limit_files(server.pid(), None);
        }
    }

    /// Pauses the node for that time.
    pub(super) fn pause(&mut self, node: usize, time: Duration) {
        if let Node::Runs(server) = &self.servers[node] {
            server.signal(Signal::STOP);
            std::thread::sleep(time);
            server.signal(Signal::CONT);
        }
    }

    /// Restarts the nodes that have ended, and waits until all are ready.
    #[track_caller]
    pub(super) fn mend(&mut self) {
        let servers = std::mem::take(&mut self.servers);
        self.servers = servers
            .into_iter()
            .map(|node| match node {
                Node::Ended(server) => Node::Runs(server.restart_ended()),
                runs @ Node::Runs(_) => runs,
            })
            .collect();
        for node in 0..self.servers.len() {
            let api = self.client(node);
            eventually("a node is ready", || (api.get("/readyz").status == 200).then_some(()));
        }
    }

    fn end(&mut self, node: usize, signal: Signal) {
        let mut servers = std::mem::take(&mut self.servers);
        let ended = match servers.remove(node) {
            Node::Runs(mut server) => {
                server.signal(signal);
                server.wait();
                server
            }
            Node::Ended(server) => server,
        };
        servers.insert(node, Node::Ended(ended));
        self.servers = servers;
    }
}
