//! `fetch` against a local server that the grant names.

use serde_json::{Value, json};

use crate::peer::{Peer, PeerResponse};
use crate::support::{Client, Server};
use crate::workbench::{caught, grant, once, open_model, post_value};

struct Case {
    _server: Server,
    api: Client,
    peer: Peer,
}

impl Case {
    fn new(more: &str) -> Case {
        let peer = Peer::start(|asked| match asked.target.split('?').next().unwrap_or_default() {
            "/json" => {
                PeerResponse::ok(r#"{"a":[1,"x"],"big":9007199254740993}"#).header("content-type", "application/json")
            }
            "/echo" => PeerResponse::ok(asked.body.clone()).header("x-method", &asked.method),
            "/headers" => PeerResponse::ok("")
                .header("x-one", "1")
                .header("x-one", "2")
                .header("set-cookie", "a=1")
                .header("set-cookie", "b=2"),
            "/404" => PeerResponse::new(404, "nothing here"),
            "/204" => PeerResponse::new(204, ""),
            "/bytes" => PeerResponse::ok(vec![0, 255, 65]),
            "/bom" => PeerResponse::ok("\u{feff}text"),
            "/302" => PeerResponse::redirect(302, "/echo?moved"),
            "/303" => PeerResponse::redirect(303, "/echo?moved"),
            "/307" => PeerResponse::redirect(307, "/echo?moved"),
            "/stall" => PeerResponse::stalled(),
            _ => PeerResponse::ok("fine"),
        });
        let lines = format!("http = ['{}']\n{more}", peer.url("/*"));
        let server = Server::start_with(once(grant("js", "postCreate", &lines)));
        let api = server.client();
        open_model(&api, "js");
        Case { _server: server, api, peer }
    }

    /// Returns the result of a body that calls `fetch`; `U` is the peer's address.
    #[track_caller]
    fn value(&self, body: &str) -> Value {
        post_value(&self.api, "js", &format!("const U = '{}'; {body}", self.peer.url("")))
    }
}

#[test]
fn answers() {
    let case = Case::new("");
    let body = "const r = await fetch(U + '/json'); return [r.ok, r.status, r.headers.get('Content-Type'), r.url === U + '/json', r.redirected, r.bodyUsed, await r.json(), r.bodyUsed, r instanceof Response];";
    assert_eq!(
        case.value(body),
        json!([true, 200, "application/json", true, false, false, {"a": [1, "x"], "big": 9_007_199_254_740_992_u64}, true, true])
    );
    // The response is available without `await` too.
    assert_eq!(case.value("const r = fetch(U + '/json'); return [r.ok, r.status, await r.text()];")[1], 200);
    assert_eq!(
        case.value("const r = await fetch(U + '/404'); return [r.ok, r.status, await r.text()];"),
        json!([false, 404, "nothing here"])
    );
    assert_eq!(
        case.value("const r = await fetch(U + '/204'); return [r.ok, r.status, await r.text()];"),
        json!([true, 204, ""])
    );
    assert_eq!(
        case.value("return [...new Uint8Array(await (await fetch(U + '/bytes')).arrayBuffer())];"),
        json!([0, 255, 65])
    );
    assert_eq!(case.value("return [...await (await fetch(U + '/bytes')).bytes()];"), json!([0, 255, 65]));
    assert_eq!(case.value("return await (await fetch(U + '/bom')).text();"), "text");
    let headers = "const { headers } = await fetch(U + '/headers'); return [headers.get('x-one'), headers.getSetCookie(), headers.has('X-ONE'), headers.get('x-none'), [...headers.keys()].includes('x-one')];";
    assert_eq!(case.value(headers), json!(["1, 2", ["a=1", "b=2"], true, null, true]));
    let twice =
        "const r = await fetch(U + '/x'); await r.text(); try { await r.text(); } catch (error) { return error.name; }";
    assert_eq!(case.value(twice), "TypeError");
    let cloned = "const r = await fetch(U + '/x'); const c = r.clone(); return [await r.text(), await c.text()];";
    assert_eq!(case.value(cloned), json!(["fine", "fine"]));
    assert_eq!(case.value("const all = await Promise.all([1, 2, 3].map((n) => fetch(U + '/' + n))); return Promise.all(all.map((r) => r.text()));"), json!(["fine", "fine", "fine"]));
}

#[test]
fn requests() {
    let case = Case::new("");
    for (init, method, body, content_type) in [
        ("{}", "GET", "", None),
        ("{ method: 'post', body: 'text ä' }", "POST", "text ä", Some("text/plain;charset=UTF-8")),
        (
            "{ method: 'PUT', body: JSON.stringify({ a: 1 }), headers: { 'content-type': 'application/json' } }",
            "PUT",
            r#"{"a":1}"#,
            Some("application/json"),
        ),
        (
            "{ method: 'PATCH', body: new URLSearchParams({ a: 'b c', d: 'ä' }) }",
            "PATCH",
            "a=b+c&d=%C3%A4",
            Some("application/x-www-form-urlencoded;charset=UTF-8"),
        ),
        ("{ method: 'POST', body: new Uint8Array([65, 66]) }", "POST", "AB", None),
        ("{ method: 'POST', body: new TextEncoder().encode('xyz').buffer }", "POST", "xyz", None),
        ("{ method: 'DELETE' }", "DELETE", "", None),
        ("{ method: 'OPTIONS' }", "OPTIONS", "", None),
    ] {
        case.value(&format!("return await (await fetch(U + '/echo', {init})).text();"));
        let asked = case.peer.asked().pop().expect("a request");
        assert_eq!(asked.method, method, "{init}");
        assert_eq!(String::from_utf8_lossy(&asked.body), body, "{init}");
        assert_eq!(asked.headers("content-type"), content_type.into_iter().collect::<Vec<_>>(), "{init}");
    }
    let body = "const request = new Request(U + '/echo?x=1#part', { method: 'POST', body: 'b', headers: new Headers([['X-A', '1'], ['x-a', '2']]) }); \
                return [request.method, request.url.endsWith('/echo?x=1#part'), await (await fetch(request)).text()];";
    assert_eq!(case.value(body)[2], "b");
    let asked = case.peer.asked().pop().expect("a request");
    assert_eq!((asked.target.as_str(), asked.headers("x-a")), ("/echo?x=1", vec!["1, 2"]));
    assert_eq!(asked.headers("user-agent").len(), 1);
    assert!(asked.headers("cookie").is_empty() && asked.headers("referer").is_empty());
    let head = case.value("const r = await fetch(U + '/json', { method: 'HEAD' }); return [r.status, await r.text()];");
    assert_eq!(head, json!([200, ""]));

    for (expression, name) in [
        ("fetch(U, { body: 'x' })", "TypeError"),
        ("fetch('not a url')", "TypeError"),
        ("fetch(U + '/x', { headers: { 'bad name': '1' } })", "TypeError"),
        ("fetch(U + '/x', { headers: { a: 'line\\nbreak' } })", ""),
        ("fetch(U + '/x', { headers: { host: 'example.com' } })", ""),
        ("fetch(U + '/x', { headers: { 'transfer-encoding': 'chunked' }, method: 'POST', body: 'x' })", ""),
        ("fetch(U + '/x', { method: 'CONNECT' })", ""),
        ("fetch(U + '/x', { method: 'GET / HTTP/1.1\\r\\nX: ' })", ""),
    ] {
        let before = case.peer.asked().len();
        let answer = case.value(&caught(expression));
        assert!(answer["name"].is_string() && answer.get("value").is_none(), "{expression}: {answer}");
        assert!(name.is_empty() || answer["name"] == name, "{expression}: {answer}");
        assert_eq!(case.peer.asked().len(), before, "{expression}");
    }
}

#[test]
fn redirects() {
    let case = Case::new("");
    for (path, method, expected) in
        [("/302", "POST", "GET"), ("/303", "PUT", "GET"), ("/307", "POST", "POST"), ("/302", "PUT", "PUT")]
    {
        let body = format!(
            "const r = await fetch(U + '{path}', {{ method: '{method}', body: 'b' }}); return [r.redirected, r.url === U + '/echo?moved', r.headers.get('x-method')];"
        );
        assert_eq!(case.value(&body), json!([true, true, expected]), "{path} {method}");
        let asked = case.peer.asked().pop().expect("a request");
        assert_eq!(asked.body.is_empty(), expected == "GET", "{path} {method}");
    }
    let manual = case.value("const r = await fetch(U + '/302', { redirect: 'manual' }); return [r.status, r.headers.get('location'), r.redirected];");
    assert_eq!(manual, json!([302, "/echo?moved", false]));
    let error = case.value(&caught("fetch(U + '/302', { redirect: 'error' })"));
    assert!(error["name"].is_string(), "{error}");
}

#[test]
fn giving_up() {
    let case = Case::new("timeout = '10 s'");
    let body = "try { await fetch(U + '/stall', { signal: AbortSignal.timeout(200) }); } catch (error) { return [error.name, error.code]; }";
    let answer = case.value(body);
    assert!(answer[0] == "TimeoutError" || answer[1] == "timeout", "{answer}");
    let body = "const controller = new AbortController(); controller.abort(); try { await fetch(U + '/never', { signal: controller.signal }); } catch (error) { return error.name; }";
    assert_eq!(case.value(body), "AbortError");
    let body = "try { await fetch(U + '/never', { signal: AbortSignal.abort(new Error('mine')) }); } catch (error) { return error.message; }";
    assert_eq!(case.value(body), "mine");
    assert!(!case.peer.asked().iter().any(|asked| asked.target == "/never"));
}

#[test]
fn secrets_in_headers() {
    let case = Case::new("secret = ['key', 'user']");
    for (name, value) in [("key", "s3cret\n"), ("user", "ada"), ("other", "hidden")] {
        case.api.request("PUT", &format!("/secrets/{name}")).body("text/plain", value).send().expect(204);
    }
    case.value("return (await fetch(U + '/x', { headers: { Authorization: 'Bearer {{secret:key}}', 'x-both': '{{secret:user}}:{{ secret:key }}', 'x-two': '{{secret:user}}:{{secret:key}}' } })).status;");
    let asked = case.peer.asked().pop().expect("a request");
    assert_eq!(asked.headers("authorization"), ["Bearer s3cret"]);
    assert_eq!(asked.headers("x-two"), ["ada:s3cret"]);
    // Only the exact form is replaced, and only in headers.
    assert_eq!(asked.headers("x-both"), ["ada:{{ secret:key }}"]);
    case.value("return (await fetch(U + '/echo?{{secret:key}}', { method: 'POST', body: '{{secret:key}}' })).status;");
    let asked = case.peer.asked().pop().expect("a request");
    assert!(!format!("{asked:?}").contains("s3cret"), "{asked:?}");
    assert_eq!(asked.body, b"{{secret:key}}");
    let before = case.peer.asked().len();
    let denied = case.value(&caught("fetch(U + '/x', { headers: { a: '{{secret:other}}' } })"));
    assert_eq!(denied["code"], "denied", "{denied}");
    let missing = case.value(&caught("fetch(U + '/x', { headers: { a: '{{secret:key' } })"));
    assert_eq!(missing["code"], "invalid", "{missing}");
    assert_eq!(case.peer.asked().len(), before);
    let log = case.api.get("/models/js/hooks/postCreate/log").expect(200).text();
    assert!(!log.contains("s3cret") && !log.contains("hidden"), "{log}");
}
