//! Tokens: who may call what, from outside.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::{Client, Response, Server, ServerOptions, create_orders, eventually, skip};

/// Every operation and the lowest role that may call it; `None` if it needs no token.
#[rustfmt::skip]
pub(crate) const OPERATIONS: [(&str, &str, Option<&str>); 56] = [
    ("GET", "/models", Some("reader")),
    ("POST", "/models", Some("admin")),
    ("GET", "/models/order", Some("reader")),
    ("PUT", "/models/order", Some("admin")),
    ("DELETE", "/models/order", Some("admin")),
    ("GET", "/models/order/hooks", Some("admin")),
    ("GET", "/models/order/hooks/preCreate", Some("admin")),
    ("PUT", "/models/order/hooks/preCreate", Some("admin")),
    ("DELETE", "/models/order/hooks/preCreate", Some("admin")),
    ("GET", "/models/order/hooks/preCreate/log", Some("admin")),
    ("GET", "/models/order/hooks/preCreate/stats", Some("admin")),
    ("GET", "/models/order/hooks/preCreate/history", Some("admin")),
    ("GET", "/models/order/hooks/preCreate/source", Some("admin")),
    ("POST", "/hooks/check/preCreate", Some("admin")),
    ("GET", "/hooks/runs", Some("admin")),
    ("GET", "/models/order/instances", Some("reader")),
    ("HEAD", "/models/order/instances", Some("reader")),
    ("POST", "/models/order/instances", Some("writer")),
    ("GET", "/models/order/instances/a", Some("reader")),
    ("PUT", "/models/order/instances/a", Some("writer")),
    ("PATCH", "/models/order/instances/a", Some("writer")),
    ("DELETE", "/models/order/instances/a", Some("writer")),
    ("GET", "/models/order/instances/a/events", Some("reader")),
    ("GET", "/models/order/instances/a/referring/order", Some("reader")),
    ("POST", "/models/order/import", Some("writer")),
    ("GET", "/events", Some("reader")),
    ("GET", "/events/stream", Some("reader")),
    ("GET", "/events/1", Some("admin")),
    ("POST", "/events/1/skip", Some("admin")),
    ("GET", "/errors", Some("admin")),
    ("POST", "/errors/retry", Some("admin")),
    ("GET", "/errors/01890a5d-ac96-774b-bcce-b302099a8057", Some("admin")),
    ("DELETE", "/errors/01890a5d-ac96-774b-bcce-b302099a8057", Some("admin")),
    ("POST", "/errors/01890a5d-ac96-774b-bcce-b302099a8057/retry", Some("admin")),
    ("GET", "/jobs/01890a5d-ac96-774b-bcce-b302099a8057", Some("admin")),
    ("DELETE", "/jobs/01890a5d-ac96-774b-bcce-b302099a8057", Some("admin")),
    ("GET", "/secrets", Some("admin")),
    ("PUT", "/secrets/a", Some("admin")),
    ("DELETE", "/secrets/a", Some("admin")),
    ("GET", "/tokens", Some("admin")),
    ("POST", "/tokens", Some("admin")),
    ("DELETE", "/tokens/nobody", Some("admin")),
    ("POST", "/backup", Some("admin")),
    ("GET", "/server", Some("admin")),
    ("GET", "/nodes", Some("admin")),
    ("GET", "/plugins", Some("admin")),
    ("GET", "/rebuild", Some("admin")),
    ("POST", "/rebuild", Some("admin")),
    ("POST", "/batch", Some("writer")),
    ("GET", "/healthz", None),
    ("GET", "/readyz", None),
    ("GET", "/metrics", None),
    ("GET", "/openapi.json", None),
    ("GET", "/docs", None),
    ("GET", "/docs/page.js", None),
    ("OPTIONS", "/models", None),
];

fn start() -> Server {
    Server::start_with(ServerOptions { auth: "mode = 'tokens'", ..ServerOptions::default() })
}

fn admin(server: &Server) -> String {
    let text = std::fs::read_to_string(server.directory().join("data/admin.token")).expect("the first token");
    text.strip_suffix('\n').expect("a line").to_owned()
}

fn ask(api: &Client, token: &str, method: &str, path: &str) -> Response {
    api.request(method, path).header("Authorization", &format!("Bearer {token}")).send()
}

