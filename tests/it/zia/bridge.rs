//! What modules receive, and the effects of their changes.

use super::*;

#[test]
fn requests_pass_through_every_module_to_the_api_and_back() {
    if !are_there() {
        return;
    }
    let server = start(&[module("log", "access_log", ""), module("editor", "editor", "")]);
    let api = server.client();
    // The connection ends after each response, so each request uses a new client.
    crate::support::create_orders(&api, "order");
    let created =
        server.client().post("/models/order/instances", &serde_json::json!({"data": {"name": "a"}})).expect(201);
    let id = created.json()["id"].as_str().expect("an id").to_owned();
    let path = format!("/models/order/instances/{id}");
    let read = server.client().get(&path).expect(200);
    assert_eq!(read.json()["data"]["name"], "a");
    assert_eq!(read.header("x-edited"), Some(&*read.body.len().to_string()), "the response went through the hooks");
    assert_eq!(read.header("connection"), Some("close"));
    // An error of the API is an ordinary response, for which `onRequestError` is not called.
    let missing = server.client().get("/models/none").expect(404);
    assert_eq!(missing.json()["status"], 404);
    let changed = get(&server, "/renamed");
    assert!(changed.starts_with("HTTP/1.1 200 OK") && changed.contains(r#"{"status":"ok"}"#), "{changed}");
    let head = ask(&server, "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(head.contains("Content-Length: 15\r\n") && head.ends_with("\r\n\r\n"), "{head}");

    expect_log(&server, &format!("GET {path} plain 200"));
    expect_log(&server, "GET /models/none plain 404");
    expect_log(&server, "module `log` has onConnectionStart, onConnectionEnd, onRequest, onResponse");
    expect_log(&server, "module `editor` has onBeforeRequest, onRequest, onRequestError, onResponse");
}

#[test]
fn requests_are_what_the_specification_says() {
    if !are_there() {
        return;
    }
    let server = start(&[module("editor", "editor", "")]);
    let echo = |request: &str| ask(&server, request);
    let said = echo(
        "POST /echo/a%20b?c=../d HTTP/1.1\r\nhost: localhost\r\nx-twice: 1\r\nX-TWICE: 2\r\nuser-agent: x\r\n\
         Content-Length: 5\r\n\r\nab\0cd",
    );
    let (_, body) = said.split_once("\r\n\r\n").expect("a head");
    let expected = "POST /echo/a%20b?c=../d HTTP/1.1 plain\nContent-Length: 5\nHost: localhost\nUser-Agent: x\n\
                    X-Peer: 127.0.0.1\nX-Twice: 2\n5 bytes, 2 to the zero\n";
    assert_eq!(body, expected);
    // Chunks are joined; the connection may be half closed.
    let chunked =
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let mut stream = TcpStream::connect(server.address()).expect("a server");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(chunked.as_bytes()).expect("a request");
    stream.shutdown(std::net::Shutdown::Write).expect("a socket");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("a response");
    assert!(said.contains("Content-Length: 5\n") && said.ends_with("5 bytes, 5 to the zero\n"), "{said}");
    // An absolute target.
    let said = echo("GET http://127.0.0.1/echo HTTP/1.1\r\nHost: other\r\n\r\n");
    assert!(said.contains("GET /echo HTTP/1.1 plain\nHost: 127.0.0.1\n"), "{said}");
    // The module provides the error pages.
    for (path, page) in [("/teapot", "page 418 of 418"), ("/odd", "page 500 of 500"), ("/status", "page 500 of 500")] {
        let said = get(&server, path);
        let status = &page[5..8];
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")) && said.ends_with(&format!("{page}\n")), "{said}");
    }
    // A header that a module sets cannot split a message.
    let said = echo("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Value: 1\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 500 "), "{said}");
    expect_log(&server, "onBeforeRequest set the header `X-Split` to a value with control characters");
}

#[test]
fn settings_are_flat_and_follow_the_file() {
    if !are_there() {
        return;
    }
    let settings = |value: &str| {
        module(
            "editor",
            "editor",
            &format!("config = {{ a = '{value}', deep = {{ er = 1, on = true }}, list = ['x'] }}"),
        )
    };
    let options = options(&[settings("one")]);
    let server = Server::start_with(options);
    let block = |what: &str, value: &str| {
        format!("{what} snaphook linux a version 1.1.1\na={value}\ndeep.er=1\ndeep.on=true\nlist.0=x\n")
    };
    let said = get(&server, "/config");
    assert!(said.ends_with(&(block("activated", "one") + &block("changed", "one"))), "{said}");
    let before = bridges(&server);
    assert_eq!(before.len(), 1);
    let file = std::fs::read_to_string(server.config_file()).expect("a config");
    std::fs::write(server.config_file(), file.replace("'one'", "'two'")).expect("a config");
    eventually("the module has the new one", || {
        get(&server, "/config").ends_with(&block("changed", "two")).then_some(())
    });
    assert_eq!(bridges(&server), before, "the process goes on");
    // Another list of modules starts another process.
    let more = file.replace("[auth]", &format!("{}[auth]", module("log", "access_log", "")));
    std::fs::write(server.config_file(), more).expect("a config");
    expect_log(&server, "runs the new modules");
    get(&server, "/healthz");
    expect_log(&server, "GET /healthz plain 200");
    eventually("the old process is gone", || (bridges(&server).len() == 1).then_some(()));
}

#[test]
fn the_size_of_bodies_follows_the_file() {
    if !are_there() {
        return;
    }
    let options = options(&[module("editor", "editor", "")]);
    let server =
        Server::start_with(ServerOptions { server: format!("max-body = '4 KiB'\n{}", options.server), ..options });
    let status =
        |size: usize| server.client().request("POST", "/echo").body("text/plain", vec![b'x'; size]).send().status;
    assert_eq!([status(4 << 10), status(8 << 10)], [200, 413]);
    let before = bridges(&server);
    let file = std::fs::read_to_string(server.config_file()).expect("a config");
    std::fs::write(server.config_file(), file.replace("'4 KiB'", "'16 KiB'")).expect("a config");
    eventually("a larger body is taken", || (status(8 << 10) == 200).then_some(()));
    assert_eq!(status(32 << 10), 413);
    assert_eq!(bridges(&server), before, "the process goes on");
}

#[test]
fn idle_connections_make_room_for_others() {
    if !are_there() {
        return;
    }
    let modules = options(&[module("log", "access_log", "")]);
    let limits = format!("{}\n[server.limits]\nconnections = 8", modules.server);
    let server = Server::start_with(ServerOptions { server: limits, ..modules });
    let idle: Vec<TcpStream> = (0..30)
        .map(|number| {
            let mut stream = TcpStream::connect(server.address()).expect("a server");
            stream.write_all(&b"GET /healthz"[..number % 12]).expect("a part of a head");
            stream
        })
        .collect();
    let said = get(&server, "/healthz");
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    drop(idle);
}

#[test]
fn large_bodies_and_many_connections() {
    if !are_there() {
        return;
    }
    let mut server = start(&[module("log", "access_log", ""), module("editor", "editor", "")]);
    let large = vec![b'x'; 2 << 20];
    let echoed = server.client().request("POST", "/echo").body("text/plain", large).send().expect(200);
    assert!(String::from_utf8_lossy(&echoed.body).ends_with("2097152 bytes, 2097152 to the zero\n"));
    let big = server.client().get("/big").expect(200);
    assert!(big.body.len() == 3_000_000 && big.body.iter().all(|byte| *byte == b'x'));
    let too_large = vec![b'x'; 9 << 20];
    server.client().request("POST", "/echo").body("text/plain", too_large).send().expect(413);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..100).map(|_| scope.spawn(|| get(&server, "/healthz"))).collect();
        for thread in threads {
            let said = thread.join().expect("a client");
            assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
        }
    });
    // Clients that disconnect at any time.
    for text in [
        "",
        "GET /hea",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /echo HTTP/1.1\r\nContent-Length: 9\r\n\r\nab",
    ] {
        let mut stream = TcpStream::connect(server.address()).expect("a server");
        stream.write_all(text.as_bytes()).expect("a request");
    }
    let said = get(&server, "/healthz");
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    assert!(server.stop().success());
    let log = server.log();
    let line = log.iter().find_map(|line| line.split_once("access log: ")?.1.split_once(" handlers made, "));
    let (made, left) = line.unwrap_or_else(|| panic!("no count of handlers:\n{}", log.join("\n")));
    assert!(made.parse::<usize>().expect("a number") >= 104 && left == "0 left", "{made} made, {left}");
    assert!(log.iter().any(|line| line.contains("access log: destroyed")), "the recycler ran");
}

