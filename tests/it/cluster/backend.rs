//! The servers that a cluster keeps its stores on.

use std::time::Duration;

use snaphook_driver_testkit::servers::{Server, Signal, nats, postgres, redis};

/// Every node must have the same private key.
const KEY: &str = "SNAPHOOK_KEY=AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

pub(super) struct Backend {
    tables: String,
    /// What is killed and paused, one at a time.
    servers: Vec<Server>,
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
        let tables = format!(
            "[connections.main]\ndriver = 'postgres'\nurl = '{}'\n\
             [connections.vault]\ndriver = 'redis'\nurl = '{}'\n\
             [driver-event-storage]\ndriver = 'postgres'\nconnection = 'main'\n\
             [driver-error-storage]\ndriver = 'postgres'\nconnection = 'main'\n\
             [driver-model-storage]\n{models}\n\
             [driver-secure-storage]\ndriver = 'redis'\nconnection = 'vault'\nprivate-key = 'env:SNAPHOOK_KEY'\n",
            postgres::url(&server),
            redis::url(&secrets),
        );
        Backend { tables, servers: vec![server], shares_models, _others: vec![secrets] }
    }

    /// Events and secrets in three NATS servers, of which each has everything; instances and errors in files of each node.
    pub(super) fn nats() -> Backend {
        let servers = nats::cluster(3, "always");
        let urls: Vec<String> = servers.iter().map(nats::url).collect();
        let tables = format!(
            "[connections.bus]\ndriver = 'nats'\nurl = '{}'\nreplicas = 3\n\
             [driver-event-storage]\ndriver = 'nats'\nconnection = 'bus'\npath = 'data/nats.db'\n\
             [driver-secure-storage]\ndriver = 'nats'\nconnection = 'bus'\nprivate-key = 'env:SNAPHOOK_KEY'\n",
            urls.join(","),
        );
        Backend { tables, servers, shares_models: false, _others: Vec::new() }
    }

    pub(super) fn shares_models(&self) -> bool {
        self.shares_models
    }

    pub(super) fn servers(&self) -> usize {
        self.servers.len()
    }

    /// The tables of the configuration of each node.
    pub(super) fn tables(&self) -> &str {
        &self.tables
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

    /// A server stands still for that time.
    pub(super) fn pause(&mut self, server: usize, time: Duration) {
        self.servers[server].pause();
        std::thread::sleep(time);
        self.servers[server].resume();
    }
}
