//! Ways to reach the server: TLS, the redirect to it, a Unix socket, static files.
#![cfg(unix)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustix::process::Signal;

use crate::support::{Server, ServerOptions, eventually};

/// Writes a certificate for `localhost` and its key to the folder.
pub(crate) fn write_pair(folder: &Path) -> String {
    let (certificate, key) = pair();
    std::fs::write(folder.join("cert.pem"), &certificate).expect("a certificate");
    std::fs::write(folder.join("key.pem"), key).expect("a key");
    certificate
}

pub(crate) fn pair() -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).expect("names").self_signed(&key).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

fn start_tls(server: &str, tls: &str) -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("hooks")).expect("a folder for hooks");
    write_pair(folder.path());
    let options = ServerOptions {
        server: format!("{server}\n[server.tls]\ncertificate = 'cert.pem'\nprivate-key = 'key.pem'\n{tls}"),
        ..ServerOptions::default()
    };
    Server::start_in(folder.into(), options)
}

#[track_caller]
fn curl(server: &Server, arguments: &[&str], path: &str) -> Output {
    let certificate = server.directory().join("cert.pem");
    let url = format!("https://localhost:{}{path}", server.address().port());
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "60", "--cacert"]).arg(certificate).args(arguments).arg(url);
    command.output().expect("curl is installed")
}

fn s_client(server: &Server, arguments: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &server.address().to_string()]).args(arguments);
    let output = command.stdin(std::process::Stdio::null()).output().expect("openssl is installed");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn versions_and_protocols() {
    let server = start_tls("", "");
    for (flags, version) in [(&["--http2", "--tlsv1.3"][..], "2"), (&["--http1.1", "--tls-max", "1.2"], "1.1")] {
        let output = curl(&server, &[flags, &["-w", "%{http_version}"]].concat(), "/healthz");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.ends_with(version), "{flags:?}: {said} {output:?}");
    }
    for (arguments, says) in [
        (&["-tls1_3"][..], "TLSv1.3"),
        (&["-tls1_2"], "TLSv1.2"),
        (&["-alpn", "h2,http/1.1"], "ALPN protocol: h2"),
        (&["-alpn", "http/1.1"], "ALPN protocol: http/1.1"),
        (&["-alpn", "smtp"], "no application protocol"),
        (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "alert"),
    ] {
        let said = s_client(&server, arguments);
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    // Plain HTTP gets an alert: a record of type 21.
    let answer = server.client().raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(answer.first(), Some(&21), "{answer:?}");
}

#[test]
fn a_slow_handshake_is_cut_off() {
    let server = start_tls("", "");
    let mut stream = TcpStream::connect(server.address()).expect("a server");
    stream.write_all(&[22, 3, 1, 0]).expect("the start of a record");
    stream.set_read_timeout(Some(crate::support::PATIENCE)).expect("a socket");
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest);
    assert!(ended.is_ok() && rest.is_empty(), "{ended:?} {rest:?}");
}

#[test]
fn certificates_change_while_it_serves() {
    let server = start_tls("", "");
    let shown = || s_client(&server, &["-showcerts"]);
    let (certificate, key) = pair();
    let last_line = |pem: &str| pem.lines().rev().nth(1).expect("a certificate").to_owned();
    std::thread::scope(|scope| {
        let load =
            scope.spawn(|| (0..40).filter(|_| !curl(&server, &["-k", "-f"], "/healthz").status.success()).count());
        // A pair that does not match leaves the old one in force.
        let before = shown();
        std::fs::write(server.directory().join("cert.pem"), &certificate).expect("a certificate");
        eventually("the mismatch is logged", || {
            server.log().iter().any(|line| line.contains("is not the key of the certificate")).then_some(())
        });
        assert!(before.contains("BEGIN CERTIFICATE") && !shown().contains(&last_line(&certificate)));
        std::fs::write(server.directory().join("key.pem"), &key).expect("a key");
        eventually("the new one is shown", || shown().contains(&last_line(&certificate)).then_some(()));
        // So do invalid content and a missing file.
        std::fs::write(server.directory().join("cert.pem"), "garbage").expect("a file");
        server.signal(Signal::HUP);
        eventually("the garbage is logged", || {
            server.log().iter().any(|line| line.contains("contains no certificate")).then_some(())
        });
        std::fs::remove_file(server.directory().join("key.pem")).expect("a file");
        server.signal(Signal::HUP);
        eventually("the loss is logged", || {
            server.log().iter().any(|line| line.contains("key.pem`, which cannot be read")).then_some(())
        });
        assert!(shown().contains(&last_line(&certificate)));
        assert_eq!(load.join().expect("the load"), 0, "requests that failed");
    });
}

