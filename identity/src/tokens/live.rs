//! The tokens in memory, found by their digests.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use snaphook_driver::time::{self, Millis};
use snaphook_driver::{Actor, ActorKind};
use subtle::ConstantTimeEq as _;

use super::document::Record;
use super::error::{TokenError, TokenErrorKind};
use super::text;
use crate::caller::Caller;
use crate::denied::{Denied, DeniedKind};
use crate::role::Role;
use crate::scope::Scope;

/// A last use is recorded at most this often, so that concurrent requests with one token do not contend for a cache
/// line.
const NOTE_INTERVAL: Millis = 1000;
/// The token was never used.
pub(super) const NEVER: Millis = Millis::MIN;

/// All tokens as they were last read.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// The bytes and version from which they were read; `None` if the store has no list.
    pub(super) source: Option<(u64, Vec<u8>)>,
    by_digest: HashMap<[u8; 16], Arc<LiveToken>>,
    /// Sorted by name.
    pub(super) entries: Vec<Arc<LiveToken>>,
}

#[derive(Debug)]
pub(super) struct LiveToken {
    pub(super) record: Record,
    caller: Arc<Caller>,
    pub(super) last_used: AtomicI64,
    /// The last use that this node has stored.
    pub(super) written: AtomicI64,
}

impl Live {
    /// Keeps the state of tokens that still exist.
    pub(super) fn new(source: Option<(u64, Vec<u8>)>, records: Vec<Record>, before: &Live) -> Result<Live, TokenError> {
        let entry = |record: Record| match before.by_digest.get(&index(&record.digest)) {
            Some(known) if known.record == record => Ok(Arc::clone(known)),
            _ => LiveToken::new(record).map(Arc::new),
        };
        let entries: Vec<Arc<LiveToken>> = records.into_iter().map(entry).collect::<Result<_, _>>()?;
        let by_digest = entries.iter().map(|entry| (index(&entry.record.digest), Arc::clone(entry))).collect();
        Ok(Live { source, by_digest, entries })
    }

    /// The caller of a token. The time does not depend on how much of a digest matches.
    pub(super) fn verify(&self, token: &[u8], now: Millis) -> Result<Arc<Caller>, Denied> {
        if !text::is_token(token) {
            return Err(Denied::new(
                DeniedKind::Malformed,
                "the token is incomplete or mistyped: its checksum is wrong",
            ));
        }
        let digest = text::digest(token);
        let found = self.by_digest.get(&index(&digest));
        let Some(entry) = found.filter(|entry| bool::from(entry.record.digest.ct_eq(&digest))) else {
            return Err(Denied::new(DeniedKind::Refused, "the token is unknown or was revoked"));
        };
        if let Some(expired) = entry.record.expires_at.filter(|expires| *expires <= now) {
            let reason = format!("the token `{}` expired at {}", entry.record.name, time::format(expired));
            return Err(Denied::new(DeniedKind::Refused, reason));
        }
        if now >= entry.last_used.load(Ordering::Relaxed).saturating_add(NOTE_INTERVAL) {
            entry.last_used.store(now, Ordering::Relaxed);
        }
        Ok(Arc::clone(&entry.caller))
    }
}

impl LiveToken {
    fn new(record: Record) -> Result<LiveToken, TokenError> {
        let models = match record.role {
            Role::Admin => Scope::ALL,
            _ => Scope::new(record.models.clone()).map_err(|reason| {
                let message = format!("the token `{}` in the secure storage cannot be used: {reason}", record.name);
                TokenError::new(TokenErrorKind::Store, message)
            })?,
        };
        let actor = Actor::new(ActorKind::Token, record.name.clone());
        let caller = Arc::new(Caller::new(actor, record.role, models));
        Ok(LiveToken { record, caller, last_used: AtomicI64::new(NEVER), written: AtomicI64::new(NEVER) })
    }
}

/// The part of a digest used for lookup. Its timing reveals nothing about tokens.
fn index(digest: &text::Digest) -> [u8; 16] {
    let mut index = [0; 16];
    index.copy_from_slice(&digest[..16]);
    index
}
