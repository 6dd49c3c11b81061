//! Creates the schema and the tables of a store, and migrates older ones. The first of several nodes does it.

use sha2::{Digest as _, Sha256};
use snaphook_driver::{DriverError, ErrorKind, Result};
use tokio_postgres::types::Type;

use crate::connection::Database;
use crate::session::{Begin, Session};

/// The tables of one store, by version.
pub(crate) struct Tables {
    /// The store's name in the table of versions.
    pub(crate) store: &'static str,
    /// The statements that lead from version n - 1 to n, starting with version 1; `@.` stands for the schema.
    pub(crate) steps: &'static [&'static str],
}

/// Creates missing tables, and applies missing steps.
pub(crate) async fn migrate(database: &Database, tables: &Tables) -> Result<()> {
    let mut session = database.session("open").await?;
    session.begin(Begin::DURABLE).await?;
    lock(database, &mut session).await?;
    // An existing schema may have another owner who allows this role only to write rows.
    let exists = database.sql(
        "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1),
         EXISTS (SELECT 1 FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
                 WHERE nspname = $1 AND relname = 'versions')",
        &[Type::TEXT],
    );
    let exists = session.one(&exists, &[&database.schema()]).await?;
    if !exists.get::<_, bool>(0) {
        session.batch(&format!("CREATE SCHEMA {}", database.schema_quoted())).await?;
    }
    if !exists.get::<_, bool>(1) {
        let versions = "CREATE TABLE @.versions(store text COLLATE \"C\" PRIMARY KEY, version int4 NOT NULL)";
        session.batch(&database.qualified(versions)).await?;
    }
    let found = database.sql("SELECT version FROM @.versions WHERE store = $1", &[Type::TEXT]);
    let found = session.query(&found, &[&tables.store]).await?.first().map_or(0, |row| row.get::<_, i32>(0));
    let known = tables.steps.len();
    let done = usize::try_from(found).ok().filter(|done| *done <= known).ok_or_else(|| {
        DriverError::new(
            ErrorKind::Config,
            "open",
            format!(
                "the {} tables in the schema `{}` have version {found}, expected at most {known}; use a newer \
                 Snaphook, or set another `schema`",
                tables.store,
                database.schema()
            ),
        )
    })?;
    if done == known {
        session.end().await;
        return Ok(());
    }
    for step in &tables.steps[done..] {
        session.batch(&database.qualified(step)).await?;
    }
    let write = database.sql(
        "INSERT INTO @.versions(store, version) VALUES ($1, $2) ON CONFLICT (store) DO UPDATE SET version = $2",
        &[Type::TEXT, Type::INT4],
    );
    session.execute(&write, &[&tables.store, &i32::try_from(known).unwrap_or(i32::MAX)]).await?;
    session.commit().await
}

/// Excludes other nodes until the end of the transaction.
async fn lock(database: &Database, session: &mut Session) -> Result<()> {
    let digest: [u8; 32] = Sha256::digest(format!("snaphook schema {}", database.schema())).into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    let sql = database.sql("SELECT pg_advisory_xact_lock($1)", &[Type::INT8]);
    session.query(&sql, &[&i64::from_be_bytes([a, b, c, d, e, f, g, h])]).await.map(drop)
}
