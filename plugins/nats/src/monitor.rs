//! Reads a server's monitoring, the only source that reports whether writes are synced before they are acknowledged.

use std::time::Duration;

use serde::Deserialize;
use snaphook_driver::{DriverError, ErrorKind, Result};

use crate::config::{Durability, LinkConfig};

/// Timeout of a monitoring request.
const TIME: Duration = Duration::from_secs(5);

/// Larger than any response.
const BYTES_MAX: usize = 4 << 20;

#[derive(Deserialize)]
struct Report {
    config: Option<JetStream>,
}

#[derive(Deserialize)]
struct JetStream {
    #[serde(default)]
    sync_always: bool,
    /// In nanoseconds.
    #[serde(default)]
    sync_interval: u64,
}

/// Rejects servers that are less durable than configured. Without monitoring this is unknown, and a warning is logged.
pub(crate) async fn check(config: &LinkConfig) -> Result<()> {
    if config.durability != Durability::Fsync {
        return Ok(());
    }
    let mut is_known = false;
    for address in config.monitors() {
        is_known = true;
        let found = ask(address).await.map_err(|error| error.with("monitor", shown(address)))?;
        if !found.sync_always {
            return Err(DriverError::new(
                ErrorKind::Config,
                "open",
                format!(
                    "the server syncs its disk only every {} s, but `durability` is `fsync`; set `sync_interval: \
                     always` in its configuration, or set another `durability`",
                    found.sync_interval / 1_000_000_000
                ),
            )
            .with("monitor", shown(address)));
        }
    }
    if !is_known {
        tracing::warn!(
            "nats: cannot verify that the server syncs its disk before it acknowledges, because `monitor` is not set; \
             `durability` is `fsync`, which needs `sync_interval: always` in the server's configuration"
        );
    }
    Ok(())
}

/// The address without a possible password.
fn shown(address: &str) -> &str {
    address.rsplit_once('@').map_or(address, |(_, host)| host)
}

async fn ask(address: &str) -> Result<JetStream> {
    let fault = |message: &str| DriverError::new(ErrorKind::Unavailable, "open", message.to_owned());
    // Selects the process's TLS implementation; an error means that it is already selected.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || reqwest::Client::builder().timeout(TIME).no_proxy();
    // A machine without any certificates can still use plain HTTP.
    let client = builder().build().or_else(|_| builder().tls_certs_only([]).build());
    let client = client.map_err(|_| fault("the HTTP client cannot start"))?;
    let response = client.get(format!("{}/jsz", address.trim_end_matches('/'))).send().await;
    let mut response =
        response.map_err(|error| fault("the monitoring endpoint cannot be reached").because(error.without_url()))?;
    if !response.status().is_success() {
        return Err(fault("the monitoring endpoint did not respond with success").with("status", response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| fault("the monitoring endpoint cannot be reached").because(error.without_url()))?
    {
        body.extend_from_slice(&chunk);
        if body.len() > BYTES_MAX {
            return Err(fault("the response of the monitoring endpoint is larger than 4 MiB"));
        }
    }
    let report: Report = snaphook_driver::json::typed_bytes(&body)
        .map_err(|error| fault("the response of the monitoring endpoint cannot be read").because(error))?;
    report.config.ok_or_else(|| {
        fault("the monitoring endpoint reports no JetStream configuration; JetStream is disabled on that server")
    })
}
