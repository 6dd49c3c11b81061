//! Connections that are rejected, and their error messages.

use serde_json::json;
use snaphook_driver::ErrorKind;
use snaphook_driver_testkit::run;
use snaphook_driver_testkit::servers::free_port;
use snaphook_driver_testkit::servers::redis::{DURABLE, start, url};

use crate::support::{ask, open, refused};

#[test]
fn passwords_are_checked_and_never_shown() {
    run(async {
        let server = start(&["--appendonly", "yes", "--appendfsync", "always", "--requirepass", "right-password"]);
        let (host, port) = ("127.0.0.1", server.address().port());
        let at = |user_info: &str| format!("redis://{user_info}{host}:{port}");
        let refusal = "the server does not accept this user and password";
        for (settings, message) in [
            (json!({"url": at("")}), "the server requires a password, set `password` of the connection"),
            (json!({"url": at(":hunter2@")}), refusal),
            (json!({"url": at("nobody:hunter2@")}), refusal),
            (json!({"host": host, "port": port, "password": "hunter2"}), refusal),
            (json!({"url": at(":right-password@"), "database": 999}), "the server has no database 999"),
        ] {
            let error = refused(settings.clone()).await;
            assert!(error.starts_with("open: bad configuration: ") && error.contains(message), "{settings}: {error}");
            assert!(!error.contains("hunter2") && !error.contains("right-password"), "{error}");
        }
        for settings in [
            json!({"url": at(":right-password@")}),
            json!({"url": at("default:right-password@")}),
            json!({"url": at(""), "password": "right-password"}),
            json!({"host": host, "port": port, "user": "default", "password": "right-password", "database": 3}),
        ] {
            let store = open(settings.clone()).await.unwrap();
            // Only the last settings use another database.
            let is_first = settings.get("database").is_some() || store.get("a").await.unwrap().is_none();
            assert_eq!(store.put("a", b"x", None).await.unwrap() == 1, is_first, "{settings}");
        }
    });
}

#[test]
fn a_password_that_the_server_does_not_have() {
    run(async {
        let server = start(DURABLE);
        let error = refused(json!({"url": url(&server), "password": "hunter2"})).await;
        assert!(error.contains("the server has no password for this user"), "{error}");
        // A server that does not know the command may echo the request.
        let server = start(&["--rename-command", "AUTH", ""]);
        let error = refused(json!({"url": url(&server), "password": "hunter2"})).await;
        assert!(error.contains("bad configuration") && !error.contains("hunter2"), "{error}");
    });
}

#[test]
fn users_need_few_permissions() {
    run(async {
        let server = start(DURABLE);
        let user = async |rules: &[&str]| {
            ask(&server, &[&["ACL", "SETUSER", "app", "reset", "on", ">secret-1"], rules].concat()).await.unwrap()
        };
        let settings = json!({"url": url(&server), "user": "app", "password": "secret-1", "prefix": "acl"});
        // The permissions that the driver's documentation lists.
        let needed: &[&str] = &[
            "~{acl}:*",
            "+eval",
            "+hmget",
            "+hget",
            "+hset",
            "+zscore",
            "+zadd",
            "+zrem",
            "+zrangebylex",
            "+exists",
            "+get",
            "+set",
            "+del",
        ];
        user(needed).await;
        let store = open(settings.clone()).await.unwrap();
        assert_eq!(store.put("a", b"x", None).await.unwrap(), 1);
        assert_eq!(store.list("").await.unwrap(), ["a"]);
        assert!(store.get("a").await.unwrap().is_some() && store.delete("a").await.unwrap());
        store.health().await.unwrap();
        // The permissions are revoked while the store is open.
        user(&["~{other}:*", "+@all", "-config", "-info"]).await;
        let error = store.put("a", b"x", None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("NOPERM") && !error.to_string().contains("secret-1"), "{error}");
        user(needed).await;
        assert_eq!(store.put("a", b"x", None).await.unwrap(), 1);
        // Without these permissions, the server's guarantees cannot be verified.
        ask(&server, &["CONFIG", "SET", "appendfsync", "everysec"]).await.unwrap();
        store.health().await.unwrap();
        user(&[needed, &["+config|get", "+info"]].concat()).await;
        assert_eq!(store.health().await.unwrap_err().kind(), ErrorKind::Config);
        ask(&server, &["CONFIG", "SET", "appendfsync", "always"]).await.unwrap();
        store.health().await.unwrap();
    });
}

#[test]
fn servers_that_are_none() {
    run(async {
        let error = refused(json!({"url": format!("redis://127.0.0.1:{}", free_port())})).await;
        assert!(error.contains("open: unavailable: the server cannot be reached"), "{error}");
        let error = refused(json!({"url": "redis://host.invalid"})).await;
        assert!(error.contains("open: unavailable: the server cannot be reached"), "{error}");
        // Another kind of server listens there.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            }
        });
        let error = refused(json!({"url": format!("redis://{address}")})).await;
        assert!(error.contains("open: unavailable"), "{error}");
    });
}

/// The driver limits how much data of a server it buffers.
#[test]
fn a_response_without_end_is_cut_off() {
    run(async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        for beginning in ["$9999999999\r\n", "+", "*1000000000\r\n$1\r\n"] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let serving = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.read_u8().await.unwrap();
                stream.write_all(beginning.as_bytes()).await.unwrap();
                let (piece, mut sent) = (vec![b'x'; 64 * 1024], 0);
                while stream.write_all(&piece).await.is_ok() {
                    sent += piece.len();
                }
                sent
            });
            let error = refused(json!({"url": format!("redis://{address}")})).await;
            assert!(error.starts_with("open: unavailable: "), "{error}");
            // The driver's limit, and the system's buffers.
            let sent = serving.await.unwrap();
            assert!(sent < 32 * 1024 * 1024, "{beginning:?}: {sent}");
        }
    });
}

#[test]
fn what_is_no_setting() {
    run(async {
        for (settings, message) in [
            (json!({}), "`url` is missing"),
            (json!({"url": "redis://a", "durability": "always"}), "`durability` is `always`, expected `fsync`"),
            (json!({"url": "redis://a", "prefx": "a"}), "prefx"),
            (json!({"url": "redis://a", "prefix": "a b"}), "`prefix` is `a b`"),
            (json!({"host": "a", "database": -1}), "`database` is `-1`, expected the number"),
        ] {
            let error = refused(settings.clone()).await;
            assert!(error.starts_with("open: bad configuration: ") && error.contains(message), "{settings}: {error}");
        }
    });
}
