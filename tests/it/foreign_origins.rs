//! Pages of other sites in the user's browser: how every route responds to them, and what browsers must not guess.

use serde_json::json;

use crate::support::{Server, ServerOptions};

/// Every way to write, one line per route and method; the named resources need not exist.
const WRITES: [(&str, &str); 24] = [
    ("POST", "/models"),
    ("PUT", "/models/order"),
    ("DELETE", "/models/order"),
    ("PUT", "/models/order/hooks/preCreate"),
    ("DELETE", "/models/order/hooks/preCreate"),
    ("POST", "/hooks/check/preCreate"),
    ("POST", "/models/order/instances"),
    ("PUT", "/models/order/instances/a"),
    ("PATCH", "/models/order/instances/a"),
    ("DELETE", "/models/order/instances/a"),
    ("POST", "/models/order/import"),
    ("POST", "/errors/retry"),
    ("POST", "/errors/retry?dry-run=true"),
    ("POST", "/errors/01890a5d-ac96-774b-bcce-b302099a8057/retry"),
    ("DELETE", "/errors/01890a5d-ac96-774b-bcce-b302099a8057"),
    ("PUT", "/secrets/key"),
    ("DELETE", "/secrets/key"),
    ("POST", "/rebuild"),
    ("POST", "/healthz"),
    ("POST", "/openapi.json"),
    ("POST", "/docs"),
    ("POST", "/nothing"),
    ("OPTIONS", "/models"),
    ("BREW", "/models"),
];

#[test]
fn a_foreign_origin_writes_nowhere() {
    let server = Server::start();
    let api = server.client();
    let own = format!("http://{}", server.address());
    for (method, path) in WRITES {
        for origin in [
            "https://evil.example",
            "http://localhost:3000",
            "http://127.0.0.1",
            &format!("{own}.evil.example"),
            "null",
            "",
        ] {
            let request = api.request(method, path).header("Origin", origin);
            request.send().expect_problem(403, "forbidden");
            // As an older browser sends it, or one that sends both headers; a body makes no difference.
            let request = api.request(method, path).header("Origin", origin).header("Sec-Fetch-Site", "none");
            request.json(&json!({})).send().expect_problem(403, "forbidden");
        }
        // One valid origin among several is not enough.
        let request = api.request(method, path).header("Origin", &own).header("Origin", "https://evil.example");
        request.send().expect_problem(403, "forbidden");
        let status = api.request(method, path).header("Origin", &own).json(&json!({})).send().status;
        assert_ne!(status, 403, "{method} {path} from a page of this server");
    }
    // Reads are blocked by the browser, which hides the response from the page.
    for path in ["/models", "/events", "/errors", "/rebuild", "/healthz"] {
        api.request("GET", path).header("Origin", "https://evil.example").send().expect(200);
    }
}

#[test]
fn no_response_is_guessed_to_be_a_page() {
    let server = Server::start();
    let api = server.client();
    api.post("/models", &json!({"id": "order", "schema": {"type": "object"}})).expect(201);
    api.post("/models/order/instances", &json!({"id": "a", "data": {"html": "<script>"}})).expect(201);
    let stream = api.stream("/events/stream", &[]);
    assert_eq!(stream.header("x-content-type-options"), Some("nosniff"));
    for (method, path) in WRITES.into_iter().chain(
        [
            "/models",
            "/models/order",
            "/models/order/hooks",
            "/models/order/hooks/preCreate",
            "/models/order/hooks/preCreate/log",
            "/models/order/hooks/preCreate/stats",
            "/models/order/instances",
            "/models/order/instances/a",
            "/models/order/instances/a/events",
            "/models/order/instances/a/referring/order",
            "/events",
            "/errors",
            "/secrets",
            "/rebuild",
            "/healthz",
            "/readyz",
            "/metrics",
            "/nothing",
            "/%zz",
        ]
        .map(|path| ("GET", path)),
    ) {
        let response = api.request(method, path).send();
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{method} {path}");
    }
}

#[test]
fn pages_that_are_allowed_may_use_the_api() {
    let server = Server::start_with(ServerOptions {
        server: "[server.cors]\norigins = ['https://app.example.com', 'http://localhost:3000']".to_owned(),
        ..ServerOptions::default()
    });
    let api = server.client();
    let preflight = |origin: &str, method: &str| {
        api.request("OPTIONS", "/models/order/instances")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", method)
            .header("Access-Control-Request-Headers", "authorization,content-type,if-match")
            .send()
    };
    for origin in ["https://app.example.com", "http://localhost:3000"] {
        let asked = preflight(origin, "PATCH");
        assert_eq!((asked.status, asked.header("access-control-allow-origin")), (200, Some(origin)));
        for (header, holds) in [("access-control-allow-methods", "PATCH"), ("access-control-allow-headers", "if-match")]
        {
            assert!(asked.header(header).is_some_and(|value| value.contains(holds)), "{header}");
        }
        assert_eq!(asked.header("access-control-allow-credentials"), None);
        let model = json!({"id": "order", "schema": {"type": "object"}});
        let made = api.request("POST", "/models").header("Origin", origin).header("Sec-Fetch-Site", "cross-site");
        let made = made.json(&model).send();
        assert!(matches!(made.status, 201 | 409), "{}", made.text());
        assert_eq!(made.header("access-control-allow-origin"), Some(origin));
        let exposed = made.header("access-control-expose-headers").expect("headers").to_ascii_lowercase();
        assert!(exposed.contains("etag") && exposed.contains("snaphook-position"), "{exposed}");
    }
    for origin in [
        "https://app.example.com.evil.example",
        "https://app.example.com:444",
        "http://app.example.com",
        "https://APP.example.com",
        "https://evil.example",
        "null",
    ] {
        assert_eq!(preflight(origin, "POST").header("access-control-allow-origin"), None, "{origin}");
        let read = api.request("GET", "/models").header("Origin", origin).send().expect(200);
        assert_eq!(read.header("access-control-allow-origin"), None, "{origin}");
        let refused = api.request("POST", "/models").header("Origin", origin).json(&json!({})).send();
        refused.expect_problem(403, "forbidden");
    }
    // A permitted origin does not permit another one beside it.
    let both = api.request("POST", "/models").header("Origin", "https://app.example.com");
    both.header("Origin", "https://evil.example").json(&json!({})).send().expect_problem(403, "forbidden");
}
