//! The capabilities of each driver's stores are listed in a table of `docs/drivers.md`, and a host passes them on
//! unchanged.

use std::path::Path;

use serde_json::{Map, Value, json};
use snaphook_driver::wire::{Opened, Service};
use snaphook_driver::{Capabilities, Driver, OpenContext, Store};
use snaphook_driver_testkit::peer::{Peer, Reply};
use snaphook_driver_testkit::servers::nats::WithNats;
use snaphook_driver_testkit::servers::postgres::WithPostgres;
use snaphook_driver_testkit::servers::redis::WithRedis;
use snaphook_driver_testkit::{Opener, run};
use snaphook_remote::connect;
use snaphook_remote::host::{Host, HostOptions};
use tokio::net::TcpListener;

const DRIVERS: [(Driver, &[Store]); 9] = [
    (snaphook_sqlite::DRIVER, &[Store::Event, Store::Model, Store::Error]),
    (snaphook_file::DRIVER, &[Store::Event, Store::Model, Store::Error, Store::Secure]),
    (snaphook_memory::DRIVER, &[Store::Event, Store::Model, Store::Error, Store::Secure]),
    (snaphook_crud::DRIVER, &[Store::Model]),
    (snaphook_http::DRIVER, &[Store::Error]),
    (snaphook_stdout::DRIVER, &[Store::Error]),
    (snaphook_postgres::DRIVER, &[Store::Event, Store::Model, Store::Error]),
    (snaphook_nats::DRIVER, &[Store::Event, Store::Secure]),
    (snaphook_redis::DRIVER, &[Store::Secure]),
];

/// The head of the table.
const HEAD: &str = "| driver | store | capabilities |\n| --- | --- | --- |\n";

fn table(settings: Value) -> Map<String, Value> {
    settings.as_object().cloned().unwrap_or_default()
}

async fn open(driver: &Driver, store: Store, peer: &str, folder: &Path) -> Opened {
    let settings = match driver.name {
        "sqlite" | "file" => json!({"path": format!("{}-{store}", driver.name)}),
        "crud" => json!({"url": peer}),
        "http" => json!({"url": peer, "buffer": "http"}),
        _ => json!({}),
    };
    let context = OpenContext::new(table(settings), folder);
    match driver.name {
        "postgres" => on_server(&WithPostgres(*driver), store, context).await,
        "nats" => on_server(&WithNats(*driver), store, context).await,
        "redis" => on_server(&WithRedis(*driver), store, context).await,
        _ => Opened::open(driver, store, context).await.unwrap(),
    }
}

async fn on_server(opener: &dyn Opener, store: Store, context: OpenContext) -> Opened {
    opener.prepare(&context.directory);
    opener.open(store, context).await.unwrap()
}

/// The capabilities that are reported when the store is opened.
fn capabilities(opened: &Opened) -> Capabilities {
    Service::new(opened.clone()).describe(1).capabilities.unwrap().into()
}

/// The flags as the table names them.
fn flags(capabilities: Capabilities) -> String {
    let Capabilities { durable, shared, atomic_batch, ordered_claims, readable, .. } = capabilities;
    let flags = [
        ("durable", durable),
        ("shared", shared),
        ("atomic_batch", atomic_batch),
        ("ordered_claims", ordered_claims),
        ("readable", readable),
    ];
    let named: Vec<String> = flags.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| format!("`{name}`")).collect();
    if named.is_empty() { "none".to_owned() } else { named.join(", ") }
}

/// The same store behind a host.
async fn hosted(opened: Opened) -> Opened {
    let store = opened.store();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(Host::new(listener, vec![opened], HostOptions::default()).unwrap().serve(std::future::pending()));
    connect(store, &OpenContext::new(table(json!({"url": url})), "")).await.unwrap()
}

#[test]
fn the_page_has_what_the_drivers_say() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let peer = Peer::start(|_| Reply::json(200, "[]"));
        let mut expected = HEAD.to_owned();
        for (driver, stores) in &DRIVERS {
            for store in *stores {
                let opened = open(driver, *store, &peer.url(""), folder.path()).await;
                let found = capabilities(&opened);
                expected.push_str(&format!("| `{}` | {store} | {} |\n", driver.name, flags(found)));
                let remote = capabilities(&hosted(opened.clone()).await);
                assert_eq!(flags(remote), flags(found), "{} {store} behind a host", driver.name);
                assert_eq!(remote.event_bytes_max, found.event_bytes_max, "{} {store} behind a host", driver.name);
                opened.close().await.unwrap();
            }
        }
        let page =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/drivers.md")).unwrap();
        let start = page.find(HEAD).expect("the page has the table of capabilities");
        let table: String = page[start..].split_inclusive('\n').take_while(|line| line.starts_with('|')).collect();
        assert_eq!(table, expected, "the table in docs/drivers.md, and what the drivers say");
    });
}
