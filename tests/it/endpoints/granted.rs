//! Capabilities: none without a grant; with a grant the same as for hooks, under the same rules.

use serde_json::json;

use super::{orders, server};
use crate::peer::Peer;
use crate::support::eventually;

#[test]
fn nothing_is_granted_by_default_and_the_log_says_what_would() {
    let peer = Peer::saying("never");
    // Grants for hooks and for other endpoints do not apply.
    let others = "[[server.endpoints]]\nname = 'other'\npath = '/other'\ncomponent = 'tool.wasm'\n\
                  [[grants]]\nendpoint = 'other'\nread = ['*']\n\
                  [[grants]]\nmodel = '*'\nphase = '*'\nread = ['*']\nsecret = ['*']\n";
    let Some(server) = server(others) else { return };
    orders(&server);
    let api = server.client();
    let text = api.get(&format!("/tool/capabilities?{}", peer.url("/"))).expect(200).text();
    for name in ["read", "write", "http", "process", "secret"] {
        assert!(text.contains(&format!("{name}: denied")), "{text}");
    }
    let text = api.get(&format!("/tool/fetch?127.0.0.1:{}", peer.port())).expect(200).text();
    assert!(text.contains("HttpRequestDenied"), "{text}");
    assert_eq!(peer.connections(), 0);
    for opens in ["read = ['order']", "write = ['order']", "secret = ['key']"] {
        let lines = format!(r"add to config.toml:\n[[grants]]\nendpoint = 'tool'\n{opens} ");
        eventually(&lines, || server.log().iter().any(|line| line.contains(&lines)).then_some(()));
    }
    let text = api.get("/other/capabilities?x").expect(200).text();
    assert!(text.contains("read: {\"name\":\"first\"}") && text.contains("write: denied"), "{text}");
}

#[test]
fn what_is_granted_works_and_is_the_endpoints_own_doing() {
    let peer = Peer::saying("hello");
    let grant = format!(
        "[[grants]]\nendpoint = 'to*'\nread = ['order']\nwrite = ['order']\nhttp = ['{}']\nsecret = ['key']\n\
         process = [{{ program = '/usr/bin/echo', args = ['hello'] }}]\n",
        peer.url("/*")
    );
    let Some(server) = server(&grant) else { return };
    orders(&server);
    let api = server.client();
    api.put("/secrets/key", &"s3cret".into()).expect(204);
    let answer = api.request("GET", &format!("/tool/capabilities?{}", peer.url("/")));
    let text = answer.header("X-Request-Id", "writes-1").send().expect(200).text();
    for line in ["read: {\"name\":\"first\"}", "write: 1", "http: 200", "process: hello"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(text.lines().any(|line| line.starts_with("secret: ") && line.contains("s3cret")), "{text}");
    assert_eq!(api.get(&format!("/tool/fetch?127.0.0.1:{}", peer.port())).expect(200).text(), "200");
    let events = api.get("/events?model=order").expect(200).json();
    let made = events["items"].as_array().expect("events").iter().find(|event| event["actor"]["kind"] == "endpoint");
    let made = made.unwrap_or_else(|| panic!("no event of the endpoint: {events}"));
    assert_eq!(made["actor"], json!({"id": "tool", "kind": "endpoint"}), "{made}");
    assert!(made.get("cause").is_none_or(serde_json::Value::is_null), "{made}");
    assert_eq!((&made["request_id"], &made["type"]), (&"writes-1".into(), &"instance.created".into()), "{made}");
}
