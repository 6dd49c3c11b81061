//! The request for a new token, and the public information about tokens.

use serde::{Serialize, Serializer};
use snaphook_driver::time::{self, Millis};

use super::document::Record;
use super::error::TokenError;
use super::text::{Digest, TokenText};
use crate::role::Role;
use crate::scope::Scope;

const NAME_CHARS_MAX: usize = 63;

/// A token to create.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// The token's name, which is also the `id` of its actor.
    pub name: String,
    pub role: Role,
    /// Ids of models or globs; `None` means all models. Admins always have all.
    pub models: Option<Vec<String>>,
    pub expires_at: Option<Millis>,
}

/// A created token: the only time that its text is available.
#[derive(Clone, Debug)]
pub struct MadeToken {
    pub info: TokenInfo,
    pub token: TokenText,
}

/// The public information about a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenInfo {
    pub name: String,
    pub role: Role,
    pub models: Vec<String>,
    #[serde(with = "time")]
    pub created_at: Millis,
    #[serde(serialize_with = "optional_time", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Millis>,
    /// Up to a minute late if another node served the use.
    #[serde(serialize_with = "optional_time", skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Millis>,
}

impl TokenRequest {
    /// Checks the request.
    pub(super) fn record(self, digest: Digest, now: Millis) -> Result<Record, TokenError> {
        let TokenRequest { name, role, models, expires_at } = self;
        check_name(&name)?;
        if expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(TokenError::invalid("`expires_at` is in the past, expected a time in the future"));
        }
        let scope = models.map_or(Ok(Scope::ALL), Scope::new).map_err(TokenError::invalid)?;
        if role == Role::Admin && !scope.is_all() {
            let message =
                "`models` limits readers and writers, an admin has access to all; omit it, or choose another role";
            return Err(TokenError::invalid(message));
        }
        Ok(Record { name, digest, role, models: scope.patterns(), created_at: now, expires_at })
    }
}

impl TokenInfo {
    pub(super) fn new(record: &Record, last_used_at: Option<Millis>) -> TokenInfo {
        let Record { name, role, models, created_at, expires_at, .. } = record.clone();
        TokenInfo { name, role, models, created_at, expires_at, last_used_at }
    }
}

/// Checks a name, which is used in events, logs and paths.
pub(super) fn check_name(name: &str) -> Result<(), TokenError> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let starts = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    if starts && name.len() <= NAME_CHARS_MAX && name.bytes().all(is_part) {
        return Ok(());
    }
    let shown: String = name.chars().take(NAME_CHARS_MAX).collect();
    Err(TokenError::invalid(format!(
        "`{}` is not a valid token name, expected 1 to {NAME_CHARS_MAX} letters, digits, `.`, `_` and `-`, the first a \
         letter or digit",
        shown.escape_debug()
    )))
}

fn optional_time<S: Serializer>(millis: &Option<Millis>, serializer: S) -> Result<S::Ok, S::Error> {
    match millis {
        Some(millis) => time::serialize(millis, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::TokenErrorKind;
    use super::*;

    fn request(name: &str, role: Role, models: Option<&[&str]>, expires_at: Option<Millis>) -> TokenRequest {
        let models = models.map(|models| models.iter().map(|model| (*model).to_owned()).collect());
        TokenRequest { name: name.to_owned(), role, models, expires_at }
    }

    #[test]
    fn requests_are_checked() {
        let long = "a".repeat(64);
        let rows = [
            (request("ci", Role::Reader, None, None), None),
            (request("CI.deploy_2-x", Role::Writer, Some(&["order", "a*"]), Some(101)), None),
            (request("a", Role::Admin, None, None), None),
            (request("a", Role::Admin, Some(&["*"]), None), None),
            (request("a", Role::Admin, Some(&["order"]), None), Some("an admin has access to all")),
            (request("a", Role::Reader, Some(&[]), None), Some("`models` is empty")),
            (request("a", Role::Reader, Some(&["A b"]), None), Some("is not a model id or glob")),
            (request("a", Role::Reader, None, Some(100)), Some("in the past")),
            (request("", Role::Reader, None, None), Some("is not a valid token name")),
            (request(".a", Role::Reader, None, None), Some("is not a valid token name")),
            (request("a/b", Role::Reader, None, None), Some("is not a valid token name")),
            (request("a\n", Role::Reader, None, None), Some("is not a valid token name")),
            (request("ä", Role::Reader, None, None), Some("is not a valid token name")),
            (request(&long, Role::Reader, None, None), Some("is not a valid token name")),
        ];
        for (request, expected) in rows {
            let shown = format!("{request:?}");
            match (request.record([0; 32], 100), expected) {
                (Ok(_), None) => {}
                (Err(error), Some(part)) => {
                    assert_eq!(error.kind(), TokenErrorKind::Invalid);
                    assert!(error.to_string().contains(part), "{shown}: {error}");
                }
                (result, _) => panic!("{shown}: {result:?}"),
            }
        }
    }

    #[test]
    fn infos_are_written_as_the_api_has_them() {
        let record = request("ci", Role::Writer, Some(&["a*"]), None).record([0; 32], 0).unwrap();
        assert_eq!(
            serde_json::to_string(&TokenInfo::new(&record, None)).unwrap(),
            r#"{"name":"ci","role":"writer","models":["a*"],"created_at":"1970-01-01T00:00:00.000Z"}"#
        );
        let record = Record { expires_at: Some(1000), ..record };
        assert_eq!(
            serde_json::to_string(&TokenInfo::new(&record, Some(5))).unwrap(),
            r#"{"name":"ci","role":"writer","models":["a*"],"created_at":"1970-01-01T00:00:00.000Z","expires_at":"1970-01-01T00:00:01.000Z","last_used_at":"1970-01-01T00:00:00.005Z"}"#
        );
    }
}
