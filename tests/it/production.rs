//! The server behind the reverse proxy of the guide.
#![cfg(target_os = "linux")]

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::support::{Client, PATIENCE, Server, ServerOptions, eventually, skip};

/// nginx in front of a server, with the site of `packaging/proxy` but without TLS.
struct Proxy {
    process: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Proxy {
    fn start(server: &Server) -> Option<Proxy> {
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| Path::new(path).is_file());
        let Some(program) = program else {
            skip("nginx", "it is not installed; `cargo xtask test` installs it");
            return None;
        };
        let site = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/proxy/nginx.conf");
        let site = std::fs::read_to_string(site).expect("the site");
        // Held until nginx gets the port: other tests request free ports too.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let site: String = site
            .replace("listen 443 ssl http2;", &format!("listen {address};"))
            .replace("127.0.0.1:1337;", &format!("{};", server.address()))
            .lines()
            .filter(|line| !line.trim_start().starts_with("ssl_"))
            .flat_map(|line| [line, "\n"])
            .collect();
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {at}/{name};\n"))
            .concat();
        let config = format!(
            "daemon off; pid {at}/pid; error_log stderr; events {{}}\nhttp {{ access_log off;\n{temporary}{site} }}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).expect("written");
        drop(listener);
        let mut command = Command::new(program);
        command.arg("-c").arg(&file).arg("-p").arg(folder.path()).stdin(Stdio::null());
        let process = command.stderr(Stdio::inherit()).spawn().expect("nginx starts");
        let mut proxy = Proxy { process, address, _folder: folder };
        eventually("nginx listens", || {
            assert!(proxy.process.try_wait().expect("a child").is_none(), "nginx ended");
            TcpStream::connect(address).ok()
        });
        Some(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let pid = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw);
        // Its workers end with it only after a graceful signal.
        let _ = rustix::process::kill_process(pid.expect("a process"), rustix::process::Signal::TERM);
        let _ = self.process.wait();
    }
}

#[test]
fn behind_nginx() {
    let guide =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/production.md")).expect("a page");
    let (_, limits) = guide.split_once("\n[server.limits]\n").expect("the configuration behind a proxy");
    let (limits, _) = limits.split_once("```").expect("its end");
    let server = Server::start_with(ServerOptions {
        server: format!("[server.limits]\n{limits}"),
        auth: "mode = 'tokens'",
        by: &["env", "SNAPHOOK_LOG=info,request=debug"],
        ..ServerOptions::default()
    });
    let Some(proxy) = Proxy::start(&server) else { return };
    let token = std::fs::read_to_string(server.directory().join("data/admin.token")).expect("a token");
    let bearer = format!("Bearer {}", token.trim_end());
    let api = Client::new(proxy.address, "/");
    let ask =
        |method: &str, path: &str| api.request(method, path).host("api.example.com").header("Authorization", &bearer);
    let orders = json!({"id": "order", "schema": {"type": "object"}});
    ask("POST", "/models").json(&orders).send().expect(201);

    // Bodies up to the server's limit, and the server's own response to larger ones.
    let large = |bytes: usize| json!({"data": {"text": "x".repeat(bytes)}});
    ask("POST", "/models/order/instances").json(&large(7 << 20)).send().expect(201);
    // The log contains the client's address, not the proxy's, which is also the address of this test.
    let denied = api.request("GET", "/models").host("api.example.com").header("X-Forwarded-For", "192.0.2.9");
    denied.header("X-Request-Id", "denied").send().expect_problem(401, "unauthorized");
    let line = eventually("it is noted", || server.log().into_iter().find(|line| line.contains("denied: GET")));
    assert!(line.contains("address=\"192.0.2.9\""), "{line}");
    // Host names that are not the server's.
    api.request("GET", "/models").host("evil.example").header("Authorization", &bearer).send().expect(403);
    ask("GET", "/metrics").send().expect(404);

    // Events arrive as they happen.
    let mut stream = TcpStream::connect(proxy.address).expect("nginx listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let head =
        format!("GET /events/stream?model=order HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: {bearer}\r\n\r\n");
    std::io::Write::write_all(&mut stream, head.as_bytes()).expect("sent");
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    assert!(lines.next().expect("a status").starts_with("HTTP/1.1 200"));
    assert!(lines.by_ref().any(|line| line.is_empty()), "the head ends");
    ask("POST", "/models/order/instances").json(&json!({"id": "live", "data": {}})).send().expect(201);
    assert!(lines.any(|line| line.starts_with("data: ") && line.contains("\"live\"")), "the event comes");
}
