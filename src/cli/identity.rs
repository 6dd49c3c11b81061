//! Which server a command talks to: one that listens where the configuration says may be another project's.

use serde_json::Value;

use super::client::Client;
use super::failure::{Failure, Result};
use super::global::Global;

/// A line that names the server. Fails if it is not the one of this configuration, unless `--url` names it.
pub(super) async fn own_server(client: &Client, global: &Global) -> Result<String> {
    check(client, own_data(client, global)?.as_deref()).await
}

/// Where the data of this configuration is; `None` if the user named the server, whichever it is.
pub(super) fn own_data(client: &Client, global: &Global) -> Result<Option<String>> {
    if client.is_named() { Ok(None) } else { Ok(Some(global.config_without_drivers()?.data())) }
}

/// The same as [`own_server`] for one that knows where its data is.
pub(super) async fn check(client: &Client, own: Option<&str>) -> Result<String> {
    // A server of an earlier version does not say which one it is.
    let Some(about) = client.find("/server").await? else { return Ok(format!("server {}", client.address())) };
    let text = |name: &str| about.get(name).and_then(Value::as_str).unwrap_or_default();
    let (address, data, log) = (client.address(), text("data"), text("log"));
    match own {
        Some(own) if own != data => Err(Failure::new(format!(
            "the server at {address} is another project's: its data is at `{data}`, that of this configuration at `{own}`. Stop \
             it, give this project another `server.mount-address`, or name the server with `--url {address}`"
        ))),
        _ => Ok(format!("server {address}, data {data}, log {log}")),
    }
}
