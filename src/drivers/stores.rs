//! The four stores, opened in order and closed in reverse.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value};
use snaphook_driver::wire::Opened;
use snaphook_driver::{DriverError, ErrorKind, ErrorStore, EventStore, ModelStore, OpenContext, SecureStore, Store};

use super::connections;
use super::guard::{self, Meters};
use super::plugins::PluginInfo;
use super::references::{references, with_values};
use super::registry::{Registry, table, table_name};
use super::vault::{Secret, Vault, VaultError, unseal};
use crate::config::Config;

/// The stores of one configuration, open.
#[derive(Clone)]
pub struct Stores {
    pub secure: Arc<dyn SecureStore>,
    /// Decrypted secrets, over `secure`.
    pub vault: Arc<Vault>,
    pub event: Arc<dyn EventStore>,
    pub model: Arc<dyn ModelStore>,
    pub error: Arc<dyn ErrorStore>,
    /// Calls of all four.
    pub meters: Arc<Meters>,
    /// The libraries with drivers that are loaded.
    pub plugins: Arc<[PluginInfo]>,
    /// The node that opened them; empty for work outside of a node.
    pub node: String,
}

/// Why the stores could not be opened: one message, with the line if the configuration is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenError(String);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}

impl Stores {
    /// Opens secure, event, model and error storage, in this order. If one fails, those before it are closed.
    pub async fn open(config: &Config) -> Result<Stores, OpenError> {
        Stores::open_as("", config).await
    }

    /// Opens them for a node, which may share them with other nodes.
    pub async fn open_as(node: &str, config: &Config) -> Result<Stores, OpenError> {
        let opening = Opening::new(node, config)?;
        let (secure, vault) = open_secure(&opening).await?;
        let event = match open::<dyn EventStore>(&opening, &vault).await {
            Ok(event) => event,
            Err(error) => return Err(undo(error, [secure.close().await])),
        };
        let model = match open::<dyn ModelStore>(&opening, &vault).await {
            Ok(model) => model,
            Err(error) => return Err(undo(error, [event.close().await, secure.close().await])),
        };
        let error = match open::<dyn ErrorStore>(&opening, &vault).await {
            Ok(store) => store,
            Err(error) => return Err(undo(error, [model.close().await, event.close().await, secure.close().await])),
        };
        let plugins = opening.registry.plugins().into();
        Ok(Stores { secure, vault, event, model, error, meters: opening.meters, plugins, node: node.to_owned() })
    }

    /// The same stores with injected faults.
    #[cfg(test)]
    pub(crate) fn with_faults(mut self, faults: &guard::Faults) -> Stores {
        self.event = picked(guard::guard_with(Opened::Event(self.event), faults.clone()));
        self.model = picked(guard::guard_with(Opened::Model(self.model), faults.clone()));
        self.error = picked(guard::guard_with(Opened::Error(self.error), faults.clone()));
        self
    }

    /// Opens the secure storage alone, for work on secrets while no server runs.
    pub async fn open_vault(config: &Config) -> Result<(Arc<dyn SecureStore>, Arc<Vault>), OpenError> {
        open_secure(&Opening::new("", config)?).await
    }

    /// Closes all four, the last opened first. A failure is logged, and the others are still closed.
    pub async fn close(&self) {
        for (store, closed) in [
            (Store::Error, self.error.close().await),
            (Store::Model, self.model.close().await),
            (Store::Event, self.event.close().await),
            (Store::Secure, self.secure.close().await),
        ] {
            match closed {
                Ok(()) => tracing::debug!("{store} storage closed"),
                Err(error) => tracing::error!("{store} storage: {error}"),
            }
        }
    }
}

/// The stores for a restore and an offline backup: secrets stay encrypted, so the private key is needed only if a
/// setting refers to a secret, and none is created.
pub(super) struct BareStores {
    pub(super) secure: Arc<dyn SecureStore>,
    pub(super) event: Arc<dyn EventStore>,
    pub(super) model: Arc<dyn ModelStore>,
    pub(super) error: Arc<dyn ErrorStore>,
}

impl BareStores {
    pub(super) async fn open(config: &Config, sealed: Sealed) -> Result<BareStores, OpenError> {
        BareStores::open_with(Opening::new("", config)?, sealed).await
    }

    /// For a copy, which an earlier attempt may have begun.
    pub(super) async fn open_to_fill(config: &Config, sealed: Sealed) -> Result<BareStores, OpenError> {
        let opening = Opening { resumes_import: true, ..Opening::new("", config)? };
        BareStores::open_with(opening, sealed).await
    }

