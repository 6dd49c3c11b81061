//! The servers that a cluster keeps its stores on.

use std::time::Duration;

use snaphook_driver_testkit::servers::{Server, Signal, postgres, redis};

/// Every node must have the same private key.
const KEY: &str = "SNAPHOOK_KEY=AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

pub(super) struct Backend {
    tables: String,
    /// What is killed and paused.
    server: Server,
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
        Backend { tables, server, _others: vec![secrets] }
    }

    /// The tables of the configuration of each node.
    pub(super) fn tables(&self) -> &str {
        &self.tables
    }

    /// The command that starts a node begins with this.
    pub(super) fn environment(&self) -> &'static [&'static str] {
        &["env", KEY]
    }

    /// The server dies, and is started again after that time.
    pub(super) fn kill(&mut self, away: Duration) {
        self.server.end(Signal::Quit);
        std::thread::sleep(away);
        self.server.restart();
    }

    /// The server stands still for that time.
    pub(super) fn pause(&mut self, time: Duration) {
        self.server.pause();
        std::thread::sleep(time);
        self.server.resume();
    }
}
