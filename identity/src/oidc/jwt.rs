//! Signed tokens (RFC 7519, RFC 8725): parsed strictly, and the signature is verified before any claim is used.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use snaphook_driver::json::{self, Limits};
use snaphook_driver::time::Millis;

use super::jwk::{Algorithm, KeySet};
use crate::claims::Claims;

/// Longest token.
pub(crate) const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Maximum size of claims, which stay in memory while their token counts as verified.
pub const CLAIMS_BYTES_MAX: usize = 8 << 10;
/// Longest subject, as defined by OpenID Connect.
const SUBJECT_BYTES_MAX: usize = 255;
/// How far the issuer's clock and this one may differ.
const SKEW_SECONDS: f64 = 60.0;
/// The accepted types of tokens. Tokens for other purposes, such as `logout+jwt`, are rejected.
const TYPES: [&str; 4] = ["jwt", "at+jwt", "application/jwt", "application/at+jwt"];

/// A token with a valid signature and valid claims.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) subject: String,
    pub(super) claims: Claims,
    pub(super) expires_at: Millis,
}

/// Why a token is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No key has its id; the issuer may have newer ones.
    UnknownKey,
    Malformed(&'static str),
    Refused(String),
}

fn refused(reason: impl Into<String>) -> Refusal {
    Refusal::Refused(reason.into())
}

/// Whether a text may be a signed token: three parts.
pub(super) fn has_form(token: &[u8]) -> bool {
    token.iter().filter(|byte| **byte == b'.').count() == 2
}

pub(super) fn verify(
    token: &str,
    keys: &KeySet,
    issuer: &str,
    audience: &str,
    now: Millis,
) -> Result<Verified, Refusal> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::Malformed("the token has more than 16 KiB"));
    }
    let (signed, signature) =
        token.rsplit_once('.').ok_or(Refusal::Malformed("the token does not have three parts"))?;
    let (header, payload) = signed.split_once('.').ok_or(Refusal::Malformed("the token does not have three parts"))?;
    if payload.contains('.') {
        return Err(Refusal::Malformed("the token has more than three parts"));
    }
    let decode = |part: &str| {
        URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed("a part of the token is not base64url"))
    };
    let (header, signature) = (decode(header)?, decode(signature)?);
    let header =
        json::utf8(&header).ok().and_then(|text| json::parse_within(text, Limits { depth: 8, values: 64 }).ok());
    let Some((Value::Object(header), _)) = header else {
        return Err(Refusal::Malformed("the header of the token is not a JSON object with unique names"));
    };
    let algorithm = check_header(&header)?;
    let id = match header.get("kid") {
        None => None,
        Some(id) => Some(id.as_str().ok_or_else(|| refused("`kid` is not a string"))?),
    };
    let mut candidates = keys.candidates(id).peekable();
    candidates.peek().ok_or(Refusal::UnknownKey)?;
    let mut fitting = candidates.filter(|key| key.is_for(algorithm)).peekable();
    fitting.peek().ok_or_else(|| refused(format!("its key is not for `{algorithm:?}`")))?;
    if !fitting.any(|key| key.verify(algorithm, signed.as_bytes(), &signature)) {
        return Err(refused("its signature is wrong"));
    }
    let payload = decode(payload)?;
    if payload.len() > CLAIMS_BYTES_MAX {
        let size = payload.len();
        return Err(refused(format!(
            "its claims have {size} bytes, expected at most {CLAIMS_BYTES_MAX}; let the issuer send fewer"
        )));
    }
    let claims = json::utf8(&payload)
        .and_then(Claims::parse)
        .map_err(|error| refused(format!("its claims cannot be read: {error}")))?;
    check_claims(claims, issuer, audience, now)
}

fn check_header(header: &Map<String, Value>) -> Result<Algorithm, Refusal> {
    // Critical extensions, of which this server supports none.
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(refused("its header requires an extension (`crit` or `b64`), which is not supported"));
    }
    if let Some(name) = header.get("typ") {
        let is_known = name.as_str().is_some_and(|name| TYPES.iter().any(|known| known.eq_ignore_ascii_case(name)));
        if !is_known {
            return Err(refused(format!("its type is {}, expected `JWT` or `at+jwt`", shown(name))));
        }
    }
    let name = header.get("alg").ok_or_else(|| refused("its header has no `alg`"))?;
    name.as_str()
        .and_then(Algorithm::parse)
        .ok_or_else(|| refused(format!("its algorithm is {}, which is not accepted", shown(name))))
}

fn check_claims(claims: Claims, issuer: &str, audience: &str, now: Millis) -> Result<Verified, Refusal> {
    let tree = claims.tree();
    if !tree.is_object() {
        return Err(refused("its claims are not an object"));
    }
    let now = now as f64 / 1000.0;
    if tree.get("iss").and_then(Value::as_str) != Some(issuer) {
        return Err(refused(format!("`iss` is {}, expected `{issuer}`", shown(&tree["iss"]))));
    }
    let is_for_us = match &tree["aud"] {
        Value::String(one) => one == audience,
        Value::Array(all) => all.iter().all(Value::is_string) && all.iter().any(|one| one == audience),
        _ => false,
    };
    if !is_for_us {
        return Err(refused(format!("`aud` is {}, expected `{audience}`", shown(&tree["aud"]))));
    }
    let expires = seconds(tree, "exp")?.ok_or_else(|| refused("it has no `exp`"))?;
    if expires + SKEW_SECONDS <= now {
        return Err(refused(format!("it expired {:.0} s ago", now - expires)));
    }
    if let Some(from) = seconds(tree, "nbf")?.filter(|from| *from > now + SKEW_SECONDS) {
        return Err(refused(format!("it becomes valid in {:.0} s (`nbf`)", from - now)));
    }
    let subject = tree.get("sub").and_then(Value::as_str).unwrap_or_default();
    if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX || subject.chars().any(char::is_control) {
        return Err(refused(format!(
            "`sub` is {}, expected a string of 1 to {SUBJECT_BYTES_MAX} bytes without control characters",
            shown(&tree["sub"])
        )));
    }
    let subject = subject.to_owned();
    // A time that exceeds the range of milliseconds becomes its maximum.
    Ok(Verified { subject, claims, expires_at: (expires * 1000.0) as Millis })
}

fn seconds(tree: &Value, name: &str) -> Result<Option<f64>, Refusal> {
    let Some(value) = tree.get(name) else { return Ok(None) };
    let number = value.is_number().then(|| value.as_f64()).flatten().filter(|number| number.is_finite());
    number.map(Some).ok_or_else(|| refused(format!("`{name}` is {}, expected seconds since 1970", shown(value))))
}

/// A value for the log.
pub(super) fn shown(value: &Value) -> String {
    const CHARS_MAX: usize = 100;
    let text = value.to_string();
    let mut short = text.chars().take(CHARS_MAX).collect::<String>().escape_debug().to_string();
    if text.chars().nth(CHARS_MAX).is_some() {
        short.push('…');
    }
    format!("`{short}`")
}

#[cfg(test)]
mod tests;
