//! A server and a schema on it, with the connection pool shared by all stores that name this connection.
//!
//! All connections get the same settings when they are opened. Behind PgBouncer, these would apply to whichever server
//! connection is used next. So there each transaction sets what it needs, statements are not prepared, and nothing
//! listens for notifications.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Hook, HookError, Object, Pool, PoolError, Runtime, TimeoutType, Timeouts};
use snaphook_driver::{Connections, DriverError, ErrorKind, OpenContext, Result};
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::{self, CONNECT_TIME, Durability, PostgresConfig};
use crate::fault::fault;
use crate::heads::Heads;
use crate::link::Link;
use crate::session::{Held, Session};
use crate::sql::Sql;
use crate::tls::Wire;

/// Timeout of a call whose work does not grow with the store: shorter than its callers wait.
pub(crate) const CALL_TIME: Duration = Duration::from_secs(25);

/// The same for work on all stored data.
pub(crate) const WHOLE_TIME: Duration = Duration::from_secs(55 * 60);

/// How long a call waits for a connection while all are in use.
const POOL_TIME: Duration = Duration::from_secs(10);

/// Pause between two attempts to connect to a server that is starting.
const START_PAUSE: Duration = Duration::from_millis(100);

const LATE: &str = "PostgreSQL did not accept a connection in time";

/// The oldest supported server version.
const VERSION_MIN: i32 = 130_000;

/// The settings of the pool's connections. All names are qualified, so the search path is only used for operators and
/// functions. Generic plans are disabled, because they may have been made for empty tables.
const SETUP: &str = "SET search_path = pg_catalog; SET plan_cache_mode = force_custom_plan; SET jit = off; \
     SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off; \
     SET statement_timeout = '25s'; SET lock_timeout = '20s'; SET idle_in_transaction_session_timeout = '30s'; \
     SELECT set_config('synchronous_commit', 'on', false) \
     WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')";

static DATABASES: Connections<PostgresConfig, Database> = Connections::new();

/// The schema that one `[connections.NAME]` refers to, and the connections to it.
pub(crate) struct Database {
    pool: Pool,
    client: tokio_postgres::Config,
    link: Arc<Link>,
    schema: String,
    durability: Durability,
    heads: Arc<Heads>,
}

impl Database {
    /// Opens the database of the connection that a store's settings name.
    pub(crate) async fn open(context: &OpenContext) -> Result<Arc<Database>> {
        let connection = config::connection(context)?;
        let open = async || Database::connect(&connection.settings, &context.directory).await;
        DATABASES.open(&connection, open).await
    }

    async fn connect(config: &PostgresConfig, directory: &Path) -> Result<Database> {
        let client = config.client()?;
        let tls = config.tls(&client, directory)?;
        let mut builder = Pool::builder(tls.manager(client.clone())).max_size(config.pool()).runtime(Runtime::Tokio1);
        if !config.pgbouncer() {
            builder = builder.post_create(Hook::async_fn(|client: &mut ClientWrapper, _| {
                Box::pin(async move { client.batch_execute(SETUP).await.map_err(HookError::Backend) })
            }));
        }
        let pool = builder.build().map_err(|error| {
            DriverError::new(ErrorKind::Unexpected, "open", "the connection pool cannot be created").because(error)
        })?;
        let database = Database {
            pool,
            client,
            link: Arc::new(Link { tls, pgbouncer: config.pgbouncer() }),
            schema: config.schema().to_owned(),
            durability: config.durability(),
            heads: Heads::new(),
        };
        database.check().await?;
        Ok(database)
    }

    /// A connection of the pool, for one call.
    pub(crate) async fn session(&self, operation: &'static str) -> Result<Session> {
        self.session_within(operation, CALL_TIME).await
    }

    /// The same with another timeout.
    pub(crate) async fn session_within(&self, operation: &'static str, time: Duration) -> Result<Session> {
        let deadline = Instant::now() + time;
        let object = self.object(operation, deadline).await?;
        Ok(Session::new(Held::Pooled(object), &self.link, operation, deadline))
    }

    /// A connection taken out of the pool. The caller can keep it with [`Session::into_own`].
    pub(crate) async fn own_session(&self, operation: &'static str, time: Duration) -> Result<Session> {
        let deadline = Instant::now() + time;
        let client = Object::take(self.object(operation, deadline).await?);
        Ok(Session::new(Held::Own(client), &self.link, operation, deadline))
    }

    /// A call on a connection that the caller owns.
    pub(crate) fn session_of(&self, client: ClientWrapper, operation: &'static str, time: Duration) -> Session {
        Session::new(Held::Own(client), &self.link, operation, Instant::now() + time)
    }

