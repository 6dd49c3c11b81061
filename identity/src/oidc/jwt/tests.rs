//! Valid tokens, and all kinds of invalid ones. RSA is tested in `tests/oidc`, where an issuer creates the keys.

use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use serde_json::json;

use super::*;

const ISSUER: &str = "https://id.test";
const AUDIENCE: &str = "snaphook";
const NOW: Millis = 1_700_000_000_000;
const NOW_SECONDS: i64 = NOW / 1000;

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An issuer with one key of each kind, with the key ids `p256`, `p384` and `ed`.
struct Issuer {
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Issuer {
    fn new() -> Issuer {
        let random = SystemRandom::new();
        let ec = |algorithm| {
            let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap()
        };
        let document = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Issuer {
            p256: ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            p384: ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            ed: Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap(),
        }
    }

    fn keys(&self) -> KeySet {
        let ec = |pair: &EcdsaKeyPair, kid: &str, curve: &str| {
            let (x, y) = pair.public_key().as_ref()[1..].split_at((pair.public_key().as_ref().len() - 1) / 2);
            json!({"kty": "EC", "crv": curve, "kid": kid, "x": encode(x), "y": encode(y), "use": "sig"})
        };
        let ed = encode(self.ed.public_key());
        let keys = json!({"keys": [
            ec(&self.p256, "p256", "P-256"),
            ec(&self.p384, "p384", "P-384"),
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": ed},
        ]});
        KeySet::parse(keys.to_string().as_bytes()).unwrap()
    }

    /// Signs with the key that the header names, regardless of the algorithm that it names.
    fn sign(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", encode(header), encode(payload));
        let random = SystemRandom::new();
        let signature = if header.contains("p256") {
            self.p256.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec()
        } else if header.contains("p384") {
            self.p384.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec()
        } else {
            self.ed.sign(signed.as_bytes()).as_ref().to_vec()
        };
        format!("{signed}.{}", encode(signature))
    }
}

fn header(kid: &str, algorithm: &str) -> String {
    json!({"alg": algorithm, "kid": kid, "typ": "at+jwt"}).to_string()
}

fn claims(changes: Value) -> String {
    let mut claims = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "u1", "exp": NOW_SECONDS + 100});
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims.to_string()
}

fn check(token: &str, keys: &KeySet) -> Result<Verified, Refusal> {
    verify(token, keys, ISSUER, AUDIENCE, NOW)
}

/// The message of a refusal.
fn reason(refusal: Refusal) -> String {
    match refusal {
        Refusal::UnknownKey => "unknown key".to_owned(),
        Refusal::Malformed(reason) => reason.to_owned(),
        Refusal::Refused(reason) => reason,
    }
}

#[test]
fn each_kind_of_key_is_accepted() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    for (kid, algorithm) in [("p256", "ES256"), ("p384", "ES384"), ("ed", "EdDSA"), ("ed", "Ed25519")] {
        let token = issuer.sign(&header(kid, algorithm), &claims(json!({"role": "reader"})));
        let verified = check(&token, &keys).unwrap_or_else(|refusal| panic!("{algorithm}: {refusal:?}"));
        assert_eq!(verified.subject, "u1");
        assert_eq!(verified.expires_at, NOW + 100_000);
        assert_eq!(verified.claims.get("role"), Some(&json!("reader")));
    }
}

