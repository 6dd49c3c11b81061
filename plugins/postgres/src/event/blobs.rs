//! Blobs: bytes, stored by their digest.

use std::sync::Arc;

use snaphook_driver::Result;
use tokio_postgres::types::Type;

use crate::connection::Database;
use crate::session::Begin;
use crate::sql::Sql;

pub(super) struct Blobs {
    database: Arc<Database>,
    put: Sql,
    get: Sql,
}

/// Stores bytes unless they are already stored.
pub(super) fn put(database: &Database) -> Sql {
    let text = "INSERT INTO @.blobs(sha256, bytes) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    database.sql(text, &[Type::TEXT, Type::BYTEA])
}

impl Blobs {
    pub(super) fn new(database: &Arc<Database>) -> Blobs {
        Blobs {
            database: Arc::clone(database),
            put: put(database),
            get: database.sql("SELECT bytes FROM @.blobs WHERE sha256 = $1", &[Type::TEXT]),
        }
    }

    /// See [`snaphook_driver::EventStore::put_blob`].
    pub(super) async fn put(&self, sha256: &str, bytes: &[u8]) -> Result<()> {
        let mut session = self.database.session("put_blob").await?;
        session.begin(Begin::DURABLE).await?;
        session.execute(&self.put, &[&sha256, &bytes]).await?;
        session.commit().await
    }

    /// See [`snaphook_driver::EventStore::get_blob`].
    pub(super) async fn get(&self, sha256: &str) -> Result<Option<Vec<u8>>> {
        let rows = self.database.session("get_blob").await?.query(&self.get, &[&sha256]).await?;
        Ok(rows.first().map(|row| row.get(0)))
    }
}
