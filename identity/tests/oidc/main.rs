//! Tokens of an independent issuer, npm's `oidc-provider`: valid and forged ones, new keys, and an unavailable issuer.

mod hostile;
mod issuer;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use issuer::{Issuer, encode};
use ring::{hmac, signature};
use serde_json::{Value, json};
use snaphook_driver::{OpenContext, time};
use snaphook_identity::{ActorKind, Caller, Denied, DeniedKind, Identity, Oidc, OidcSettings, Role, Tokens};

const DEADLINE: Duration = Duration::from_secs(60);
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn settings(issuer: &str) -> OidcSettings {
    let models = Some("claims.models".to_owned());
    OidcSettings { issuer: issuer.to_owned(), audience: "snaphook".to_owned(), role: "claims.role".to_owned(), models }
}

/// A server that trusts this issuer.
async fn identity(settings: OidcSettings) -> Identity {
    let store = snaphook_memory::DRIVER.secure.unwrap()(OpenContext::new(serde_json::Map::new(), "")).await.unwrap();
    let tokens = Arc::new(Tokens::open(store).await.unwrap());
    Identity::with_tokens(tokens, Some(Arc::new(Oidc::new(&settings).unwrap())), Arc::default())
}

async fn identify(identity: &Identity, token: &str) -> Result<Arc<Caller>, Denied> {
    identity.identify(Some(format!("Bearer {token}").as_bytes()), ADDRESS, time::now()).await
}

