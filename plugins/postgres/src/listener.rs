//! Follows the log for those that wait: one listener for all stores of a connection.
//!
//! It listens for the notifications of appends on its own connection. It also polls, because notifications are lost
//! while it reconnects. Behind PgBouncer it only polls. It does nothing while nobody waits.

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::Duration;

use snaphook_driver::{DriverError, ErrorKind, Position, Result};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::{AsyncMessage, Client};

use crate::connection::Database;
use crate::fault::fault;
use crate::heads::Heads;
use crate::sql::Sql;
use crate::tls::Wire;

/// The interval of polling while listening, and without listening.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_ALONE: Duration = Duration::from_millis(200);

/// Timeout of one poll.
const LOOK_TIME: Duration = Duration::from_secs(5);

/// Maximum pause between two attempts to connect.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A receiver of new positions in the log of that database.
pub(crate) fn subscribe(database: &Arc<Database>) -> watch::Receiver<Position> {
    database.heads().subscribe(|| {
        let waiters = Waiters { heads: Arc::downgrade(database.heads()), wanted: database.heads().wanted() };
        tokio::spawn(follow(waiters, Arc::downgrade(database)))
    })
}

/// Those that wait. The task that follows the log does not keep them alive.
struct Waiters {
    heads: Weak<Heads>,
    wanted: Arc<Notify>,
}

impl Waiters {
    /// Returns once somebody waits; `false` if all stores are closed.
    async fn some(&self) -> bool {
        loop {
            match self.heads.upgrade() {
                Some(heads) if heads.is_waited_for() => return true,
                Some(_) => {}
                None => return false,
            }
            self.wanted.notified().await;
        }
    }

    fn publish(&self, head: i64) {
        self.heads.upgrade().iter().for_each(|heads| heads.publish(Position::try_from(head).unwrap_or(0)));
    }
}

/// Runs until all stores are closed.
async fn follow(waiters: Waiters, database: Weak<Database>) {
    let mut pause = Duration::ZERO;
    while waiters.some().await {
        sleep(pause).await;
        let Some(strong) = database.upgrade() else { return };
        let head = strong.sql("SELECT head FROM @.log", &[]);
        let followed = if strong.pgbouncer() {
            look(&waiters, &strong, &head).await
        } else {
            let channel = strong.channel();
            let connected = strong.listener().await;
            drop(strong);
            match connected {
                Ok((client, wire)) => {
                    // This task ends with the client.
                    let told = Arc::new(Notify::new());
                    tokio::spawn(hear(wire, Arc::clone(&told)));
                    listen(&waiters, &client, &channel, &head, &told).await
                }
                Err(error) => Err(error),
            }
        };
        pause = match followed {
            Ok(()) => LOOK_ALONE,
            Err(error) => {
                tracing::debug!(%error, "the log cannot be followed, trying again");
                (2 * pause).clamp(Duration::from_millis(50), PAUSE_MAX)
            }
        };
    }
}

/// Polls once, without listening.
async fn look(waiters: &Waiters, database: &Database, head: &Sql) -> Result<()> {
    let row = database.session_within("listen", LOOK_TIME).await?.one(head, &[]).await?;
    waiters.publish(row.get(0));
    Ok(())
}

/// Listens and polls until the connection fails or all stores are closed.
async fn listen(waiters: &Waiters, client: &Client, channel: &str, head: &Sql, told: &Notify) -> Result<()> {
    let late = |_| {
        let message = "PostgreSQL did not respond in time";
        DriverError::new(ErrorKind::Unavailable, "listen", message)
    };
    let listening = format!("LISTEN \"{channel}\"");
    timeout(LOOK_TIME, client.batch_execute(&listening)).await.map_err(late)?.map_err(fault("listen"))?;
    loop {
        let row = timeout(LOOK_TIME, client.query_typed_one(&head.text, &[])).await.map_err(late)?;
        waiters.publish(row.map_err(fault("listen"))?.get(0));
        // A notification during the poll is not lost.
        let _ = timeout(LOOK, told.notified()).await;
        if !waiters.some().await {
            return Ok(());
        }
    }
}

/// Drives the connection and signals notifications. Anybody can send these, so they only cause a poll.
async fn hear(mut wire: Wire, told: Arc<Notify>) {
    loop {
        let message = match &mut wire {
            Wire::Plain(wire) => poll_fn(|context| wire.poll_message(context)).await,
            Wire::Encrypted(wire) => poll_fn(|context| wire.poll_message(context)).await,
        };
        match message {
            Some(Ok(AsyncMessage::Notification(_))) => told.notify_one(),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return,
        }
    }
}
