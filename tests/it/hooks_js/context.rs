//! The context that a handler receives.

use serde_json::{Value, json};

use super::server;
use crate::support::{Client, eventually};
use crate::workbench::{create, log_of, open_model};

/// A hook of any phase that logs its context.
const LOGS: &str = "export default function (context) { \
    const { log, read, write, fetch, run, secret, ...rest } = context; \
    log.info('context ' + JSON.stringify(rest)); \
    log.info('kinds ' + JSON.stringify([log, read, write, fetch, run, secret].map((one) => typeof one))); }";

#[track_caller]
fn context_of(api: &Client, phase: &str, instance: &str) -> Value {
    let text = eventually("the hook ran", || {
        let lines = log_of(api, "js", phase, instance);
        lines.iter().rev().find_map(|line| line.strip_prefix("context ").map(str::to_owned))
    });
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn every_phase_gets_its_context() {
    let (_server, api) = server("");
    let phases = ["preCreate", "postCreate", "preUpdate", "postUpdate", "preDelete", "postDelete"];
    let mut version = 1;
    for phase in phases {
        api.put_javascript("js", phase, LOGS).expect(200);
        version += 1;
    }
    let request = api.request("POST", "/models/js/instances").header("X-Request-Id", "ask-1");
    let made = request.json(&json!({"id": "a", "data": {"n": 1}})).send().expect(201).json();
    let request = api.request("PUT", "/models/js/instances/a").header("X-Request-Id", "ask-2");
    let changed = request.json(&json!({"data": {"n": 2}})).send().expect(200).json();
    api.request("DELETE", "/models/js/instances/a").header("X-Request-Id", "ask-3").send().expect(204);
    let events = api.get("/models/js/instances/a/events").expect(200).json();
    let event =
        |index: usize| json!({"position": events["items"][index]["position"], "id": events["items"][index]["id"]});
    assert_eq!(event(0)["position"], made["position"]);
    assert_eq!(event(1)["position"], changed["position"]);

    for (phase, ask, index, before, after) in [
        ("preCreate", "ask-1", 0, None, Some(json!({"n": 1}))),
        ("postCreate", "ask-1", 0, None, Some(json!({"n": 1}))),
        ("preUpdate", "ask-2", 1, Some(json!({"n": 1})), Some(json!({"n": 2}))),
        ("postUpdate", "ask-2", 1, Some(json!({"n": 1})), Some(json!({"n": 2}))),
        ("preDelete", "ask-3", 2, Some(json!({"n": 2})), None),
        ("postDelete", "ask-3", 2, Some(json!({"n": 2})), None),
    ] {
        let context = context_of(&api, phase, "a");
        assert_eq!(context["phase"], phase);
        assert_eq!(context["model"], json!({"id": "js", "version": version}), "{phase}");
        assert_eq!(context["id"], "a", "{phase}");
        assert_eq!(context.get("before"), before.as_ref(), "{phase}: {context}");
        assert_eq!(context.get("after"), after.as_ref(), "{phase}: {context}");
        assert_eq!(context["requestId"], ask, "{phase}");
        assert!(context.as_object().expect("an object").contains_key("actor"), "{phase}: {context}");
        let time = context["time"].as_str().expect("a text");
        assert!(time.len() == "2026-01-01T00:00:00.000Z".len() && time.ends_with('Z'), "{phase}: {time}");
        assert_eq!(context["attempt"], 1, "{phase}");
        if phase.starts_with("pre") {
            assert_eq!(context["event"], Value::Null, "{phase}");
        } else {
            assert_eq!(context["event"], event(index), "{phase}");
            assert_eq!(context["time"], events["items"][index]["time"], "{phase}");
        }
        let kinds = log_of(&api, "js", phase, "a");
        let expected = r#"kinds ["object","object","object","function","function","function"]"#;
        assert!(kinds.contains(&expected.to_owned()), "{phase}: {kinds:?}");
    }
}

#[test]
fn an_id_that_the_server_makes_is_known_to_the_hook() {
    let (_server, api) = server("");
    api.put_javascript("js", "preCreate", "export const preCreate = ({ id, after }) => ({ ...after, own: id });")
        .expect(200);
    let made = api.post("/models/js/instances", &json!({"data": {}})).expect(201).json();
    assert_eq!(made["data"]["own"], made["id"]);
}

#[test]
fn the_attempt_counts() {
    let options = crate::support::ServerOptions { hooks: "max-attempts = 3".to_owned(), ..Default::default() };
    let server = crate::support::Server::start_with(options);
    let api = server.client();
    open_model(&api, "js");
    let source = "export function postCreate({ attempt, log }) { log.info(`attempt ${attempt}`); if (attempt < 3) throw new Error('again'); }";
    api.put_javascript("js", "postCreate", source).expect(200);
    let id = crate::workbench::create_and_wait(&api, "js", &json!({}));
    let lines = log_of(&api, "js", "postCreate", &id);
    let attempts: Vec<_> = lines.iter().filter(|line| line.starts_with("attempt ")).collect();
    assert_eq!(attempts, ["attempt 1", "attempt 2", "attempt 3"]);
    assert_eq!(api.get("/errors").expect(200).json()["items"], json!([]));
}

/// Changes that a hook makes to its copy of the data have no other effect.
#[test]
fn the_data_is_a_copy() {
    let (_server, api) = server("");
    api.put_javascript("js", "preCreate", "export function preCreate({ after }) { after.n = 7; delete after.keep; }")
        .expect(200);
    let made = create(&api, "js", &json!({"n": 1, "keep": true})).expect(201).json();
    assert_eq!(made["data"], json!({"n": 1, "keep": true}));
}

#[test]
fn numbers_keep_their_digits() {
    let (_server, api) = server("read = ['*']\nwrite = ['*']");
    let data = r#"{"big":9007199254740993,"long":12345678901234567890.123456789,"small":0.1e-6,"one":1.0,"huge":1e+400,"list":[9007199254740993,2],"deep":{"n":-0.0,"m":1e+5},"x":1}"#;
    let post = |model: &str| {
        let body = format!(r#"{{"data":{data}}}"#);
        let request = api.request("POST", &format!("/models/{model}/instances"));
        request.body("application/json", body).send().expect(201).text()
    };
    let with = |from: &str, to: &str| data.replace(from, to);
    for (source, expected) in [
        ("export const preCreate = () => {};", data.to_owned()),
        ("export const preCreate = ({ after }) => after;", data.to_owned()),
        ("export const preCreate = ({ after }) => ({ ...after });", data.to_owned()),
        ("export const preCreate = ({ after }) => { after.x = 2; return after; };", with("\"x\":1}", "\"x\":2}")),
        (
            "export const preCreate = ({ after }) => ({ ...after, y: 'new' });",
            with("\"x\":1}", "\"x\":1,\"y\":\"new\"}"),
        ),
        (
            "export const preCreate = ({ after }) => { after.one = 2.5; return after; };",
            with("\"one\":1.0", "\"one\":2.5"),
        ),
        ("export const preCreate = ({ after }) => { after.list.push(3); return after; };", with("3,2]", "3,2,3]")),
        ("export const preCreate = ({ after }) => structuredClone(after);", data.to_owned()),
        (
            "export const preCreate = async ({ after }) => JSON.parse(JSON.stringify({ ...after, huge: after.huge }));",
            with("1e+400", "null"),
        ),
    ] {
        api.put_javascript("js", "preCreate", source).expect(200);
        let text = post("js");
        assert!(text.contains(&format!("\"data\":{expected}")), "{source}\n{expected}\n{text}");
    }
    api.delete("/models/js/hooks/preCreate").expect(204);

    // Data that is read and written elsewhere.
    open_model(&api, "copy");
    let source = "export async function postCreate({ id, read, write }) { const { data } = await read.get('js', id); await write.create('copy', { ...data, by: 'hook' }, { id }); }";
    api.put_javascript("js", "postCreate", source).expect(200);
    let request = api.request("POST", "/models/js/instances").header("Prefer", "wait=25");
    request
        .body("application/json", r#"{"id":"n","data":{"big":9007199254740993,"long":12345678901234567890.123456789}}"#)
        .send()
        .expect(201);
    let text = api.get("/models/copy/instances/n").expect(200).text();
    assert!(
        text.contains(r#""data":{"big":9007199254740993,"long":12345678901234567890.123456789,"by":"hook"}"#),
        "{text}"
    );
}

/// Log lines have a level, and unusual values are formatted as well as possible.
#[test]
fn what_is_logged() {
    let (_server, api) = server("");
    let source = "export function preCreate({ log }) { \
        log.debug('d', 1); log.info('i', { a: [1, 'x'] }); log.warn('w', null, undefined); log.error('e', new Error('m').message); \
        console.log('c', 1n, Symbol('s')); console.error('ce'); console.warn('cw'); console.debug('cd'); \
        const o = {}; o.o = o; log.info(o); log.info(new Date(0), () => 1, new Map()); log.info('lone \\ud800'); log.info(''); }";
    api.put_javascript("js", "preCreate", source).expect(200);
    create(&api, "js", &json!({})).expect(201);
    let log = api.get("/models/js/hooks/preCreate/log").expect(200).json();
    let lines: Vec<_> = log["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|line| {
            format!("{} {}", line["level"].as_str().expect("a text"), line["message"].as_str().expect("a text"))
        })
        .collect();
    assert_eq!(
        lines,
        [
            "debug d 1",
            r#"info i {"a": [1, "x"]}"#,
            "warn w null undefined",
            "error e m",
            "info c 1n Symbol(s)",
            "error ce",
            "warn cw",
            "debug cd",
            r#"info {"o": [circular]}"#,
            "info 1970-01-01T00:00:00.000Z [function (anonymous)] {}",
            "info lone \u{fffd}",
            "info ",
        ]
    );
    let line = &log["items"][0];
    assert_eq!(line["hook"], "preCreate", "{line}");
    assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
}
