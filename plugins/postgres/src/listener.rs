//! Follows the log for those who wait: one listener for all stores of a connection.
//!
//! It listens for what each append tells, on a connection of its own, and looks from time to time all the same: what is told
//! while a connection is made again is told to nobody. Behind PgBouncer it only looks. It does nothing while nobody waits.

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

/// Between two looks of who listens, and of who only looks.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_ALONE: Duration = Duration::from_millis(200);

/// How long a look may take.
const LOOK_TIME: Duration = Duration::from_secs(5);

/// Between two tries to connect, at most.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// For somebody who waits for more of the log in that database.
pub(crate) fn subscribe(database: &Arc<Database>) -> watch::Receiver<Position> {
    database.heads().subscribe(|| {
        let waiters = Waiters { heads: Arc::downgrade(database.heads()), wanted: database.heads().wanted() };
        tokio::spawn(follow(waiters, Arc::downgrade(database)))
    })
}

/// Those who wait; they do not live for what follows the log.
struct Waiters {
    heads: Weak<Heads>,
    wanted: Arc<Notify>,
}

impl Waiters {
    /// Until somebody waits; `false` if nobody ever will.
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

/// Until there are no stores.
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
                    // Ends with the client.
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

/// One look without listening.
async fn look(waiters: &Waiters, database: &Database, head: &Sql) -> Result<()> {
    let row = database.session_within("listen", LOOK_TIME).await?.one(head, &[]).await?;
    waiters.publish(row.get(0));
    Ok(())
}

/// Listens and looks, until the connection fails.
async fn listen(waiters: &Waiters, client: &Client, channel: &str, head: &Sql, told: &Notify) -> Result<()> {
    let late = |_| {
        let message = "PostgreSQL did not answer in time";
        DriverError::new(ErrorKind::Unavailable, "listen", message)
    };
    let listening = format!("LISTEN \"{channel}\"");
    timeout(LOOK_TIME, client.batch_execute(&listening)).await.map_err(late)?.map_err(fault("listen"))?;
    loop {
        let row = timeout(LOOK_TIME, client.query_typed_one(&head.text, &[])).await.map_err(late)?;
        waiters.publish(row.map_err(fault("listen"))?.get(0));
        // What is told while the listener looks is kept.
        let _ = timeout(LOOK, told.notified()).await;
        if !waiters.some().await {
            return Ok(());
        }
    }
}

/// Moves the connection on, and says when something was told. Anybody may tell anything: it is a reason to look.
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