fn send(api: &Client, token: &str, method: &str, path: &str, body: &Value) -> Response {
    api.request(method, path).header("Authorization", &format!("Bearer {token}")).json(body).send()
}

#[track_caller]
fn make(api: &Client, admin: &str, body: &Value) -> String {
    let made = send(api, admin, "POST", "/tokens", body).expect(201);
    assert_eq!(made.header("location"), Some(format!("/tokens/{}", body["name"].as_str().expect("a name")).as_str()));
    made.json()["token"].as_str().expect("a token").to_owned()
}

#[test]
fn every_operation_asks_for_its_role() {
    let server = start();
    let api = server.client();
    let admin = admin(&server);
    let reader = make(&api, &admin, &json!({"name": "reads", "role": "reader"}));
    let writer = make(&api, &admin, &json!({"name": "writes", "role": "writer"}));
    let roles = ["reader", "writer", "admin"];
    for (method, path, needs) in OPERATIONS {
        let nobody = api.request(method, path).send();
        let Some(needs) = needs else {
            assert!(nobody.status < 300, "{method} {path}: {}", nobody.status);
            continue;
        };
        assert_eq!(nobody.header("www-authenticate"), Some("Bearer"), "{method} {path}");
        assert_eq!(nobody.status, 401, "{method} {path}");
        for (role, token) in roles.iter().zip([&reader, &writer]) {
            let is_allowed =
                roles.iter().position(|known| known == role) >= roles.iter().position(|known| *known == needs);
            if is_allowed && path.ends_with("stream") {
                continue;
            }
            let answer = ask(&api, token, method, path);
            assert_eq!(answer.status != 403, is_allowed, "{method} {path} as {role}: {}", answer.status);
            assert_ne!(answer.status, 401, "{method} {path} as {role}");
        }
    }
    // The table above lists every method of each path.
    for (_, path, _) in OPERATIONS {
        let allow = api.request("OPTIONS", path).send().expect(204);
        let mut told: Vec<&str> =
            allow.header("allow").expect("methods").split(", ").filter(|name| *name != "HEAD").collect();
        told.sort_unstable();
        let mut known: Vec<&str> = OPERATIONS
            .iter()
            .filter(|(method, other, _)| *other == path && !matches!(*method, "HEAD" | "OPTIONS"))
            .map(|(method, ..)| *method)
            .collect();
        known.sort_unstable();
        assert_eq!(told, known, "{path}");
    }
}

#[test]
fn an_admin_may_do_everything_and_the_first_token_is_made_once() {
    let server = start();
    let api = server.client();
    let file = server.directory().join("data/admin.token");
    assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let token = admin(&server);
    send(&api, &token, "PUT", "/secrets/key", &json!(1)).expect(204);
    // The server's own records are not listed as secrets.
    assert_eq!(ask(&api, &token, "GET", "/secrets").expect(200).json()["items"], json!(["key"]));
    send(&api, &token, "PUT", "/secrets/snaphook.tokens", &json!(1)).expect_problem(400, "bad-request");
    ask(&api, &token, "DELETE", "/secrets/Snaphook.tokens").expect_problem(400, "bad-request");
    let server = server.restart();
    assert_eq!(admin(&server), token);
    let api = server.client();
    ask(&api, &token, "GET", "/secrets").expect(200);
    // After it is revoked no new one is created, which would reopen access.
    make(&api, &token, &json!({"name": "second", "role": "admin"}));
    ask(&api, &token, "DELETE", "/tokens/admin").expect(204);
    ask(&api, &token, "GET", "/models").expect_problem(401, "unauthorized");
    let server = server.restart();
    ask(&server.client(), &token, "GET", "/models").expect_problem(401, "unauthorized");
}

