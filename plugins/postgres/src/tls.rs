//! TLS to the server, with its own crypto provider: a driver may be the only user of rustls in its process.

use std::path::Path;
use std::sync::Arc;

use deadpool_postgres::{ConfigConnectImpl, Manager, ManagerConfig, RecyclingMethod};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use snaphook_driver::{DriverError, ErrorKind, Result};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{CancelToken, Client, Config, Connection, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How to connect.
#[derive(Clone)]
pub(crate) enum Tls {
    Off,
    On(MakeRustlsConnect),
}

/// The two kinds of connections; each must be polled for its client to work.
pub(crate) enum Wire {
    Plain(Box<Connection<Socket, NoTlsStream>>),
    Encrypted(Box<Connection<Socket, <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<Socket>>::Stream>>),
}

impl Tls {
    pub(crate) fn off() -> Tls {
        Tls::Off
    }

    /// Trusts the authorities in that file, or those of the system.
    pub(crate) fn verified(authorities: Option<&Path>) -> Result<Tls> {
        let unusable =
            |error: rustls::Error| DriverError::new(ErrorKind::Config, "open", "TLS cannot be set up").because(error);
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let config = match authorities {
            Some(path) => builder.with_root_certificates(roots(path)?).with_no_client_auth(),
            None => builder.with_platform_verifier().map_err(unusable)?.with_no_client_auth(),
        };
        Ok(Tls::On(MakeRustlsConnect::new(config)))
    }

    /// The manager of a pool's connections.
    pub(crate) fn manager(&self, config: Config) -> Manager {
        let fast = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        match self.clone() {
            Tls::Off => Manager::from_connect(config, ConfigConnectImpl { tls: NoTls }, fast),
            Tls::On(tls) => Manager::from_connect(config, ConfigConnectImpl { tls }, fast),
        }
    }

    /// One connection outside of a pool.
    pub(crate) async fn connect(&self, config: &Config) -> Result<(Client, Wire), tokio_postgres::Error> {
        match self.clone() {
            Tls::Off => config.connect(NoTls).await.map(|(client, wire)| (client, Wire::Plain(Box::new(wire)))),
            Tls::On(tls) => config.connect(tls).await.map(|(client, wire)| (client, Wire::Encrypted(Box::new(wire)))),
        }
    }

    /// Asks the server to cancel the statement of a connection.
    pub(crate) async fn cancel(&self, token: CancelToken) -> Result<(), tokio_postgres::Error> {
        match self.clone() {
            Tls::Off => token.cancel_query(NoTls).await,
            Tls::On(tls) => token.cancel_query(tls).await,
        }
    }
}

fn roots(path: &Path) -> Result<RootCertStore> {
    let wrong = |message: &str| DriverError::new(ErrorKind::Config, "open", message).with("tls-ca", path.display());
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong("the file of `tls-ca` cannot be read as PEM").because(error))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| wrong("a certificate of `tls-ca` cannot be used").because(error))?;
    }
    if roots.is_empty() {
        return Err(wrong("the file of `tls-ca` contains no certificate"));
    }
    Ok(roots)
}
