//! Slow, numerous, or disconnected clients do not keep the host from serving others.

use std::time::Duration;

use snaphook_driver::PAYLOAD_BYTES_MAX;
use snaphook_driver_testkit::run;
use snaphook_remote::host::{HostLimits, HostOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{DEADLINE, post, read_to_end, send, serve_secrets};

const SHORT: Duration = Duration::from_millis(200);
const HOST: &str = "Host: localhost\r\n";

fn health() -> String {
    post("/secure/health", HOST, "{}")
}

#[test]
fn a_head_that_never_ends_is_given_up() {
    run(async {
        let limits = HostLimits { head_time: SHORT, ..HostLimits::default() };
        let (address, _) = serve_secrets(HostOptions::default(), limits).await;
        // One client sends nothing, another a byte now and then.
        let mut silent = TcpStream::connect(address).await.unwrap();
        assert_eq!(read_to_end(&mut silent).await.text, "");
        let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
        let dribbling = async {
            let mut pause = tokio::time::interval(SHORT / 10);
            writer.write_all(b"POST /secure/health HTTP/1.1\r\nX-Long: ").await.unwrap();
            while writer.write_all(b"x").await.is_ok() {
                pause.tick().await;
            }
        };
        let mut end = Vec::new();
        tokio::select! {
            _ = reader.read_to_end(&mut end) => {}
            () = dribbling => {}
            () = tokio::time::sleep(DEADLINE) => panic!("the host still reads the head"),
        }
        assert_eq!(send(address, &health()).await.status, 200);
    });
}

#[test]
fn a_body_that_never_ends_is_given_up() {
    run(async {
        let limits = HostLimits { body_time: SHORT, ..HostLimits::default() };
        let (address, store) = serve_secrets(HostOptions::default(), limits).await;
        // More requests than there is memory for bodies of this size.
        let length = 60 << 20;
        let head = "POST /secure/put HTTP/1.1\r\nConnection: close\r\nContent-Type: application/json\r\n";
        let unended = format!("{head}{HOST}Content-Length: {length}\r\n\r\n{{\"name\": \"a\", \"bytes\": \"AA==\"}}");
        let requests: Vec<_> = (0..6)
            .map(|_| {
                let unended = unended.clone();
                tokio::spawn(async move { send(address, &unended).await })
            })
            .collect();
        for request in requests {
            let reply = request.await.unwrap();
            assert_eq!(reply.status, 503, "{reply:?}");
            assert!(reply.text.contains("did not arrive within 200ms"), "{reply:?}");
        }
        // A request that ends in the middle of its body is not executed either.
        drop(TcpStream::connect(address).await.unwrap().write_all(unended.as_bytes()).await);
        assert_eq!(send(address, &health()).await.status, 200);
        assert_eq!(store.list("").await.unwrap(), Vec::<String>::new());
    });
}

#[test]
fn connections_beyond_the_limit_wait() {
    run(async {
        let limits = HostLimits { connections: 2, ..HostLimits::default() };
        let (address, _) = serve_secrets(HostOptions::default(), limits).await;
        let idle = TcpStream::connect(address).await.unwrap();
        let mut busy = TcpStream::connect(address).await.unwrap();
        let request = health().replace("Connection: close\r\n", "");
        let mut turn = async || {
            busy.write_all(request.as_bytes()).await.unwrap();
            let mut response = [0; 4096];
            let length = tokio::time::timeout(DEADLINE, busy.read(&mut response)).await.unwrap().unwrap();
            assert!(response[..length].starts_with(b"HTTP/1.1 200"), "{:?}", &response[..length]);
        };
        turn().await;
        let waiting = tokio::spawn(async move { send(address, &health()).await });
        for _ in 0..50 {
            turn().await;
        }
        assert!(!waiting.is_finished(), "a third connection is served beside two");
        drop(idle);
        assert_eq!(waiting.await.unwrap().status, 200);
        turn().await;
    });
}

#[test]
fn idle_connections_make_room() {
    run(async {
        let limits = HostLimits { connections: 1, head_time: SHORT, ..HostLimits::default() };
        let (address, _) = serve_secrets(HostOptions::default(), limits).await;
        let _idle = TcpStream::connect(address).await.unwrap();
        assert_eq!(send(address, &health()).await.status, 200);
    });
}

#[test]
fn a_response_that_nobody_reads_is_given_up() {
    run(async {
        let limits = HostLimits { connections: 1, write_time: SHORT, ..HostLimits::default() };
        let (address, store) = serve_secrets(HostOptions::default(), limits).await;
        store.put("large", &vec![7; PAYLOAD_BYTES_MAX], None).await.unwrap();
        let mut deaf = TcpStream::connect(address).await.unwrap();
        deaf.write_all(post("/secure/get", HOST, r#"{"name": "large"}"#).as_bytes()).await.unwrap();
        // The only connection is available again once the host has closed the first one.
        assert_eq!(send(address, &health()).await.status, 200);
    });
}
