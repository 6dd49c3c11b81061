//! Configurations that cannot work are rejected when a store is opened, with a message that says what to do.

use serde_json::{Value, json};
use snaphook_driver::{DriverError, ErrorKind};
use snaphook_driver_testkit::run;
use snaphook_driver_testkit::servers::{free_port, postgres};
use snaphook_postgres::DRIVER;

use crate::common::{client, context, open, schema, try_open, url};

#[track_caller]
fn refused<T>(result: Result<T, DriverError>, kind: ErrorKind, words: &[&str]) {
    let error = result.err().expect("refused");
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "`{word}` in `{error}`");
    }
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

#[test]
fn settings_are_checked() {
    run(async {
        for (settings, word) in [
            (json!({}), "url"),
            (json!({"url": "postgres://u:hunter2@[/d"}), "is not a valid address"),
            (json!({"host": "127.0.0.1", "password": "hunter2"}), "no user"),
            (json!({"url": "postgres://u@h/d", "password": "hunter2"}), "already contains the server"),
            (json!({"url": "postgres://u@h/d", "schema": "x; DROP"}), "schema"),
            (json!({"url": "postgres://u@h/d", "durability": "none"}), "none"),
            (json!({"url": "postgres://u@h/d", "tls-ca": "missing.pem"}), "missing.pem"),
        ] {
            refused(try_open("a", settings.clone()).await, ErrorKind::Config, &[word]);
            refused(DRIVER.error.unwrap()(context("a", settings)).await, ErrorKind::Config, &[word]);
        }
        let context = snaphook_driver::OpenContext::new(Default::default(), "/");
        refused(DRIVER.event.unwrap()(context).await, ErrorKind::Config, &["connection"]);
    });
}

#[test]
fn what_is_not_there_is_unavailable() {
    run(async {
        let url = format!("postgres://u:hunter2@127.0.0.1:{}/d", free_port());
        refused(try_open("a", json!({"url": url})).await, ErrorKind::Unavailable, &["cannot be reached"]);
        // A listener that sends nothing, and one that speaks another protocol.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgres://u:hunter2@{}/d", silent.local_addr().unwrap());
        refused(try_open("a", json!({"url": url})).await, ErrorKind::Unavailable, &["in time"]);
    });
}

#[test]
fn databases_that_cannot_keep_everything_are_refused() {
    run(async {
        let url = url();
        let address = url.rsplit_once('/').unwrap().0;
        let missing = try_open("a", json!({"url": format!("{address}/nowhere")})).await;
        refused(missing, ErrorKind::Config, &["nowhere", "create the database"]);
        let client = client(&url).await;
        client
            .batch_execute("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
            .await
            .unwrap();
        let latin = try_open("a", json!({"url": format!("{address}/latin")})).await;
        refused(latin, ErrorKind::Config, &["LATIN1", "expected UTF8"]);
        client.batch_execute("CREATE ROLE guest LOGIN").await.unwrap();
        let guest = url.replace(postgres::USER, "guest");
        refused(try_open("a", json!({"url": guest})).await, ErrorKind::Config, &["permission denied", "grant"]);
        refused(
            try_open("a", json!({"url": url, "tls": "require"})).await,
            ErrorKind::Config,
            &["does not support TLS", "tls = 'off'"],
        );
    });
}

#[test]
fn a_schema_of_a_newer_program_is_left_alone() {
    run(async {
        let (url, schema) = (url(), schema());
        let store = open("a", &url, &schema).await;
        store.close().await.unwrap();
        let client = client(&url).await;
        client
            .batch_execute(&format!("UPDATE {schema}.versions SET version = 99 WHERE store = 'event'"))
            .await
            .unwrap();
        let settings: Value = json!({"url": url, "schema": schema});
        refused(try_open("b", settings).await, ErrorKind::Config, &["99", "newer", &schema]);
    });
}

/// Without fsync, the server would acknowledge events that never reach the disk.
#[test]
fn a_server_that_does_not_sync_is_refused() {
    run(async {
        let server = postgres::start(&["fsync=off"]);
        let url = postgres::url(&server);
        refused(try_open("a", json!({"url": url})).await, ErrorKind::Config, &["fsync", "durability = 'lazy'"]);
        let store = try_open("b", json!({"url": url, "durability": "lazy"})).await.unwrap();
        assert_eq!(store.head().await.unwrap(), 0);
        store.close().await.unwrap();
    });
}

/// An acknowledged commit is on disk, whatever the role's or the database's own settings are.
#[test]
fn commits_wait_for_the_disk() {
    run(async {
        let server = postgres::start(&["synchronous_commit=off"]);
        let url = postgres::url(&server);
        let store = open("a", &url, "s").await;
        let client = client(&url).await;
        client.batch_execute("CREATE TABLE s.seen(value text)").await.unwrap();
        client
            .batch_execute(
                "CREATE FUNCTION s.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO s.seen VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$;
                 CREATE TRIGGER see AFTER UPDATE ON s.log FOR EACH ROW EXECUTE FUNCTION s.see()",
            )
            .await
            .unwrap();
        snaphook_driver_testkit::sample::append_one(&*store, snaphook_driver_testkit::sample::any("m", "i")).await;
        let seen = client.query_one("SELECT value FROM s.seen", &[]).await.unwrap();
        assert_eq!(seen.get::<_, String>(0), "on");
        store.close().await.unwrap();
    });
}