#[test]
fn claims_decide() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let long = "x".repeat(256);
    let large = "x".repeat(CLAIMS_BYTES_MAX);
    let rows = [
        (json!({"aud": ["other", AUDIENCE]}), None),
        (json!({"aud": "other"}), Some("`aud`")),
        (json!({"aud": ["other"]}), Some("`aud`")),
        (json!({"aud": [AUDIENCE, 7]}), Some("`aud`")),
        (json!({"aud": []}), Some("`aud`")),
        (json!({"aud": {AUDIENCE: 1}}), Some("`aud`")),
        (json!({"aud": null}), Some("`aud`")),
        (json!({"iss": "https://id.test/"}), Some("`iss`")),
        (json!({"iss": [ISSUER]}), Some("`iss`")),
        (json!({"iss": null}), Some("`iss`")),
        (json!({"exp": NOW_SECONDS - 59}), None),
        (json!({"exp": NOW_SECONDS - 60}), Some("expired")),
        (json!({"exp": 0}), Some("expired")),
        (json!({"exp": -1}), Some("expired")),
        (json!({"exp": null}), Some("no `exp`")),
        (json!({"exp": "9999999999"}), Some("`exp`")),
        (json!({"exp": true}), Some("`exp`")),
        (json!({"exp": NOW_SECONDS as f64 + 0.5}), None),
        (json!({"nbf": NOW_SECONDS + 60}), None),
        (json!({"nbf": NOW_SECONDS + 61}), Some("`nbf`")),
        (json!({"nbf": "0"}), Some("`nbf`")),
        (json!({"sub": null}), Some("`sub`")),
        (json!({"sub": ""}), Some("`sub`")),
        (json!({"sub": 7}), Some("`sub`")),
        (json!({"sub": "a\nb"}), Some("`sub`")),
        (json!({"sub": long}), Some("`sub`")),
        (json!({"x": large}), Some("8192")),
    ];
    for (changes, expected) in rows {
        let token = issuer.sign(&header("ed", "EdDSA"), &claims(changes.clone()));
        match (check(&token, &keys), expected) {
            (Ok(_), None) => {}
            (Err(refusal), Some(part)) => {
                let reason = reason(refusal);
                assert!(reason.contains(part) && !reason.contains('\n') && reason.len() < 400, "{changes}: {reason}");
            }
            (result, _) => panic!("{changes}: {result:?}"),
        }
    }
}