#[test]
fn event_streams_are_passed_on_as_they_come() {
    if !are_there() {
        return;
    }
    let mut server = start(&[module("editor", "editor", "")]);
    crate::support::create_orders(&server.client(), "order");
    let mut stream = server.client().stream("/events/stream?after=0", &[]);
    server.client().post("/models/order/instances", &serde_json::json!({"data": {"name": "a"}})).expect(201);
    assert_eq!(stream.next().event, "model.created");
    assert_eq!(stream.next().data["data"]["name"], "a");
    // It stops with the server, in time.
    assert!(server.stop().success());
}

#[test]
fn tls_by_a_module() {
    if !are_there() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("hooks")).expect("a folder for hooks");
    let key = KeyPair::generate().expect("a key");
    let certificate =
        CertificateParams::new(["localhost".to_owned()]).expect("names").self_signed(&key).expect("a certificate");
    let [certificate_file, key_file] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&certificate_file, certificate.pem()).expect("a certificate");
    std::fs::write(&key_file, key.serialize_pem()).expect("a key");
    let config =
        format!("config = {{ certificate = '{}', key = '{}' }}", certificate_file.display(), key_file.display());
    let modules = [module("tls", "tls", &config), module("log", "access_log", ""), module("editor", "editor", "")];
    let mut server = Server::start_in(folder.into(), options(&modules));
    let curl = |path: &str, arguments: &[&str]| -> Output {
        let url = format!("https://localhost:{}{path}", server.address().port());
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "60", "--cacert"]).arg(&certificate_file).args(arguments).arg(url);
        command.output().expect("curl is installed")
    };
    let said = curl("/echo", &["-d", "abc"]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success() && text.starts_with("POST /echo HTTP/1.1 secure\n"), "{text} {said:?}");
    let big = curl("/big", &[]);
    assert_eq!(big.stdout.len(), 3_000_000);
    let health = curl("/healthz", &[]);
    assert_eq!(health.stdout, br#"{"status":"ok"}"#);
    // A same-site page may write over https; over http it may not, so this shows that the API knows about TLS.
    let post = [
        "-X",
        "POST",
        "-H",
        "Content-Type: application/json",
        "-d",
        r#"{"id":"a","schema":{"type":"object"}}"#,
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
    ];
    let origin = |scheme: &str| format!("Origin: {scheme}://localhost:{}", server.address().port());
    for (scheme, status) in [("http", "403"), ("https", "201")] {
        let sent = curl("/models", &[&post[..], &["-H", &origin(scheme)]].concat());
        assert_eq!(String::from_utf8_lossy(&sent.stdout), status, "{scheme}");
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..100).map(|_| scope.spawn(|| curl("/healthz", &["-f"]).status.success())).collect();
        assert!(threads.into_iter().all(|thread| thread.join().expect("a client")));
    });
    // Plain HTTP is not a valid handshake; an incomplete handshake ends with its client.
    assert_eq!(get(&server, "/healthz"), "");
    TcpStream::connect(server.address()).expect("a server").write_all(&[22, 3, 1, 0]).expect("a start");
    assert!(curl("/healthz", &["-f"]).status.success());
    assert!(server.stop().success());
    expect_log(&server, "GET /healthz secure 200");
    expect_log(&server, " 0 left");
}

