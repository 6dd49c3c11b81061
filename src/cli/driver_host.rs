//! `snaphook driver-host`: serves the stores of its configuration to remote drivers.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use snaphook_driver::wire::Opened;
use snaphook_remote::host::{Host, HostOptions};
use tokio::net::TcpListener;

use super::failure::{Failure, Result};
use super::global::Global;
use super::output;
use super::serve::{on_all_cores, stop_signal};
use crate::drivers::HostedStores;

/// Serve the stores of a configuration to other servers, over HTTP
///
/// A server with `driver = 'remote'` and this address in its configuration stores its data here. Prints the address as soon
/// as it accepts connections.
#[derive(Args, Debug)]
pub(super) struct DriverHost {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:1400")]
    listen: SocketAddr,
    /// The bearer token that requests must have; without one, only loopback addresses are served
    #[arg(long, value_name = "TOKEN", env = "SNAPHOOK_DRIVER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Certificate chain in PEM, for HTTPS
    #[arg(long, value_name = "FILE", requires = "private_key")]
    certificate: Option<PathBuf>,
    /// Private key of the certificate in PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    private_key: Option<PathBuf>,
}

impl DriverHost {
    pub(super) fn run(self, global: &Global) -> Result<()> {
        let config = global.stores_config()?;
        // A token from a shell or a secret store often ends with a line break, which a header cannot contain.
        let token = self.token.as_deref().map(str::trim).map(str::to_owned);
        if token.as_deref() == Some("") {
            return Err(Failure::new("`--token` is empty"));
        }
        if token.is_none() && !self.listen.ip().is_loopback() {
            return Err(Failure::new(format!(
                "`--listen {}` is reachable from other machines, and without `--token` anybody there could read and \
                 change everything; name a token, or listen on a loopback address",
                self.listen
            )));
        }
        let tls = self.tls()?;
        on_all_cores(config.server.workers, async {
            let mut stop = stop_signal()?;
            let stores = HostedStores::open(&config).await.map_err(|error| Failure::new(error.to_string()))?;
            let options = HostOptions { token, tls, closes: false };
            let served = serve(self.listen, stores.opened(), options, async move {
                let _ = stop.wait_for(Option::is_some).await;
            });
            let served = served.await;
            stores.close().await;
            served
        })
    }

    /// Certificate and private key.
    fn tls(&self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| Failure::new(format!("`{}` cannot be read: {error}", path.display())))
        };
        match (&self.certificate, &self.private_key) {
            (Some(certificate), Some(key)) => Ok(Some((read(certificate)?, read(key)?))),
            _ => Ok(None),
        }
    }
}

async fn serve(
    listen: SocketAddr,
    stores: Vec<Opened>,
    options: HostOptions,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let unbound = |error| Failure::new(format!("`--listen {listen}` cannot be listened on: {error}"));
    let listener = TcpListener::bind(listen).await.map_err(unbound)?;
    let address = listener.local_addr().map_err(unbound)?;
    let host = Host::new(listener, stores, options).map_err(|error| Failure::new(error.to_string()))?;
    output::line(format!("{scheme}://{address}"))?;
    host.serve(stop).await.map_err(|error| Failure::new(format!("the host failed: {error}")))
}