    /// Waits for a server that is starting, or restarting after a crash.
    async fn object(&self, operation: &'static str, deadline: Instant) -> Result<Object> {
        let patience = deadline.min(Instant::now() + POOL_TIME);
        loop {
            match self.pooled(operation, deadline).await {
                Err(error) if is_starting(&error) && Instant::now() + START_PAUSE < patience => {
                    sleep(START_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    async fn pooled(&self, operation: &'static str, deadline: Instant) -> Result<Object> {
        let timeouts = Timeouts { wait: Some(POOL_TIME), create: Some(2 * CONNECT_TIME), recycle: Some(CONNECT_TIME) };
        let late = |message: String| DriverError::new(ErrorKind::Unavailable, operation, message);
        match timeout_at(deadline, self.pool.timeout_get(&timeouts)).await {
            Ok(Ok(object)) => Ok(object),
            Ok(Err(PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)))) => {
                Err(fault(operation)(error))
            }
            Ok(Err(PoolError::Timeout(TimeoutType::Wait))) => Err(late(format!(
                "none of the {} connections became free within {} s; PostgreSQL is slow, or `pool` is too small",
                self.pool.status().max_size,
                POOL_TIME.as_secs()
            ))),
            Ok(Err(PoolError::Timeout(_))) | Err(_) => Err(late(LATE.into())),
            Ok(Err(error)) => Err(late("the connection pool provides no connection".into()).because(error)),
        }
    }

    /// A connection outside the pool, for listening.
    pub(crate) async fn listener(&self) -> Result<(tokio_postgres::Client, Wire)> {
        let connect = self.link.tls.connect(&self.client);
        match tokio::time::timeout(2 * CONNECT_TIME, connect).await {
            Ok(connected) => connected.map_err(fault("listen")),
            Err(_) => Err(DriverError::new(ErrorKind::Unavailable, "listen", LATE)),
        }
    }

    /// A statement, in which `@.` is replaced by the schema.
    pub(crate) fn sql(&self, text: &str, types: &[tokio_postgres::types::Type]) -> Sql {
        Sql::new(self.qualified(text), types)
    }

    /// The same for text that is not prepared.
    pub(crate) fn qualified(&self, text: &str) -> String {
        text.replace("@.", &format!("{}.", self.schema_quoted()))
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// The schema's name for use in SQL. It contains no quotes.
    pub(crate) fn schema_quoted(&self) -> String {
        format!("\"{}\"", self.schema)
    }

    /// The channel for the notifications of appends.
    pub(crate) fn channel(&self) -> String {
        // Names have at most 63 bytes.
        match self.schema.len() {
            ..=54 => format!("snaphook_{}", self.schema),
            _ => format!("snaphook:{}", &self.schema[9..]),
        }
    }

    /// The known end of this schema's log, and those that wait for more events.
    pub(crate) fn heads(&self) -> &Arc<Heads> {
        &self.heads
    }

    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    /// The number of connections that calls share.
    pub(crate) fn pool_size(&self) -> usize {
        self.pool.status().max_size
    }

    /// Whether a pooler gives each transaction another server connection.
    pub(crate) fn pgbouncer(&self) -> bool {
        self.link.pgbouncer
    }

    async fn check(&self) -> Result<()> {
        let sql = Sql::new(
            "SELECT current_setting('server_version_num')::int4, current_setting('server_version'), \
             current_setting('server_encoding'), pg_is_in_recovery(), current_database()::text"
                .into(),
            &[],
        );
        let row = self.session("open").await?.one(&sql, &[]).await?;
        let (number, version, encoding, is_standby, name): (i32, String, String, bool, String) =
            (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
        let wrong = |message: String| Err(DriverError::new(ErrorKind::Config, "open", message));
        if number < VERSION_MIN {
            return wrong(format!("the server is PostgreSQL {version}, expected 13 or later"));
        }
        if encoding != "UTF8" {
            return wrong(format!(
                "the database `{name}` is encoded in {encoding}, expected UTF8; create one with `CREATE DATABASE … \
                 ENCODING 'UTF8' TEMPLATE template0`"
            ));
        }
        if is_standby {
            return wrong("the server is a standby, which cannot be written to; connect to the primary".into());
        }
        Ok(())
    }
}

/// Whether the server reports that it is starting up or shutting down.
fn is_starting(error: &DriverError) -> bool {
    error.context().any(|fact| fact == ("SQLSTATE", "57P03"))
}
