//! Attempts to reach a forbidden address: all spellings of loopback, names, redirects, odd URLs.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::Arena;
use super::calm::Bystander;
use crate::peer::{Peer, PeerResponse};
use crate::support::Server;
use crate::workbench::{bind_post, grant, once, open_model, react};

/// A model whose `postCreate` fetches the URL in its data.
const FETCHES: &str = "try { \
    const response = await fetch(after.url, { redirect: after.redirect ?? 'follow', signal: AbortSignal.timeout(2000) }); \
    return { status: response.status, text: await response.text() }; \
  } catch (error) { return { code: error.code, name: error.name, message: error.message }; }";

struct Case {
    server: Server,
    api: crate::support::Client,
}

impl Case {
    fn new(grants: &str) -> Case {
        let server = Server::start_with(once(grant("fetcher", "postCreate", grants)));
        let api = server.client();
        open_model(&api, "fetcher");
        bind_post(&api, "fetcher", FETCHES);
        Case { server, api }
    }

    fn fetch(&self, url: &str) -> Value {
        react(&self.api, "fetcher", &json!({"url": url}))
    }
}

#[test]
fn every_spelling_of_an_address_that_is_not_public() {
    let peer = Peer::saying("reached");
    let port = peer.port();
    // The widest possible grant for this port, which still opens only public addresses.
    let case = Case::new(&format!("http = ['http://*:{port}/*', 'https://*:{port}/*']"));
    let loopback = [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "127.255.255.254",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0X7F.0.0.0x1",
        "017700000001",
        "0177.0.0.1",
        "0177.1",
        "127.000.000.001",
        "127.0.0.1.",
        "1%32%37.0.0.1",
        "127。0。0。1",
        "１２７.0.0.1",
        "①②⑦.0.0.1",
        "0",
        "0.0.0.0",
        "0x0",
        "localhost",
        "LOCALHOST",
        "loc%61lhost",
        "ｌｏｃａｌｈｏｓｔ",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:FFFF:127.0.0.1]",
        "[::127.0.0.1]",
        "[::ffff:0:0]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[2002:7f00:1::1]",
    ];
    let others = [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "0xa9fea9fe",
        "[::ffff:169.254.169.254]",
        "100.100.100.200",
        "168.63.129.16",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[fe80::1]",
        "[fd00::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "[fec0::1]",
    ];
    let bystander = Bystander::new(&case.server);
    bystander.stays_calm("spellings", || {
        for host in loopback.iter().chain(&others) {
            for scheme in ["http", "https"] {
                let url = format!("{scheme}://{host}:{port}/x");
                let answer = case.fetch(&url);
                assert_eq!(answer["code"], "denied", "{url}: {answer}");
                let message = answer["message"].as_str().expect("a text");
                let says = "which only a grant that names the host without `*` opens";
                assert!(message.contains(says), "{url}: {message}");
            }
        }
    });
    assert_eq!(peer.connections(), 0, "{:?}", peer.asked());
}

#[test]
fn a_grant_that_names_the_host_opens_that_host_alone() {
    let peer = Peer::saying("reached");
    let port = peer.port();
    let case = Case::new(&format!("http = ['http://127.0.0.1:{port}/v1/*']"));
    // Spellings of the same address are the same host.
    for host in ["127.0.0.1", "127.1", "2130706433", "0x7f000001"] {
        let answer = case.fetch(&format!("http://{host}:{port}/v1/x"));
        assert_eq!(answer, json!({"status": 200, "text": "reached"}), "{host}");
    }
    let reached = peer.connections();
    for url in [
        format!("http://localhost:{port}/v1/x"),
        format!("http://127.0.0.2:{port}/v1/x"),
        format!("http://0.0.0.0:{port}/v1/x"),
        format!("http://[::ffff:127.0.0.1]:{port}/v1/x"),
        format!("http://[::1]:{port}/v1/x"),
        format!("https://127.0.0.1:{port}/v1/x"),
        format!("http://127.0.0.1:{}/v1/x", port ^ 1),
        "http://127.0.0.1/v1/x".to_owned(),
        format!("http://127.0.0.1:{port}/"),
        format!("http://127.0.0.1:{port}/v2/x"),
        format!("http://127.0.0.1:{port}/V1/x"),
        format!("http://127.0.0.1:{port}//v1/x"),
        format!("http://127.0.0.1:{port}/v1/../v2/x"),
        format!("http://127.0.0.1:{port}/v1/%2e%2e/v2/x"),
        format!("http://127.0.0.1:{port}/v1/..%2fv2/x"),
        format!("http://127.0.0.1:{port}/v1/%252e%252e/v2"),
        format!("http://127.0.0.1:{port}/v1/..\\v2"),
        format!("http://127.0.0.1:{port}/v1/.%2e;x/v2"),
        format!("http://127.0.0.1:{port}%2fv1/x"),
    ] {
        let answer = case.fetch(&url);
        let refused = answer["code"] == "denied" || answer["code"] == "invalid" || answer["name"] == "TypeError";
        assert!(refused, "{url}: {answer}");
    }
    assert_eq!(peer.connections(), reached, "{:?}", peer.asked());
}

