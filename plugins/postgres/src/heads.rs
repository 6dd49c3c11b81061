//! Where the log ends, for those who wait for more: one listener for all stores of a connection.
//!
//! It listens for what each append tells, on a connection of its own, and looks from time to time all the same: what is told
//! while a connection is made again is told to nobody. Behind PgBouncer it only looks. It does nothing while nobody waits.

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::Duration;

use snaphook_driver::{Position, Result};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::{AsyncMessage, Client};

use crate::connection::Database;
use crate::fault::fault;
use crate::sql::Sql;
use crate::tls::Wire;

/// Between two looks of who listens, and of who only looks.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_ALONE: Duration = Duration::from_millis(200);

/// How long a look may take.
const LOOK_TIME: Duration = Duration::from_secs(5);

/// Between two tries to connect, at most.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Ends with the last store that has it.
pub(crate) struct Heads {
    head: watch::Sender<Position>,
    listener: std::sync::OnceLock<JoinHandle<()>>,
}

impl Heads {
    pub(crate) fn new() -> Arc<Heads> {
        Arc::new(Heads { head: watch::Sender::new(0), listener: std::sync::OnceLock::new() })
    }

    /// The log goes at least up to there.
    pub(crate) fn publish(&self, head: Position) {
        self.head.send_if_modified(|last| {
            let is_news = head > *last;
            *last = head.max(*last);
            is_news
        });
    }

    /// For somebody who waits. The first one starts the listener.
    pub(crate) fn subscribe(self: &Arc<Self>, database: &Arc<Database>) -> watch::Receiver<Position> {
        let receiver = self.head.subscribe();
        self.listener.get_or_init(|| {
            let (heads, database) = (Arc::downgrade(self), Arc::downgrade(database));
            tokio::spawn(follow(heads, database))
        });
        receiver
    }

    async fn somebody_waits(heads: &Weak<Heads>, pause: Duration) -> bool {
        loop {
            match heads.upgrade() {
                Some(heads) if heads.head.receiver_count() > 0 => return true,
                Some(_) => {}
                None => return false,
            }
            sleep(pause).await;
        }
    }
}

impl Drop for Heads {
    fn drop(&mut self) {
        self.listener.get().iter().for_each(|listener| listener.abort());
    }
}

/// Until there are no stores.
async fn follow(heads: Weak<Heads>, database: Weak<Database>) {
    let mut pause = Duration::ZERO;
    while Heads::somebody_waits(&heads, LOOK_ALONE).await {
        sleep(pause).await;
        let Some(strong) = database.upgrade() else { return };
        let head = strong.sql("SELECT head FROM @.log", &[]);
        let followed = if strong.pgbouncer() {
            look(&heads, &strong, &head).await
        } else {
            let channel = strong.channel();
            let connected = strong.listener().await;
            drop(strong);
            match connected {
                Ok((client, wire)) => {
                    let told = tokio::spawn(hear(wire, heads.clone()));
                    let listened = listen(&heads, &client, &channel, &head).await;
                    // The listener may be ended here, too: then the client's end ends it.
                    drop(client);
                    told.abort();
                    listened
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
async fn look(heads: &Weak<Heads>, database: &Database, head: &Sql) -> Result<()> {
    let row = database.session_within("listen", LOOK_TIME).await?.one(head, &[]).await?;
    publish(heads, row.get(0));
    Ok(())
}

/// Listens and looks, until the connection fails.
async fn listen(heads: &Weak<Heads>, client: &Client, channel: &str, head: &Sql) -> Result<()> {
    let late = |_| {
        let message = "PostgreSQL did not answer in time";
        snaphook_driver::DriverError::new(snaphook_driver::ErrorKind::Unavailable, "listen", message)
    };
    let listening = format!("LISTEN \"{channel}\"");
    timeout(LOOK_TIME, client.batch_execute(&listening)).await.map_err(late)?.map_err(fault("listen"))?;
    loop {
        let row = timeout(LOOK_TIME, client.query_typed_one(&head.text, &[])).await.map_err(late)?;
        publish(heads, row.map_err(fault("listen"))?.get(0));
        sleep(LOOK).await;
        if !Heads::somebody_waits(heads, LOOK_ALONE).await {
            return Ok(());
        }
    }
}

/// Moves the connection on, and passes on what is told.
async fn hear(mut wire: Wire, heads: Weak<Heads>) {
    loop {
        let message = match &mut wire {
            Wire::Plain(wire) => poll_fn(|context| wire.poll_message(context)).await,
            Wire::Encrypted(wire) => poll_fn(|context| wire.poll_message(context)).await,
        };
        match message {
            Some(Ok(AsyncMessage::Notification(told))) => {
                // What others tell on this channel is at most a reason to look.
                publish(&heads, told.payload().parse().unwrap_or(0));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return,
        }
    }
}

fn publish(heads: &Weak<Heads>, head: i64) {
    heads.upgrade().iter().for_each(|heads| heads.publish(Position::try_from(head).unwrap_or(0)));
}
