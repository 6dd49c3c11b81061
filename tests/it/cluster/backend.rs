//! The servers that store a cluster's data, and the links from its nodes to them.

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use snaphook_driver_testkit::servers::{Server, Signal, nats, postgres, redis};

use super::link::{Break, Link};

/// All nodes need the same private key.
const KEY: &str = "SNAPHOOK_KEY=AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

/// The maximum number of nodes.
const NODES: usize = 3;

pub(super) struct Backend {
    /// The configuration tables of each node.
    tables: Vec<String>,
    /// For each node, a link to each server.
    links: Vec<Vec<Link>>,
    /// The servers that are killed and paused, one at a time.
    servers: Vec<Server>,
    /// Otherwise NATS.
    is_postgres: bool,
    /// Whether the nodes share one model store.
    shares_models: bool,
    /// Servers without faults, which end with the cluster.
    _others: Vec<Server>,
}

impl Backend {
    /// Events and errors in PostgreSQL and secrets in Redis; instances in PostgreSQL too, or in a file per node.
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

    /// Events and secrets in three NATS servers with full replication; instances and errors in files per node.
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

    /// The configuration tables of a node.
    pub(super) fn tables(&self, node: usize) -> &str {
        &self.tables[node]
    }

    /// The prefix of the command that starts a node.
    pub(super) fn environment(&self) -> &'static [&'static str] {
        &["env", KEY]
    }

    /// Kills a server and restarts it after that time.
    pub(super) fn kill(&mut self, server: usize, away: Duration) {
        self.servers[server].end(Signal::Quit);
        std::thread::sleep(away);
        self.servers[server].restart();
    }

    /// Breaks the link from a node to that server, or to all servers, for that time.
    pub(super) fn break_off(&self, node: usize, server: Option<usize>, how: Break, time: Duration) {
        let links = &self.links[node];
        let broken = server.map_or(&links[..], |server| &links[server..=server]);
        broken.iter().for_each(|link| link.break_off(how));
        std::thread::sleep(time);
        broken.iter().for_each(Link::mend);
    }

    /// Simulates a full disk for a server during that time, then restarts it, as an admin would after freeing space.
    /// `whole`: also for the child processes that the server starts meanwhile.
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
            // PostgreSQL would wait for its clients if it were shut down gracefully.
            self.servers[server].end(if self.is_postgres { Signal::Quit } else { Signal::Terminate });
            self.servers[server].restart();
        }
    }

    /// Pauses a server for that time.
    pub(super) fn pause(&mut self, server: usize, time: Duration) {
        self.servers[server].pause();
        std::thread::sleep(time);
        self.servers[server].resume();
    }
}

/// For each node, a link to each server.
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

/// Limits the size of the files that a process writes, which fails like a full disk. Ignores a process that has ended.
pub(super) fn limit_files(process: u32, bytes: Option<u64>) {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw).expect("a process id");
    let _ = prlimit(Some(process), Resource::Fsize, Rlimit { current: bytes, maximum: None });
}
