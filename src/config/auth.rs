//! `[auth]`: who may use the API.

use std::path::{Path, PathBuf};

use snaphook_identity::{Oidc, OidcSettings};

use super::document::Section;

/// File of the first token.
const ADMIN_TOKEN: &str = "data/admin.token";

/// `[auth]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthConfig {
    pub mode: AuthMode,
    /// An issuer whose tokens are also accepted, in [`AuthMode::Tokens`].
    pub oidc: Option<OidcSettings>,
    /// The file for the first token; an absolute path.
    pub admin_token: PathBuf,
}

impl AuthConfig {
    /// The mode without tokens.
    pub(super) fn open(directory: &Path) -> AuthConfig {
        AuthConfig { mode: AuthMode::Open, oidc: None, admin_token: directory.join(ADMIN_TOKEN) }
    }
}

/// `[auth] mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    Tokens,
    Open,
}

/// Reads the table and the line of the mode.
pub(super) fn auth(root: &mut Section<'_>, directory: &Path) -> (Option<AuthConfig>, Option<usize>) {
    let mut auth = root.section("auth");
    let mode = auth.string("mode");
    let line = mode.as_ref().map(|text| text.place.line).or(auth.line);
    let mode = match mode {
        // An invalid word was already reported; it has no further effect.
        Some(text) => text.word(&[("tokens", AuthMode::Tokens), ("open", AuthMode::Open)]),
        None => Some(AuthMode::Tokens),
    };
    let oidc = auth.value("oidc").and_then(|value| value.section()).and_then(oidc);
    auth.finish();
    (mode.map(|mode| AuthConfig { mode, oidc, admin_token: directory.join(ADMIN_TOKEN) }), line)
}

fn oidc(mut section: Section<'_>) -> Option<OidcSettings> {
    let mut required = |key: &'static str, expected: &str| {
        let text = section.string(key);
        if !section.was_there(key) {
            section.missing(key, expected);
        }
        text
    };
    let issuer = required("issuer", "the address of the issuer, as it writes it in `iss`");
    let audience = required("audience", "what tokens for this server have in `aud`");
    let role = required("role", "the path of the claim with the role, such as 'claims.role'");
    let models = section.string("models").map(|text| text.value);
    section.finish();
    let issuer = issuer?;
    let settings = OidcSettings { issuer: issuer.value.clone(), audience: audience?.value, role: role?.value, models };
    if let Err(reason) = Oidc::check(&settings) {
        issuer.place.error(format!("is not a usable issuer: {reason}"));
        return None;
    }
    Some(settings)
}