#[test]
fn user_names_schemes_and_other_tricks() {
    let peer = Peer::saying("reached");
    let port = peer.port();
    let case = Case::new(&format!("http = ['http://granted.invalid:{port}/*', 'http://granted.invalid/*']"));
    for url in [
        format!("http://granted.invalid:{port}@127.0.0.1:{port}/"),
        format!("http://granted.invalid@127.0.0.1:{port}/"),
        format!("http://granted.invalid%2f@127.0.0.1:{port}/"),
        format!("http://granted.invalid%00@127.0.0.1:{port}/"),
        format!("http://granted.invalid:{port}#@127.0.0.1:{port}/"),
        format!("http://127.0.0.1:{port}#granted.invalid/"),
        format!("http://127.0.0.1:{port}?granted.invalid/"),
        format!("http://127.0.0.1:{port}/granted.invalid/"),
        format!("http://127.0.0.1:{port}\\@granted.invalid:{port}/"),
        format!("http:\\\\127.0.0.1:{port}\\"),
        format!("http:127.0.0.1:{port}/"),
        format!("http:/127.0.0.1:{port}/"),
        format!("http:////127.0.0.1:{port}/"),
        format!(" http://127.0.0.1:{port}/ "),
        format!("h\tttp://127.0.\n0.1:{port}/"),
        format!("http://user:hunter2@granted.invalid:{port}/"),
        "file:///etc/passwd".to_owned(),
        "ftp://127.0.0.1/".to_owned(),
        "data:text/plain,x".to_owned(),
        "javascript:1".to_owned(),
        format!("ws://127.0.0.1:{port}/"),
        format!("gopher://127.0.0.1:{port}/"),
        "//127.0.0.1/".to_owned(),
        "/relative".to_owned(),
        String::new(),
        "http://".to_owned(),
        "http://[::1".to_owned(),
        "http://1.2.3.4.5.6/".to_owned(),
        "http://127.0.0.1:99999/".to_owned(),
        "http://127.0.0.1:-1/".to_owned(),
        format!("http://granted.invalid:{port}/{}", "x".repeat(100_000)),
    ] {
        let answer = case.fetch(&url);
        let shown: String = url.chars().take(80).collect();
        // A granted name that does not exist is looked up without success.
        let vain = url.contains("//granted.invalid:") && answer["code"] == "failed";
        let refused = answer["code"] == "denied" || answer["code"] == "invalid" || answer["name"] == "TypeError";
        assert!(refused || vain, "{shown}: {answer}");
        assert!(!answer.to_string().contains("hunter2"), "{shown}: {answer}");
    }
    assert_eq!(peer.connections(), 0, "{:?}", peer.asked());
}

#[test]
fn redirects_are_checked_like_first_requests() {
    let hidden = Peer::saying("reached");
    let targets: Arc<Mutex<String>> = Arc::default();
    let gate = Peer::start({
        let targets = Arc::clone(&targets);
        move |asked| match asked.target.as_str() {
            "/ok" => PeerResponse::ok("fine"),
            "/loop" => PeerResponse::redirect(302, "/loop"),
            "/307" => PeerResponse::redirect(307, &targets.lock().expect("a target")),
            _ => PeerResponse::redirect(302, &targets.lock().expect("a target")),
        }
    });
    let (port, hidden_port) = (gate.port(), hidden.port());
    let case = Case::new(&format!("http = ['http://127.0.0.1:{port}/*', 'http://*:{hidden_port}/*']"));
    let go = |from: &str, to: &str| {
        to.clone_into(&mut targets.lock().expect("a target"));
        case.fetch(&gate.url(from))
    };
    assert_eq!(go("/go", "/ok"), json!({"status": 200, "text": "fine"}));
    assert_eq!(go("/go", &gate.url("/ok")), json!({"status": 200, "text": "fine"}));
    let hosts = [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "169.254.169.254",
    ];
    let bystander = Bystander::new(&case.server);
    bystander.stays_calm("redirects", || {
        for host in hosts {
            for from in ["/go", "/307"] {
                let answer = go(from, &format!("http://{host}:{hidden_port}/x"));
                assert_eq!(answer["code"], "denied", "{host}: {answer}");
            }
        }
    });
    for to in [
        format!("https://127.0.0.1:{port}/ok"),
        format!("http://user@127.0.0.1:{port}/ok"),
        format!("//127.0.0.1:{hidden_port}/"),
        "file:///etc/passwd".to_owned(),
        "http://[".to_owned(),
    ] {
        let answer = go("/go", &to);
        assert!(
            answer["code"] == "denied" || answer["code"] == "invalid" || answer["code"] == "failed",
            "{to}: {answer}"
        );
    }
    let answer = case.fetch(&gate.url("/loop"));
    assert_eq!(answer["code"], "failed", "{answer}");
    assert_eq!(hidden.connections(), 0, "{:?}", hidden.asked());

    // With `manual` the hook gets the redirect itself, and nothing is followed.
    "http://127.0.0.1:1/".clone_into(&mut targets.lock().expect("a target"));
    let answer = react(&case.api, "fetcher", &json!({"url": gate.url("/go"), "redirect": "manual"}));
    assert_eq!(answer["status"], 302, "{answer}");
    let answer = react(&case.api, "fetcher", &json!({"url": gate.url("/go"), "redirect": "error"}));
    assert!(answer.get("status").is_none(), "{answer}");
    let asked = gate.asked();
    assert!(asked.iter().all(|asked| asked.method == "GET" && asked.body.is_empty()), "{asked:?}");
}

