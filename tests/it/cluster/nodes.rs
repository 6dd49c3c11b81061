//! The nodes of a cluster: each a server with a folder of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use snaphook_driver_testkit::servers::free_port;

use super::across;
use super::backend::Backend;
use crate::crash::GRANT;
use crate::support::{Client, Server, ServerOptions, eventually};

pub(super) struct Nodes {
    /// In order; one that has ended is started again by [`Nodes::mend`].
    servers: Vec<Node>,
    addresses: Vec<SocketAddr>,
    /// The command that starts one begins with this.
    environment: &'static [&'static str],
}

enum Node {
    Runs(Server),
    Ended(Server),
}

impl Nodes {
    /// Starts so many on the stores of the backend, one after the other.
    pub(super) fn start(count: usize, backend: &Backend) -> Nodes {
        let start = |_| {
            let tables = format!("{}{GRANT}{}", backend.tables(), across::GRANT);
            let options =
                ServerOptions { tables, by: backend.environment(), port: free_port(), ..ServerOptions::default() };
            Server::start_with(options)
        };
        let servers: Vec<Server> = (0..count).map(start).collect();
        let addresses = servers.iter().map(Server::address).collect();
        Nodes { servers: servers.into_iter().map(Node::Runs).collect(), addresses, environment: backend.environment() }
    }

    /// They stay the same when a node is started again.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    pub(super) fn client(&self, node: usize) -> Client {
        Client::new(self.addresses[node], "/")
    }

    pub(super) fn clients(&self) -> Vec<Client> {
        (0..self.addresses.len()).map(|node| self.client(node)).collect()
    }

    /// Position of the last event of the log.
    #[track_caller]
    pub(super) fn head(&self) -> u64 {
        let metrics = self.client(0).get("/metrics").expect(200).text();
        let gauge = |name: &str| -> u64 {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name} in\n{metrics}")).parse().expect("a number")
        };
        gauge("snaphook_log_head")
    }

    /// Waits until a node has applied the log up to there.
    #[track_caller]
    pub(super) fn reach(&self, node: usize, position: u64) {
        let api = self.client(node);
        eventually("a node catches up", || {
            let request = api.request("GET", "/models").header("Snaphook-Min-Position", &position.to_string());
            (request.send().status == 200).then_some(())
        });
    }

    /// The whole log, as one node has it.
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

    /// Where a node's configuration and data are.
    pub(super) fn directory(&self, node: usize) -> &Path {
        match &self.servers[node] {
            Node::Runs(server) | Node::Ended(server) => server.directory(),
        }
    }

    /// What a node that has ended says when it does not start.
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

    /// It stands still for that time.
    pub(super) fn pause(&mut self, node: usize, time: Duration) {
        if let Node::Runs(server) = &self.servers[node] {
            server.signal(Signal::STOP);
            std::thread::sleep(time);
            server.signal(Signal::CONT);
        }
    }

    /// Starts what has ended, and waits until all nodes are ready.
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
