//! How a session reaches its server.

use crate::tls::Tls;

pub(crate) struct Link {
    pub(crate) tls: Tls,
    /// Whether there is a pooler in between that gives each transaction another connection.
    pub(crate) pgbouncer: bool,
}
