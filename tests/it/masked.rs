//! A secret that a hook received is masked in its log and its errors, wherever they are stored.

use serde_json::json;

use crate::peer::Peer;
use crate::support::{Client, Server, ServerOptions};
use crate::workbench::{create, create_and_wait, failure_of, grant, log_of, open_model};

const SECRET: &str = "tr0ub4dor-and-three";
/// `user:` and the secret, in base64.
const BASIC: &str = "dXNlcjp0cjB1YjRkb3ItYW5kLXRocmVl";

fn options(lines: &str) -> ServerOptions {
    let tables = grant("js", "*", &format!("secret = ['mail-*']\n{lines}"));
    ServerOptions {
        tables,
        hooks: "max-attempts = 1".to_owned(),
        by: &["env", "SNAPHOOK_LOG=debug"],
        ..ServerOptions::default()
    }
}

fn keep(api: &Client) {
    api.request("PUT", "/secrets/mail-key").body("text/plain", SECRET).send().expect(204);
}

/// Whether a text contains the secret in a form that is masked.
fn shows(text: &str) -> bool {
    [SECRET, BASIC, "VkYjR", "tr0ub4dor%2D"].iter().any(|form| text.contains(form))
}

#[test]
fn in_logs_failures_and_refusals() {
    let peer = Peer::saying("{}");
    let http = format!("http = ['{}']", peer.url("/*"));
    let server = Server::start_with(options(&http));
    let api = server.client();
    keep(&api);
    open_model(&api, "js");
    // The response to the client.
    let pre = |body: &str| {
        format!("export async function preCreate({{ secret, log }}) {{ const key = await secret('mail-key'); {body} }}")
    };
    for body in [
        "throw new Reject('wrong key ' + key, { '/a': key });",
        "throw new Error('cannot use ' + key);",
        "log.warn(JSON.stringify({ key })); throw new Error(btoa('user:' + key));",
    ] {
        api.put_javascript("js", "preCreate", &pre(body)).expect(200);
        let response = create(&api, "js", &json!({}));
        let text = response.text();
        assert!(!shows(&text) && text.contains("***"), "{text}");
    }
    api.delete("/models/js/hooks/preCreate").expect(204);
    // The record of a failed post hook.
    let url = peer.url("/");
    let post = format!(
        "export async function postCreate({{ secret, log, fetch }}) {{ const key = await secret('mail-key'); \
         log.info('key', key, key.slice(0, 8)); log.info('Basic ' + btoa('user:' + key)); \
         await fetch('{url}' + key, {{ headers: {{ authorization: 'Bearer ' + key }} }}); \
         for (const letter of [key.slice(0, 9), key.slice(9)]) log.info(letter); \
         throw new Error('cannot send with ' + key); }}"
    );
    api.put_javascript("js", "postCreate", &post).expect(200);
    let id = create_and_wait(&api, "js", &json!({}));
    let lines = log_of(&api, "js", "postCreate", &id);
    assert_eq!(lines[0], "key *** tr0ub4do");
    assert!(lines[1].starts_with("Basic dXN") && lines[1].ends_with("***"), "{lines:?}");
    // Parts that the hook splits off are not recognized.
    assert_eq!(lines[2..4], ["tr0ub4dor", "-and-three"]);
    assert!(lines[4].contains("cannot send with ***"), "{lines:?}");
    let failure = failure_of(&api, "js", &id);
    assert!(!shows(&failure.to_string()) && failure.to_string().contains("cannot send with ***"), "{failure}");
    // The request contained the unmasked secret.
    let asked = &peer.asked()[0];
    assert!(asked.target.ends_with(SECRET) && asked.headers("authorization") == [format!("Bearer {SECRET}")]);
    for line in server.log() {
        assert!(!shows(&line), "{line}");
    }
    assert!(server.log().iter().any(|line| line.contains("cannot send with ***")), "{:?}", server.log());
}

#[test]
fn also_in_a_later_run_and_in_a_hook_that_only_looks_on() {
    let server =
        Server::start_with(ServerOptions { hooks: "isolation = 'reuse'".to_owned(), ..options("amend = true") });
    let api = server.client();
    keep(&api);
    open_model(&api, "js");
    let hook = "let kept; export async function preCreate({ after, secret, log }) { kept ??= await secret('mail-key'); \
                log.info('have ' + kept); return { ...after, kept }; }";
    let chain = json!({"chain": [{"name": "new", "engine": "quickjs", "source": hook, "mode": "shadow"}]});
    api.put("/models/js/hooks/preCreate", &chain).expect(200);
    for _ in 0..3 {
        let response = create(&api, "js", &json!({ "a": 1 })).expect(201).json();
        let id = response["id"].as_str().expect("an id").to_owned();
        let lines = log_of(&api, "js", "preCreate", &id);
        assert_eq!(lines, ["have ***", "would amend: {\"a\":1,\"kept\":\"***\"}"]);
    }
}
