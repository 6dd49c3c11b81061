//! The engine `webhook`: what receivers get, when it is sent again, and what is never sent.

mod delivery;
mod hostile;
mod receiver;
mod shares;

use serde_json::{Value, json};

use crate::support::{Client, Server, ServerOptions, eventually};
use crate::workbench::{grant, open_model};

/// A key of 32 bytes in the format of the scheme.
pub(crate) const KEY: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A server with the model `order` and the secret `key`, whose webhooks may send to `urls`.
fn start(urls: &[String], hooks: &str, more: &str) -> (Server, Client) {
    let urls: Vec<_> = urls.iter().map(|url| format!("'{url}'")).collect();
    let lines = format!("http = [{}]\nsecret = ['key']\n{more}", urls.join(", "));
    let tables = ["postCreate", "postUpdate", "postDelete"].map(|phase| grant("*", phase, &lines)).concat();
    let server = Server::start_with(ServerOptions { tables, hooks: hooks.to_owned(), ..ServerOptions::default() });
    let api = server.client();
    set_secret(&api, KEY);
    open_model(&api, "order");
    (server, api)
}

fn set_secret(api: &Client, value: &str) {
    api.request("PUT", "/secrets/key").body("text/plain", value).send().expect(204);
}

/// Binds a webhook as the only hook of a phase.
#[track_caller]
pub(crate) fn bind(api: &Client, model: &str, phase: &str, url: &str) -> Value {
    let chain = json!({"chain": [{"name": "send", "engine": "webhook", "url": url, "secret": "key"}]});
    api.put(&format!("/models/{model}/hooks/{phase}"), &chain).expect(200).json()
}

/// Creates an instance and returns the position of its event.
#[track_caller]
fn create(api: &Client, model: &str, id: &str) -> u64 {
    let created = api.post(&format!("/models/{model}/instances"), &json!({"id": id, "data": {"n": 1.50}})).expect(201);
    created.json()["position"].as_u64().expect("a position")
}

/// The log of a model's `postCreate`, oldest line first.
pub(crate) fn log_lines(api: &Client, model: &str) -> Vec<String> {
    let log = api.get(&format!("/models/{model}/hooks/postCreate/log")).expect(200).json();
    let lines = log["items"].as_array().expect("a list").iter();
    lines.map(|line| line["message"].as_str().expect("a text").to_owned()).collect()
}

/// Waits for this many lines of the log.
#[track_caller]
fn lines(api: &Client, model: &str, count: usize) -> Vec<String> {
    eventually(&format!("{count} lines in the log"), || {
        Some(log_lines(api, model)).filter(|lines| lines.len() >= count)
    })
}

/// Waits for this many recorded errors.
#[track_caller]
fn errors(api: &Client, count: usize) -> Vec<Value> {
    eventually(&format!("{count} errors"), || {
        let page = api.get("/errors?limit=1000").expect(200).json();
        page["items"].as_array().filter(|items| items.len() == count).cloned()
    })
}
