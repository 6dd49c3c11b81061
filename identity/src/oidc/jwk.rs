//! The keys of an issuer (RFC 7517), and signatures checked with them.
//!
//! The key determines the allowed algorithms, never the token: a token with a different algorithm is rejected before
//! anything is computed. `none` and symmetric algorithms are not supported.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self as ring_signature, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::Value;
use snaphook_driver::json::{self, Limits};

/// How many keys of an issuer are read at most.
const KEYS_MAX: usize = 100;

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

use Algorithm::{EdDsa, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};

impl Algorithm {
    pub(super) fn parse(name: &str) -> Option<Algorithm> {
        Some(match name {
            "RS256" => Rs256,
            "RS384" => Rs384,
            "RS512" => Rs512,
            "PS256" => Ps256,
            "PS384" => Ps384,
            "PS512" => Ps512,
            "ES256" => Es256,
            "ES384" => Es384,
            // RFC 9864 defines a separate name for this curve.
            "EdDSA" | "Ed25519" => EdDsa,
            _ => return None,
        })
    }
}

/// One public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point on a curve, in ring's format.
    Point(Vec<u8>),
}

/// The keys that tokens may be signed with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeySet(Vec<Key>);

impl KeySet {
    /// Skips keys that cannot be used here (for encryption, of other kinds, or malformed).
    pub(super) fn parse(bytes: &[u8]) -> Result<KeySet, String> {
        let text = json::utf8(bytes).map_err(|error| error.to_string())?;
        let limits = Limits { depth: 16, values: 10_000 };
        let (tree, _) = json::parse_within(text, limits).map_err(|error| error.to_string())?;
        let keys = tree.get("keys").and_then(Value::as_array).ok_or("the document has no list `keys`")?;
        let keys: Vec<Key> = keys.iter().filter_map(Key::parse).take(KEYS_MAX).collect();
        match keys.is_empty() {
            true => {
                Err("the document has no usable key for signatures (RSA of at least 2048 bits, P-256, P-384, Ed25519)"
                    .into())
            }
            false => Ok(KeySet(keys)),
        }
    }

    /// The candidate keys of a token: those with its key id or, without a key id, the only key.
    pub(super) fn candidates<'a>(&'a self, id: Option<&'a str>) -> impl Iterator<Item = &'a Key> {
        let is_only = self.0.len() == 1;
        self.0.iter().filter(move |key| match id {
            Some(id) => key.id.as_deref() == Some(id),
            None => is_only,
        })
    }
}

impl Key {
    fn parse(tree: &Value) -> Option<Key> {
        let text = |name: &str| tree.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        if tree.get("use").is_some_and(|r#use| r#use != "sig") {
            return None;
        }
        if let Some(operations) = tree.get("key_ops") {
            operations.as_array()?.iter().find(|operation| *operation == "verify")?;
        }
        let (material, possible, usual): (Material, &[Algorithm], &[Algorithm]) = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let n = without_zeros(bytes("n")?);
                let e = without_zeros(bytes("e")?);
                // ring accepts 2048 to 8192 bits.
                if !(256..=1024).contains(&n.len()) || e.is_empty() || e.len() > 5 {
                    return None;
                }
                let all = &[Rs256, Rs384, Rs512, Ps256, Ps384, Ps512];
                // A key without an algorithm uses the most common padding.
                (Material::Rsa { n, e }, all, &all[..3])
            }
            ("EC", Some("P-256")) => (point(bytes("x")?, bytes("y")?, 32)?, &[Es256], &[Es256]),
            ("EC", Some("P-384")) => (point(bytes("x")?, bytes("y")?, 48)?, &[Es384], &[Es384]),
            ("OKP", Some("Ed25519")) => {
                let x = bytes("x").filter(|x| x.len() == 32)?;
                (Material::Point(x), &[EdDsa], &[EdDsa])
            }
            _ => return None,
        };
        let algorithms = match tree.get("alg") {
            None => usual.to_vec(),
            Some(name) => vec![Algorithm::parse(name.as_str()?).filter(|algorithm| possible.contains(algorithm))?],
        };
        let id = match tree.get("kid") {
            None => None,
            Some(id) => Some(id.as_str()?.to_owned()),
        };
        Some(Key { id, algorithms, material })
    }

    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Verifies a signature of this key with an algorithm that [`Key::is_for`] allows.
    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.is_for(algorithm) {
            return false;
        }
        let rsa: &RsaParameters = match (&self.material, algorithm) {
            (Material::Point(point), Es256) => {
                return UnparsedPublicKey::new(&ring_signature::ECDSA_P256_SHA256_FIXED, point)
                    .verify(message, signature)
                    .is_ok();
            }
            (Material::Point(point), Es384) => {
                return UnparsedPublicKey::new(&ring_signature::ECDSA_P384_SHA384_FIXED, point)
                    .verify(message, signature)
                    .is_ok();
            }
            (Material::Point(point), EdDsa) => {
                return UnparsedPublicKey::new(&ring_signature::ED25519, point).verify(message, signature).is_ok();
            }
            (Material::Rsa { .. }, Rs256) => &ring_signature::RSA_PKCS1_2048_8192_SHA256,
            (Material::Rsa { .. }, Rs384) => &ring_signature::RSA_PKCS1_2048_8192_SHA384,
            (Material::Rsa { .. }, Rs512) => &ring_signature::RSA_PKCS1_2048_8192_SHA512,
            (Material::Rsa { .. }, Ps256) => &ring_signature::RSA_PSS_2048_8192_SHA256,
            (Material::Rsa { .. }, Ps384) => &ring_signature::RSA_PSS_2048_8192_SHA384,
            (Material::Rsa { .. }, Ps512) => &ring_signature::RSA_PSS_2048_8192_SHA512,
            _ => return false,
        };
        let Material::Rsa { n, e } = &self.material else { return false };
        RsaPublicKeyComponents { n, e }.verify(rsa, message, signature).is_ok()
    }
}

