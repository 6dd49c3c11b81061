//! TLS, and users whose credentials are signed by their account.

mod support;

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nkeys::KeyPair as Keys;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use snaphook_driver::ErrorKind;
use snaphook_driver_testkit::sample::{any, append_one};
use snaphook_driver_testkit::servers::nats;
use support::Node;

/// A certificate for 127.0.0.1, its key, and the authority that signed it, as PEM in files.
fn certificate(folder: &Path) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    std::fs::write(folder.join("ca.pem"), authority.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(folder.join("server.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tls() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    [&folder, &other].iter().for_each(|folder| certificate(folder.path()));
    let file = |name: &str| folder.path().join(name);
    let lines = format!("tls {{ cert_file: {:?}, key_file: {:?} }}", file("server.pem"), file("server.key"));
    let (server, plain) = (nats::start_with("always", lines), nats::start("always"));
    let (url, plain) = (nats::url(&server), nats::url(&plain));
    let ca = |folder: &tempfile::TempDir| folder.path().join("ca.pem");
    let node = Node::with("a", json!({"url": url, "tls": "require", "ca": ca(&folder)}));
    let store = node.open().await;
    append_one(&*store, any("m", "a")).await;
    store.close().await.unwrap();
    // Another node, which uses TLS because the server requires it.
    let store = Node::with("b", json!({"url": url, "ca": ca(&folder)})).open().await;
    assert_eq!(store.head().await.unwrap(), 1);
    store.close().await.unwrap();
    for (what, settings) in [
        ("nobody trusts it", json!({"url": url, "tls": "require"})),
        ("another authority", json!({"url": url, "tls": "require", "ca": ca(&other)})),
        ("a server without TLS", json!({"url": plain, "tls": "require", "ca": ca(&folder)})),
        ("a file that is not there", json!({"url": url, "tls": "require", "ca": file("none.pem")})),
    ] {
        let error = Node::with("c", settings).refused().await;
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Config), "{what}: {error}");
    }
}

/// A token in which `issuer` signs claims about `subject`.
fn signed(issuer: &Keys, subject: &str, name: &str, nats: Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"jti": name, "iat": 1, "iss": issuer.public_key(), "name": name, "sub": subject, "nats": nats});
    let text = format!("{}.{}", part(&json!({"typ": "JWT", "alg": "ed25519-nkey"})), part(&claims));
    let signature = issuer.sign(text.as_bytes()).unwrap();
    format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

/// A credentials file as `nsc` writes it for a user of the account.
fn credentials(account: &Keys) -> String {
    let user = Keys::new_user();
    let about = json!({"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2});
    let token = signed(account, &user.public_key(), "user", about);
    let seed = user.seed().unwrap();
    format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_a_user() {
    let (operator, account, system) = (Keys::new_operator(), Keys::new_account(), Keys::new_account());
    let limits = |jetstream: i64| {
        json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
            "mem_storage": jetstream, "disk_storage": jetstream, "streams": -1, "consumer": -1,
        })
    };
    let known = |keys: &Keys, name: &str, jetstream: i64| {
        let about = json!({"limits": limits(jetstream), "type": "account", "version": 2});
        format!("{}: {}", keys.public_key(), signed(&operator, &keys.public_key(), name, about))
    };
    let about = json!({"type": "operator", "version": 2, "system_account": system.public_key()});
    let lines = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{}\n{}\n}}",
        signed(&operator, &operator.public_key(), "operator", about),
        system.public_key(),
        known(&account, "account", -1),
        known(&system, "system", 0),
    );
    let server = nats::start_with("always", lines);
    let url = nats::url(&server);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let known = file("known.creds", credentials(&account));
    let store = Node::with("a", json!({"url": url, "credentials": known})).open().await;
    append_one(&*store, any("m", "a")).await;
    store.close().await.unwrap();
    let stranger = file("stranger.creds", credentials(&Keys::new_account()));
    let seed = Keys::new_user().seed().unwrap();
    let garbage = file("garbage.creds", format!("-----BEGIN USER NKEY SEED-----\n{seed}\n"));
    for (settings, kind) in [
        (json!({"url": url}), ErrorKind::Unavailable),
        (json!({"url": url, "credentials": stranger}), ErrorKind::Unavailable),
        (json!({"url": url, "credentials": garbage}), ErrorKind::Config),
    ] {
        let error = Node::with("b", settings).refused().await;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!error.to_string().contains(&seed), "{error}");
    }
}
