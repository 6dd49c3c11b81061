//! The servers that a cluster keeps its stores on, and the ways that its nodes have to them.

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use snaphook_driver_testkit::servers::{Server, Signal, nats, postgres, redis};

use super::link::{Break, Link};

/// Every node must have the same private key.
const KEY: &str = "SNAPHOOK_KEY=AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

/// No cluster has more nodes.
const NODES: usize = 3;

pub(super) struct Backend {
    /// The tables of the configuration of each node.
    tables: Vec<String>,
    /// Of each node, to each of the servers.
    links: Vec<Vec<Link>>,
    /// What is killed and paused, one at a time.
    servers: Vec<Server>,
    /// Else NATS.
    is_postgres: bool,
    /// Whether the nodes keep instances in one place.
    shares_models: bool,
    /// What ends with the cluster.
    _others: Vec<Server>,
}

impl Backend {
    /// Events and errors in PostgreSQL, secrets in Redis; instances in PostgreSQL too, or in a file of each node.
    pub(super) fn postgres(shares_models: bool) -> Backend {
        let (server, secrets) =
            (postgres::start(&[]), redis::start(&["--appendonly", "yes", "--appendfsync", "always"]));
        let models = match shares_models {
            true => "driver = 'postgres'\nconnection = 'main'",
            false => "driver = 'sqlite'\npath = 'data/models.db'",
        };
        let links = links(std::slice::from_ref(&server));
        let url =
            |link: &Link| postgres::url(&server).replace(&server.address().to_string(), &link.address().to_string());
        let tables = |links: &Vec<Link>| {
            format!(
                "[connections.main]\ndriver = 'postgres'\nurl = '{}'\n\
             [connections.vault]\ndriver = 'redis'\nurl = '{}'\n\
             [driver-event-storage]\ndriver = 'postgres'\nconnection = 'main'\n\
             [driver-error-storage]\ndriver = 'postgres'\nconnection = 'main'\n\
             [driver-model-storage]\n{models}\n\
             [driver-secure-storage]\ndriver = 'redis'\nconnection = 'vault'\nprivate-key = 'env:SNAPHOOK_KEY'\n",
                url(&links[0]),
                redis::url(&secrets),
            )
        };
        let tables = links.iter().map(tables).collect();
        Backend { tables, links, servers: vec![server], is_postgres: true, shares_models, _others: vec![secrets] }
    }

    /// Events and secrets in three NATS servers, of which each has everything; instances and errors in files of each node.
    pub(super) fn nats() -> Backend {
        let servers = nats::cluster(3, "always");
        let links = links(&servers);
        let urls = |links: &Vec<Link>| -> Vec<String> {
            links.iter().map(|link| format!("nats://{}", link.address())).collect()
        };
        let tables = |links: &Vec<Link>| {
            format!(
                "[connections.bus]\ndriver = 'nats'\nurl = '{}'\nreplicas = 3\n\
             [driver-event-storage]\ndriver = 'nats'\nconnection = 'bus'\npath = 'data/nats.db'\n\
             [driver-secure-storage]\ndriver = 'nats'\nconnection = 'bus'\nprivate-key = 'env:SNAPHOOK_KEY'\n",
                urls(links).join(","),
            )
        };
        let tables = links.iter().map(tables).collect();
        Backend { tables, links, servers, is_postgres: false, shares_models: false, _others: Vec::new() }
    }

    pub(super) fn shares_models(&self) -> bool {
        self.shares_models
    }

    pub(super) fn servers(&self) -> usize {
        self.servers.len()
    }

    /// The tables of a node's configuration.
    pub(super) fn tables(&self, node: usize) -> &str {
        &self.tables[node]
    }

    /// The command that starts a node begins with this.
    pub(super) fn environment(&self) -> &'static [&'static str] {
        &["env", KEY]
    }

    /// A server dies, and is started again after that time.
    pub(super) fn kill(&mut self, server: usize, away: Duration) {
        self.servers[server].end(Signal::Quit);
        std::thread::sleep(away);
        self.servers[server].restart();
    }

    /// The way from a node to that server is broken for that time, or its ways to all servers.
    pub(super) fn break_off(&self, node: usize, server: Option<usize>, how: Break, time: Duration) {
        let links = &self.links[node];
        let broken = server.map_or(&links[..], |server| &links[server..=server]);
        broken.iter().for_each(|link| link.break_off(how));
        std::thread::sleep(time);
        broken.iter().for_each(Link::mend);
    }

    /// A server cannot write to its disk for that time; then it is started again, as its admin would once there is room. `whole`:
    /// also processes that it starts in that time cannot.
    pub(super) fn fill(&mut self, server: usize, time: Duration, whole: bool) {
        let main = pid(&self.servers[server]);
        let limit = |bytes| {
            let children = children(main).into_iter().filter(|_| self.is_postgres);
            children
                .chain([main].into_iter().filter(|_| whole || !self.is_postgres))
                .for_each(|process| limit_files(process, bytes));
        };
        limit(Some(1));
        std::thread::sleep(time);
        limit(None);
        if whole || !self.is_postgres {
            // PostgreSQL would wait for its clients if it were told to end.
            self.servers[server].end(if self.is_postgres { Signal::Quit } else { Signal::Terminate });
            self.servers[server].restart();
        }
    }

    /// A server stands still for that time.
    pub(super) fn pause(&mut self, server: usize, time: Duration) {
        self.servers[server].pause();
        std::thread::sleep(time);
        self.servers[server].resume();
    }
}

/// Of each node, a way to each server.
fn links(servers: &[Server]) -> Vec<Vec<Link>> {
    (0..NODES).map(|_| servers.iter().map(|server| Link::to(server.address())).collect()).collect()
}

fn pid(server: &Server) -> u32 {
    let text = std::fs::read_to_string(server.folder().join("process")).expect("the number of its process");
    text.parse().expect("a number")
}

fn children(process: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    text.split_whitespace().map(|child| child.parse().expect("a number")).collect()
}

/// No file that a process writes may grow beyond this: what it gets then is what a full disk gives. One that has ended is let be.
pub(super) fn limit_files(process: u32, bytes: Option<u64>) {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw).expect("a process id");
    let _ = prlimit(Some(process), Resource::Fsize, Rlimit { current: bytes, maximum: None });
}
