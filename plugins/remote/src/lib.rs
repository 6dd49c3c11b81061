//! Stores in another process or on another machine, over HTTP: the driver, and the host that serves the stores.
//!
//! A call is `POST {url}/{store}/{method}`; the bodies are the messages of `sdk/driver/proto/driver.proto`, as Protobuf
//! or as JSON. Any server that handles such requests can be a driver, in any language.

mod config;
mod encoding;
pub mod host;
mod transport;

use std::sync::Arc;

use snaphook_driver::wire::{Client, Opened};
use snaphook_driver::{Connections, Driver, OpenContext, OpenFuture, Result, Setting, SettingKind, Store};

use config::{StoreConfig, StoreLocation};
use transport::HttpTransport;

pub use config::RemoteConfig;
pub use encoding::Encoding;

/// Hosts that several stores share.
static HOSTS: Connections<RemoteConfig, HttpTransport> = Connections::new();

/// The driver `remote`.
pub const DRIVER: Driver = Driver {
    name: "remote",
    settings: &[
        Setting::optional("connection", SettingKind::Connection, "the name of a connection of this driver"),
        Setting::optional("url", SettingKind::Text, config::URL_EXPECTED),
        Setting::with_default("encoding", SettingKind::Text, config::ENCODING_EXPECTED, "\"json\""),
        Setting::optional("token", SettingKind::Secret, config::TOKEN_EXPECTED),
    ],
    connection: &[
        Setting::required("url", SettingKind::Text, config::URL_EXPECTED),
        Setting::with_default("encoding", SettingKind::Text, config::ENCODING_EXPECTED, "\"json\""),
        Setting::optional("token", SettingKind::Secret, config::TOKEN_EXPECTED),
    ],
    secure: Some(|context: OpenContext| -> OpenFuture<dyn snaphook_driver::SecureStore> {
        Box::pin(async move { Ok(Arc::new(open(Store::Secure, &context).await?) as _) })
    }),
    event: Some(|context: OpenContext| -> OpenFuture<dyn snaphook_driver::EventStore> {
        Box::pin(async move { Ok(Arc::new(open(Store::Event, &context).await?) as _) })
    }),
    model: Some(|context: OpenContext| -> OpenFuture<dyn snaphook_driver::ModelStore> {
        Box::pin(async move { Ok(Arc::new(open(Store::Model, &context).await?) as _) })
    }),
    error: Some(|context: OpenContext| -> OpenFuture<dyn snaphook_driver::ErrorStore> {
        Box::pin(async move { Ok(Arc::new(open(Store::Error, &context).await?) as _) })
    }),
};

/// Opens a store whose kind is known only at run time.
pub async fn connect(store: Store, context: &OpenContext) -> Result<Opened> {
    Ok(open(store, context).await?.into_opened(store))
}

async fn open(store: Store, context: &OpenContext) -> Result<Client> {
    let config: StoreConfig = context.settings()?;
    let transport = match config.place()? {
        StoreLocation::Own(config) => Arc::new(HttpTransport::new(&config)?),
        StoreLocation::Shared(connection) => {
            let open = async || HttpTransport::new(&connection.settings);
            HOSTS.open(&connection, open).await?
        }
    };
    let opened = transport.open(store, &context.node).await?;
    Ok(Client::new(transport, opened))
}
