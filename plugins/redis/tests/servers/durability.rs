//! Servers with insufficient guarantees.

use serde_json::json;
use snaphook_driver::ErrorKind;
use snaphook_driver_testkit::run;
use snaphook_driver_testkit::servers::redis::{DURABLE, start, url};

use crate::support::{ask, eventually, open, open_at, refused};

#[test]
fn a_server_that_promises_too_little_is_refused() {
    run(async {
        let server = start(&[]);
        let open_with = |durability: &str| {
            let settings = json!({"url": url(&server), "durability": durability, "prefix": durability});
            async move { open(settings).await.err().map(|error| error.to_string()).unwrap_or_default() }
        };
        let set = |name: &'static str, value: &'static str| {
            let server = &server;
            async move { ask(server, &["CONFIG", "SET", name, value]).await.unwrap() }
        };
        let error = refused(json!({"url": url(&server)})).await;
        for part in [
            "open: bad configuration: the server is less durable",
            "`appendonly` is `no`, expected `yes`",
            "`appendfsync` is `everysec`, expected `always`",
            "change the server's configuration or `durability`",
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(open_with("lazy").await, "");
        assert!(open_with("everysec").await.contains("`appendonly` is `no`, expected `yes`;"));
        set("appendonly", "yes").await;
        assert_eq!(open_with("everysec").await, "");
        assert!(open_with("fsync").await.contains("`appendfsync` is `everysec`, expected `always`;"));
        set("appendfsync", "always").await;
        assert_eq!(open_with("fsync").await, "");
        for (name, bad, good) in
            [("no-appendfsync-on-rewrite", "yes", "no"), ("maxmemory-policy", "allkeys-lru", "noeviction")]
        {
            set(name, bad).await;
            let error = open_with("fsync").await;
            assert!(error.contains(&format!("`{name}` is `{bad}`, expected `{good}`")), "{error}");
            set(name, good).await;
        }
    });
}

#[test]
fn a_server_that_hides_its_configuration_is_checked_as_far_as_it_goes() {
    run(async {
        let hidden: &[&str] = &["--rename-command", "CONFIG", ""];
        // The fsync policy is unknown, but the known settings are enough to reject the server.
        let server = start(hidden.to_vec().leak());
        let error = refused(json!({"url": url(&server)})).await;
        assert!(error.contains("`appendonly` is `no`, expected `yes`;"), "{error}");
        let server = start([hidden, &["--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"]].concat().leak());
        let error = refused(json!({"url": url(&server)})).await;
        assert!(error.contains("`maxmemory-policy` is `allkeys-lru`, expected `noeviction`;"), "{error}");
        let server = start([hidden, &["--appendonly", "yes"]].concat().leak());
        let store = open_at(&server, "hidden").await.unwrap();
        assert_eq!(store.put("a", b"x", None).await.unwrap(), 1);
        store.health().await.unwrap();
    });
}

#[test]
fn a_server_that_comes_back_with_less_is_read_and_not_changed() {
    run(async {
        let mut server = start(DURABLE);
        let store = open_at(&server, "less").await.unwrap();
        store.put("a", b"x", None).await.unwrap();
        // The setting is lost when the server restarts.
        ask(&server, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lfu"]).await.unwrap();
        let error = store.health().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("`maxmemory-policy` is `allkeys-lfu`"), "{error}");
        let error = store.put("a", b"y", None).await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Config, "put"));
        assert_eq!(store.delete("a").await.unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(store.get("a").await.unwrap().unwrap().bytes, b"x");
        assert_eq!(store.list("").await.unwrap(), ["a"]);
        server.restart();
        assert_eq!(eventually(async || store.put("a", b"y", None).await).await, 2);
        // A new connection detects it without a call of `health`.
        ask(&server, &["CONFIG", "SET", "appendfsync", "everysec"]).await.unwrap();
        ask(&server, &["CLIENT", "KILL", "TYPE", "normal"]).await.ok();
        assert_eq!(store.get("a").await.unwrap().unwrap().version, 2);
        assert_eq!(store.put("a", b"z", None).await.unwrap_err().kind(), ErrorKind::Config);
        ask(&server, &["CONFIG", "SET", "appendfsync", "always"]).await.unwrap();
        assert_eq!(store.put("a", b"z", None).await.unwrap(), 3);
        store.health().await.unwrap();
    });
}

#[test]
fn a_full_memory_is_told() {
    run(async {
        let server = start(&["--appendonly", "yes", "--appendfsync", "always", "--maxmemory", "4mb"]);
        let store = open_at(&server, "full").await.unwrap();
        store.put("small", b"x", None).await.unwrap();
        let large = vec![7; 1 << 20];
        let mut stored = 0;
        let error = loop {
            match store.put(&format!("large-{stored}"), &large, None).await {
                Ok(_) => stored += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        assert!(stored < 8, "{stored}");
        assert_eq!(store.list("large").await.unwrap().len(), stored);
        assert!(store.get("small").await.unwrap().is_some());
        assert!(store.delete("large-0").await.unwrap(), "what is removed makes room");
    });
}
