//! Authentication: from the header `Authorization` to a caller.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use snaphook_driver::time::Millis;

use crate::attempts::Attempts;
use crate::caller::Caller;
use crate::denied::{Denied, DeniedKind};
use crate::oidc::{Oidc, TOKEN_BYTES_MAX};
use crate::tokens::Tokens;

/// Longest value of the header.
pub const AUTHORIZATION_BYTES_MAX: usize = TOKEN_BYTES_MAX + 32;

/// How callers are identified, according to `[auth]`.
#[derive(Debug)]
pub struct Identity {
    way: Way,
    /// Shared, so that a reload of the configuration keeps the counts.
    attempts: Arc<Attempts>,
}

#[derive(Debug)]
enum Way {
    Open(Arc<Caller>),
    Tokens { tokens: Arc<Tokens>, oidc: Option<Arc<Oidc>> },
}

impl Identity {
    /// `mode = 'open'`: every caller is anonymous and an admin. The header is ignored.
    pub fn open() -> Identity {
        Identity { way: Way::Open(Arc::new(Caller::anonymous())), attempts: Arc::default() }
    }

    /// `mode = 'tokens'`, with or without an issuer.
    pub fn with_tokens(tokens: Arc<Tokens>, oidc: Option<Arc<Oidc>>, attempts: Arc<Attempts>) -> Identity {
        Identity { way: Way::Tokens { tokens, oidc }, attempts }
    }

    /// Identifies the caller. `address` is the client's address, also behind trusted proxies. For a known token this
    /// neither waits nor allocates; for an issuer's new key it waits for the issuer, and repeated failures of an
    /// address are delayed by up to a second.
    pub async fn identify(
        &self,
        authorization: Option<&[u8]>,
        address: IpAddr,
        now: Millis,
    ) -> Result<Arc<Caller>, Denied> {
        let (tokens, oidc) = match &self.way {
            Way::Open(anonymous) => return Ok(Arc::clone(anonymous)),
            Way::Tokens { tokens, oidc } => (tokens, oidc),
        };
        let header = authorization.ok_or_else(|| Denied::new(DeniedKind::Missing, "no `Authorization` was sent"))?;
        let result = match bearer(header) {
            Err(denied) => Err(denied),
            Ok(token) => match oidc {
                _ if Tokens::is_ours(token) => tokens.verify(token, now),
                Some(oidc) if Oidc::is_jwt(token) => match oidc.known(token, now) {
                    Some(caller) => Ok(caller),
                    // Boxed, so that the future of every request is small.
                    None => Box::pin(verify(oidc, token, now)).await,
                },
                Some(_) => Err(Denied::new(
                    DeniedKind::Malformed,
                    "the token was issued neither by this server nor by the issuer",
                )),
                None => Err(Denied::new(DeniedKind::Malformed, "the token was not issued by this server")),
            },
        };
        match &result {
            Ok(_) => self.attempts.succeeded(address),
            Err(denied) if denied.kind().is_attempt() => {
                let delay = self.attempts.failed(address, Instant::now());
                if delay > Duration::ZERO {
                    tokio::time::sleep(delay).await;
                }
            }
            Err(_) => {}
        }
        result
    }

    /// Failed attempts since the start, for the metrics.
    pub fn failed_attempts(&self) -> u64 {
        self.attempts.total()
    }
}

async fn verify(oidc: &Oidc, token: &[u8], now: Millis) -> Result<Arc<Caller>, Denied> {
    match std::str::from_utf8(token) {
        Ok(token) => oidc.verify(token, now).await,
        Err(_) => Err(Denied::new(DeniedKind::Malformed, "the token is not UTF-8")),
    }
}

/// The token of `Bearer <token>` (RFC 6750). The scheme's case does not count.
fn bearer(header: &[u8]) -> Result<&[u8], Denied> {
    let malformed = |reason| Denied::new(DeniedKind::Malformed, reason);
    if header.len() > AUTHORIZATION_BYTES_MAX {
        return Err(malformed("`Authorization` has more than 16 KiB"));
    }
    let (scheme, rest) = header.split_at(header.iter().position(|byte| *byte == b' ').unwrap_or(header.len()));
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(malformed("`Authorization` has a scheme other than `Bearer`"));
    }
    let token = rest.trim_ascii();
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    match !token.is_empty() && token.iter().all(is_part) {
        true => Ok(token),
        false => Err(malformed("`Authorization` has no token after `Bearer`, or one with invalid characters")),
    }
}

