//! Pages in a real browser: those that this server serves, and what pages of other origins may do.

use std::sync::Arc;

use serde_json::json;

use crate::support::browser::Browser;
use crate::support::{Client, Server, ServerOptions, guest};

const INDEX: &str = "<!doctype html><link rel='stylesheet' href='/style.css'><p id='said'></p>\
                     <script type='module' src='/app.js'></script>";
const APP: &str = "import { said } from '/words.js'; document.querySelector('#said').textContent = said;";
const WORDS: &str = "export const said = 'loaded';";

/// Serves the pages of an application.
fn pages() -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    for sub in ["hooks", "public"] {
        std::fs::create_dir(root.join(sub)).expect("a folder");
    }
    let style = "p { color: rgb(1, 2, 3) }\n".repeat(1000);
    for (name, text) in [("index.html", INDEX), ("app.js", APP), ("words.js", WORDS), ("style.css", &style)] {
        std::fs::write(root.join("public").join(name), text).expect("a file");
    }
    let server = "[server.static]\ndirectory = 'public'\nfallback = 'index.html'".to_owned();
    Server::start_in(Arc::new(folder), ServerOptions { server, ..ServerOptions::default() })
}

/// Serves the API to pages of that origin, and a component that sets cookies.
fn api_for(origin: &str, more: &str) -> Option<Server> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("hooks")).expect("a folder for hooks");
    std::fs::write(folder.path().join("tool.wasm"), guest("endpoint.wasm")?).expect("a component");
    let server = format!("[server.cors]\norigins = ['{origin}']\n{more}");
    let tables = "[[server.endpoints]]\nname = 'tool'\npath = '/tool'\ncomponent = 'tool.wasm'\n".to_owned();
    let options = ServerOptions { server, tables, ..ServerOptions::default() };
    let server = Server::start_in(Arc::new(folder), options);
    server.client().post("/models", &json!({"id": "order", "schema": {"type": "object"}})).expect(201);
    Some(server)
}

fn orders(api: &Client) -> usize {
    api.get("/models/order/instances").expect(200).json()["items"].as_array().map_or(0, Vec::len)
}

#[test]
fn an_application_loads_from_every_path_of_its_own() {
    let Some(mut browser) = Browser::start() else { return };
    let pages = pages();
    for path in ["/", "/orders/7"] {
        browser.open(&format!("http://{}{path}", pages.address()));
        browser.wait_for("document.querySelector('#said')?.textContent === 'loaded'");
        let color = "getComputedStyle(document.querySelector('#said')).color";
        browser.wait_for(&format!("{color} === 'rgb(1, 2, 3)'"));
    }
    assert_eq!(browser.evaluate("fetch('/models').then((answer) => answer.status)"), 200);
    assert_eq!(browser.evaluate("fetch('/missing.js').then((answer) => answer.status)"), 404);
    let unexpected: Vec<&String> = browser.complaints.iter().filter(|text| !text.contains("404")).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
}