#[test]
fn a_certificate_of_the_secure_store() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("hooks")).expect("a folder for hooks");
    let certificate = write_pair(folder.path());
    let file = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a file");
    let key = file("key.pem");
    std::fs::remove_file(folder.path().join("key.pem")).expect("removed");
    let mut plain = Server::start_in(folder.into(), ServerOptions::default());
    let put = |name: &str, value: &str| {
        plain.client().request("PUT", &format!("/secrets/{name}")).body("text/plain", value).send().expect(204);
    };
    put("tls-chain", &certificate);
    put("tls-key", &key);
    plain.stop();
    let folder = plain.folder();
    drop(plain);
    let tls = "[server.tls]\ncertificate = 'secret:tls-chain'\nprivate-key = 'secret:tls-key'";
    let options = ServerOptions { server: tls.to_owned(), ..ServerOptions::default() };
    let server = Server::start_in(std::sync::Arc::clone(&folder), options.clone());
    assert!(curl(&server, &["-f"], "/healthz").status.success());
    // A replaced secret takes effect after a signal; open connections do not matter.
    let (new, new_key) = pair();
    for (name, value) in [("tls-chain", &new), ("tls-key", &new_key)] {
        let put = ["-f", "-X", "PUT", "-H", "Content-Type: text/plain", "--data-binary", value.as_str()];
        assert!(curl(&server, &put, &format!("/secrets/{name}")).status.success());
    }
    std::fs::write(folder.path().join("cert.pem"), &new).expect("a certificate");
    server.signal(Signal::HUP);
    eventually("the new one is shown", || curl(&server, &["-f"], "/healthz").status.success().then_some(()));
    assert!(!server.log().concat().contains("PRIVATE KEY"));
    drop(server);
    // A missing secret is named.
    let config = std::fs::read_to_string(folder.path().join("config.toml")).expect("a config");
    std::fs::write(folder.path().join("config.toml"), config.replace("secret:tls-key", "secret:none"))
        .expect("written");
    let serve = Command::new(env!("CARGO_BIN_EXE_snaphook")).arg("serve").current_dir(folder.path()).output();
    let serve = serve.expect("the binary");
    let said = String::from_utf8_lossy(&serve.stderr).into_owned();
    assert!(!serve.status.success() && said.contains("none"), "{said}");
}

/// An idle connection is closed in favour of a new one; busy connections are not.
#[test]
fn connections_beyond_the_limit_wait_for_their_turn() {
    let options = ServerOptions { server: "[server.limits]\nconnections = 4".to_owned(), ..ServerOptions::default() };
    let server = Server::start_with(options);
    let connect = |path: &str| {
        let mut stream = TcpStream::connect(server.address()).expect("the system's queue takes it");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a request");
        stream
    };
    let answered = |stream: &mut TcpStream, within: std::time::Duration| {
        stream.set_read_timeout(Some(within)).expect("a socket");
        stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0)
    };
    let mut listeners: Vec<TcpStream> = (0..4).map(|_| connect("/events/stream")).collect();
    assert!(listeners.iter_mut().all(|stream| answered(stream, crate::support::PATIENCE)));
    let mut outside = connect("/healthz");
    assert!(!answered(&mut outside, std::time::Duration::from_millis(300)), "it is one too many");
    drop(listeners.pop());
    assert!(answered(&mut outside, crate::support::PATIENCE));
}

#[test]
fn client_certificates() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let authority = || {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        (certificate, Issuer::new(params, key))
    };
    let client = |name: &str, issuer: &Issuer<'_, KeyPair>| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, issuer).expect("a certificate").pem();
        [file(&format!("{name}.pem"), certificate), file(&format!("{name}.key"), key.serialize_pem())]
    };
    let ((trusted, trusted_issuer), (_, other_issuer)) = (authority(), authority());
    let server = start_tls("", &format!("client-ca = '{}'", file("ca.pem", trusted)));
    let ask = |[certificate, key]: [String; 2]| {
        let output = curl(&server, &["-f", "--cert", &certificate, "--key", &key], "/healthz");
        output.status.success()
    };
    assert!(ask(client("good", &trusted_issuer)), "one of the authority is let in");
    assert!(!ask(client("bad", &other_issuer)), "one of another is not");
    assert!(!curl(&server, &["-f"], "/healthz").status.success(), "nor is who shows none");
}

