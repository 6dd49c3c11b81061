//! The audit log, and the host names that a server accepts.

use std::io::Write;
use std::net::TcpStream;

use serde_json::json;

use crate::support::{Server, ServerOptions, eventually};

/// The log lines that contain all these words.
fn lines(server: &Server, words: &[&str]) -> Vec<String> {
    let log = server.log();
    log.into_iter().filter(|line| words.iter().all(|word| line.contains(word))).collect()
}

#[track_caller]
fn line(server: &Server, words: &[&str]) -> String {
    eventually("a line of the audit log", || {
        let found = lines(server, words);
        assert!(found.len() < 2, "{found:?}");
        found.into_iter().next()
    })
}

fn start(server: &str) -> Server {
    let options = ServerOptions { auth: "mode = 'tokens'", server: server.to_owned(), ..ServerOptions::default() };
    Server::start_with(options)
}

fn admin(server: &Server) -> String {
    let token = std::fs::read_to_string(server.directory().join("data/admin.token")).expect("the first token");
    format!("Bearer {}", token.trim_end())
}

#[test]
fn who_changed_what_and_who_was_denied() {
    let server = start("[server.limits]\ntrusted-proxies = ['127.0.0.1']");
    let api = server.client();
    let admin = admin(&server);
    let as_admin = |method: &str, path: &str, id: &str| {
        let request = api.request(method, path).header("Authorization", &admin).header("X-Request-Id", id);
        request.header("X-Forwarded-For", "192.0.2.7")
    };
    let new = json!({"name": "reads", "role": "reader", "models": ["film"]});
    let made = as_admin("POST", "/tokens", "made").json(&new).send().expect(201).json();
    let reader = format!("Bearer {}", made["token"].as_str().expect("a token"));
    as_admin("POST", "/models", "bad").json(&json!({})).send().expect_problem(400, "bad-request");
    as_admin("DELETE", "/secrets/none?really", "gone").send();

    let made = line(&server, &["made", "POST /tokens"]);
    for word in ["an admin called", "actor=\"token:", "address=\"192.0.2.7\"", "status=\"201\""] {
        assert!(made.contains(word), "{word}: {made}");
    }
    assert!(!server.log().concat().contains(&reader["Bearer ".len()..]), "a token is in the log");
    line(&server, &["request_id=\"bad\"", "status=\"400\"", "POST /models"]);
    line(&server, &["request_id=\"gone\"", "DELETE /secrets/none?really"]);
    // Reads by admins, and requests that other roles may make too, are not logged.
    as_admin("GET", "/secrets", "read").send().expect(200);
    as_admin("POST", "/models/film/instances", "write").json(&json!({"data": {}})).send().expect(404);

    let as_reader = |method: &str, path: &str, id: &str| {
        api.request(method, path).header("Authorization", &reader).header("X-Request-Id", id).send()
    };
    as_reader("POST", "/rebuild", "role").expect_problem(403, "forbidden");
    as_reader("GET", "/models/order", "scope").expect_problem(403, "forbidden");
    api.request("GET", "/models").header("X-Request-Id", "nobody").send().expect_problem(401, "unauthorized");
    let foreign = api.request("POST", "/models").header("Origin", "https://evil.example");
    foreign.header("X-Request-Id", "site").send().expect_problem(403, "forbidden");
    for (id, actor, status, what) in [
        ("role", "token:reads", 403, "denied: POST /rebuild: this needs the role"),
        ("scope", "token:reads", 403, "denied: GET /models/order: the token is for other models"),
        ("nobody", "unknown", 401, "denied: GET /models: no token"),
        ("site", "unknown", 403, "denied: POST /models: a page of another site"),
    ] {
        let line = line(&server, &[&format!("request_id=\"{id}\"")]);
        for word in [format!("actor=\"{actor}\""), format!("status={status}"), what.to_owned()] {
            assert!(line.contains(&word), "{word}: {line}");
        }
        assert!(line.contains("address=\"127.0.0.1\""), "{line}");
    }
    for id in ["read", "write"] {
        assert_eq!(lines(&server, &[&format!("request_id=\"{id}\"")]), Vec::<String>::new());
    }
}

#[test]
fn a_change_is_noted_though_its_client_leaves() {
    let server = start("");
    let head = format!(
        "PUT /secrets/key HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\nContent-Length: 10\r\n\r\nhalf",
        server.address(),
        admin(&server)
    );
    let mut stream = TcpStream::connect(server.address()).expect("a connection");
    stream.write_all(head.as_bytes()).expect("sent");
    drop(stream);
    line(&server, &["an admin called: PUT /secrets/key"]);
}

#[test]
fn denials_do_not_fill_the_log() {
    let server = start("");
    let api = server.client();
    for _ in 0..40 {
        api.get("/models").expect(401);
    }
    let denied = || lines(&server, &["denied: GET /models"]).len();
    // At most ten lines a second. The loop may span two seconds, and failed requests are throttled.
    let noted = eventually("the first ones are in the log", || Some(denied()).filter(|noted| *noted >= 10));
    assert!(noted < 40, "{noted}");
    eventually("the number of those that were left out", || {
        api.get("/models").expect(401);
        lines(&server, &["denied: GET /models"]).into_iter().find(|line| !line.contains("left_out=0"))
    });
}

#[test]
fn names_of_the_server() {
    let server = Server::start_with(ServerOptions {
        server: "[server.limits]\nhosts = ['api.example.com', '*.shop.example']\ntrusted-proxies = ['127.0.0.1']"
            .to_owned(),
        ..ServerOptions::default()
    });
    let api = server.client();
    for host in
        ["api.example.com", "API.example.com:8443", "a.shop.example", "localhost:1", "10.1.2.3", "[2001:db8::1]:80"]
    {
        api.request("GET", "/models").host(host).send().expect(200);
    }
    for host in ["shop.example", "api.example.com.evil.example", "evil.example:80"] {
        let problem = api.request("GET", "/models").host(host).send().expect_problem(403, "forbidden");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains(host) && detail.contains("server.limits.hosts"), "{detail}");
    }
    // From a trusted proxy `X-Forwarded-Host` applies, not `Host`.
    let through = |host: &str, asked: &str| {
        api.request("GET", "/models").host(host).header("X-Forwarded-Host", asked).send().status
    };
    assert_eq!(through("upstream", "api.example.com"), 200);
    assert_eq!(through("localhost", "evil.example"), 403);

    let config = server.config_file();
    let text = std::fs::read_to_string(&config).expect("a config");
    std::fs::write(&config, text.replace("api.example.com", "new.example.com")).expect("written");
    eventually("the file is read again", || {
        (api.request("GET", "/models").host("new.example.com").send().status == 200).then_some(())
    });
    api.request("GET", "/models").host("api.example.com").send().expect(403);
}
