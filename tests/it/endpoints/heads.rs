//! Who may call an endpoint, what its component learns about the caller, and which parts of a response it controls.

use serde_json::json;

use super::{TOOL, begin, echoed, first_line, read_until, server, with};
use crate::support::{Client, Server, ServerOptions};

fn with_tokens() -> Option<(Server, String)> {
    let endpoint = |name: &str, role: &str| {
        format!("[[server.endpoints]]\nname = '{name}'\npath = '/{name}'\ncomponent = 'tool.wasm'\nrole = '{role}'\n")
    };
    let tables = endpoint("writes", "writer") + &endpoint("public", "anyone");
    let server = with(ServerOptions { auth: "mode = 'tokens'", tables, ..ServerOptions::default() })?;
    let token = std::fs::read_to_string(server.directory().join("data/admin.token")).expect("the first token");
    Some((server, format!("Bearer {}", token.trim_end())))
}

fn token(api: &Client, admin: &str, body: &serde_json::Value) -> String {
    let made = api.request("POST", "/tokens").header("Authorization", admin).json(body).send().expect(201);
    format!("Bearer {}", made.json()["token"].as_str().expect("a token"))
}

#[test]
fn callers_need_the_role_and_cannot_forge_who_they_are() {
    let Some((server, admin)) = with_tokens() else { return };
    let api = server.client();
    let reader = token(&api, &admin, &json!({"name": "reads", "role": "reader", "models": ["order", "audit-*"]}));
    api.get("/tool/echo").expect_problem(401, "unauthorized");
    api.request("GET", "/writes/echo").header("Authorization", &reader).send().expect_problem(403, "forbidden");
    api.request("GET", "/writes/echo").header("Authorization", &admin).send().expect(200);

    let request = api.request("GET", "/tool/echo?a=%zz&min-position=7").header("Authorization", &reader);
    let request = request.header("Snaphook-Actor", "token:admin").header("snaphook-role", "admin");
    let request = request.header("X-Forwarded-For", "9.9.9.9").header("Forwarded", "for=9.9.9.9");
    let request = request.header("X-Hop", "1").header("Connection", "x-hop").header("Cookie", "a=b");
    let answer = request.header("X-Request-Id", "mine-1").send().expect(200);
    let text = answer.text();
    assert_eq!(first_line(&answer), format!("GET /tool/echo?a=%zz&min-position=7 http {}", server.address()));
    for (name, expected) in [
        ("snaphook-actor", Some("token:reads")),
        ("snaphook-role", Some("reader")),
        ("snaphook-models", Some("order, audit-*")),
        ("snaphook-address", Some("127.0.0.1")),
        ("snaphook-mount", Some("/tool")),
        ("snaphook-claims", None),
        ("x-request-id", Some("mine-1")),
        ("cookie", Some("a=b")),
        ("authorization", None),
        ("x-forwarded-for", None),
        ("forwarded", None),
        ("x-hop", None),
        ("connection", None),
        ("host", None),
    ] {
        assert_eq!(echoed(&text, name), expected, "{name}: {text}");
    }
    assert_eq!(text.matches("snaphook-actor").count(), 1, "{text}");

    // An endpoint without authentication identifies no caller, and the component receives the `Authorization` header.
    let forged = [("Snaphook-Actor", "token:admin"), ("snaphook-role", "admin"), ("SNAPHOOK-Claims", "{}")];
    for authorization in [Some(&*reader), None] {
        let mut request = api.request("GET", "/public/echo");
        for (name, value) in forged.into_iter().chain(authorization.map(|token| ("Authorization", token))) {
            request = request.header(name, value);
        }
        let text = request.send().expect(200).text();
        assert_eq!(echoed(&text, "authorization"), authorization, "{text}");
        for (name, _) in forged {
            assert_eq!(echoed(&text, &name.to_ascii_lowercase()), None, "{name}: {text}");
        }
    }
}