#[test]
fn a_page_of_a_listed_origin_uses_the_api() {
    let Some(mut browser) = Browser::start() else { return };
    let pages = pages();
    let Some(server) = api_for(&format!("http://{}", pages.address()), "credentials = true") else { return };
    let api = format!("http://{}", server.address());
    browser.open(&format!("http://{}/", pages.address()));
    // Each of these requests is preflighted, and the page can read the headers that it needs.
    let written = browser.evaluate(&format!(
        "(async () => {{
            const send = (method, path, body, headers = {{}}) => fetch('{api}' + path, {{
                method, body: JSON.stringify(body), headers: {{'content-type': 'application/json', ...headers}} }});
            const created = await send('POST', '/models/order/instances', {{id: 'a', data: {{n: 1}}}});
            const tag = created.headers.get('etag');
            const replaced = await send('PUT', '/models/order/instances/a', {{data: {{n: 2}}}}, {{'if-match': tag}});
            const late = await send('PUT', '/models/order/instances/a', {{data: {{n: 3}}}}, {{'if-match': tag}});
            const read = await (await fetch('{api}/models/order/instances/a')).json();
            const position = Number(replaced.headers.get('snaphook-position'));
            return [created.status, replaced.status, late.status, (await late.json()).title, read.data.n, position > 0];
        }})()"
    ));
    assert_eq!(written, json!([201, 200, 412, "Precondition failed", 2, true]));
    // The page receives events and resumes at its position.
    let heard = browser.evaluate(&format!(
        "new Promise((resolve) => {{
            const source = new EventSource('{api}/events/stream?after=0');
            source.onopen = () => fetch('{api}/models/order/instances/a', {{method: 'DELETE'}});
            const types = [];
            for (const type of ['instance.created', 'instance.updated', 'instance.deleted']) {{
                source.addEventListener(type, (event) => {{
                    types.push(type);
                    if (type === 'instance.deleted') {{ source.close(); resolve(types); }}
                }});
            }}
        }})"
    ));
    assert_eq!(heard, json!(["instance.created", "instance.updated", "instance.deleted"]));
    // Cookies are sent only with requests that ask for them.
    let cookies = browser.evaluate(&format!(
        "(async () => {{
            await fetch('{api}/tool/headers', {{credentials: 'include'}});
            const sent = async (credentials) => {{
                const text = await (await fetch('{api}/tool/echo', {{credentials}})).text();
                return text.split('\\n').find((line) => line.startsWith('cookie: ')) ?? null;
            }};
            return [await sent('include'), await sent('omit')];
        }})()"
    ));
    assert_eq!(cookies, json!(["cookie: a=1; b=2", null]));
}

#[test]
fn a_page_of_another_origin_reads_and_writes_nothing() {
    let Some(mut browser) = Browser::start() else { return };
    let pages = pages();
    let Some(server) = api_for(&format!("http://{}", pages.address()), "") else { return };
    let (api, client) = (format!("http://{}", server.address()), server.client());
    client.post("/models/order/instances", &json!({"id": "a", "data": {"n": 1}})).expect(201);
    let attempt = |browser: &mut Browser, path: &str, options: &str| {
        let name = "(error) => error.name";
        let script = format!("fetch('{api}{path}', {options}).then((answer) => answer.type + answer.status, {name})");
        browser.evaluate(&script)
    };
    // The listed origin may read, but not send credentials.
    browser.open(&format!("http://{}/", pages.address()));
    assert_eq!(attempt(&mut browser, "/models", "{}"), "cors200");
    assert_eq!(attempt(&mut browser, "/tool/echo", "{credentials: 'include'}"), "TypeError");
    // The same pages under another name are another origin and another site.
    browser.open(&format!("http://localhost:{}/", pages.address().port()));
    let text = "headers: {'content-type': 'text/plain'}";
    let json = "headers: {'content-type': 'application/json'}";
    let body = "body: JSON.stringify({data: {n: 2}})";
    for (path, options, outcome) in [
        ("/models", "{}".to_owned(), "TypeError"),
        ("/models/order/instances/a", "{}".to_owned(), "TypeError"),
        ("/events/stream", "{}".to_owned(), "TypeError"),
        ("/models/order/instances", format!("{{method: 'POST', {json}, {body}}}"), "TypeError"),
        ("/models/order/instances/a", "{method: 'DELETE'}".to_owned(), "TypeError"),
        // Requests without a preflight reach the server, which rejects them.
        ("/models/order/instances", format!("{{method: 'POST', {text}, {body}}}"), "TypeError"),
        ("/models/order/instances", format!("{{method: 'POST', mode: 'no-cors', {body}}}"), "opaque0"),
    ] {
        assert_eq!(attempt(&mut browser, path, &options), outcome, "{path} {options}");
    }
    // So does a form, which needs no script.
    let form = format!("<form method='post' action='{api}/models/order/instances'><input name='x'></form>");
    browser.evaluate(&format!("document.body.innerHTML = {}; document.forms[0].submit()", json!(form)));
    browser.wait_for("document.body.innerText.includes('problems/forbidden')");
    let stored = client.get("/models/order/instances/a").expect(200).json();
    assert_eq!((orders(&client), &stored["data"]["n"]), (1, &json!(1)), "{stored}");
}