fn without_zeros(mut bytes: Vec<u8>) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.drain(..zeros);
    bytes
}

/// An uncompressed point. ring checks that it is on the curve.
fn point(x: Vec<u8>, y: Vec<u8>, length: usize) -> Option<Material> {
    (x.len() == length && y.len() == length).then(|| Material::Point([&[4], &*x, &*y].concat()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn b64(length: usize) -> String {
        URL_SAFE_NO_PAD.encode(vec![0xa5; length])
    }

    #[test]
    fn keys_say_what_they_are_for() {
        let rsa = json!({"kty": "RSA", "n": b64(256), "e": "AQAB"});
        let p256 = json!({"kty": "EC", "crv": "P-256", "x": b64(32), "y": b64(32)});
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": b64(32)});
        let with = |tree: &Value, name: &str, value: Value| {
            let mut tree = tree.clone();
            tree[name] = value;
            tree
        };
        let rows: [(Value, &[Algorithm]); 24] = [
            (rsa.clone(), &[Rs256, Rs384, Rs512]),
            (with(&rsa, "alg", json!("RS384")), &[Rs384]),
            (with(&rsa, "alg", json!("PS256")), &[Ps256]),
            (with(&rsa, "alg", json!("HS256")), &[]),
            (with(&rsa, "alg", json!("none")), &[]),
            (with(&rsa, "alg", json!("ES256")), &[]),
            (with(&rsa, "alg", json!(7)), &[]),
            (with(&rsa, "use", json!("sig")), &[Rs256, Rs384, Rs512]),
            (with(&rsa, "use", json!("enc")), &[]),
            (with(&rsa, "key_ops", json!(["sign", "verify"])), &[Rs256, Rs384, Rs512]),
            (with(&rsa, "key_ops", json!(["encrypt"])), &[]),
            (with(&rsa, "key_ops", json!("verify")), &[]),
            (with(&rsa, "kid", json!(7)), &[]),
            (with(&rsa, "n", json!(b64(128))), &[]),
            (with(&rsa, "n", json!(b64(1025))), &[]),
            (with(&rsa, "e", json!("")), &[]),
            (with(&rsa, "n", json!("+/+/")), &[]),
            (p256.clone(), &[Es256]),
            (with(&p256, "crv", json!("P-384")), &[]),
            (with(&p256, "crv", json!("secp256k1")), &[]),
            (with(&p256, "alg", json!("ES384")), &[]),
            (ed.clone(), &[EdDsa]),
            (with(&ed, "x", json!(b64(31))), &[]),
            (json!({"kty": "oct", "k": b64(32), "alg": "HS256"}), &[]),
        ];
        for (tree, expected) in rows {
            let key = Key::parse(&tree);
            assert_eq!(key.map(|key| key.algorithms).unwrap_or_default(), expected, "{tree}");
        }
    }

    #[test]
    fn sets_are_read_strictly() {
        let key = |id: &str| format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}","kid":"{id}"}}"#, b64(32));
        let set = |keys: &[String]| KeySet::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes());
        let two = set(&[key("a"), "7".to_owned(), "{}".to_owned(), key("b")]).unwrap();
        assert_eq!(two.candidates(Some("b")).count(), 1);
        assert_eq!(two.candidates(Some("c")).count(), 0);
        assert_eq!(two.candidates(None).count(), 0);
        assert_eq!(set(&[key("a")]).unwrap().candidates(None).count(), 1);
        assert_eq!(set(&[key("a")]).unwrap().candidates(Some("")).count(), 0);
        let many: Vec<String> = (0..500).map(|index| key(&index.to_string())).collect();
        assert_eq!(set(&many).unwrap().0.len(), KEYS_MAX);
        for bad in ["", "[]", "{}", r#"{"keys":7}"#, r#"{"keys":[]}"#, r#"{"keys":[{"kty":"RSA","kty":"EC"}]}"#] {
            assert!(KeySet::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
