//! One connection to a server: one command at a time.

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, Value, cmd};
use rustls::pki_types::ServerName;
use snaphook_driver::{DriverError, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::bounded::{Allowance, Bounded};
use crate::failure::Failure;
use crate::target::RedisServer;

/// An authenticated connection with a selected database. Dropping it closes the connection at once.
pub(crate) struct Link {
    connection: MultiplexedConnection,
    /// The task that reads and writes. Without being aborted, it would wait for commands in progress.
    driver: JoinHandle<()>,
    allowance: Allowance,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    /// Connects. If this fails, no command of a store was sent.
    pub(crate) async fn open(
        operation: &'static str,
        target: &RedisServer,
        tls: Option<&TlsConnector>,
        end: Instant,
    ) -> Result<Link> {
        let unreachable = |message: String| {
            DriverError::new(ErrorKind::Unavailable, operation, message).with("server", target.address())
        };
        let connect = async {
            let stream = TcpStream::connect((target.host.as_str(), target.port))
                .await
                .map_err(|error| unreachable("the server cannot be reached".into()).because(error))?;
            let _ = stream.set_nodelay(true);
            let mut link = match tls {
                None => Link::over(operation, target, stream).await?,
                Some(tls) => {
                    let name = ServerName::try_from(target.host.clone()).map_err(|_| {
                        let message = "the server's name cannot appear in a certificate";
                        DriverError::new(ErrorKind::Config, operation, message).with("server", target.address())
                    })?;
                    let stream = tls
                        .connect(name, stream)
                        .await
                        .map_err(|error| unreachable("the server cannot be reached with TLS".into()).because(error))?;
                    Link::over(operation, target, stream).await?
                }
            };
            link.greet(operation, target, end).await?;
            Ok(link)
        };
        match timeout_at(end, connect).await {
            Ok(result) => result,
            Err(_) => Err(unreachable("the server could not be reached in time".into())),
        }
    }

    async fn over(
        operation: &'static str,
        target: &RedisServer,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Link> {
        let allowance = Allowance::new();
        let stream = Bounded::new(stream, allowance.clone());
        // `greet` sends the commands that the library would send first, because it can interpret their errors.
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let opened = MultiplexedConnection::new_with_config(&info, stream, config).await;
        let (connection, driver) =
            opened.map_err(|error| Failure::from(error).into_error(operation, &target.address(), None))?;
        Ok(Link { connection, driver: tokio::spawn(driver), allowance })
    }

    /// Authenticates and selects the database.
    async fn greet(&mut self, operation: &'static str, target: &RedisServer, end: Instant) -> Result<()> {
        let config =
            |message: &str| DriverError::new(ErrorKind::Config, operation, message).with("server", target.address());
        let fault = |failure: Failure| failure.into_error(operation, &target.address(), target.password.as_deref());
        if let Some(password) = &target.password {
            let mut auth = cmd("AUTH");
            auth.arg(target.user.as_deref()).arg(password);
            match self.call(&auth, end).await {
                Ok(_) => {}
                // Before version 6, the error for a wrong password was `ERR invalid password`. The rest of the text may
                // echo the request.
                Err(Failure::Refused { code, text }) if code == "ERR" => {
                    return Err(config(match text.contains("without any password configured") {
                        true => "the server has no password for this user, remove `password` or set one there",
                        false => "the server does not accept this user and password",
                    }));
                }
                Err(failure) => return Err(fault(failure)),
            }
        }
        if target.database != 0 {
            match self.call(cmd("SELECT").arg(target.database), end).await {
                Ok(_) => {}
                Err(Failure::Refused { code, .. }) if code == "ERR" => {
                    let message = format!("the server has no database {}, change `database`", target.database);
                    return Err(config(&message));
                }
                Err(failure) => return Err(fault(failure)),
            }
        }
        Ok(())
    }

    /// Sends a command and waits for the response. A link whose call was dropped or lost must not be used again.
    pub(crate) async fn call(&mut self, command: &Cmd, end: Instant) -> Result<Value, Failure> {
        self.allowance.renew();
        match timeout_at(end, command.query_async::<Value>(&mut self.connection)).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(Failure::late()),
        }
    }
}