#[test]
fn a_name_that_leads_to_loopback() {
    let peer = Peer::saying("reached");
    let port = peer.port();
    // A grant that names a host completely opens it, as with an address.
    let case = Case::new(&format!("http = ['http://localhost:{port}/*']"));
    assert_eq!(case.fetch(&format!("http://localhost:{port}/x")), json!({"status": 200, "text": "reached"}));
    let case = Case::new(&format!("http = ['http://*.localhost:{port}/*', 'http://local*.localdomain:{port}/*']"));
    let before = peer.connections();
    for host in ["localhost", "localhost.", "a.localhost", "localhost.localdomain"] {
        let answer = case.fetch(&format!("http://{host}:{port}/x"));
        // A system that cannot resolve the name reports `failed`.
        assert!(answer["code"] == "denied" || answer["code"] == "failed", "{host}: {answer}");
    }
    assert_eq!(peer.connections(), before);
}

#[test]
fn the_servers_own_api_is_out_of_reach() {
    // On any port: a grant for every host opens only public addresses.
    let case = Case::new("http = ['http://*/*', 'https://*/*']");
    let own = case.server.address();
    for url in [
        format!("http://{own}/models"),
        format!("http://localhost:{}/models", own.port()),
        format!("http://[::ffff:127.0.0.1]:{}/models", own.port()),
    ] {
        assert_eq!(case.fetch(&url)["code"], "denied", "{url}");
    }
}

/// Peers that respond slowly, endlessly or with garbage: the hook fails with its own message, and others do not wait.
#[test]
fn hostile_peers() {
    let peer = Peer::start(|asked| match asked.target.as_str() {
        "/stall" => PeerResponse::stalled(),
        "/large" => PeerResponse::ok(vec![b'x'; 9 << 20]),
        "/headers" => {
            (0..300).fold(PeerResponse::ok(""), |answer, n| answer.header(&format!("x-{n}"), &"y".repeat(1000)))
        }
        _ => PeerResponse::ok("fine"),
    });
    let port = peer.port();
    let tables = grant("*", "postCreate", &format!("http = ['http://127.0.0.1:{port}/*']\nmemory = '256 MiB'"));
    let arena = Arena::with(once(tables));
    let model = arena.victim();
    bind_post(&arena.api, &model, FETCHES);
    let fetch = |path: &str| react(&arena.server.client(), &model, &json!({"url": peer.url(path)}));
    arena.bystander.stays_calm("peers", || {
        std::thread::scope(|scope| {
            let stalled: Vec<_> = (0..4).map(|_| scope.spawn(|| fetch("/stall"))).collect();
            for answer in stalled.into_iter().map(|call| call.join().expect("an answer")) {
                assert_eq!(answer["name"], "TimeoutError", "{answer}");
            }
        });
        let answer = fetch("/large");
        assert_eq!(answer["code"], "too-large", "{answer}");
        assert!(answer["message"].as_str().expect("a text").contains("exceeds 8 MiB"), "{answer}");
        let answer = fetch("/headers");
        assert!(answer["code"] == "failed" || answer["status"] == 200, "{answer}");
        assert_eq!(fetch("/fine"), json!({"status": 200, "text": "fine"}));
    });
}