#[test]
fn every_method_and_every_path_below_its_own_is_the_endpoints() {
    let Some(server) = with(ServerOptions { mount_path: "/api", ..ServerOptions::default() }) else { return };
    let api = server.client();
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE"] {
        let answer = api.request(method, "/tool/a//../echo?x").send().expect(200);
        assert_eq!(first_line(&answer), format!("{method} /api/tool/a//../echo?x http {}", server.address()));
        assert_eq!(echoed(&answer.text(), "snaphook-role"), Some("admin"), "open mode");
        assert_eq!(echoed(&answer.text(), "snaphook-mount"), Some("/api/tool"));
    }
    api.get("/tool").expect(404);
    for path in ["/tools/echo", "/%74ool/echo", "//tool/echo", "/x/tool/echo"] {
        api.get(path).expect_problem(404, "not-found");
    }
    api.request_to("GET", "/tool/echo").send().expect_problem(404, "not-found");
    // A page of another site may not call it either.
    api.request("POST", "/tool/echo").header("Origin", "http://evil.example").send().expect_problem(403, "forbidden");
}

#[test]
fn responses_are_the_components_but_for_what_is_the_servers() {
    let Some(server) = server("") else { return };
    let api = server.client();
    let answer = api.request("GET", "/tool/headers").header("X-Request-Id", "own-1").send().expect(200);
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("x-request-id"), Some("own-1"));
    for name in ["access-control-allow-origin", "snaphook-position", "te"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    let mut raw = begin(&server, "GET", "/tool/headers", "Connection: close\r\n");
    let text = String::from_utf8_lossy(&super::read_to_end(&mut raw)).into_owned();
    assert_eq!(text.matches("set-cookie: ").count(), 2, "{text}");
    assert_eq!(api.get("/tool/forbidden").expect(200).text(), "4", "hop-by-hop headers cannot be set");

    for (status, body) in [(200, "text"), (201, "text"), (404, "text"), (500, "text"), (204, ""), (304, "")] {
        let answer = api.get(&format!("/tool/status?{status}")).expect(status);
        assert_eq!(answer.text(), body, "{status}");
    }
    for status in [100, 103, 101, 600, 999] {
        api.get(&format!("/tool/status?{status}")).expect_problem(502, "endpoint-failed");
    }
    let bodyless = api.get("/tool/bodyless").expect(202);
    assert_eq!((bodyless.text().as_str(), bodyless.header("content-length")), ("", Some("0")));
    let head = api.request("HEAD", "/tool/echo").send().expect(200);
    assert!(head.text().is_empty() && head.header("content-length").is_some_and(|length| length != "0"));
    // The connection is still usable.
    api.get("/tool/echo").expect(200);
}

#[test]
fn trailers_come_after_the_body() {
    let Some(server) = server("") else { return };
    let mut stream = begin(&server, "GET", "/tool/trailers", "TE: trailers\r\n");
    let text = String::from_utf8_lossy(&read_until(&mut stream, b"x-sum: 3\r\n\r\n")).into_owned();
    assert!(text.contains("\r\nabc\r\n0\r\n") && !text.contains("forged"), "{text}");
}

#[test]
fn endpoints_that_cannot_be_are_refused_at_start() {
    let Some(server) = server("") else { return };
    let check = |tables: &str| {
        let text = format!("[server]\nmount-address = '127.0.0.1:0'\n[auth]\nmode = 'open'\n{tables}");
        std::fs::write(server.directory().join("other.toml"), text).expect("a config");
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_snaphook"));
        let output = command.args(["check", "--config", "other.toml"]).current_dir(server.directory()).output();
        let output = output.expect("the binary starts");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert!(check(TOOL).0);
    let (is_fine, said) = check(&TOOL.replace("/tool", "/models/x"));
    assert!(!is_fine && said.contains("expected a path that does not start with `/models`"), "{said}");
    let (is_fine, said) = check(&format!("{TOOL}{}", TOOL.replace("'tool'", "'other'").replace("/tool", "/tool/x")));
    assert!(!is_fine && said.contains("neither may be under the other"), "{said}");
}