#[test]
fn headers_that_are_no_token() {
    let server = start();
    let api = server.client();
    let token = admin(&server);
    let with = |value: &str| api.request("GET", "/models").header("Authorization", value).send();
    for good in [format!("Bearer {token}"), format!("bearer {token}"), format!("BEARER {token}")] {
        with(&good).expect(200);
    }
    let mut wrong = token.clone();
    let last = if wrong.ends_with('A') { 'B' } else { 'A' };
    wrong.pop();
    wrong.push(last);
    let long = format!("Bearer {}", "x".repeat(20_000));
    let cut = format!("Bearer {}", &token[..token.len() - 1]);
    let basic = format!("Basic {token}");
    for bad in ["", "Bearer", "Bearer ", &token, &basic, &cut, &format!("Bearer {wrong}"), "Bearer a b", &long] {
        let answer = with(bad);
        let document = answer.expect_problem(401, "unauthorized");
        assert!(!document.to_string().contains(&token[5..]), "{document}");
    }
    let twice = api.request("GET", "/models").header("Authorization", &format!("Bearer {token}"));
    twice.header("Authorization", "Bearer x").send().expect_problem(400, "bad-request");
}

#[test]
fn models_limit_what_is_seen_and_written() {
    let server = start();
    let api = server.client();
    let admin = admin(&server);
    for model in ["order", "audit-1", "film"] {
        send(&api, &admin, "POST", "/models", &json!({"id": model, "schema": {"type": "object"}})).expect(201);
        send(&api, &admin, "POST", &format!("/models/{model}/instances"), &json!({"id": "a", "data": {}})).expect(201);
    }
    let shop = make(&api, &admin, &json!({"name": "shop", "role": "writer", "models": ["order", "audit-*"]}));
    send(&api, &shop, "POST", "/models/order/instances", &json!({"id": "b", "data": {}})).expect(201);
    ask(&api, &shop, "GET", "/models/audit-1/instances/a").expect(200);
    for (method, path) in [
        ("GET", "/models/film"),
        ("GET", "/models/film/instances"),
        ("GET", "/models/film/instances?count=true"),
        ("GET", "/models/film/instances/a"),
        ("GET", "/models/film/instances/a?at=1"),
        ("GET", "/models/film/instances/a/events"),
        ("DELETE", "/models/film/instances/a"),
        ("GET", "/models/absent/instances"),
        ("GET", "/events?model=film"),
        ("GET", "/events/stream?model=film"),
    ] {
        ask(&api, &shop, method, path).expect_problem(403, "forbidden");
    }
    let names = |page: Value, key: &str| -> Vec<String> {
        let items = page["items"].as_array().expect("items").clone();
        items.iter().map(|item| item[key].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(ask(&api, &shop, "GET", "/models").expect(200).json(), "id"), ["audit-1", "order"]);
    let events = ask(&api, &shop, "GET", "/events").expect(200).json();
    assert!(!names(events.clone(), "model").contains(&"film".to_owned()), "{events}");
    assert_eq!(events["items"].as_array().map(Vec::len), Some(5));
    let writers: Vec<_> = events["items"].as_array().expect("items").iter().map(|event| &event["actor"]).collect();
    assert!(writers.contains(&&json!({"id": "shop", "kind": "token"})), "who wrote is told: {events}");
    // Paging gives the same result, also with pages that show nothing.
    let mut after = "0".to_owned();
    let mut seen = 0;
    loop {
        let page = ask(&api, &shop, "GET", &format!("/events?limit=1&after={after}")).expect(200).json();
        seen += page["items"].as_array().expect("items").len();
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    assert_eq!(seen, 5);
    let mut stream = api.stream("/events/stream?after=0", &[("Authorization", &format!("Bearer {shop}"))]);
    for _ in 0..5 {
        assert_ne!(stream.next().data["model"], "film");
    }
    // A stream ends when its token is revoked.
    ask(&api, &admin, "DELETE", "/tokens/shop").expect(204);
    send(&api, &admin, "POST", "/models/order/instances", &json!({"id": "c", "data": {}})).expect(201);
    assert!(stream.rest().is_empty(), "nothing more is told");
}

#[test]
fn tokens_are_made_listed_and_revoked() {
    let server = start();
    let api = server.client();
    let admin = admin(&server);
    let token = make(&api, &admin, &json!({"name": "ci", "role": "writer", "models": ["order"]}));
    send(&api, &admin, "POST", "/tokens", &json!({"name": "ci", "role": "reader"})).expect_problem(409, "exists");
    for (body, named) in [
        (json!({"name": "x"}), "role"),
        (json!({"name": "x", "role": "root"}), "role"),
        (json!({"name": "x", "role": "reader", "models": []}), "models"),
        (json!({"name": "x", "role": "reader", "models": ["A"]}), "models"),
        (json!({"name": "x", "role": "admin", "models": ["a"]}), "models"),
        (json!({"name": "x", "role": "reader", "expires_at": "soon"}), "expires_at"),
        (json!({"name": "x", "role": "reader", "expires_at": "2001-01-01T00:00:00Z"}), "expires_at"),
        (json!({"name": "a b", "role": "reader"}), "a b"),
        (json!({"name": "x", "role": "reader", "more": 1}), "more"),
    ] {
        let problem = send(&api, &admin, "POST", "/tokens", &body).expect_problem(400, "bad-request");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(named)), "{body}: {problem}");
    }
    ask(&api, &token, "GET", "/models").expect(200);
    let listed = ask(&api, &admin, "GET", "/tokens").expect(200);
    assert!(!listed.text().contains(&token[5..]), "{}", listed.text());
    let items = listed.json()["items"].as_array().expect("items").clone();
    assert_eq!(items.iter().map(|item| item["name"].as_str()).collect::<Vec<_>>(), [Some("admin"), Some("ci")]);
    assert!(items[1]["last_used_at"].is_string(), "{}", items[1]);
    assert_eq!((&items[1]["role"], &items[1]["models"]), (&json!("writer"), &json!(["order"])));
    ask(&api, &admin, "DELETE", "/tokens/ci").expect(204);
    ask(&api, &admin, "DELETE", "/tokens/ci").expect_problem(404, "not-found");
    ask(&api, &token, "GET", "/models").expect_problem(401, "unauthorized");
    // No token is written anywhere except to the admin's file.
    assert!(server.log().iter().all(|line| !line.contains(&token[5..]) && !line.contains(&admin[5..])));
}