#[test]
fn files_of_a_careless_module_stay_in_their_folder() {
    if !are_there() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root");
    std::fs::create_dir(&root).expect("a folder");
    std::fs::write(root.join("a b.txt"), "inside\n").expect("a file");
    std::fs::write(folder.path().join("secret.txt"), "outside\n").expect("a file");
    let server =
        start(&[module("files", "files", &format!("config = {{ files = {{ root = '{}' }} }}", root.display()))]);
    let said = get(&server, "/a%20b.txt?x");
    assert!(said.starts_with("HTTP/1.1 200 Found it\r\n") && said.ends_with("\r\n\r\ninside\n"), "{said}");
    assert!(said.contains("content-type: text/plain\r\n"), "{said}");
    // Changes to the response before the module declines are discarded.
    let said = get(&server, "/healthz");
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && !said.contains("X-Files"), "{said}");
    for path in [
        "/../secret.txt",
        "/x/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/.%2E/secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%5csecret.txt",
        "/..\\secret.txt",
        "/%252e%252e/secret.txt",
        "/./a%20b.txt",
        "/a%20b.txt%00.html",
    ] {
        let said = get(&server, path);
        assert!(said.starts_with("HTTP/1.1 400 "), "{path}: {said}");
    }
    for path in ["/..a", "/a..", "/.well-known/x", "/a?b=../.."] {
        let said = get(&server, path);
        assert!(said.starts_with("HTTP/1.1 404 "), "{path}: {said}");
    }
}

