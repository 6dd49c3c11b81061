//! Issuers whose responses are invalid in all kinds of ways, and how often one is requested.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;
use snaphook_identity::DeniedKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::issuer::encode;
use super::{identify, identity, settings};

/// Serves the complete responses that `answer` creates for an address and a path. Counts the requests.
async fn serve(answer: impl Fn(&str, &str) -> Vec<u8> + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let (own_url, own_count) = (url.clone(), Arc::clone(&count));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let path = path(&mut stream).await;
            own_count.fetch_add(1, Ordering::Relaxed);
            let response = answer(&own_url, &path);
            tokio::spawn(async move {
                let _ = stream.write_all(&response).await;
            });
        }
    });
    (url, count)
}

async fn path(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.is_ok_and(|length| length == 1) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned()
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn description(url: &str) -> String {
    json!({"issuer": url, "jwks_uri": format!("{url}/jwks")}).to_string()
}

fn token(kid: &str) -> String {
    let header = json!({"alg": "EdDSA", "kid": kid}).to_string();
    format!("{}.{}.{}", encode(header), encode("{}"), encode([0; 64]))
}

#[tokio::test(flavor = "multi_thread")]
async fn useless_answers_of_an_issuer_are_bounded_and_believed_in_nothing() {
    type Responder = Box<dyn Fn(&str, &str) -> Vec<u8> + Send + Sync>;
    let rows: Vec<(&str, Responder)> = vec![
        ("nothing", Box::new(|_, _| Vec::new())),
        ("no HTTP", Box::new(|_, _| b"hello\n".to_vec())),
        ("an error", Box::new(|_, _| b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec())),
        ("a web page", Box::new(|_, _| ok("<html>"))),
        ("another issuer", Box::new(|_, _| ok(&description("https://id.test")))),
        (
            "no keys",
            Box::new(|url, path| ok(&if path == "/jwks" { r#"{"keys":[]}"#.to_owned() } else { description(url) })),
        ),
        ("a large description", Box::new(|url, _| ok(&(description(url) + &" ".repeat(70 << 10))))),
        (
            "many keys",
            Box::new(|url, path| match path {
                "/jwks" => ok(&format!(r#"{{"keys":[{}]}}"#, vec![r#"{"kty":"oct"}"#; 50_000].join(","))),
                _ => ok(&description(url)),
            }),
        ),
        (
            "a redirect",
            Box::new(|url, path| match path {
                "/elsewhere" => ok(&description(url)),
                _ => {
                    format!("HTTP/1.1 302 Found\r\nLocation: {url}/elsewhere\r\nContent-Length: 0\r\n\r\n").into_bytes()
                }
            }),
        ),
        ("half an answer", Box::new(|_, _| b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{".to_vec())),
    ];
    for (what, answer) in rows {
        let (url, _) = serve(answer).await;
        let identity = identity(settings(&url)).await;
        let started = Instant::now();
        let denied = identify(&identity, &token("a")).await.unwrap_err();
        assert_eq!(denied.kind(), DeniedKind::Unavailable, "{what}: {denied}");
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_never_answers_delays_only_what_needs_it() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let identity = identity(settings(&format!("http://{}", listener.local_addr().unwrap()))).await;
    let started = Instant::now();
    let denied = identify(&identity, &token("a")).await.unwrap_err();
    assert_eq!(denied.kind(), DeniedKind::Unavailable);
    assert!(started.elapsed() < Duration::from_secs(13));
    let started = Instant::now();
    assert_eq!(identify(&identity, &token("a")).await.unwrap_err().kind(), DeniedKind::Unavailable);
    assert!(started.elapsed() < Duration::from_secs(2), "what failed a moment ago is not tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_make_few_requests_to_the_issuer() {
    let random = ring::rand::SystemRandom::new();
    let document = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let x = encode(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap().public_key());
    let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "known", "x": x}]}).to_string();
    let (url, count) = serve(move |url, path| match path {
        "/jwks" => ok(&keys),
        _ => ok(&description(url)),
    })
    .await;
    let identity = Arc::new(identity(settings(&url)).await);
    let tasks: Vec<_> = (0..300)
        .map(|index| {
            let identity = Arc::clone(&identity);
            tokio::spawn(async move { identify(&identity, &token(&format!("k{index}"))).await.unwrap_err().kind() })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), DeniedKind::Refused);
    }
    let requests = count.load(Ordering::Relaxed);
    assert!((2..=4).contains(&requests), "{requests}");
}
