//! The conformance suite of the store that this driver brings, against a collector that takes everything.

use std::sync::OnceLock;

use async_trait::async_trait;
use serde_json::json;
use snaphook_driver::wire::Opened;
use snaphook_driver::{OpenContext, Result, Store};
use snaphook_driver_testkit::Opener;
use snaphook_driver_testkit::peer::{Peer, Reply};
use snaphook_http::DRIVER;

/// The driver with a collector.
struct Collected;

#[async_trait]
impl Opener for Collected {
    async fn open(&self, store: Store, mut context: OpenContext) -> Result<Opened> {
        static COLLECTOR: OnceLock<Peer> = OnceLock::new();
        let collector = COLLECTOR.get_or_init(|| Peer::start(|_| Reply::status(204)));
        context.settings.insert("url".into(), json!(collector.url("/errors")));
        DRIVER.open(store, context).await
    }
}

snaphook_driver_testkit::error_suite!(Collected, {});
