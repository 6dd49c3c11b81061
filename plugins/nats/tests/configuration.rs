//! Configurations that are rejected when a store is opened, and the error messages.

mod support;

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use serde_json::json;
use snaphook_driver::ErrorKind;
use snaphook_driver_testkit::sample::{any, append_one, create};
use snaphook_driver_testkit::servers::{free_port, nats};
use support::Node;

#[tokio::test(flavor = "multi_thread")]
async fn streams_with_another_configuration_are_refused() {
    let server = nats::start("always");
    let url = nats::url(&server);
    let jetstream = async_nats::jetstream::new(async_nats::connect(&url).await.unwrap());
    let right = |log: &str| Config {
        name: format!("{log}_log"),
        subjects: vec![format!("{log}.log")],
        deny_delete: true,
        deny_purge: true,
        discard: DiscardPolicy::New,
        ..Config::default()
    };
    jetstream.create_stream(right("right")).await.unwrap();
    Node::new("a", &url, "right").open().await.close().await.unwrap();
    type Variation = fn(Config) -> Config;
    let wrong: [(&str, Variation, &str); 6] = [
        ("delete", |config| Config { deny_delete: false, ..config }, "`deny_delete` false, expected true"),
        ("purge", |config| Config { deny_purge: false, ..config }, "`deny_purge` false, expected true"),
        ("old", |config| Config { discard: DiscardPolicy::Old, ..config }, "`discard` Old, expected New"),
        (
            "age",
            |config| Config { max_age: std::time::Duration::from_secs(60), ..config },
            "`max_age` 60s, expected 0ns",
        ),
        ("many", |config| Config { max_messages: 1000, ..config }, "`max_msgs` 1000, expected unlimited"),
        (
            "memory",
            |config| Config { storage: async_nats::jetstream::stream::StorageType::Memory, ..config },
            "`storage` Memory, expected File",
        ),
    ];
    for (log, change, message) in wrong {
        jetstream.create_stream(change(right(log))).await.unwrap();
        let error = Node::new("a", &url, log).refused().await;
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(message), "{error}");
    }
    let error = Node::with("a", json!({"url": url, "name": "right", "replicas": 3})).refused().await;
    assert!(error.to_string().contains("`replicas` 1, expected 3"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_payloads_are_refused_and_the_default_is_enough() {
    let small = nats::start_with("always", "max_payload: 100KB".into());
    let error = Node::new("a", &nats::url(&small), "small").refused().await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("raise `max_payload`"), "{error}");
    let default = nats::start_with("always", "max_payload: 1MB".into());
    let nodes = ["a", "b"].map(|name| Node::new(name, &nats::url(&default), "default"));
    let store = nodes[0].open().await;
    let data = format!("\"{}\"", "x".repeat(snaphook_driver::PAYLOAD_BYTES_MAX - 2));
    let position = append_one(&*store, create("m", "large", &data)).await;
    let stream = snaphook_driver::Stream::of_instance("m", "large");
    let event = store.last(&stream, position).await.unwrap().unwrap();
    assert!(event.data.unwrap().as_str() == data);
    // Another node reads the event from the server.
    let other = nodes[1].open().await;
    let event = other.last(&stream, position).await.unwrap().unwrap();
    assert!(event.data.unwrap().as_str() == data);
    store.close().await.unwrap();
    other.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn durability_is_verified_by_monitoring() {
    for (sync_interval, works) in [("always", true), ("\"2m\"", false)] {
        let port = free_port();
        let server = nats::start_with(sync_interval, format!("http: 127.0.0.1:{port}"));
        let monitor = format!("http://127.0.0.1:{port}");
        let url = nats::url(&server);
        let node = Node::with("a", json!({"url": url, "monitor": monitor}));
        if works {
            let store = node.open().await;
            append_one(&*store, any("m", "a")).await;
            store.close().await.unwrap();
        } else {
            let error = node.refused().await;
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("only every 120 s, but `durability` is `fsync`"), "{error}");
            let lazy = Node::with("a", json!({"url": url, "monitor": monitor, "durability": "lazy"}));
            lazy.open().await.close().await.unwrap();
        }
        let gone = Node::with("a", json!({"url": url, "monitor": format!("http://127.0.0.1:{}", free_port())}));
        let error = gone.refused().await;
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("the monitoring endpoint cannot be reached"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_are_refused_without_their_secrets() {
    let gone = format!("nats://user:hunter2@127.0.0.1:{}", free_port());
    let error = Node::new("a", &gone, "x").refused().await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!error.to_string().contains("hunter2"), "{error}");
    let url = "nats://127.0.0.1:4222";
    for (settings, message) in [
        (json!({"url": "http://hunter2@x"}), "address 1 in `url` is invalid"),
        (json!({"url": format!("{url},::hunter2::")}), "address 2 in `url` is invalid"),
        (json!({"url": url, "name": "a.b"}), "`name` is `a.b`, expected 1 to 64 letters"),
        (json!({"url": url, "name": ""}), "`name` is ``"),
        (json!({"url": url, "replicas": 0}), "`replicas` is 0, expected 1 to 5"),
        (json!({"url": url, "durability": "replicated"}), "needs at least 3"),
        (json!({"url": url, "user": "u"}), "only one of `user` and `password` is given"),
        (json!({"url": url, "user": "u", "password": "hunter2", "token": "hunter2"}), "more than one of"),
        (json!({"url": url, "credentials": "none.creds"}), "the file in `credentials` cannot be used"),
        (json!({"url": url, "durability": "sometimes"}), "unknown variant `sometimes`"),
    ] {
        let error = Node::with("a", settings).refused().await;
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(message), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_a_password_gets_it() {
    let lines = "authorization { user: u, password: hunter2 }";
    let server = nats::start_with("always", lines.into());
    let url = nats::url(&server);
    let error = Node::new("a", &url, "x").refused().await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let node = Node::with("a", json!({"url": url, "user": "u", "password": "hunter2"}));
    node.open().await.close().await.unwrap();
    let within = url.replace("nats://", "nats://u:hunter2@");
    Node::new("b", &within, "snaphook").open().await.close().await.unwrap();
}