#[cfg(test)]
mod tests {
    use snaphook_driver::OpenContext;

    use super::*;
    use crate::role::Role;
    use crate::tokens::TokenRequest;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    async fn identity() -> (Identity, String) {
        let store =
            snaphook_memory::DRIVER.secure.unwrap()(OpenContext::new(serde_json::Map::new(), "")).await.unwrap();
        let tokens = Arc::new(Tokens::open(store).await.unwrap());
        let request = TokenRequest { name: "ci".to_owned(), role: Role::Writer, models: None, expires_at: None };
        let token = tokens.make(request, 0).await.unwrap().token.expose().to_owned();
        (Identity::with_tokens(tokens, None, Arc::default()), token)
    }

    #[tokio::test]
    async fn headers_are_read_strictly() {
        let (identity, token) = identity().await;
        let rows = [
            (format!("Bearer {token}"), None),
            (format!("bearer {token}"), None),
            (format!("BEARER   {token} "), None),
            (token.clone(), Some(DeniedKind::Malformed)),
            (format!("Bearer{token}"), Some(DeniedKind::Malformed)),
            (format!("Bearer\t{token}"), Some(DeniedKind::Malformed)),
            (format!("Bearer {token} {token}"), Some(DeniedKind::Malformed)),
            (format!("Bearer {token},{token}"), Some(DeniedKind::Malformed)),
            (format!("Basic {token}"), Some(DeniedKind::Malformed)),
            ("Bearer".to_owned(), Some(DeniedKind::Malformed)),
            ("Bearer ".to_owned(), Some(DeniedKind::Malformed)),
            (String::new(), Some(DeniedKind::Malformed)),
            ("Bearer ü".to_owned(), Some(DeniedKind::Malformed)),
            ("Bearer a.b.c".to_owned(), Some(DeniedKind::Malformed)),
            (format!("Bearer {}", "a".repeat(20_000)), Some(DeniedKind::Malformed)),
        ];
        for (header, expected) in rows {
            let result = identity.identify(Some(header.as_bytes()), HERE, 1).await;
            identity.attempts.succeeded(HERE);
            assert_eq!(result.as_ref().err().map(Denied::kind), expected, "{header}: {result:?}");
            assert!(result.is_ok_and(|caller| caller.actor.id == "ci") || expected.is_some());
        }
        assert_eq!(identity.identify(None, HERE, 1).await.unwrap_err().kind(), DeniedKind::Missing);
        assert_eq!(identity.failed_attempts(), 12);
    }

    #[tokio::test]
    async fn failures_wait_and_good_tokens_do_not() {
        let (identity, token) = identity().await;
        let good = format!("Bearer {token}");
        let started = Instant::now();
        for _ in 0..9 {
            assert!(identity.identify(Some(b"Bearer wrong"), HERE, 1).await.is_err());
            assert!(identity.identify(None, HERE, 1).await.is_err());
        }
        let tenth = Instant::now();
        assert!(identity.identify(Some(b"Bearer wrong"), HERE, 1).await.is_err());
        assert!(tenth.elapsed() >= Duration::from_millis(100));
        assert!(tenth - started < Duration::from_millis(100), "the first nine do not wait");
        // A valid token is accepted while a failure is being delayed.
        let waiting = identity.identify(Some(b"Bearer wrong"), HERE, 1);
        let begun = Instant::now();
        tokio::select! {
            biased;
            _ = waiting => panic!("the failure did not wait"),
            caller = identity.identify(Some(good.as_bytes()), HERE, 1) => assert_eq!(caller.unwrap().actor.id, "ci"),
        }
        assert!(begun.elapsed() < Duration::from_millis(100));
        let next = Instant::now();
        assert!(identity.identify(Some(b"Bearer wrong"), HERE, 1).await.is_err());
        assert!(next.elapsed() < Duration::from_millis(100), "a good token ends the row");
    }

    #[tokio::test]
    async fn in_open_mode_everyone_is_anonymous() {
        let identity = Identity::open();
        for header in [None, Some(&b"Bearer wrong"[..]), Some(b"\xff")] {
            let caller = identity.identify(header, HERE, 1).await.unwrap();
            assert!(caller.is_admin() && !caller.bypasses_rules());
        }
        assert_eq!(identity.failed_attempts(), 0);
    }
}