#[test]
fn plain_http_is_redirected() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let server = start_tls(&format!("redirect-http = '127.0.0.1:{port}'"), "");
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a server");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.to_ascii_lowercase()
    };
    let tls = server.address().port();
    for (host, target) in [("localhost", "localhost"), ("localhost:80", "localhost"), ("127.0.0.1", "127.0.0.1")] {
        let answer = ask(&format!("GET /healthz?a=b HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let location = format!("location: https://{target}:{tls}/healthz?a=b\r\n");
        assert!(answer.starts_with("http/1.1 308 ") && answer.contains(&location), "{answer}");
    }
    for host in ["evil.example", "localhost.evil.example", "localhost@evil.example", "10.0.0.1", "", "localhost/evil"] {
        let answer = ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!(answer.starts_with("http/1.1 400 ") && !answer.contains("location"), "{host}: {answer}");
    }
    let answer = ask("GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n");
    assert!(answer.starts_with("http/1.1 400 "), "{answer}");
}

#[test]
fn faults_of_the_files_are_told_at_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = "[server]\nmount-address = '127.0.0.1:0'\ntls = { certificate = 'cert.pem', private-key = 'key.pem' }\n\
                  static = { directory = 'nothing' }\n[auth]\nmode = 'open'\n";
    std::fs::write(folder.path().join("config.toml"), config).expect("a config");
    let run = |command: &str| {
        let mut process = Command::new(env!("CARGO_BIN_EXE_snaphook"));
        let output = process.arg(command).current_dir(folder.path()).output().expect("the binary");
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for command in ["check", "serve"] {
        let said = run(command);
        for line in [
            "config.toml:3: `server.tls.certificate` is",
            "config.toml:3: `server.tls.private-key` is",
            "config.toml:4: ",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
    }
    write_pair(folder.path());
    std::fs::write(folder.path().join("key.pem"), pair().1).expect("a key");
    assert!(run("serve").contains("is not the key of the certificate"));
}

#[test]
fn a_unix_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(
        folder.path().join("config.toml"),
        "[server]\nmount-address = 'unix:api.sock'\n[auth]\nmode = 'open'\n",
    )
    .expect("a config");
    let path = folder.path().join("api.sock");
    // The socket file of a server that crashed.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let start = || {
        let mut process = Command::new(env!("CARGO_BIN_EXE_snaphook"));
        process.arg("serve").current_dir(folder.path()).stdout(std::process::Stdio::null());
        process.stderr(std::process::Stdio::null()).spawn().expect("the binary")
    };
    let mut server = start();
    let mut stream = eventually("it listens", || UnixStream::connect(&path).ok());
    let mode = std::fs::metadata(&path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o007, 0, "{mode:o}");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut hostile = UnixStream::connect(&path).expect("a socket");
    hostile.write_all(b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    hostile.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let listed =
        Command::new(env!("CARGO_BIN_EXE_snaphook")).args(["secret", "list"]).current_dir(folder.path()).output();
    assert!(listed.expect("the binary").status.success());
    let pid = rustix::process::Pid::from_child(&server);
    rustix::process::kill_process(pid, Signal::TERM).expect("a process");
    assert!(server.wait().expect("its end").success());
    assert!(!path.exists(), "the socket stays");
}

fn with_files(fallback: &str) -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    for sub in ["hooks", "public/sub", "public/.git"] {
        std::fs::create_dir_all(root.join(sub)).expect("a folder");
    }
    for (name, text) in [
        ("public/index.html", "<h1>start</h1>"),
        ("public/sub/index.html", "sub"),
        ("public/a.txt", "0123456789"),
        ("public/models", "hidden by the API"),
        ("public/.env", "SECRET"),
        ("public/.git/config", "SECRET"),
        ("public/app.js", "plain"),
        ("public/app.js.gz", "gzipped"),
        ("outside.txt", "SECRET"),
    ] {
        std::fs::write(root.join(name), text).expect("a file");
    }
    std::fs::write(root.join("public/big.css"), "a { color: red }\n".repeat(1000)).expect("a file");
    symlink("../outside.txt", root.join("public/link.txt")).expect("a link");
    symlink("..", root.join("public/up")).expect("a link");
    let options = ServerOptions {
        server: format!("[server.static]\ndirectory = 'public'\n{fallback}"),
        ..ServerOptions::default()
    };
    Server::start_in(folder.into(), options)
}

