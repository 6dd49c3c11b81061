//! The nodes that share the log, as they announce themselves.

use std::sync::Arc;
use std::time::Duration;

use snaphook_driver::{NODES_MAX, Node, Result};
use tokio_postgres::types::Type;

use crate::connection::Database;
use crate::session::Begin;
use crate::sql::Sql;
use crate::text::{escape, unescape};

/// Also removes nodes that have not announced themselves for a day.
const ANNOUNCE: &str = "WITH gone AS (DELETE FROM @.nodes WHERE kept < now() - interval '1 day' AND id <> $1)
    INSERT INTO @.nodes(id, address, version, position, head, kept)
    VALUES ($1, $2, $3, $4, $5, now() + $6 * interval '1 millisecond')
    ON CONFLICT (id) DO UPDATE SET address = $2, version = $3, position = $4, head = $5, kept = EXCLUDED.kept";

const ALL: &str = "SELECT id, address, version, position, head FROM
    (SELECT * FROM @.nodes WHERE kept > now() ORDER BY kept DESC LIMIT $1) AS nodes ORDER BY id";

pub(super) struct Nodes {
    database: Arc<Database>,
    announce: Sql,
    forget: Sql,
    all: Sql,
}

impl Nodes {
    pub(super) fn new(database: &Arc<Database>) -> Nodes {
        let announce = [Type::TEXT, Type::TEXT, Type::TEXT, Type::INT8, Type::INT8, Type::FLOAT8];
        Nodes {
            database: Arc::clone(database),
            announce: database.sql(ANNOUNCE, &announce),
            forget: database.sql("DELETE FROM @.nodes WHERE id = $1", &[Type::TEXT]),
            all: database.sql(ALL, &[Type::INT8]),
        }
    }

    pub(super) async fn announce(&self, node: &Node, keep: Duration) -> Result<()> {
        let mut session = self.database.session("announce").await?;
        // After a crash of the server, the nodes announce themselves again.
        session.begin(Begin::LAZY).await?;
        let id = escape(&node.id);
        if keep.is_zero() {
            session.execute(&self.forget, &[&id]).await?;
        } else {
            let (address, version) = (escape(&node.address), escape(&node.version));
            let (position, head) = (node.position.cast_signed(), node.head.cast_signed());
            let keep = keep.as_secs_f64() * 1e3;
            session.execute(&self.announce, &[&id, &address, &version, &position, &head, &keep]).await?;
        }
        session.commit().await
    }

    pub(super) async fn all(&self) -> Result<Vec<Node>> {
        let rows = self.database.session("nodes").await?.query(&self.all, &[&(NODES_MAX as i64)]).await?;
        let node = |row: &tokio_postgres::Row| Node {
            id: unescape(row.get(0)),
            address: unescape(row.get(1)),
            version: unescape(row.get(2)),
            position: row.get::<_, i64>(3).cast_unsigned(),
            head: row.get::<_, i64>(4).cast_unsigned(),
        };
        Ok(rows.iter().map(node).collect())
    }
}
