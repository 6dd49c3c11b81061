//! The connections to one server: opened as needed, checked before use, and kept for a while.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Cmd, Value};
use snaphook_driver::{Connection, DriverError, ErrorKind, Result};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::config::RedisConfig;
use crate::deadline::{COMMAND, CONNECT, Deadline};
use crate::durability::Durability;
use crate::failure::Failure;
use crate::link::Link;
use crate::target::RedisServer;
use crate::tls;
use crate::verify::{Verdict, verify};

/// How many connections may be open at once; further calls wait.
const LINKS_MAX: usize = 8;

/// How long a connection may be idle: less than the time after which servers and middleboxes close it.
const IDLE: Duration = Duration::from_secs(10);

/// The state shared by all stores of a connection.
pub(crate) struct Pool {
    name: String,
    target: RedisServer,
    tls: Option<TlsConnector>,
    durability: Durability,
    permits: Semaphore,
    /// The last one was used most recently.
    idle: Mutex<Vec<(Link, Instant)>>,
    /// Why changes are not allowed: the last check found the server's guarantees insufficient.
    weakness: Mutex<Option<String>>,
    has_warned: AtomicBool,
}

/// A link in use. If it is dropped without [`Held::give_back`], its connection is closed.
pub(crate) struct Held<'a> {
    pool: &'a Pool,
    link: Link,
    /// Whether it was idle in the pool; the server may have closed it in the meantime.
    is_used: bool,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    /// Connects, and rejects a server with insufficient guarantees.
    pub(crate) async fn open(connection: &Connection<RedisConfig>) -> Result<Pool> {
        let target = RedisServer::new(&connection.settings)?;
        if target.is_open() {
            let name = &connection.name;
            tracing::warn!("the password of `connections.{name}` is sent unencrypted, use TLS");
        }
        let tls = target.tls.then(tls::connector).transpose().map_err(|error| {
            DriverError::new(ErrorKind::Config, "open", "TLS certificates cannot be verified on this machine")
                .because(error)
        })?;
        let pool = Pool {
            name: connection.name.clone(),
            target,
            tls,
            durability: connection.settings.durability,
            permits: Semaphore::new(LINKS_MAX),
            idle: Mutex::default(),
            weakness: Mutex::default(),
            has_warned: AtomicBool::new(false),
        };
        let deadline = Deadline::new();
        let mut held = pool.take("open", deadline).await?;
        pool.refuse_weak("open", &mut held, deadline).await?;
        held.give_back();
        Ok(pool)
    }

    /// A read-only command: sent again if the connection was closed in the meantime.
    pub(crate) async fn read(&self, operation: &'static str, command: &Cmd) -> Result<Value> {
        let deadline = Deadline::new();
        loop {
            let mut held = self.take(operation, deadline).await?;
            let ends = deadline.step(COMMAND);
            match held.call(command, ends).await {
                Ok(value) => {
                    held.give_back();
                    return Ok(value);
                }
                // A command that timed out once would probably time out again.
                Err(Failure::Lost(_)) if held.is_used && Instant::now() < ends => {}
                Err(failure) => return Err(held.fail(operation, failure)),
            }
        }
    }

    /// Checks that the server can be reached and still gives the required guarantees.
    pub(crate) async fn check(&self, operation: &'static str) -> Result<()> {
        let deadline = Deadline::new();
        loop {
            let mut held = self.take(operation, deadline).await?;
            let ends = deadline.step(COMMAND);
            match self.verify(&mut held.link, ends).await {
                Ok(()) => {
                    held.give_back();
                    return self.weakness(operation).map_or(Ok(()), Err);
                }
                Err(Failure::Lost(_)) if held.is_used && Instant::now() < ends => self.forget_idle(),
                Err(failure) => return Err(held.fail(operation, failure)),
            }
        }
    }

    /// Takes an idle connection, or opens and checks a new one. If this fails, nothing was sent.
    pub(crate) async fn take(&self, operation: &'static str, deadline: Deadline) -> Result<Held<'_>> {
        let Ok(Ok(permit)) = timeout_at(deadline.end(), self.permits.acquire()).await else {
            let message = format!("all {LINKS_MAX} connections to the server are in use");
            return Err(self.error(operation, ErrorKind::Unavailable, message));
        };
        if let Some(link) = self.idle_link() {
            return Ok(Held { pool: self, link, is_used: true, _permit: permit });
        }
        let ends = deadline.step(CONNECT);
        let mut link = Link::open(operation, &self.target, self.tls.as_ref(), ends).await?;
        self.verify(&mut link, ends).await.map_err(|failure| self.fault(operation, failure))?;
        Ok(Held { pool: self, link, is_used: false, _permit: permit })
    }

    /// Fails if the server's guarantees are insufficient for a change. An earlier result is checked again: an admin may
    /// have fixed the server.
    pub(crate) async fn refuse_weak(
        &self,
        operation: &'static str,
        held: &mut Held<'_>,
        deadline: Deadline,
    ) -> Result<()> {
        if self.weakness(operation).is_none() {
            return Ok(());
        }
        let checked = self.verify(&mut held.link, deadline.step(COMMAND)).await;
        checked.map_err(|failure| self.fault(operation, failure))?;
        self.weakness(operation).map_or(Ok(()), Err)
    }

    pub(crate) fn fault(&self, operation: &'static str, failure: Failure) -> DriverError {
        failure.into_error(operation, &self.target.address(), self.target.password.as_deref())
    }

    pub(crate) fn error(&self, operation: &'static str, kind: ErrorKind, message: impl Into<String>) -> DriverError {
        DriverError::new(kind, operation, message).with("server", self.target.address())
    }

    /// Compares the server with the settings and stores the result.
    async fn verify(&self, link: &mut Link, end: Instant) -> Result<(), Failure> {
        let weakness = match verify(link, self.durability, end).await? {
            Verdict::Kept => None,
            Verdict::Unverified(what) => {
                if !self.has_warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "`connections.{}`: the server does not show its configuration, so Snaphook cannot verify {what}",
                        self.name
                    );
                }
                None
            }
            Verdict::Weak(message) => Some(message),
        };
        *locked(&self.weakness) = weakness;
        Ok(())
    }

    fn weakness(&self, operation: &'static str) -> Option<DriverError> {
        let weakness = locked(&self.weakness);
        weakness.as_ref().map(|message| self.error(operation, ErrorKind::Config, message))
    }

    fn idle_link(&self) -> Option<Link> {
        let mut idle = locked(&self.idle);
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        idle.pop().map(|(link, _)| link)
    }

    /// Drops all idle connections: whatever broke one connection probably broke the others.
    fn forget_idle(&self) {
        locked(&self.idle).clear();
    }
}

impl Held<'_> {
    /// As [`Link::call`].
    pub(crate) async fn call(&mut self, command: &Cmd, end: Instant) -> Result<Value, Failure> {
        let result = self.link.call(command, end).await;
        if let Err(Failure::Lost(_)) = result {
            self.pool.forget_idle();
        }
        result
    }

    /// Returns it to the pool.
    pub(crate) fn give_back(self) {
        locked(&self.pool.idle).push((self.link, Instant::now()));
    }

    /// The error of a call that failed on this link; the link is kept if it is still usable.
    pub(crate) fn fail(self, operation: &'static str, failure: Failure) -> DriverError {
        let pool = self.pool;
        match failure.ends_connection() {
            true => pool.forget_idle(),
            false => self.give_back(),
        }
        pool.fault(operation, failure)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