#[test]
fn files_beside_the_api() {
    let server = with_files("");
    let api = server.client();
    let page = api.get("/").expect(200);
    assert_eq!(
        (page.text().as_str(), page.header("content-type")),
        ("<h1>start</h1>", Some("text/html; charset=utf-8"))
    );
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(api.get("/sub/").expect(200).text(), "sub");
    assert_eq!(api.get("/sub").expect(307).header("location"), Some("/sub/"));
    assert!(api.get("/models").expect(200).json()["items"].is_array());
    let part = api.request("GET", "/a.txt").header("Range", "bytes=2-4").send().expect(206);
    assert_eq!((part.text().as_str(), part.header("content-range")), ("234", Some("bytes 2-4/10")));
    let past = api.request("GET", "/a.txt").header("Range", "bytes=20-").send();
    assert_eq!(past.header("content-range"), Some("bytes */10"));
    past.expect_problem(416, "range-not-satisfiable");
    let whole = api.request("GET", "/a.txt").header("Range", "bytes=2-4").header("If-Range", "\"x\"").send();
    assert_eq!(whole.expect(200).text(), "0123456789");
    let tag = api.get("/a.txt").header("etag").expect("a tag").to_owned();
    api.request("GET", "/a.txt").header("If-None-Match", &tag).send().expect(304);
    api.request("GET", "/a.txt").header("If-Match", "\"x\"").send().expect_problem(412, "precondition-failed");
    let head = api.request("HEAD", "/a.txt").send().expect(200);
    assert_eq!(head.header("content-length"), Some("10"));
    let post = api.request("POST", "/a.txt").send();
    assert_eq!(post.header("allow"), Some("GET, HEAD"));
    post.expect(405);
    let stored = api.request("GET", "/app.js").header("Accept-Encoding", "gzip").send().expect(200);
    assert_eq!((stored.text().as_str(), stored.header("content-encoding")), ("gzipped", Some("gzip")));
    assert_eq!(api.get("/app.js").expect(200).text(), "plain");
    let sent = api.request("GET", "/big.css").header("Accept-Encoding", "gzip").send().expect(200);
    assert_eq!(sent.header("content-encoding"), Some("gzip"));
    assert!(sent.body.len() < 1000 && sent.header("etag").is_some_and(|tag| tag.starts_with("W/")));
    assert_eq!(api.get("/big.css").expect(200).body.len(), 17_000);
    for accept in ["text/html", "*/*"] {
        api.request("GET", "/missing").header("Accept", accept).send().expect_problem(404, "not-found");
    }
}

#[test]
fn nothing_else_is_served() {
    for fallback in ["", "fallback = 'index.html'"] {
        let server = with_files(fallback);
        let api = server.client();
        for path in [
            "/.env",
            "/.git/config",
            "/%2eenv",
            "/.git%2fconfig",
            "/../outside.txt",
            "/sub/../../outside.txt",
            "/%2e%2e/outside.txt",
            "/%2e%2e%2foutside.txt",
            "/..%2foutside.txt",
            "/..%5coutside.txt",
            "/..\\outside.txt",
            "/link.txt",
            "/up/outside.txt",
            "/up/config.toml",
            "//etc/passwd",
            "/%2fetc/passwd",
            "/a.txt%00",
            "/a.txt/b",
            "/sub/%2e%2e/%2e%2e/outside.txt",
            "/....//outside.txt",
            "/a.txt/",
            "/%ff",
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let answer = String::from_utf8_lossy(&api.raw(request.as_bytes())).into_owned();
            assert!(answer.starts_with("HTTP/1.1 4"), "{path}: {answer}");
            assert!(!answer.contains("SECRET") && !answer.contains("mount-address"), "{path}: {answer}");
        }
    }
}

#[test]
fn pages_of_an_application() {
    let server = with_files("fallback = 'index.html'");
    let api = server.client();
    let page = api.request("GET", "/orders/7").header("Accept", "text/html,*/*;q=0.8").send().expect(200);
    assert_eq!((page.text().as_str(), page.header("cache-control")), ("<h1>start</h1>", Some("no-cache")));
    api.request("GET", "/missing.js").header("Accept", "*/*").send().expect_problem(404, "not-found");
    api.request("POST", "/orders/7").header("Accept", "text/html").send().expect(405);
    let hidden = api.request("GET", "/.env").header("Accept", "text/html").send();
    hidden.expect_problem(404, "not-found");
}