async fn wait_until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !is_so().await {
        assert!(started.elapsed() < DEADLINE, "{what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_the_issuer_are_accepted() {
    let Some(issuer) = Issuer::start().await else { return };
    let identity = identity(settings(&issuer.url())).await;
    for algorithm in ["RS256", "PS256", "ES256", "ES384", "EdDSA"] {
        for (client, role) in [("reader", Role::Reader), ("writer", Role::Writer), ("admin", Role::Admin)] {
            let token = issuer.token(client, algorithm).await;
            let caller = identify(&identity, &token).await.unwrap_or_else(|denied| panic!("{algorithm}: {denied}"));
            assert_eq!((caller.actor.id.as_str(), caller.actor.kind, caller.role), (client, ActorKind::Oidc, role));
            assert!(caller.may_read("audit-1"));
            assert_eq!(caller.may_write("film"), role != Role::Reader);
            assert_eq!(caller.may_read("order"), role == Role::Admin);
            let claims = caller.claims.as_ref().unwrap();
            assert_eq!(caller.actor.claims.as_ref(), Some(claims.text()));
            assert_eq!(claims.get("client_id"), Some(&json!(client)));
            // The second time, the token is found in the cache.
            assert!(Arc::ptr_eq(&caller, &identify(&identity, &token).await.unwrap()));
        }
    }
    let denied = identify(&identity, &issuer.token("nobody", "RS256").await).await.unwrap_err();
    assert_eq!(denied.kind(), DeniedKind::Refused);
    assert!(denied.reason().contains("`role`"), "{denied}");

    // A token for another audience.
    let other = OidcSettings { audience: "other".to_owned(), ..settings(&issuer.url()) };
    let denied = identify(&self::identity(other).await, &issuer.token("admin", "RS256").await).await.unwrap_err();
    assert!(denied.kind() == DeniedKind::Refused && denied.reason().contains("`aud`"), "{denied}");
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_tokens_are_refused() {
    let Some(issuer) = Issuer::start().await else { return };
    let identity = identity(settings(&issuer.url())).await;
    let rs = issuer.rsa("RS256");
    let ps = issuer.rsa("PS256");
    let now = time::now() / 1000;
    let claims = json!({
        "iss": issuer.url(), "aud": "snaphook", "sub": "u1", "exp": now + 100, "role": "admin", "models": "*",
    });
    let header = |algorithm: &str, kid: &str| json!({"alg": algorithm, "kid": kid, "typ": "at+jwt"});
    let with = |changes: Value| {
        let mut claims = claims.clone();
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        claims
    };
    let good = rs.sign(&header("RS256", &rs.kid), &claims, &signature::RSA_PKCS1_SHA256);
    assert_eq!(identify(&identity, &good).await.unwrap().actor.id, "u1", "the forger's own way of signing works");

    let rs256 = |changes: Value| rs.sign(&header("RS256", &rs.kid), &with(changes), &signature::RSA_PKCS1_SHA256);
    let parts: Vec<&str> = good.split('.').collect();
    let unsigned = format!("{}.{}", encode(header("none", &rs.kid).to_string()), parts[1]);
    let symmetric = format!("{}.{}", encode(header("HS256", &rs.kid).to_string()), parts[1]);
    let symmetric = {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &rs.modulus);
        format!("{symmetric}.{}", encode(hmac::sign(&secret, symmetric.as_bytes())))
    };
    let tampered = format!("{}.{}.{}", parts[0], encode(with(json!({"sub": "root"})).to_string()), parts[2]);
    let rows = [
        ("expired", rs256(json!({"exp": now - 61}))),
        ("not yet valid", rs256(json!({"nbf": now + 100}))),
        ("for another audience", rs256(json!({"aud": "other"}))),
        ("of another issuer", rs256(json!({"iss": "https://id.test"}))),
        ("without a subject", rs256(json!({"sub": null}))),
        ("without an end", rs256(json!({"exp": null}))),
        ("without a role", rs256(json!({"role": null}))),
        ("by another key of the same id", ps.sign(&header("RS256", &rs.kid), &claims, &signature::RSA_PKCS1_SHA256)),
        ("by an unknown key", ps.sign(&header("RS256", "other"), &claims, &signature::RSA_PKCS1_SHA256)),
        ("signed with the public key as a secret", symmetric),
        ("unsigned", format!("{unsigned}.")),
        ("unsigned, with a signature", format!("{unsigned}.{}", parts[2])),
        ("tampered with", tampered),
        ("PS256 by a key for RS256", rs.sign(&header("PS256", &rs.kid), &claims, &signature::RSA_PSS_SHA256)),
        ("RS256 by a key for PS256", ps.sign(&header("RS256", &ps.kid), &claims, &signature::RSA_PKCS1_SHA256)),
        ("RS512 by a key for RS256", rs.sign(&header("RS512", &rs.kid), &claims, &signature::RSA_PKCS1_SHA512)),
        ("another name for its algorithm", rs.sign(&header("RS512", &rs.kid), &claims, &signature::RSA_PKCS1_SHA256)),
        ("garbage", "a.b.c".to_owned()),
        ("of five parts", format!("{good}.a.b")),
        ("too long", format!("{}.{}.{}", parts[0], "A".repeat(16 << 10), parts[2])),
    ];
    for (what, token) in rows {
        let denied = identify(&identity, &token).await.err().unwrap_or_else(|| panic!("{what} was accepted"));
        assert_ne!(denied.kind(), DeniedKind::Unavailable, "{what}: {denied}");
        assert!(!denied.reason().contains(parts[2]), "{what}");
        assert!(identify(&identity, &good).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_are_found_and_old_ones_outlast_the_issuer() {
    let Some(mut issuer) = Issuer::start().await else { return };
    let identity = identity(settings(&issuer.url())).await;
    let seen = issuer.token("reader", "RS256").await;
    let unseen = issuer.token("writer", "ES256").await;
    assert!(identify(&identity, &seen).await.is_ok());

    issuer.stop();
    assert!(identify(&identity, &seen).await.is_ok());
    assert!(identify(&identity, &unseen).await.is_ok(), "known keys verify what they never saw");

    issuer.rotate().await;
    let new = issuer.token("reader", "RS256").await;
    wait_until("the new key is found", async || identify(&identity, &new).await.is_ok()).await;
    for old in [&seen, &unseen] {
        let denied = identify(&identity, old).await.unwrap_err();
        assert_eq!(denied.kind(), DeniedKind::Refused, "the key was withdrawn: {denied}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_down_is_no_guess_of_the_client() {
    let Some(mut issuer) = Issuer::start().await else { return };
    let token = issuer.token("reader", "EdDSA").await;
    issuer.stop();
    let identity = identity(settings(&issuer.url())).await;
    for _ in 0..20 {
        let denied = identify(&identity, &token).await.unwrap_err();
        assert_eq!(denied.kind(), DeniedKind::Unavailable, "{denied}");
    }
    assert_eq!(identity.failed_attempts(), 0);
    issuer.restart().await;
    wait_until("the issuer is found", async || identify(&identity, &token).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_work_are_named() {
    let good = settings("https://id.test");
    assert!(Oidc::check(&good).is_ok());
    let rows = [
        (OidcSettings { issuer: "http://id.test".to_owned(), ..good.clone() }, "`issuer`"),
        (OidcSettings { audience: String::new(), ..good.clone() }, "`audience`"),
        (OidcSettings { role: "role".to_owned(), ..good.clone() }, "`role`"),
        (OidcSettings { models: Some("models".to_owned()), ..good.clone() }, "`models`"),
    ];
    for (settings, part) in rows {
        assert!(Oidc::check(&settings).unwrap_err().contains(part), "{settings:?}");
        assert!(Oidc::new(&settings).unwrap_err().contains(part), "{settings:?}");
    }
}
