//! Tokens of this server: created, listed and revoked in the store, and verified in memory.
//!
//! All nodes with the same secure store share its tokens. Each keeps them in memory and reads the list again every
//! [`REFRESH_INTERVAL`], so a token that was revoked elsewhere is rejected here within 5 s while the store responds.
//! While it does not, the last known tokens stay valid, and this is logged.

mod document;
mod error;
mod first;
mod live;
mod refresh;
mod request;
mod store;
mod text;
mod uses;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use snaphook_driver::SecureStore;
use snaphook_driver::time::Millis;
use tokio::task::AbortHandle;

pub use document::TOKENS_MAX;
pub use error::{TokenError, TokenErrorKind};
pub use refresh::{REFRESH_INTERVAL, USAGE_INTERVAL};
pub use request::{MadeToken, TokenInfo, TokenRequest};
pub use text::TokenText;

use crate::caller::Caller;
use crate::denied::Denied;
use document::{Uses, use_key};
use live::NEVER;
use request::check_name;
use store::TokenStore;

/// The tokens of a secure store.
pub struct Tokens {
    shared: Arc<TokenStore>,
    refreshing: AbortHandle,
}

impl Tokens {
    /// Reads all tokens, and keeps reading the changes of other nodes. Needs a Tokio runtime.
    pub async fn open(store: Arc<dyn SecureStore>) -> Result<Tokens, TokenError> {
        let shared = Arc::new(TokenStore::new(store));
        shared.refresh().await?;
        let refreshing = tokio::spawn(refresh::run(Arc::clone(&shared))).abort_handle();
        Ok(Tokens { shared, refreshing })
    }

    /// Whether a text looks like a token of a Snaphook server.
    pub fn is_ours(token: &[u8]) -> bool {
        token.starts_with(text::PREFIX.as_bytes())
    }

    /// The caller of a token. Neither waits nor allocates.
    pub fn verify(&self, token: &[u8], now: Millis) -> Result<Arc<Caller>, Denied> {
        self.shared.live.load().verify(token, now)
    }

    /// Creates a token, which is valid here at once and on other nodes within 5 s.
    pub async fn make(&self, request: TokenRequest, now: Millis) -> Result<MadeToken, TokenError> {
        let token = generate()?;
        let record = request.record(token.digest(), now)?;
        let info = TokenInfo::new(&record, None);
        let shared = Arc::clone(&self.shared);
        to_its_end(async move { shared.add(record).await }).await?;
        Ok(MadeToken { info, token })
    }

    /// All tokens by name, with their last uses.
    pub async fn list(&self) -> Result<Vec<TokenInfo>, TokenError> {
        self.shared.refresh().await?;
        let stored = document::load(&self.shared.store, document::USES).await?;
        let uses = stored.map(|stored| Uses::decode(&stored.bytes)).transpose()?.unwrap_or_default();
        let live = self.shared.live.load();
        let infos = live.entries.iter().map(|entry| {
            let here = Some(entry.last_used.load(Ordering::Relaxed)).filter(|used| *used != NEVER);
            let elsewhere = uses.used.get(&use_key(&entry.record.digest)).copied();
            TokenInfo::new(&entry.record, here.max(elsewhere))
        });
        Ok(infos.collect())
    }

    /// Revokes a token: here at once, on other nodes within 5 s.
    pub async fn revoke(&self, name: &str) -> Result<(), TokenError> {
        check_name(name)?;
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        to_its_end(async move { shared.remove(&name).await }).await
    }

    /// Writes the last uses that are not stored yet, and stops the background task. Called at the end of the server,
    /// before its stores are closed.
    pub async fn close(&self) -> Result<(), TokenError> {
        self.refreshing.abort();
        self.shared.write_uses().await
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        self.refreshing.abort();
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("count", &self.shared.live.load().entries.len()).finish_non_exhaustive()
    }
}

/// Runs a change to its end even if the caller no longer waits for it, so that the store and the tokens in memory do not
/// differ because a client disconnected.
async fn to_its_end(change: impl Future<Output = Result<(), TokenError>> + Send + 'static) -> Result<(), TokenError> {
    let failed = |error| TokenError::new(TokenErrorKind::Store, format!("the tokens cannot be changed: {error}"));
    tokio::spawn(change).await.unwrap_or_else(|error| Err(failed(error)))
}

fn generate() -> Result<TokenText, TokenError> {
    let failed = || TokenError::new(TokenErrorKind::Store, "the system provides no random numbers for a token");
    TokenText::generate().ok_or_else(failed)
}

#[cfg(test)]
mod tests;