#[test]
fn hostile_headers_are_refused() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let good = claims(json!({}));
    let rows = [
        (r#"{"alg":"none","kid":"ed"}"#, "algorithm"),
        (r#"{"alg":"None","kid":"ed"}"#, "algorithm"),
        (r#"{"alg":"HS256","kid":"ed"}"#, "algorithm"),
        (r#"{"alg":"eddsa","kid":"ed"}"#, "algorithm"),
        (r#"{"alg":["EdDSA"],"kid":"ed"}"#, "algorithm"),
        (r#"{"kid":"ed"}"#, "no `alg`"),
        (r#"{"alg":"ES256","kid":"ed"}"#, "not for"),
        (r#"{"alg":"RS256","kid":"p256"}"#, "not for"),
        (r#"{"alg":"ES384","kid":"p256"}"#, "not for"),
        (r#"{"alg":"EdDSA","kid":"ed","crit":["exp"],"exp":1}"#, "crit"),
        (r#"{"alg":"EdDSA","kid":"ed","crit":[]}"#, "crit"),
        (r#"{"alg":"EdDSA","kid":"ed","b64":false}"#, "crit"),
        (r#"{"alg":"EdDSA","kid":"ed","typ":"logout+jwt"}"#, "type"),
        (r#"{"alg":"EdDSA","kid":"ed","typ":7}"#, "type"),
        (r#"{"alg":"EdDSA","kid":7}"#, "`kid`"),
        (r#"{"alg":"EdDSA","kid":"other"}"#, "unknown key"),
        (r#"{"alg":"EdDSA","kid":"ed "}"#, "unknown key"),
        (r#"{"alg":"EdDSA"}"#, "unknown key"),
        (r#"{"alg":"none","alg":"EdDSA","kid":"ed"}"#, "unique"),
        (r#"{"alg":"EdDSA","\u0061lg":"none","kid":"ed"}"#, "unique"),
        (r#"["EdDSA"]"#, "not a JSON object"),
        ("", "not a JSON object"),
        (r#"{"alg":"EdDSA","kid":"ed"} x"#, "not a JSON object"),
    ];
    for (header, expected) in rows {
        let reason = reason(check(&issuer.sign(header, &good), &keys).unwrap_err());
        assert!(reason.contains(expected), "{header}: {reason}");
    }
    // A key inside the token is ignored.
    let other = Issuer::new();
    let own = json!({"alg": "EdDSA", "kid": "ed", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": encode(other.ed.public_key())}});
    assert!(reason(check(&other.sign(&own.to_string(), &good), &keys).unwrap_err()).contains("signature"));
}

#[test]
fn signatures_decide() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    for (kid, algorithm) in [("p256", "ES256"), ("p384", "ES384"), ("ed", "EdDSA")] {
        let header = header(kid, algorithm);
        let token = issuer.sign(&header, &claims(json!({})));
        let parts: Vec<&str> = token.split('.').collect();
        let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
        let with = |signature: &[u8]| format!("{}.{}.{}", parts[0], parts[1], encode(signature));
        let mut wrong = vec![
            Issuer::new().sign(&header, &claims(json!({}))),
            format!("{}.{}.{}", parts[0], encode(claims(json!({"sub": "admin"}))), parts[2]),
            with(&[]),
            with(&vec![0; signature.len()]),
            with(&signature[1..]),
            with(&[&signature[..], &[0]].concat()),
        ];
        // The public key used as the secret of a symmetric algorithm.
        let secret = hmac::Key::new(hmac::HMAC_SHA256, issuer.ed.public_key().as_ref());
        let signed = format!("{}.{}", parts[0], parts[1]);
        wrong.push(with(hmac::sign(&secret, signed.as_bytes()).as_ref()));
        for at in (0..signature.len()).step_by(7) {
            let mut flipped = signature.clone();
            flipped[at] ^= 1;
            wrong.push(with(&flipped));
        }
        for token in wrong {
            assert_eq!(check(&token, &keys).unwrap_err(), refused("its signature is wrong"), "{algorithm} {token}");
        }
        assert!(check(&token, &keys).is_ok());
    }
}

#[test]
fn forms_are_read_strictly() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let token = issuer.sign(&header("ed", "EdDSA"), &claims(json!({})));
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let rows = [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        signed.to_owned(),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        format!("{token}="),
        format!("{token}\n"),
        format!(" {token}"),
        format!("{signed}.{}", signature.replace(['-', '_'], "+")) + "+",
        format!("{signed}.{}", "A".repeat(TOKEN_BYTES_MAX)),
    ];
    for token in rows {
        assert!(matches!(check(&token, &keys), Err(Refusal::Malformed(_))), "{token}");
    }
    // Unused bits that no encoder sets, so that the same token has another text.
    let mut last = token.clone();
    let replaced = match last.pop().unwrap() {
        'A' => 'B',
        'Q' => 'R',
        'g' => 'h',
        _ => 'x',
    };
    last.push(replaced);
    assert!(matches!(check(&last, &keys), Err(Refusal::Malformed(_))), "{last}");
    // Claims with a duplicate name, and payloads that are not claims, correctly signed.
    for payload in
        [claims(json!({})).replacen('{', r#"{"sub":"admin","#, 1), "[]".to_owned(), "7".to_owned(), String::new()]
    {
        let token = issuer.sign(&header("ed", "EdDSA"), &payload);
        assert!(matches!(check(&token, &keys), Err(Refusal::Refused(_))), "{payload}");
    }
}

#[test]
fn random_bytes_are_never_accepted_and_never_panic() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let token = issuer.sign(&header("p256", "ES256"), &claims(json!({}))).into_bytes();
    let random = SystemRandom::new();
    for _ in 0..3000 {
        let [at, byte]: [u8; 2] = ring::rand::generate(&random).unwrap().expose();
        let mut changed = token.clone();
        let place = usize::from(at) * 7 % changed.len();
        changed[place] = byte;
        let Ok(text) = String::from_utf8(changed) else { continue };
        let result = check(&text, &keys);
        assert!(result.is_err() || text.as_bytes() == token, "{text}");
    }
}