#[test]
fn who_guesses_waits_and_others_do_not() {
    let server = start();
    let api = server.client();
    let admin = admin(&server);
    let started = std::time::Instant::now();
    for _ in 0..12 {
        ask(&api, "guess", "GET", "/models").expect_problem(401, "unauthorized");
    }
    // From the tenth attempt: 100, 200 and 300 ms.
    assert!(started.elapsed() >= std::time::Duration::from_millis(300), "{:?}", started.elapsed());
    ask(&api, &admin, "GET", "/models").expect(200);
    let metrics = api.get("/metrics").expect(200).text();
    assert!(metrics.contains("snaphook_authentication_failures_total 12\n"), "{metrics}");
}

#[test]
fn requests_of_one_token_are_limited() {
    let server = Server::start_with(ServerOptions {
        auth: "mode = 'tokens'",
        server: "[server.limits]\nrequests-per-second = 5".to_owned(),
        ..ServerOptions::default()
    });
    let api = server.client();
    let admin = admin(&server);
    let limited = (0..200).map(|_| ask(&api, &admin, "GET", "/models")).find(|answer| answer.status != 200);
    let limited = limited.expect("the limit is met");
    let wait: u64 = limited.header("retry-after").expect("a time").parse().expect("seconds");
    limited.expect_problem(429, "rate-limited");
    assert!((1..=2).contains(&wait), "{wait}");
    // Requests without a token have no limit, and other clients have separate limits.
    for _ in 0..50 {
        api.get("/healthz").expect(200);
    }
    api.get("/models").expect_problem(401, "unauthorized");
    eventually("it may go on", || (ask(&api, &admin, "GET", "/models").status == 200).then_some(()));
}

#[test]
fn open_mode_asks_for_nothing() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    api.request("GET", "/models").header("Authorization", "Bearer x").send().expect(200);
    assert!(!server.directory().join("data/admin.token").exists());
}

