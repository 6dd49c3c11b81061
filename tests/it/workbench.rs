//! Runs a hook's code in a server and returns its result.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::support::{Client, Response, Server, ServerOptions, eventually};

/// Options for a server whose post hooks run only once, so that failures are recorded at once.
pub(crate) fn once(tables: impl Into<String>) -> ServerOptions {
    ServerOptions { hooks: "max-attempts = 1".to_owned(), tables: tables.into(), ..ServerOptions::default() }
}

/// A `[[grants]]` table.
pub(crate) fn grant(model: &str, phase: &str, lines: &str) -> String {
    format!("[[grants]]\nmodel = '{model}'\nphase = '{phase}'\n{lines}\n")
}

/// A model that takes any object.
#[track_caller]
pub(crate) fn open_model(api: &Client, id: &str) {
    api.post("/models", &json!({"id": id, "schema": {"type": "object"}})).expect(201);
}

/// An id that is not in use.
pub(crate) fn fresh_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("i{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Creates an instance with a new id.
#[track_caller]
pub(crate) fn create(api: &Client, model: &str, data: &Value) -> Response {
    api.post(&format!("/models/{model}/instances"), &json!({"id": fresh_id(), "data": data}))
}

/// Returns the result of an async `preCreate` handler with this body, which can use the members of the context. The
/// model needs the grant `amend`.
#[track_caller]
pub(crate) fn pre_value(api: &Client, model: &str, body: &str) -> Value {
    let source = format!(
        "export async function preCreate(context) {{\n\
         const {{ phase, after, before, read, secret, log }} = context;\n\
         return {{ value: await (async () => {{ {body} }})() }};\n}}"
    );
    api.put_javascript(model, "preCreate", &source).expect(200);
    create(api, model, &json!({})).expect(201).json()["data"]["value"].take()
}

/// Binds an async `postCreate` handler with this body, runs it once and returns its result.
#[track_caller]
pub(crate) fn post_value(api: &Client, model: &str, body: &str) -> Value {
    bind_post(api, model, body);
    react(api, model, &json!({}))
}

/// Binds an async `postCreate` handler with this body, which can use the members of the context.
#[track_caller]
pub(crate) fn bind_post(api: &Client, model: &str, body: &str) {
    let source = format!(
        "export async function postCreate(context) {{\n\
         const {{ after, event, attempt, read, write, fetch, run, secret, log }} = context;\n\
         const value = await (async () => {{ {body} }})();\n\
         log.info('value ' + JSON.stringify(value === undefined ? null : value));\n}}"
    );
    api.put_javascript(model, "postCreate", &source).expect(200);
}

/// Creates an instance and returns the result of the hook of [`bind_post`].
#[track_caller]
pub(crate) fn react(api: &Client, model: &str, data: &Value) -> Value {
    let id = create_and_wait(api, model, data);
    let lines = log_of(api, model, "postCreate", &id);
    let value = lines.iter().find_map(|line| line.strip_prefix("value "));
    let value = value.unwrap_or_else(|| panic!("the hook gave no value: {lines:?}\n{}", api.get("/errors").text()));
    serde_json::from_str(value).unwrap_or_else(|error| panic!("{error}: {value}"))
}

/// Creates an instance, waits for its post hooks and returns its id.
#[track_caller]
pub(crate) fn create_and_wait(api: &Client, model: &str, data: &Value) -> String {
    let id = fresh_id();
    let request = api.request("POST", &format!("/models/{model}/instances")).header("Prefer", "wait=25");
    request.json(&json!({"id": id, "data": data})).send().expect(201);
    id
}

/// The log lines of a phase's hooks for one instance.
#[track_caller]
pub(crate) fn log_of(api: &Client, model: &str, phase: &str, instance: &str) -> Vec<String> {
    let log = api.get(&format!("/models/{model}/hooks/{phase}/log")).expect(200).json();
    let lines = log["items"].as_array().expect("a list").iter().filter(|line| line["instance"] == instance);
    lines.map(|line| line["message"].as_str().expect("a text").to_owned()).collect()
}

/// The error record of the failed post hook of an instance.
#[track_caller]
pub(crate) fn failure_of(api: &Client, model: &str, instance: &str) -> Value {
    eventually("the failure is recorded", || {
        let page = api.get(&format!("/errors?model={model}")).expect(200).json();
        let mut records = page["items"].as_array().expect("a list").iter();
        records.find(|record| record["event"]["instance"] == instance).cloned()
    })
}

/// A JavaScript expression that returns what another expression throws, as `{name, code, message}`, or its value.
pub(crate) fn caught(expression: &str) -> String {
    format!(
        "try {{ return {{ value: await ({expression}) }}; }} \
         catch (error) {{ return {{ name: error.name, code: error.code, message: error.message }}; }}"
    )
}

/// Sends a signal to the server.
#[track_caller]
pub(crate) fn signal(server: &Server, signal: Signal) {
    let pid = i32::try_from(server.pid()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("a process");
}

/// The configuration lines that a denial suggests.
#[track_caller]
pub(crate) fn lines_to_add(message: &str) -> String {
    let (_, lines) = message.split_once("add to config.toml:\n").unwrap_or_else(|| panic!("no lines in: {message}"));
    assert!(lines.starts_with("[[grants]]\nmodel = "), "{message}");
    lines.to_owned()
}

/// Adds lines to the server's configuration.
pub(crate) fn append_config(server: &Server, lines: &str) {
    let file = server.config_file();
    let text = std::fs::read_to_string(&file).expect("a config");
    std::fs::write(&file, format!("{text}\n{lines}\n")).expect("written");
}