    async fn open_with(opening: Opening<'_>, sealed: Sealed) -> Result<BareStores, OpenError> {
        let secure: Arc<dyn SecureStore> = opening.open(opening.settings(Store::Secure), &[]).await?;
        let sealed = SealedSettings { opening: &opening, secure: Arc::clone(&secure), sealed };
        let event = match sealed.open::<dyn EventStore>().await {
            Ok(event) => event,
            Err(error) => return Err(undo(error, [secure.close().await])),
        };
        let model = match sealed.open::<dyn ModelStore>().await {
            Ok(model) => model,
            Err(error) => return Err(undo(error, [event.close().await, secure.close().await])),
        };
        match sealed.open::<dyn ErrorStore>().await {
            Ok(error) => Ok(BareStores { secure, event, model, error }),
            Err(error) => Err(undo(error, [model.close().await, event.close().await, secure.close().await])),
        }
    }

    pub(super) async fn close(&self) {
        for closed in
            [self.error.close().await, self.model.close().await, self.event.close().await, self.secure.close().await]
        {
            if let Err(error) = closed {
                tracing::error!("{error}");
            }
        }
    }
}

/// The stores for a driver host: secrets stay encrypted.
pub struct HostedStores(BareStores);

impl HostedStores {
    /// Opens all four, in their order. Settings may refer to secrets of the secure storage.
    pub async fn open(config: &Config) -> Result<HostedStores, OpenError> {
        BareStores::open(config, Sealed::Stored).await.map(HostedStores)
    }

    pub fn opened(&self) -> Vec<Opened> {
        let BareStores { secure, event, model, error } = &self.0;
        vec![
            Opened::Secure(Arc::clone(secure)),
            Opened::Event(Arc::clone(event)),
            Opened::Model(Arc::clone(model)),
            Opened::Error(Arc::clone(error)),
        ]
    }

    pub async fn close(&self) {
        self.0.close().await;
    }
}

/// The location of the encrypted secrets used in settings.
pub(super) enum Sealed {
    /// In the secure storage.
    Stored,
    /// In a backup: those of [`secrets_of_settings`] that it has.
    InBackup(HashMap<String, Vec<u8>>),
}

/// The secrets used in the settings of the other stores.
pub(super) fn secrets_of_settings(config: &Config) -> Result<Vec<String>, OpenError> {
    let registry = Registry::of(config).map_err(|errors| OpenError(errors.to_string()))?;
    let stores = [Store::Event, Store::Model, Store::Error].into_iter();
    Ok(stores.flat_map(|store| references(&settings(&registry, config, store))).collect())
}

fn settings(registry: &Registry, config: &Config, store: Store) -> Map<String, Value> {
    let table = table(config, store);
    match registry.find(store, &table.driver) {
        Some(driver) => connections::settings(config, table, driver.description()),
        None => table.settings.clone(),
    }
}

struct SealedSettings<'a> {
    opening: &'a Opening<'a>,
    secure: Arc<dyn SecureStore>,
    sealed: Sealed,
}

impl SealedSettings<'_> {
    async fn open<T: ?Sized + Pick>(&self) -> Result<Arc<T>, OpenError> {
        let config = self.opening.config;
        let settings = self.opening.settings(T::STORE);
        let mut values = Vec::new();
        for name in references(&settings) {
            let value = self.value(&name).await;
            values.push(value.map_err(|message| OpenError(format!("{} {message}", place(config, T::STORE))))?);
        }
        self.opening.open(with_values(&settings, &values), &values).await
    }

    async fn value(&self, name: &str) -> Result<String, String> {
        let (sealed, place) = match &self.sealed {
            Sealed::InBackup(secrets) => (secrets.get(name).cloned(), "the backup"),
            Sealed::Stored => {
                let sealed = self.secure.get(name).await.map_err(|error| format!("`secret:{name}`: {error}"))?;
                (sealed.map(|sealed| sealed.bytes), "the secure storage")
            }
        };
        let written = "or write the setting out for this command";
        let sealed = sealed.ok_or_else(|| {
            format!("`secret:{name}` names a secret that {place} does not have; set it where it is missing, {written}")
        })?;
        let config = self.opening.config;
        match unseal(&config.private_key, &config.directory, name, &sealed) {
            Ok(secret) => text(name, &secret),
            Err(error) => Err(format!(
                "`secret:{name}` is in {place}, but cannot be read: {error}; put the private key there first, {written}"
            )),
        }
    }
}

/// The error that stopped the start; errors of closing the others are logged.
fn undo<const N: usize>(error: OpenError, closed: [Result<(), DriverError>; N]) -> OpenError {
    for error in closed.into_iter().filter_map(Result::err) {
        tracing::error!("{error}");
    }
    error
}

