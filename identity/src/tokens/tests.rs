//! Tokens in real stores, on one node and on several.

use std::path::Path;
use std::time::Duration;

use snaphook_driver::OpenContext;
use tokio::time::Instant;

use super::*;
use crate::denied::DeniedKind;
use crate::role::Role;

async fn memory() -> Arc<dyn SecureStore> {
    snaphook_memory::DRIVER.secure.unwrap()(OpenContext::new(serde_json::Map::new(), "")).await.unwrap()
}

async fn files(folder: &Path) -> Arc<dyn SecureStore> {
    let mut settings = serde_json::Map::new();
    settings.insert("path".to_owned(), "secrets".into());
    snaphook_file::DRIVER.secure.unwrap()(OpenContext::new(settings, folder)).await.unwrap()
}

fn request(name: &str, role: Role) -> TokenRequest {
    TokenRequest { name: name.to_owned(), role, models: None, expires_at: None }
}

async fn wait_until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !is_so().await {
        assert!(started.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_token_from_its_making_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = files(folder.path()).await;
    let tokens = Tokens::open(Arc::clone(&store)).await.unwrap();
    let models = Some(vec!["order".to_owned(), "audit-*".to_owned()]);
    let asked = TokenRequest { name: "ci".to_owned(), role: Role::Writer, models, expires_at: Some(1_000_000) };
    let made = tokens.make(asked.clone(), 1000).await.unwrap();
    let text = made.token.expose().to_owned();
    assert!(Tokens::is_ours(text.as_bytes()));
    assert!(!format!("{made:?} {tokens:?}").contains(&text[5..]));

    let caller = tokens.verify(text.as_bytes(), 2000).unwrap();
    assert_eq!(
        (caller.actor.id.as_str(), caller.actor.kind, caller.role),
        ("ci", crate::ActorKind::Token, Role::Writer)
    );
    assert!(caller.may_write("audit-1") && !caller.may_read("film"));
    assert_eq!(tokens.make(asked, 1000).await.unwrap_err().kind(), TokenErrorKind::Exists);

    // The store contains no part of the token's text.
    let sealed = store.get(document::TOKENS).await.unwrap().unwrap();
    assert!(!sealed.bytes.windows(12).any(|window| window == &text.as_bytes()[5..17]));
    assert!(store.list("").await.unwrap().iter().all(|name| snaphook_driver::limits::is_reserved_name(name)));

    assert!(tokens.verify(text.as_bytes(), 999_999).is_ok());
    let denied = tokens.verify(text.as_bytes(), 1_000_000).unwrap_err();
    assert_eq!(
        (denied.kind(), denied.reason()),
        (DeniedKind::Refused, "the token `ci` expired at 1970-01-01T00:16:40.000Z")
    );

    // The token exists after a restart, with its last use.
    tokens.close().await.unwrap();
    store.close().await.unwrap();
    drop((tokens, store));
    let tokens = Tokens::open(files(folder.path()).await).await.unwrap();
    let listed = tokens.list().await.unwrap();
    assert_eq!(listed, [TokenInfo { last_used_at: Some(999_999), ..made.info }]);
    assert!(tokens.verify(text.as_bytes(), 2000).is_ok());
    tokens.revoke("ci").await.unwrap();
    assert_eq!(tokens.verify(text.as_bytes(), 2000).unwrap_err().kind(), DeniedKind::Refused);
    assert!(tokens.list().await.unwrap().is_empty());
    assert_eq!(tokens.revoke("ci").await.unwrap_err().kind(), TokenErrorKind::NotFound);
    assert_eq!(tokens.revoke("../x").await.unwrap_err().kind(), TokenErrorKind::Invalid);
}

#[tokio::test]
async fn what_is_no_token_is_denied() {
    let tokens = Tokens::open(memory().await).await.unwrap();
    let good = tokens.make(request("a", Role::Reader), 0).await.unwrap().token;
    let other = TokenText::generate().unwrap();
    let mistyped = good.expose().replacen(|c: char| c.is_ascii_digit(), "x", 1) + "";
    let rows = [
        (other.expose(), DeniedKind::Refused),
        ("", DeniedKind::Malformed),
        ("snap_", DeniedKind::Malformed),
        (&good.expose()[..53], DeniedKind::Malformed),
        (&good.expose().to_lowercase(), DeniedKind::Malformed),
    ];
    for (text, kind) in rows {
        let denied = tokens.verify(text.as_bytes(), 1).unwrap_err();
        assert_eq!(denied.kind(), kind, "{text}");
        assert!(text.len() < 10 || !denied.reason().contains(text));
    }
    assert!(mistyped == good.expose() || tokens.verify(mistyped.as_bytes(), 1).is_err());
    assert!(tokens.verify(good.expose().as_bytes(), 1).is_ok());
}

#[tokio::test]
async fn nodes_see_each_others_changes() {
    let store = memory().await;
    let here = Tokens::open(Arc::clone(&store)).await.unwrap();
    let there = Tokens::open(Arc::clone(&store)).await.unwrap();
    let old = here.make(request("ci", Role::Writer), 0).await.unwrap().token;
    let knows = |token: &TokenText| there.verify(token.expose().as_bytes(), 1).is_ok();
    let started = Instant::now();
    wait_until("the other node knows the token", async || knows(&old)).await;
    here.revoke("ci").await.unwrap();
    // The next token of the same name, created at once.
    let new = here.make(request("ci", Role::Reader), 0).await.unwrap().token;
    wait_until("the other node knows the new token", async || knows(&new)).await;
    assert!(!knows(&old));
    assert!(here.verify(old.expose().as_bytes(), 1).is_err());
    here.revoke("ci").await.unwrap();
    wait_until("the other node knows of the revocation", async || !knows(&new)).await;
    assert!(started.elapsed() < Duration::from_secs(15), "three changes take at most 5 s each");
}

#[tokio::test]
async fn changes_of_many_at_once_are_all_kept() {
    let store = memory().await;
    let nodes = [Tokens::open(Arc::clone(&store)).await.unwrap(), Tokens::open(Arc::clone(&store)).await.unwrap()];
    let nodes = nodes.map(Arc::new);
    let tasks: Vec<_> = (0..40)
        .map(|index| {
            let node = Arc::clone(&nodes[index % 2]);
            tokio::spawn(async move {
                let made = node.make(request(&format!("t{:02}", index / 2), Role::Reader), 0).await;
                made.map(|made| made.token).map_err(|error| error.kind())
            })
        })
        .collect();
    let mut made = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(token) => made.push(token),
            Err(kind) => assert_eq!(kind, TokenErrorKind::Exists),
        }
    }
    assert_eq!(made.len(), 20, "each name was made once");
    let listed: Vec<String> = nodes[0].list().await.unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(listed, (0..20).map(|index| format!("t{index:02}")).collect::<Vec<_>>());
    nodes[1].list().await.unwrap();
    for node in &nodes {
        assert!(made.iter().all(|token| node.verify(token.expose().as_bytes(), 1).is_ok()));
    }
}

