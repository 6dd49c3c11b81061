//! Callers with a token of an OpenID Connect issuer: a JWT that the issuer signed for this server.
//!
//! The issuer's keys are fetched in the background, and at most every 10 s when a token has an unknown key. While the
//! issuer does not respond, the known keys stay in use for up to [`KEYS_AGE_MAX`]. A verified token is not checked
//! again for [`VERIFIED_FOR`], unless it expires or the issuer's keys change sooner.

mod cache;
mod discovery;
mod jwk;
mod jwt;
mod keys;
mod mapping;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest as hash};
use snaphook_driver::time::Millis;
use tokio::task::AbortHandle;

pub use jwt::CLAIMS_BYTES_MAX;
pub(crate) use jwt::TOKEN_BYTES_MAX;
pub use keys::KEYS_AGE_MAX;

use crate::caller::Caller;
use crate::denied::{Denied, DeniedKind};
use cache::{Cache, Known};
use discovery::Discovery;
use jwt::Refusal;
use keys::{Asked, Current, Keys};
use mapping::Mapping;

/// How long a verified token is not checked again.
pub const VERIFIED_FOR: Duration = Duration::from_secs(180);

/// `[auth.oidc]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcSettings {
    /// Exactly as in `iss` and in the issuer's description.
    pub issuer: String,
    /// The value that `aud` must contain.
    pub audience: String,
    /// The path of the claim with the role, such as `claims.role`.
    pub role: String,
    /// The path of the claim with the models; `None`: all models.
    pub models: Option<String>,
}

/// One issuer.
pub struct Oidc {
    issuer: String,
    audience: String,
    mapping: Mapping,
    keys: Arc<Keys>,
    cache: Cache,
    following: AbortHandle,
}

impl Oidc {
    /// Starts to fetch the keys without waiting for them. Needs a Tokio runtime. An error names the invalid setting.
    pub fn new(settings: &OidcSettings) -> Result<Oidc, String> {
        let (mapping, discovery) = read(settings)?;
        let OidcSettings { issuer, audience, .. } = settings.clone();
        let keys = Arc::new(Keys::new(&issuer));
        let following = tokio::spawn({
            let keys = Arc::clone(&keys);
            async move { keys.follow(discovery).await }
        });
        let following = following.abort_handle();
        Ok(Oidc { issuer, audience, mapping, keys, cache: Cache::default(), following })
    }

    /// Only checks the settings, for a configuration that is not in use yet.
    pub fn check(settings: &OidcSettings) -> Result<(), String> {
        read(settings).map(drop)
    }

    /// Whether a text may be a token of an issuer.
    pub(crate) fn is_jwt(token: &[u8]) -> bool {
        jwt::has_form(token)
    }

    /// The caller of a token, if it was verified recently. Neither waits nor allocates.
    pub fn known(&self, token: &[u8], now: Millis) -> Option<Arc<Caller>> {
        let current = self.keys.current();
        current.is_usable(Instant::now()).then(|| self.cache.get(&digest(token), current.generation, now)).flatten()
    }

    /// The caller of a token. Only waits for the issuer if the token has an unknown key.
    pub async fn verify(&self, token: &str, now: Millis) -> Result<Arc<Caller>, Denied> {
        let current = self.keys.current().clone();
        let first = match current.is_usable(Instant::now()) {
            true => self.check_token(token, &current, now),
            false => None,
        };
        if let Some(result) = first {
            return result;
        }
        let asked = self.keys.ask().await;
        let current = self.keys.current().clone();
        let again = match current.is_usable(Instant::now()) {
            true => self.check_token(token, &current, now),
            false => None,
        };
        again.unwrap_or_else(|| {
            Err(match asked {
                Asked::Answered => {
                    Denied::new(DeniedKind::Refused, "the token of the issuer: its key is not one of the issuer's keys")
                }
                Asked::Unavailable => Denied::new(
                    DeniedKind::Unavailable,
                    "the token of the issuer: its key is unknown, and the issuer does not respond",
                ),
            })
        })
    }

    /// `None` if its key is not in the set.
    fn check_token(&self, token: &str, current: &Current, now: Millis) -> Option<Result<Arc<Caller>, Denied>> {
        let refused = |reason: &str| Denied::new(DeniedKind::Refused, format!("the token of the issuer: {reason}"));
        let verified = match jwt::verify(token, &current.set, &self.issuer, &self.audience, now) {
            Ok(verified) => verified,
            Err(Refusal::UnknownKey) => return None,
            Err(Refusal::Malformed(reason)) => return Some(Err(Denied::new(DeniedKind::Malformed, reason))),
            Err(Refusal::Refused(reason)) => return Some(Err(refused(&reason))),
        };
        let (role, models) = match self.mapping.apply(&verified.claims) {
            Ok(rights) => rights,
            Err(reason) => return Some(Err(refused(&reason))),
        };
        let caller = Arc::new(Caller::of_issuer(verified.subject, verified.claims, role, models));
        let until = verified.expires_at.min(now.saturating_add(VERIFIED_FOR.as_millis() as Millis));
        let known = Known { caller: Arc::clone(&caller), until, keys: current.generation };
        self.cache.put(digest(token.as_bytes()), known);
        Some(Ok(caller))
    }
}

impl Drop for Oidc {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl fmt::Debug for Oidc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oidc").field("issuer", &self.issuer).field("audience", &self.audience).finish_non_exhaustive()
    }
}

fn read(settings: &OidcSettings) -> Result<(Mapping, Discovery), String> {
    if settings.audience.is_empty() {
        return Err("`audience` is empty, expected the `aud` of the issuer's tokens".to_owned());
    }
    Ok((Mapping::new(&settings.role, settings.models.as_deref())?, Discovery::new(&settings.issuer)?))
}

fn digest(token: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash(&SHA256, token).as_ref());
    bytes
}