async fn open_secure(opening: &Opening<'_>) -> Result<(Arc<dyn SecureStore>, Arc<Vault>), OpenError> {
    let config = opening.config;
    let secure: Arc<dyn SecureStore> = opening.open(opening.settings(Store::Secure), &[]).await?;
    match Vault::open(Arc::clone(&secure), &config.private_key, &config.directory).await {
        Ok(vault) => Ok((secure, Arc::new(vault))),
        Err(error) => {
            let message = format!("{} private key: {error}", place(config, Store::Secure));
            Err(undo(OpenError(message), [secure.close().await]))
        }
    }
}

async fn open<T: ?Sized + Pick>(opening: &Opening<'_>, vault: &Vault) -> Result<Arc<T>, OpenError> {
    let (settings, secrets) = resolve(&opening.settings(T::STORE), vault)
        .await
        .map_err(|message| OpenError(format!("{} {message}", place(opening.config, T::STORE))))?;
    opening.open(settings, &secrets).await
}

/// The trait of a store, and how to extract it from an opened store.
trait Pick {
    const STORE: Store;

    fn pick(opened: Opened) -> Option<Arc<Self>>;
}

macro_rules! picks {
    ($($store:ident $interface:ident;)*) => {
        $(
            impl Pick for dyn $interface {
                const STORE: Store = Store::$store;

                fn pick(opened: Opened) -> Option<Arc<Self>> {
                    match opened {
                        Opened::$store(store) => Some(store),
                        _ => None,
                    }
                }
            }
        )*
    };
}

picks! {
    Secure SecureStore;
    Event EventStore;
    Model ModelStore;
    Error ErrorStore;
}

#[cfg(test)]
fn picked<T: ?Sized + Pick>(opened: Opened) -> Arc<T> {
    T::pick(opened).expect("it is as it was")
}

/// The common context for opening the stores.
struct Opening<'a> {
    node: &'a str,
    config: &'a Config,
    registry: Arc<Registry>,
    meters: Arc<Meters>,
    /// As [`OpenContext::resumes_import`].
    resumes_import: bool,
}

impl<'a> Opening<'a> {
    /// Loads the plugins.
    fn new(node: &'a str, config: &'a Config) -> Result<Self, OpenError> {
        let registry = Registry::of(config).map_err(|errors| OpenError(errors.to_string()))?;
        registry.load_plugins().map_err(OpenError)?;
        Ok(Opening { node, config, registry, meters: Arc::default(), resumes_import: false })
    }

    /// The settings of a store, with the connections that they name.
    fn settings(&self, store: Store) -> Map<String, Value> {
        settings(&self.registry, self.config, store)
    }

    /// Opens a store with these settings. `secrets` must not show in messages.
    async fn open<T: ?Sized + Pick>(
        &self,
        settings: Map<String, Value>,
        secrets: &[String],
    ) -> Result<Arc<T>, OpenError> {
        let (config, store) = (self.config, T::STORE);
        let table = table(config, store);
        let Some(driver) = self.registry.find(store, &table.driver) else {
            let errors = super::registry::check(config).err();
            return Err(OpenError(
                errors.map_or_else(|| format!("no driver `{}`", table.driver), |errors| errors.to_string()),
            ));
        };
        let start = Instant::now();
        let context = OpenContext {
            resumes_import: self.resumes_import,
            node: self.node.to_owned(),
            ..OpenContext::new(settings, &config.directory)
        };
        let opened = driver.open(store, context).await.map_err(|error| {
            // Only an error in the settings has a place in the file.
            let place = match error.kind() {
                ErrorKind::Config => place(config, store),
                _ => format!("{store} storage (driver `{}`):", table.driver),
            };
            OpenError(redact(format!("{place} {error}"), secrets.iter().chain(connections::hidden(config, table))))
        })?;
        if let Some(what) = guard::unfit(&opened) {
            let error = OpenError(format!("{} the storage cannot be used: {what}", place(config, store)));
            return Err(undo(error, [opened.close().await]));
        }
        let opened = guard::guard(opened, &table.driver, &self.meters);
        tracing::info!("{store} storage open: driver `{}`, {:.1} ms", table.driver, millis(start));
        T::pick(opened).ok_or_else(|| OpenError(format!("{} another store was opened", place(config, store))))
    }
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1_000.0
}

/// `config.toml:12: driver-event-storage:`, if the file has such a table.
fn place(config: &Config, store: Store) -> String {
    let line = table(config, store).line.map_or_else(String::new, |line| format!(":{line}"));
    format!("{}{line}: `{}`:", config.name(), table_name(store))
}