#[test]
fn malformed_requests_reach_no_module() {
    if !are_there() {
        return;
    }
    let server = start(&[module("log", "access_log", "")]);
    let many = "X: 1\r\n".repeat(101);
    let long = "x".repeat(70_000);
    for (request, status) in [
        ("garbage\r\n\r\n".to_owned(), 400),
        ("GET  / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), 400),
        ("GET a HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("CONNECT localhost:80 HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nBad Name: x\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_owned(), 400),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n".to_owned(), 413),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), 431),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), 431),
        (format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;{long}\r\na\r\n0\r\n\r\n"), 400),
        (format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: {long}\r\n\r\n"), 400),
    ] {
        let said = ask(&server, &request);
        let shown = &request[..request.len().min(60)];
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {said}");
    }
    // An error of the API itself: the two tokens are not merged on the way.
    let twice = "GET /models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n";
    let said = ask(&server, &format!("{twice}GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert!(said.starts_with("HTTP/1.1 400 ") && said.matches("HTTP/1.1").count() == 1, "{said}");
    expect_log(&server, "GET /models plain 400");
    assert!(!server.log().iter().any(|line| line.contains("garbage")));
}

#[test]
fn slow_heads_hold_no_thread() {
    if !are_there() {
        return;
    }
    let server = start(&[module("log", "access_log", "")]);
    let mut idle: Vec<TcpStream> = (0..300)
        .map(|number| {
            let mut stream = TcpStream::connect(server.address()).expect("a server");
            let head = &b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"[..number % 20];
            stream.set_nodelay(true).expect("a socket");
            for byte in head {
                stream.write_all(&[*byte]).expect("a part of a head");
            }
            stream
        })
        .collect();
    assert!(get(&server, "/healthz").starts_with("HTTP/1.1 200 "));
    let [bridge] = bridges(&server)[..] else { panic!("one bridge") };
    let threads = std::fs::read_dir(format!("/proc/{bridge}/task")).expect("a process").count();
    assert!(threads < 10, "{threads} threads for {} connections", idle.len());
    // In two parts, of which the second completes it.
    let stream = &mut idle[0];
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n").expect("a request");
    stream.write_all(b"\r\n").expect("its end");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("a response");
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
}