#[test]
fn commands_send_the_first_token() {
    let server = start();
    let run = |arguments: &[&str], token: Option<&str>| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_snaphook"));
        command.args(arguments).current_dir(server.directory()).env_remove("SNAPHOOK_TOKEN");
        command.env("SNAPHOOK_URL", format!("http://{}", server.address()));
        if let Some(token) = token {
            command.env("SNAPHOOK_TOKEN", token);
        }
        let output = command.output().expect("it runs");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let admin = admin(&server);
    // With an explicit URL the command sends no token unless it is given one.
    let (ok, _, told) = run(&["token", "list"], None);
    assert!(!ok && told.contains("no token was sent"), "{told}");
    let (ok, made, told) = run(&["token", "create", "shop", "--role", "reader"], Some(&admin));
    assert!(ok, "{told}");
    let (ok, listed, told) = run(&["token", "list"], Some(&admin));
    assert!(ok && listed.contains("shop") && !listed.contains(made.trim()), "{listed}{told}");
    let (ok, _, told) = run(&["token", "list"], Some(made.trim()));
    assert!(!ok && told.contains("`admin`"), "{told}");
    let (ok, _, told) = run(&["token", "rm", "shop"], Some(&admin));
    assert!(ok, "{told}");
    eventually("the token is gone", || {
        (ask(&server.client(), made.trim(), "GET", "/models").status == 401).then_some(())
    });
}

/// npm's `oidc-provider`, which ends with this process.
pub(crate) struct Issuer {
    process: std::process::Child,
    _folder: tempfile::TempDir,
    address: std::net::SocketAddr,
}

impl Issuer {
    /// `None` if it is not installed.
    pub(crate) fn start() -> Option<Issuer> {
        let packages = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("identity/tests/oidc-provider");
        if !packages.join("node_modules/oidc-provider").is_dir() {
            skip("tokens of an issuer", "oidc-provider is not installed");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let process = std::process::Command::new("node")
            .arg(packages.join("issuer.mjs"))
            .args([address.port().to_string().as_str(), &folder.path().join("keys.json").display().to_string()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("node starts");
        let issuer = Issuer { process, _folder: folder, address };
        eventually("the issuer answers", || Client::new(address, "").request("GET", "/jwks").try_send().ok());
        Some(issuer)
    }

    /// A server that accepts its tokens, with the claims `role` (a string) and `models` (a list).
    pub(crate) fn server(&self) -> Server {
        let tables = format!(
            "[auth.oidc]\nissuer = 'http://{}'\naudience = 'snaphook'\nrole = 'claims.role'\nmodels = 'claims.models'",
            self.address
        );
        Server::start_with(ServerOptions { auth: "mode = 'tokens'", tables, ..ServerOptions::default() })
    }

    pub(crate) fn token(&self, client: &str) -> String {
        use base64::Engine as _;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{client}:secret"));
        let api = Client::new(self.address, "");
        let asked = api.request("POST", "/token").header("Authorization", &format!("Basic {basic}"));
        let form = "grant_type=client_credentials&resource=urn:ES256";
        let answer = asked.body("application/x-www-form-urlencoded", form).send().expect(200);
        answer.json()["access_token"].as_str().expect("a token").to_owned()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn tokens_of_an_issuer_are_taken() {
    let Some(issuer) = Issuer::start() else { return };
    let server = issuer.server();
    let api = server.client();
    let model = json!({"id": "film", "schema": {"type": "object"}});
    send(&api, &issuer.token("admin"), "POST", "/models", &model).expect(201);
    let writer = issuer.token("writer");
    send(&api, &writer, "POST", "/models/film/instances", &json!({"id": "a", "data": {}})).expect(201);
    let events = ask(&api, &issuer.token("reader"), "GET", "/events").expect(200).json();
    let actor = &events["items"][1]["actor"];
    assert_eq!(
        (&actor["id"], &actor["kind"], &actor["claims"]["role"]),
        (&json!("writer"), &json!("oidc"), &json!("writer")),
        "{events}"
    );
    send(&api, &issuer.token("reader"), "POST", "/models/film/instances", &json!({"data": {}}))
        .expect_problem(403, "forbidden");
    ask(&api, &writer, "GET", "/models/order").expect_problem(403, "forbidden");
    ask(&api, &issuer.token("nobody"), "GET", "/models").expect_problem(401, "unauthorized");
    let forged = format!("{}A", &writer[..writer.len() - 1]);
    if forged != writer {
        ask(&api, &forged, "GET", "/models").expect_problem(401, "unauthorized");
    }
    // The server's own tokens are accepted too.
    ask(&api, &admin(&server), "GET", "/tokens").expect(200);
}