/// Removes values from a library's message, which may quote its input.
fn redact<'a>(message: String, hidden: impl Iterator<Item = &'a String>) -> String {
    hidden.filter(|value| !value.is_empty()).fold(message, |message, value| message.replace(value.as_str(), "…"))
}

/// The settings with every `secret:NAME` replaced, and the inserted values.
async fn resolve(settings: &Map<String, Value>, vault: &Vault) -> Result<(Map<String, Value>, Vec<String>), String> {
    let mut values = Vec::new();
    for name in references(settings) {
        let value = match vault.get(&name).await {
            Ok(Some(secret)) => text(&name, &secret)?,
            Ok(None) => {
                return Err(format!(
                    "`secret:{name}` names a secret that does not exist; set it with `snaphook secret set {name}`"
                ));
            }
            Err(VaultError::Name(message)) => return Err(message),
            Err(error) => return Err(format!("`secret:{name}`: {error}")),
        };
        values.push(value);
    }
    Ok((with_values(settings, &values), values))
}

fn text(name: &str, secret: &Secret) -> Result<String, String> {
    String::from_utf8(secret.expose().to_vec())
        .map_err(|_| format!("the secret `{name}` is not UTF-8 text, expected text for the settings"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn config(folder: &Path, text: &str) -> Config {
        let text = format!("[server]\nmount-address = '127.0.0.1:0'\n[auth]\nmode = 'open'\n{text}");
        Config::parse(&text, "config.toml", folder, None, &|name| (name == "TOKEN").then(|| "hunter2".to_owned()))
            .unwrap()
    }

    #[tokio::test]
    async fn the_defaults_open_close_and_open_again() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), "");
        for _ in 0..2 {
            let stores = Stores::open(&config).await.unwrap();
            stores.event.health().await.unwrap();
            stores.model.health().await.unwrap();
            stores.error.health().await.unwrap();
            stores.close().await;
        }
        for path in ["data/secret.key", "data/events.db", "data/models.db", "data/errors.db"] {
            assert!(folder.path().join(path).exists(), "{path}");
        }
    }

    #[tokio::test]
    async fn a_store_that_cannot_open_closes_those_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let broken = config(folder.path(), "[driver-error-storage]\ndriver = 'sqlite'\npth = 'env:TOKEN'\n");
        let error = Stores::open(&broken).await.err().unwrap().to_string();
        assert!(error.starts_with("config.toml:6: `driver-error-storage`: "), "{error}");
        assert!(error.contains("pth") && !error.contains("hunter2"), "{error}");
        // The others were closed: the same files open again.
        Stores::open(&config(folder.path(), "")).await.unwrap().close().await;
    }

    #[tokio::test]
    async fn secrets_in_settings() {
        let folder = tempfile::tempdir().unwrap();
        let text = "[driver-error-storage]\ndriver = 'sqlite'\npath = 'secret:where'\n";
        let config = config(folder.path(), text);
        let error = Stores::open(&config).await.err().unwrap().to_string();
        assert_eq!(
            error,
            "config.toml:6: `driver-error-storage`: `secret:where` names a secret that does not exist; set it with \
             `snaphook secret set where`"
        );
        let (secure, vault) = Stores::open_vault(&config).await.unwrap();
        vault.put("where", b"data/elsewhere.db").await.unwrap();
        secure.close().await.unwrap();
        Stores::open(&config).await.unwrap().close().await;
        assert!(folder.path().join("data/elsewhere.db").exists());
    }

    #[tokio::test]
    async fn resolve_keeps_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let (_secure, vault) =
            Stores::open_vault(&config(folder.path(), "[driver-secure-storage]\ndriver = 'memory'\n")).await.unwrap();
        vault.put("a", b"1").await.unwrap();
        vault.put("b", b"2").await.unwrap();
        let Value::Object(settings) =
            json!({"x": "secret:b", "y": [7, "secret:a", {"z": "secret:b"}], "s": "no secret:a", "n": null})
        else {
            panic!()
        };
        let (resolved, values) = resolve(&settings, &vault).await.unwrap();
        assert_eq!(
            Value::Object(resolved),
            json!({"x": "2", "y": [7, "1", {"z": "2"}], "s": "no secret:a", "n": null})
        );
        assert_eq!(values, ["2", "1", "2"]);
    }

    #[test]
    fn messages_hold_no_secret() {
        let hidden = ["hunter2".to_owned(), String::new()];
        let message = redact("invalid type: string \"hunter2\"".to_owned(), hidden.iter());
        assert_eq!(message, "invalid type: string \"…\"");
    }
}
