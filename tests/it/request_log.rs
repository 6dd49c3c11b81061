//! One log line per request: its id, its status, its duration.

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::{Server, ServerOptions, create_orders, eventually};

fn lines(server: &Server, id: &str) -> Vec<String> {
    let log = server.log();
    log.into_iter().filter(|line| line.contains(&format!("request_id=\"{id}\"")) && line.contains("DEBUG")).collect()
}

#[test]
fn a_line_for_each_request() {
    let server = Server::start_with(ServerOptions {
        by: &["env", "SNAPHOOK_LOG=info,request=debug"],
        ..ServerOptions::default()
    });
    let api = server.client();
    create_orders(&api, "order");
    for (id, method, path, status) in [
        ("r-1", "GET", "/models/order/instances?filter[name][eq]=hidden", 200),
        ("r-2", "GET", "/models/none", 404),
        ("r-3", "PATCH", "/models", 405),
        ("r-4", "GET", "/no/such/path", 404),
        ("r-5", "GET", "/healthz", 200),
    ] {
        api.request(method, path).header("X-Request-Id", id).send().expect(status);
        let line = eventually("it is logged", || lines(&server, id).pop());
        let path = path.split('?').next().expect("a path");
        assert!(line.contains(&format!("{method} {path} ")) && line.contains(&format!("status={status}")), "{line}");
        assert!(line.contains(" wall_us=") && !line.contains("hidden"), "{line}");
        assert_eq!(lines(&server, id).len(), 1);
    }
    // A request whose client disconnects.
    let mut stream = TcpStream::connect(server.address()).expect("the server listens");
    let head = "POST /models/order/instances HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: r-6\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).expect("the server reads");
    drop(stream);
    let line = eventually("it is logged", || lines(&server, "r-6").pop());
    assert!(line.contains("whose client left") || line.contains("status=400"), "{line}");
}

#[test]
fn as_json_and_not_at_info() {
    let server = Server::start_with(ServerOptions {
        by: &["env", "SNAPHOOK_LOG=debug", "SNAPHOOK_LOG_FORMAT=json"],
        ..ServerOptions::default()
    });
    server.client().request("GET", "/models").header("X-Request-Id", "r-1").send().expect(200);
    let line = eventually("it is logged", || {
        let lines = server.log().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        lines.into_iter().find(|line| line["target"] == "request" && line["request_id"] == "r-1")
    });
    assert_eq!(
        (&line["level"], &line["message"], &line["fields"]["status"]),
        (&json!("debug"), &json!("GET /models"), &json!(200))
    );
    assert!(line["fields"]["wall_us"].is_u64() && line["fields"].get("request_id").is_none(), "{line}");

    let server = Server::start();
    server.client().get("/models").expect(200);
    assert!(!server.log().iter().any(|line| line.contains("GET /models")));
}
