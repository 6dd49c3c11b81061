//! Requests against real servers on this machine: what is opened, what is not, and every way around that is known.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::config::Phase;
use crate::hooks::access::{AccessCode, AccessError};
use crate::hooks::session::{HostError, HttpRequest, HttpResponse, Redirect, Session};
use crate::hooks::testing::{Bench, access_error, rerun, skip};

/// A server that answers each request with what a function says, and remembers the requests.
struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), Arc::clone(&seen));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                tokio::spawn(async move { serve(stream, &*answer, &log).await });
            }
        });
        Server { port, seen }
    }

    /// Answers everything with 200 and "hello".
    async fn hello() -> Server {
        Server::start(|_| "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-a: b\r\n\r\nhello".to_owned()).await
    }

    /// Redirects everything.
    async fn redirect(status: u16, location: String) -> Server {
        Server::start(move |_| format!("HTTP/1.1 {status} R\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"))
            .await
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// A grant of all of this server.
    fn grant(&self) -> String {
        format!("http = ['{}']", self.url("/*"))
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// Answers the requests of one connection; an answer without a body's length ends it.
async fn serve(mut stream: TcpStream, answer: &(dyn Fn(&str) -> String + Send + Sync), log: &Mutex<Vec<String>>) {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() < length.unwrap_or(0) {
            continue;
        }
        let reply = answer(&text);
        log.lock().unwrap().push(std::mem::take(&mut text));
        if reply == "endless" {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
            return;
        }
        if reply == "never" {
            return std::future::pending().await;
        }
        let _ = stream.write_all(reply.as_bytes()).await;
    }
}

fn get(url: &str) -> HttpRequest {
    HttpRequest {
        method: "GET".into(),
        url: url.into(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout: Some(Duration::from_secs(10)),
        redirect: Redirect::Follow,
    }
}

fn session(bench: &Bench, lines: &str) -> Arc<Session> {
    bench.session("invoice", Phase::PostCreate, "mail", lines)
}

async fn fetch(session: &Session, request: HttpRequest) -> Result<HttpResponse, AccessError> {
    session.http_send(request).await.map_err(access_error)
}

#[track_caller]
fn denied(result: Result<HttpResponse, AccessError>) -> String {
    let error = result.expect_err("it must be denied");
    assert_eq!(error.code, AccessCode::Denied, "{}", error.message);
    error.message
}

#[tokio::test]
async fn granted_requests_are_sent() {
    let server = Server::hello().await;
    let bench = Bench::new();
    let session = session(&bench, &server.grant());
    let mut request = get(&server.url("/a?b=c#d"));
    request.method = "post".into();
    request.body = b"data".to_vec();
    request.headers = vec![("X-Own".into(), " 1 ".into()), ("Content-Length".into(), "99".into())];
    let response = fetch(&session, request).await.unwrap();
    assert_eq!((response.status, response.body.as_slice()), (200, &b"hello"[..]));
    assert_eq!((response.url, response.redirected), (server.url("/a?b=c"), false));
    assert!(response.headers.contains(&("x-a".into(), "b".into())));
    let seen = server.seen().remove(0);
    assert!(seen.starts_with("POST /a?b=c HTTP/1.1\r\n") && seen.ends_with("\r\n\r\ndata"), "{seen}");
    assert!(seen.contains("x-own: 1\r\n") && seen.contains("content-length: 4\r\n"), "{seen}");
    let (_, asked) = session.finish();
    assert_eq!(asked[0].target, format!("POST {}", server.url("/a")));
}

#[tokio::test]
async fn the_lines_of_a_refusal_open_the_request() {
    let server = Server::hello().await;
    let bench = Bench::new();
    for method in ["GET", "DELETE"] {
        let mut request = get(&server.url("/v1/x?token=1"));
        request.method = method.into();
        let message = denied(fetch(&session(&bench, ""), request.clone()).await);
        assert!(!message.contains("token"), "{message}");
        let opened = bench.session_after(&message, "invoice", Phase::PostCreate, "mail");
        assert_eq!(fetch(&opened, request).await.unwrap().status, 200);
    }
    let message = denied(fetch(&session(&bench, ""), get("https://api.example.com/v1/x")).await);
    assert_eq!(
        message,
        "hook `invoice.postCreate/mail` asked for http to `https://api.example.com/v1/x`, which no grant opens; to allow it, \
         add to config.toml:\n[[grants]]\nmodel = 'invoice'\nphase = 'postCreate'\nhook = 'mail'\nhttp = \
         ['GET https://api.example.com/v1/x']"
    );
}

#[tokio::test]
async fn never_in_a_pre_phase() {
    let session = Bench::new().session("invoice", Phase::PreCreate, "check", "http = ['https://*/*']");
    let message = denied(fetch(&session, get("https://example.com/")).await);
    assert!(message.contains("no grant can open `http` to phase preCreate"), "{message}");
}

#[tokio::test]
async fn no_spelling_of_a_private_address_is_reached_through_a_wildcard() {
    let server = Server::hello().await;
    let bench = Bench::new().with_names(&[
        ("rebind.test", "127.0.0.1"),
        ("mapped.test", "::ffff:127.0.0.1"),
        ("six.test", "::1"),
        ("zero.test", "0.0.0.0"),
        ("meta.test", "169.254.169.254"),
        ("localhost", "127.0.0.1"),
        ("localhost.", "127.0.0.1"),
    ]);
    let session = session(&bench, "http = ['http://*:*/*', 'http://*.test:*/*', 'https://*/*']");
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7F.1",
        "017700000001",
        "0177.0.0.1",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "127.255.0.1",
        "0",
        "0.0.0.0",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "rebind.test",
        "mapped.test",
        "six.test",
        "zero.test",
        "meta.test",
        "169.254.169.254",
        "0xa9fea9fe",
        "[fd00:ec2::254]",
        "10.0.0.1",
        "192.168.0.1",
        "172.16.0.1",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
    ] {
        let url = format!("http://{host}:{}/", server.port);
        let message = denied(fetch(&session, get(&url)).await);
        assert!(message.contains(" address, which only a grant that names the host"), "{host}: {message}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn the_systems_own_names_are_judged_by_their_addresses() {
    let server = Server::hello().await;
    let bench = Bench::new();
    let session = session(&bench, "http = ['http://*:*/*']");
    let url = format!("http://localhost:{}/", server.port);
    let message = denied(fetch(&session, get(&url)).await);
    assert!(message.contains("`localhost` resolves to") && message.contains("a loopback address"), "{message}");
    // The lines name the host, so they open it.
    let opened = bench.session_after(&message, "invoice", Phase::PostCreate, "mail");
    assert_eq!(fetch(&opened, get(&url)).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_connection_for_a_named_host_serves_no_wildcard() {
    let server = Server::hello().await;
    let bench = Bench::new().with_names(&[("internal.test", "127.0.0.1")]);
    let url = format!("http://internal.test:{}/", server.port);
    let named = session(&bench, &format!("http = ['http://internal.test:{}/*']", server.port));
    fetch(&named, get(&url)).await.unwrap();
    denied(fetch(&session(&bench, "http = ['http://*.test:*/*']"), get(&url)).await);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn each_redirect_is_checked_again() {
    let target = Server::hello().await;
    let bench = Bench::new().with_names(&[("rebind.test", "127.0.0.1")]);
    for (location, part) in [
        (target.url("/x"), "which no grant opens"),
        (format!("http://localhost:{}/x", target.port), "which no grant opens"),
        (format!("http://0x7f.1:{}/x", target.port), "which no grant opens"),
        (format!("//127.1:{}/x", target.port), "which no grant opens"),
    ] {
        let first = Server::redirect(302, location.clone()).await;
        let message = denied(fetch(&session(&bench, &first.grant()), get(&first.url("/"))).await);
        assert!(message.contains(part) && message.contains("(a redirect from `"), "{location}: {message}");
    }
    // With a wildcard the URL is opened, but not the address.
    for location in
        [target.url("/x"), format!("http://rebind.test:{}/x", target.port), "http://169.254.169.254/".into()]
    {
        let first = Server::redirect(307, location).await;
        let lines = format!("http = ['{}', 'http://*:*/*']", first.url("/*"));
        let message = denied(fetch(&session(&bench, &lines), get(&first.url("/"))).await);
        assert!(message.contains("which only a grant that names the host"), "{message}");
    }
    for location in ["file:///etc/passwd", "ftp://127.0.0.1/", "data:,x", "http://u:p@127.0.0.1/", "http://"] {
        let first = Server::redirect(302, location.into()).await;
        let error = fetch(&session(&bench, &first.grant()), get(&first.url("/"))).await.unwrap_err();
        assert_eq!(error.code, AccessCode::Invalid, "{location}: {}", error.message);
    }
    assert!(target.seen().is_empty());
}

#[tokio::test]
async fn redirects_as_fetch_has_them() {
    let bench = Bench::new();
    let target = Server::hello().await;
    for (status, method, body) in
        [(301, "GET", ""), (302, "GET", ""), (303, "GET", ""), (307, "POST", "data"), (308, "POST", "data")]
    {
        let first = Server::redirect(status, target.url("/end")).await;
        let lines = format!("http = ['{}', '{}']", first.url("/*"), target.url("/*"));
        let mut request = get(&first.url("/"));
        request.method = "POST".into();
        request.body = b"data".to_vec();
        request.headers = vec![("content-type".into(), "text/plain".into())];
        let response = fetch(&session(&bench, &lines), request).await.unwrap();
        assert_eq!((response.url, response.redirected), (target.url("/end"), true));
        let seen = target.seen().pop().unwrap();
        assert!(
            seen.starts_with(&format!("{method} /end ")) && seen.ends_with(&format!("\r\n\r\n{body}")),
            "{status}: {seen}"
        );
        assert_eq!(seen.contains("content-type"), method == "POST", "{status}: {seen}");
    }
    let loops = Server::redirect(302, "/again".into()).await;
    let session = session(&bench, &loops.grant());
    let error = fetch(&session, get(&loops.url("/"))).await.unwrap_err();
    assert!(error.message.contains("more than 10 redirects"), "{}", error.message);
    assert_eq!(loops.seen().len(), 11);
    let manual = HttpRequest { redirect: Redirect::Manual, ..get(&loops.url("/")) };
    assert_eq!(fetch(&session, manual).await.unwrap().status, 302);
    let error = HttpRequest { redirect: Redirect::Error, ..get(&loops.url("/")) };
    assert!(fetch(&session, error).await.unwrap_err().message.contains("was redirected"));
}

#[tokio::test]
async fn secrets_stay_with_the_origin_they_were_meant_for() {
    let target = Server::hello().await;
    let bench = Bench::new().with_secret("key", b"s3cret\n");
    let headers = || {
        vec![
            ("x-key".to_owned(), "Key {{secret:key}}, {{secret: key }}".to_owned()),
            ("authorization".to_owned(), "Bearer plain".to_owned()),
            ("x-other".to_owned(), "kept".to_owned()),
        ]
    };
    let away = Server::redirect(307, target.url("/")).await;
    let lines = format!("secret = ['key']\nhttp = ['{}', '{}']", away.url("/*"), target.url("/*"));
    let session = session(&bench, &lines);
    let request = HttpRequest { headers: headers(), ..get(&away.url("/")) };
    fetch(&session, request.clone()).await.unwrap();
    let sent = away.seen().remove(0);
    assert!(sent.contains("x-key: Key s3cret, s3cret\r\n") && sent.contains("authorization: Bearer plain"), "{sent}");
    let followed = target.seen().remove(0);
    assert!(!followed.contains("s3cret") && !followed.contains("authorization"), "{followed}");
    assert!(followed.contains("x-other: kept"), "{followed}");
    let (log, asked) = session.finish();
    assert!(!format!("{log:?}{asked:?}").contains("s3cret"));
    assert!(asked.iter().any(|asked| asked.capability == "secret" && asked.target == "key" && asked.granted));

    // On the same origin they go along.
    let home = Server::start(|request| {
        let status = if request.starts_with("GET /start") { "302 R\r\nlocation: /end" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")
    })
    .await;
    let session = bench.session("invoice", Phase::PostCreate, "mail", &format!("secret = ['key']\n{}", home.grant()));
    fetch(&session, HttpRequest { headers: headers(), ..get(&home.url("/start")) }).await.unwrap();
    assert!(home.seen()[1].contains("Key s3cret"));

    // Without the secret's grant nothing is sent; outside of headers it is text like any other.
    let session = bench.session("invoice", Phase::PostCreate, "mail", &home.grant());
    let message = denied(fetch(&session, HttpRequest { headers: headers(), ..get(&home.url("/")) }).await);
    assert!(message.ends_with("secret = ['key']"), "{message}");
    let count = home.seen().len();
    let body = HttpRequest { method: "POST".into(), body: b"{{secret:key}}".to_vec(), ..get(&home.url("/")) };
    fetch(&session, body).await.unwrap();
    assert!(home.seen()[count].ends_with("{{secret:key}}"));
}

#[tokio::test]
async fn secrets_in_headers_are_bounded_and_counted() {
    let server = Server::hello().await;
    let bench = Bench::new().with_secret("large", &[b'x'; 60_000]).with_secret("none", b"");
    let session = session(&bench, &format!("secret = ['*']\n{}", server.grant()));
    let request = |name: &str, count: usize| HttpRequest {
        headers: vec![("x".to_owned(), format!("{{{{secret:{name}}}}}").repeat(count))],
        ..get(&server.url("/"))
    };
    assert_eq!(fetch(&session, request("large", 1)).await.unwrap().status, 200);
    let (error, reads) = (fetch(&session, request("large", 3_000)).await.unwrap_err(), bench.access.secret_reads());
    assert_eq!((error.code, reads), (AccessCode::TooLarge, 3), "no secret is read after the limit");
    // Two secrets and two requests were counted; a header of secrets that are empty cannot go on for ever either.
    for _ in 0..2 {
        fetch(&session, request("none", 4_000)).await.unwrap();
    }
    match session.http_send(request("none", 4_000)).await {
        Err(HostError::Fatal(failure)) => assert_eq!(failure.limit.as_deref(), Some("host calls 10000")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_secret_with_a_line_break_makes_no_second_header() {
    let server = Server::hello().await;
    let bench = Bench::new().with_secret("key", b"a\r\nx-injected: 1");
    let session = session(&bench, &format!("secret = ['*']\n{}", server.grant()));
    let headers = vec![("x-key".to_owned(), "{{secret:key}}".to_owned())];
    let error = fetch(&session, HttpRequest { headers, ..get(&server.url("/")) }).await.unwrap_err();
    assert_eq!(error.code, AccessCode::Invalid);
    assert!(!error.message.contains("injected"), "{}", error.message);
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn requests_that_cannot_be_are_refused() {
    let server = Server::hello().await;
    let session = session(&Bench::new(), &server.grant());
    let url = server.url("/");
    let header = |name: &str, value: &str| HttpRequest { headers: vec![(name.into(), value.into())], ..get(&url) };
    for (request, code) in [
        (header("host", "elsewhere.test"), AccessCode::Invalid),
        (header("Transfer-Encoding", "chunked"), AccessCode::Invalid),
        (header("connection", "upgrade"), AccessCode::Invalid),
        (header("x", "a\r\ny: b"), AccessCode::Invalid),
        (header("x\r\ny", "b"), AccessCode::Invalid),
        (header("x", "{{secret:open"), AccessCode::Invalid),
        (header("x", &"y".repeat(70_000)), AccessCode::TooLarge),
        (HttpRequest { method: "CONNECT".into(), ..get(&url) }, AccessCode::Invalid),
        (HttpRequest { method: "GE T".into(), ..get(&url) }, AccessCode::Invalid),
        (HttpRequest { body: vec![0; 9 << 20], ..get(&url) }, AccessCode::TooLarge),
        (get("file:///etc/passwd"), AccessCode::Invalid),
        (get("unix:///run/docker.sock"), AccessCode::Invalid),
        (get("not a url"), AccessCode::Invalid),
        (get(&server.url("/%2e%2e%2fadmin")), AccessCode::Invalid),
        (get(&format!("http://u:p@127.0.0.1:{}/", server.port)), AccessCode::Invalid),
    ] {
        let error = fetch(&session, request.clone()).await.unwrap_err();
        assert_eq!(error.code, code, "{request:?}: {}", error.message);
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn answers_are_bounded_in_size_and_time() {
    let bench = Bench::new();
    let server = Server::start(|request| match request {
        request if request.starts_with("GET /announced") => {
            "HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n".to_owned()
        }
        request if request.starts_with("GET /endless") => "endless".to_owned(),
        _ => "never".to_owned(),
    })
    .await;
    let session = session(&bench, &server.grant());
    for path in ["/announced", "/endless"] {
        let error = fetch(&session, get(&server.url(path))).await.unwrap_err();
        assert_eq!(error.code, AccessCode::TooLarge, "{path}: {}", error.message);
    }
    let request = HttpRequest { timeout: Some(Duration::from_millis(100)), ..get(&server.url("/never")) };
    let error = fetch(&session, request).await.unwrap_err();
    assert_eq!(error.code, AccessCode::Timeout);
    assert_eq!(error.message, format!("GET {} took longer than 100 ms", server.url("/never")));
    assert!(session.host_time() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_a_failure_with_its_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let bench = Bench::new().with_names(&[]);
    let session = session(&bench, "http = ['http://*:*/*', 'http://127.0.0.1:*/*', 'http://none.test/*']");
    let error = fetch(&session, get(&format!("http://127.0.0.1:{port}/?secret=1"))).await.unwrap_err();
    assert_eq!(error.code, AccessCode::Failed);
    assert!(error.message.contains("refused") && !error.message.contains("secret"), "{}", error.message);
    let error = fetch(&session, get("http://none.test/")).await.unwrap_err();
    assert!(error.message.contains("`none.test` has no address"), "{}", error.message);
}

/// A certificate of an authority of its own, made by the system's `openssl`; a server that shows it.
struct TlsServer {
    folder: tempfile::TempDir,
    process: std::process::Child,
    port: u16,
}

impl TlsServer {
    /// `None`: this machine has no `openssl`.
    fn start() -> Option<TlsServer> {
        let folder = tempfile::tempdir().unwrap();
        let openssl = |args: &str| {
            let mut command = std::process::Command::new("openssl");
            command.args(args.split(' ')).current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let new_key = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
        let made = openssl(&format!("{new_key} -keyout ca.key -out ca.pem -subj /CN=test-authority")).status();
        if made.is_err() {
            skip("TLS", "no `openssl` on the PATH");
            return None;
        }
        let leaf = format!(
            "{new_key} -keyout own.key -out own.pem -subj /CN=localhost -CA ca.pem -CAkey ca.key -addext \
             subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE"
        );
        assert!(openssl(&leaf).status().unwrap().success());
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let serve = format!("s_server -accept 127.0.0.1:{port} -cert own.pem -key own.key -www");
        let process = openssl(&serve).spawn().unwrap();
        let server = TlsServer { folder, process, port };
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(std::time::Instant::now() < deadline, "openssl does not serve");
            std::thread::yield_now();
        }
        Some(server)
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// In processes of its own, because certificates and proxies are found through the environment.
#[tokio::test]
async fn tls_is_checked_and_proxies_of_the_environment_are_not_used() {
    const URL: &str = "SNAPHOOK_TEST_URL";
    if let Ok(url) = std::env::var(URL) {
        let session = session(&Bench::new(), "http = ['https://127.0.0.1:*/*']");
        match fetch(&session, get(&url)).await {
            Ok(response) => println!("status {}", response.status),
            Err(error) => println!("failed: {}", error.message),
        }
        return;
    }
    let Some(server) = TlsServer::start() else { return };
    let url = format!("https://127.0.0.1:{}/", server.port);
    let authority = server.folder.path().join("ca.pem");
    let test = "hooks::capabilities::http::tests::tls_is_checked_and_proxies_of_the_environment_are_not_used";
    let answer = |variables: &[(&str, &str)]| {
        let output = rerun(test, variables).env(URL, &url).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let nowhere = "http://127.0.0.1:1";
    let trusting = [
        ("SSL_CERT_FILE", authority.to_str().unwrap()),
        ("HTTPS_PROXY", nowhere),
        ("ALL_PROXY", nowhere),
        ("https_proxy", nowhere),
    ];
    let text = answer(&trusting);
    assert!(text.contains("status 200"), "{text}");
    let text = answer(&[]);
    assert!(text.contains("failed: ") && text.contains("certificate"), "{text}");
}
