//! `snaphook secret`: values for hooks and drivers, encrypted at rest.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use serde_json::Value;
use snaphook_driver::SecureStore;

use super::client::{Client, ClientBody, path};
use super::failure::{Failure, Result};
use super::global::Global;
use super::output;
use crate::drivers::{SECRET_BYTES_MAX, Stores, Vault, VaultError, is_secret_name};

/// Set, list and remove secrets, through a running server or directly in its storage
#[derive(Debug, Subcommand)]
pub(super) enum Secret {
    /// Store a value read from stdin, without one trailing line break
    ///
    /// Example: printf %s "$KEY" | snaphook secret set mail-key
    Set {
        name: String,
        /// Read the value from a file instead, unchanged
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Print the names; values cannot be read back
    List,
    /// Remove secrets
    Rm {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// Access to the secrets: through a server, or directly in the storage.
enum SecretAccess {
    Server(Client),
    Storage { store: Arc<dyn SecureStore>, vault: Arc<Vault> },
}

impl Secret {
    pub(super) async fn run(&self, global: &Global) -> Result<()> {
        // Before anything is opened: an invalid name can be reported without a server.
        let names: Vec<&String> = match self {
            Secret::Set { name, .. } => vec![name],
            Secret::List => Vec::new(),
            Secret::Rm { names } => names.iter().collect(),
        };
        if let Some(name) = names.into_iter().find(|name| !is_secret_name(name)) {
            return Err(Failure::new(format!(
                "`{name}` is not a valid secret name, expected 1 to 128 letters, digits, `.`, `_` and `-`, the first a \
                 letter or digit"
            )));
        }
        let value = match self {
            Secret::Set { name, file } => value(name, file.as_deref())?,
            _ => Vec::new(),
        };
        let place = SecretAccess::find(global).await?;
        let result = self.run_at(&place, value).await;
        place.close().await;
        result
    }

    async fn run_at(&self, place: &SecretAccess, value: Vec<u8>) -> Result<()> {
        match self {
            Secret::Set { name, .. } => {
                place.set(name, value).await?;
                output::line(format!("secret `{name}` is set"))
            }
            Secret::List => place.list().await?.into_iter().try_for_each(output::line),
            Secret::Rm { names } => {
                for name in names {
                    place.remove(name).await?;
                    output::line(format!("secret `{name}` is removed"))?;
                }
                Ok(())
            }
        }
    }
}

impl SecretAccess {
    async fn find(global: &Global) -> Result<Self> {
        let client = global.client()?;
        match client.find("/healthz").await {
            Err(Failure::NoServer(_)) if !client.is_named() => {
                let config = global.config()?;
                let opened = Stores::open_vault(&config).await;
                let (store, vault) = opened.map_err(|error| Failure::new(error.to_string()))?;
                Ok(SecretAccess::Storage { store, vault })
            }
            Err(Failure::NoServer(message)) => Err(Failure::NoServer(message)),
            // Whatever its health: the server is there.
            _ => Ok(SecretAccess::Server(client)),
        }
    }

    async fn set(&self, name: &str, value: Vec<u8>) -> Result<()> {
        match self {
            SecretAccess::Server(client) => {
                let body = ClientBody { media_type: "application/octet-stream", bytes: value };
                client.put(&path(&["secrets", name]), body).await.map(drop)
            }
            SecretAccess::Storage { vault, .. } => vault.put(name, &value).await.map(drop).map_err(of_vault),
        }
    }

    async fn list(&self) -> Result<Vec<String>> {
        match self {
            SecretAccess::Server(client) => {
                let page = client.get("/secrets").await?;
                let names = page.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
                Ok(names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
            }
            SecretAccess::Storage { vault, .. } => vault.list().await.map_err(of_vault),
        }
    }

    async fn remove(&self, name: &str) -> Result<()> {
        match self {
            SecretAccess::Server(client) => client.delete(&path(&["secrets", name])).await,
            SecretAccess::Storage { vault, .. } => match vault.delete(name).await.map_err(of_vault)? {
                true => Ok(()),
                false => Err(Failure::new(format!("there is no secret `{name}`"))),
            },
        }
    }

    async fn close(self) {
        if let SecretAccess::Storage { store, .. } = self
            && let Err(error) = store.close().await
        {
            tracing::error!("secure storage: {error}");
        }
    }
}

fn of_vault(error: VaultError) -> Failure {
    Failure::new(error.to_string())
}

/// The value to keep.
fn value(name: &str, file: Option<&Path>) -> Result<Vec<u8>> {
    let value = match file {
        Some(file) => std::fs::read(file)
            .map_err(|error| Failure::new(format!("`{}` cannot be read: {error}", file.display())))?,
        None => {
            let terminal = std::io::stdin().is_terminal();
            if !terminal {
                return not_empty(name, read_stdin(false)?);
            }
            eprint!("value of `{name}` (it does not show): ");
            let hidden = NoEcho::new();
            let value = read_stdin(true);
            drop(hidden);
            eprintln!();
            value?
        }
    };
    not_empty(name, value)
}

fn not_empty(name: &str, value: Vec<u8>) -> Result<Vec<u8>> {
    if value.is_empty() {
        return Err(Failure::new(format!("the value of `{name}` is empty; to remove it: `snaphook secret rm {name}`")));
    }
    Ok(value)
}

/// A line from a terminal, everything from a pipe; without one line break at the end.
fn read_stdin(terminal: bool) -> Result<Vec<u8>> {
    let failed = |error| Failure::new(format!("stdin cannot be read: {error}"));
    let mut value = Vec::new();
    if terminal {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map_err(failed)?;
        value = line.into_bytes();
    } else {
        std::io::stdin().take(SECRET_BYTES_MAX as u64 + 2).read_to_end(&mut value).map_err(failed)?;
    }
    if value.ends_with(b"\n") {
        value.pop();
        if value.ends_with(b"\r") {
            value.pop();
        }
    }
    Ok(value)
}

/// While this exists, the terminal does not show the input.
struct NoEcho;

impl NoEcho {
    fn new() -> Self {
        stty("-echo");
        NoEcho
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        stty("echo");
    }
}

/// Without `stty`, the value is visible.
fn stty(mode: &str) {
    let _ = std::process::Command::new("stty").arg(mode).status();
}
