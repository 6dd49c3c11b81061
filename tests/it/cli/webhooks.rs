//! Webhooks as files: checked, applied, deployed.

use serde_json::json;

use super::{ask, ask_with, write};
use crate::peer::{Peer, PeerResponse};
use crate::support::{Server, ServerOptions, eventually};
use crate::webhooks::{KEY, log_lines};
use crate::workbench::{append_config, lines_to_add};

#[test]
fn a_file_is_all_that_a_webhook_needs() {
    let peer = Peer::start(|_| PeerResponse::new(204, ""));
    let server = Server::start_with(ServerOptions { hooks: "max-attempts = 1".into(), ..ServerOptions::default() });
    let api = server.client();
    let url = peer.url("/in?token=t");
    let file = format!("[[chain]]\nname = 'send'\nengine = 'webhook'\nurl = '{url}'\nsecret = 'order-key'\n");
    let at = server.directory();
    write(at, "hooks/order/model.json", r#"{"schema": {"type": "object"}}"#);
    write(at, "hooks/order/postCreate.toml", &file);

    // Missing grants are reported before any request is sent, with the lines that add them.
    let said = ask(&server, &["check"]).ok();
    let asked = format!(
        "warning: hook `order.postCreate/send` asked for http POST to `{}` and secret `order-key`",
        peer.url("/in")
    );
    assert!(said.contains(&asked), "{said}");
    assert!(said.contains("which does not exist; `snaphook secret set order-key` stores it"), "{said}");
    let block = lines_to_add(&said);
    let (lines, _) = block.split_once("\nwarning: ").unwrap_or((&block, ""));
    append_config(&server, lines);
    ask_with(&server, &["secret", "set", "order-key"], KEY).ok();
    let said = ask(&server, &["check"]).ok();
    assert!(!said.contains("asked for") && !said.contains("stores it"), "{said}");

    let planned = ask(&server, &["apply", "--plan"]).ok();
    assert!(planned.contains("create hook `order.postCreate`: "), "{planned}");
    assert_eq!(ask(&server, &["apply"]).ok(), planned);
    assert!(ask(&server, &["apply"]).ok().starts_with("nothing to do"));
    let bound = api.get("/models/order/hooks/postCreate").expect(200).json();
    assert_eq!((&bound[0]["url"], &bound[0]["secret"]), (&json!(peer.url("/…")), &json!("order-key")));
    let sent = |count: usize| {
        eventually("the grant is in force and the event is sent", || {
            api.post("/models/order/instances", &json!({"data": {}})).expect(201);
            (peer.asked().len() >= count).then_some(())
        });
    };
    sent(1);
    assert_eq!(peer.asked()[0].target, "/in?token=t");
    eventually("it is logged", || {
        log_lines(&api, "order").iter().any(|line| line.contains("returned 204")).then_some(())
    });

    // A single file.
    write(at, "hooks/order/postCreate.toml", &file.replace("/in?token=t", "/in/new"));
    let said = ask(&server, &["hook", "deploy", "hooks/order/postCreate.toml"]).ok();
    assert!(
        said.starts_with("order.postCreate/send is bound: webhook, sha256:") && said.contains("(was webhook, "),
        "{said}"
    );
    assert!(ask(&server, &["hook", "deploy", "hooks/order/postCreate.toml"]).ok().contains("bound already, unchanged"));
    assert!(ask(&server, &["hook", "list", "order"]).ok().contains("webhook"));
    let said = ask(&server, &["hook", "deploy", "hooks/order/postCreate.toml", "--shadow"]).fails();
    assert!(said.contains("itself defines the name, engine, mode and rights of each hook"), "{said}");
    write(at, "hooks/order/preCreate.toml", &file);
    let said = ask(&server, &["hook", "deploy", "hooks/order/preCreate.toml"]).fails();
    assert!(said.contains("preCreate.toml:1: a webhook is sent after the change"), "{said}");
}
