//! What a session needs to know of its way to the server.

use crate::tls::Tls;

pub(crate) struct Link {
    pub(crate) tls: Tls,
    /// Whether a pooler stands between, which gives each transaction another connection.
    pub(crate) pgbouncer: bool,
}