#[tokio::test]
async fn a_change_whose_client_left_is_done_all_the_same() {
    let tokens = Tokens::open(memory().await).await.unwrap();
    let token = tokens.make(request("ci", Role::Writer), 0).await.unwrap().token;
    let turn = tokens.shared.turn.lock().await;
    assert!(tokio::time::timeout(Duration::from_millis(20), tokens.revoke("ci")).await.is_err());
    drop(turn);
    let knows = || tokens.verify(token.expose().as_bytes(), 1).is_ok();
    wait_until("the token is revoked", async || !knows()).await;
}

#[tokio::test]
async fn last_uses_of_all_nodes_are_kept_and_bring_nothing_back() {
    let store = memory().await;
    let here = Tokens::open(Arc::clone(&store)).await.unwrap();
    let a = here.make(request("a", Role::Reader), 0).await.unwrap().token;
    let b = here.make(request("b", Role::Reader), 0).await.unwrap().token;
    let there = Tokens::open(Arc::clone(&store)).await.unwrap();
    let uses = async |node: &Tokens| -> Vec<(String, Option<i64>)> {
        node.list().await.unwrap().into_iter().map(|info| (info.name, info.last_used_at)).collect()
    };
    here.verify(a.expose().as_bytes(), 5_000).unwrap();
    here.verify(a.expose().as_bytes(), 5_500).unwrap();
    there.verify(a.expose().as_bytes(), 9_000).unwrap();
    there.verify(b.expose().as_bytes(), 7_000).unwrap();
    assert_eq!(uses(&here).await, [("a".to_owned(), Some(5_000)), ("b".to_owned(), None)]);
    there.shared.write_uses().await.unwrap();
    here.shared.write_uses().await.unwrap();
    assert_eq!(uses(&here).await, [("a".to_owned(), Some(9_000)), ("b".to_owned(), Some(7_000))]);
    let version = async || store.get(document::USES).await.unwrap().unwrap().version;
    let before = version().await;
    here.shared.write_uses().await.unwrap();
    assert_eq!(version().await, before, "nothing new is not written");

    // Revoked on this node, used and written on the other one: it stays revoked, and its successor was never used.
    here.revoke("a").await.unwrap();
    there.verify(a.expose().as_bytes(), 20_000).unwrap();
    there.shared.write_uses().await.unwrap();
    assert!(here.verify(a.expose().as_bytes(), 1).is_err());
    here.make(request("a", Role::Reader), 0).await.unwrap();
    assert_eq!(uses(&here).await[0], ("a".to_owned(), None));
    assert_eq!(uses(&there).await[0], ("a".to_owned(), None));
}

#[tokio::test]
async fn a_list_that_is_none_is_an_error_and_changes_nothing() {
    let store = memory().await;
    let tokens = Tokens::open(Arc::clone(&store)).await.unwrap();
    let token = tokens.make(request("a", Role::Admin), 0).await.unwrap().token;
    store.put(document::TOKENS, b"{}", None).await.unwrap();
    assert_eq!(tokens.list().await.unwrap_err().kind(), TokenErrorKind::Store);
    assert_eq!(tokens.make(request("b", Role::Reader), 0).await.unwrap_err().kind(), TokenErrorKind::Store);
    assert_eq!(Tokens::open(Arc::clone(&store)).await.unwrap_err().kind(), TokenErrorKind::Store);
    assert_eq!(store.get(document::TOKENS).await.unwrap().unwrap().bytes, b"{}");
    assert!(tokens.verify(token.expose().as_bytes(), 1).is_ok(), "what was read last stays in force");
    // Without any list in the store, no token is valid.
    store.delete(document::TOKENS).await.unwrap();
    assert!(tokens.list().await.unwrap().is_empty());
    assert!(tokens.verify(token.expose().as_bytes(), 1).is_err());
}
