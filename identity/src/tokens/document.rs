//! The data about tokens in the secure store: one list with a digest of each, and one list of last uses.
//!
//! Each list is one entry of the store, so a change is one conditional put, and another node detects changes with one
//! read. Last uses have a separate entry, so that a node that writes them can never restore a token that was revoked in
//! the meantime.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use snaphook_driver::time::Millis;
use snaphook_driver::{Sealed, SecureStore, json};

use super::error::{TokenError, TokenErrorKind};
use super::text::Digest;
use crate::role::Role;

/// Names of the entries. No secret may have them: `snaphook_driver::limits::is_reserved_name`.
pub(super) const TOKENS: &str = "snaphook.tokens";
pub(super) const USES: &str = "snaphook.tokens-used";

/// Maximum number of tokens of a server.
pub const TOKENS_MAX: usize = 10_000;
/// Maximum size of a list in bytes. A token with a handful of models takes about 250 bytes.
const LIST_BYTES_MAX: usize = 4 << 20;
/// The format of the lists. A newer format is rejected: its tokens may have fewer rights than this version would give
/// them.
const FORMAT: u32 = 1;

/// One token as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) name: String,
    #[serde(with = "digest_text")]
    pub(super) digest: Digest,
    pub(super) role: Role,
    pub(super) models: Vec<String>,
    pub(super) created_at: Millis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<Millis>,
}

/// All tokens, in the order of their names.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    format: u32,
    pub(super) tokens: Vec<Record>,
}

impl List {
    pub(super) fn decode(bytes: &[u8]) -> Result<List, TokenError> {
        let list: List = read(TOKENS, bytes)?;
        let is_sorted = list.tokens.is_sorted_by(|a, b| a.name < b.name);
        if list.format != FORMAT || list.tokens.len() > TOKENS_MAX || !is_sorted {
            return Err(damaged(TOKENS, "its format is not supported, a newer Snaphook may have written it"));
        }
        Ok(list)
    }

    pub(super) fn encode(tokens: &[Record]) -> Result<Vec<u8>, TokenError> {
        if tokens.len() > TOKENS_MAX {
            return Err(TokenError::invalid(format!(
                "there are already {TOKENS_MAX} tokens, which is the maximum; revoke some"
            )));
        }
        let bytes = write(&List { format: FORMAT, tokens: tokens.to_vec() })?;
        if bytes.len() > LIST_BYTES_MAX {
            let message = format!("all tokens together take more than {LIST_BYTES_MAX} bytes; revoke some");
            return Err(TokenError::invalid(message));
        }
        Ok(bytes)
    }
}

/// When tokens were last used, by [`use_key`].
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Uses {
    format: u32,
    pub(super) used: BTreeMap<String, Millis>,
}

impl Uses {
    pub(super) fn decode(bytes: &[u8]) -> Result<Uses, TokenError> {
        read(USES, bytes)
    }

    pub(super) fn encode(used: BTreeMap<String, Millis>) -> Result<Vec<u8>, TokenError> {
        write(&Uses { format: FORMAT, used })
    }
}

/// The key of a token's last use: a part of its digest, so that a later token of the same name has a separate one.
pub(super) fn use_key(digest: &Digest) -> String {
    URL_SAFE_NO_PAD.encode(&digest[..12])
}

/// Reads an entry of the store.
pub(super) async fn load(store: &Arc<dyn SecureStore>, entry: &str) -> Result<Option<Sealed>, TokenError> {
    store.get(entry).await.map_err(|error| TokenError::store("tokens cannot be read from the secure storage", &error))
}

fn read<T: serde::de::DeserializeOwned>(entry: &str, bytes: &[u8]) -> Result<T, TokenError> {
    json::typed_bytes(bytes).map_err(|error| damaged(entry, &error.to_string()))
}

fn write(document: &impl Serialize) -> Result<Vec<u8>, TokenError> {
    let failed = |error| TokenError::new(TokenErrorKind::Store, format!("tokens cannot be written as JSON: {error}"));
    serde_json::to_vec(document).map_err(failed)
}

fn damaged(entry: &str, reason: &str) -> TokenError {
    let message = format!(
        "`{entry}` in the secure storage cannot be used: {reason}; restore it from a backup, or remove it there and \
         create new tokens"
    );
    TokenError::new(TokenErrorKind::Store, message)
}

mod digest_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(digest))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(D::Error::custom)?;
        Digest::try_from(bytes).map_err(|_| D::Error::custom("expected a digest of 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> Record {
        let models = vec!["order".to_owned()];
        Record {
            name: name.to_owned(),
            digest: [7; 32],
            role: Role::Writer,
            models,
            created_at: 5,
            expires_at: Some(9),
        }
    }

    #[test]
    fn lists_are_read_as_they_were_written() {
        let records = [record("a"), record("b")];
        let bytes = List::encode(&records).unwrap();
        assert_eq!(List::decode(&bytes).unwrap().tokens, records);
        assert!(List::decode(&List::encode(&[]).unwrap()).unwrap().tokens.is_empty());
    }

    #[test]
    fn anything_else_is_no_list() {
        let good = String::from_utf8(List::encode(&[record("a"), record("b")]).unwrap()).unwrap();
        for (from, to) in [
            (r#""format":1"#, r#""format":2"#),
            (r#""name":"b""#, r#""name":"a""#),
            (r#""name":"a""#, r#""name":"c""#),
            (r#""role":"writer""#, r#""role":"root""#),
            (r#""created_at":5"#, r#""created_at":5,"created_at":6"#),
            (r#""created_at":5"#, r#""created_at":5,"only_from":"10.0.0.0/8""#),
            ("BwcH", "Bw"),
            ("{", "age-encryption.org/v1"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            let error = List::decode(bad.as_bytes()).unwrap_err();
            assert!(error.kind() == TokenErrorKind::Store && error.to_string().contains(TOKENS), "{bad}: {error}");
        }
    }

    #[test]
    fn lists_are_bounded() {
        let records: Vec<Record> = (0..=TOKENS_MAX).map(|index| record(&format!("t{index:05}"))).collect();
        let bytes = List::encode(&records[..TOKENS_MAX]).unwrap();
        assert_eq!(List::decode(&bytes).unwrap().tokens.len(), TOKENS_MAX);
        assert_eq!(List::encode(&records).unwrap_err().kind(), TokenErrorKind::Invalid);
        let models = vec!["m".repeat(100); 100];
        let large: Vec<Record> =
            records.iter().take(500).map(|r| Record { models: models.clone(), ..r.clone() }).collect();
        assert!(List::encode(&large).unwrap_err().to_string().contains("4194304 bytes"));
    }
}
