//! The connection to a host is lost at every step of a call, in both encodings.

use std::net::SocketAddr;
use std::path::Path;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use snaphook_driver::wire::Opened;
use snaphook_driver::{Driver, OpenContext, Result, Store};
use snaphook_driver_testkit::lost::Connector;
use snaphook_remote::connect;
use snaphook_remote::host::{Host, HostOptions};
use tokio::net::TcpListener;

/// A driver behind a host.
struct Hosted {
    driver: Driver,
    encoding: &'static str,
}

fn table(settings: Value) -> Map<String, Value> {
    settings.as_object().cloned().unwrap_or_default()
}

#[async_trait]
impl Connector for Hosted {
    async fn serve(&self, store: Store, folder: &Path) -> SocketAddr {
        let settings = if self.driver.name == "memory" { json!({}) } else { json!({"path": "store"}) };
        let opened = Opened::open(&self.driver, store, OpenContext::new(table(settings), folder)).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let host = Host::new(listener, vec![opened], HostOptions::default()).unwrap();
        tokio::spawn(host.serve(std::future::pending()));
        address
    }

    async fn connect(&self, store: Store, address: SocketAddr) -> Result<Opened> {
        let settings = json!({"url": format!("http://{address}"), "encoding": self.encoding});
        connect(store, &OpenContext::new(table(settings), "")).await
    }
}

const MEMORY: Hosted = Hosted { driver: snaphook_memory::DRIVER, encoding: "json" };
const FILE: Hosted = Hosted { driver: snaphook_file::DRIVER, encoding: "protobuf" };

mod memory_as_json {
    use super::MEMORY;

    snaphook_driver_testkit::lost_connection_suite!(MEMORY);
}

mod file_as_protobuf {
    use super::FILE;

    snaphook_driver_testkit::lost_connection_suite!(FILE);
}
