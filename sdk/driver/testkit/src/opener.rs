//! How a case opens the store under test: through a linked driver, or through the same driver behind a transport.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use snaphook_driver::wire::{Client, Method, Opened, Service, Transport, from_json, to_json};
use snaphook_driver::{Driver, OpenContext, Result, Store};

/// Opens the store under test.
#[async_trait]
pub trait Opener: Send + Sync {
    async fn open(&self, store: Store, context: OpenContext) -> Result<Opened>;

    /// Whether the store's own code charges the budget of a read, so that its progress is visible.
    fn is_linked(&self) -> bool {
        false
    }

    /// Whether the same driver also runs the whole suite linked: then tests of the driver itself run a tenth as often,
    /// and tests that the transport cannot affect are skipped.
    fn tries_transport_only(&self) -> bool {
        false
    }

    /// Called for each new folder, by the process that created it, before anything is opened in it.
    fn prepare(&self, _folder: &Path) {}
}

#[async_trait]
impl Opener for Driver {
    async fn open(&self, store: Store, context: OpenContext) -> Result<Opened> {
        Opened::open(self, store, context).await
    }

    fn is_linked(&self) -> bool {
        true
    }
}

/// A driver whose calls are sent as messages within this process.
pub struct OverMessages(pub Driver);

/// The same with the JSON form of the messages.
pub struct OverJson(pub Driver);

#[async_trait]
impl Opener for OverMessages {
    async fn open(&self, store: Store, context: OpenContext) -> Result<Opened> {
        Ok(served(Opened::open(&self.0, store, context).await?, false))
    }

    fn tries_transport_only(&self) -> bool {
        true
    }
}

#[async_trait]
impl Opener for OverJson {
    async fn open(&self, store: Store, context: OpenContext) -> Result<Opened> {
        Ok(served(Opened::open(&self.0, store, context).await?, true))
    }

    fn tries_transport_only(&self) -> bool {
        true
    }
}

fn served(opened: Opened, as_json: bool) -> Opened {
    let store = opened.store();
    let service = Service::new(opened);
    let description = service.describe(1);
    Client::new(Arc::new(Loopback { service, as_json }), description).into_opened(store)
}

struct Loopback {
    service: Service,
    as_json: bool,
}

#[async_trait]
impl Transport for Loopback {
    async fn call(&self, method: Method, request: Vec<u8>) -> Result<Vec<u8>> {
        if !self.as_json {
            return self.service.call(method, &request).await;
        }
        let there_and_back = |message: String, bytes: Vec<u8>| {
            let json = to_json(&message, &bytes).expect("a message has a JSON form");
            from_json(&message, &json).expect("that form is one of the message")
        };
        let response = self.service.call(method, &there_and_back(method.request(), request)).await?;
        Ok(there_and_back(method.response(), response))
    }
}
