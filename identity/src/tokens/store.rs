//! The list of tokens: reads and changes it in the store, and caches it in memory.

use std::sync::Arc;

use arc_swap::ArcSwap;
use snaphook_driver::{ErrorKind, Sealed, SecureStore};
use tokio::sync::{Mutex, MutexGuard};

use super::document::{List, Record, TOKENS, load};
use super::error::{TokenError, TokenErrorKind};
use super::live::Live;

/// How often a change starts again because another node changed the list first.
const TRIES_MAX: usize = 20;

pub(super) struct TokenStore {
    pub(super) store: Arc<dyn SecureStore>,
    pub(super) live: ArcSwap<Live>,
    /// Locked while the list is read or changed, so that an earlier read never replaces a later change.
    pub(super) turn: Mutex<()>,
}

impl TokenStore {
    pub(super) fn new(store: Arc<dyn SecureStore>) -> TokenStore {
        TokenStore { store, live: ArcSwap::from_pointee(Live::default()), turn: Mutex::new(()) }
    }

    /// Reads the list again if it has changed.
    pub(super) async fn refresh(&self) -> Result<(), TokenError> {
        let turn = self.turn.lock().await;
        self.read(&turn).await
    }

    pub(super) async fn add(&self, record: Record) -> Result<(), TokenError> {
        self.change(|tokens| match find(tokens, &record.name) {
            // An earlier attempt of this change with an unknown outcome has succeeded.
            Ok(at) if tokens[at].digest == record.digest => Ok(false),
            Ok(_) => {
                let message =
                    format!("a token `{}` already exists; revoke it first, or choose another name", record.name);
                Err(TokenError::new(TokenErrorKind::Exists, message))
            }
            Err(at) => {
                tokens.insert(at, record.clone());
                Ok(true)
            }
        })
        .await
    }

    /// The same, but only if there is no token.
    pub(super) async fn add_first(&self, record: Record) -> Result<(), TokenError> {
        self.change(|tokens| match tokens.first() {
            None => {
                tokens.push(record.clone());
                Ok(true)
            }
            Some(first) if first.digest == record.digest => Ok(false),
            Some(_) => Err(TokenError::new(TokenErrorKind::Exists, "there are already tokens")),
        })
        .await
    }

    pub(super) async fn remove(&self, name: &str) -> Result<(), TokenError> {
        let mut tried = false;
        self.change(|tokens| match find(tokens, name) {
            Ok(at) => {
                tokens.remove(at);
                tried = true;
                Ok(true)
            }
            // An earlier attempt of this change with an unknown outcome, or a concurrent change, has succeeded.
            Err(_) if tried => Ok(false),
            Err(_) => Err(TokenError::new(TokenErrorKind::NotFound, format!("there is no token `{name}`"))),
        })
        .await
    }

    /// Changes the list with compare-and-set. `edit` returns whether there is anything to change, and may be called
    /// again.
    async fn change(
        &self,
        mut edit: impl FnMut(&mut Vec<Record>) -> Result<bool, TokenError>,
    ) -> Result<(), TokenError> {
        let turn = self.turn.lock().await;
        let mut unknown = None;
        for _ in 0..TRIES_MAX {
            self.read(&turn).await?;
            let live = self.live.load_full();
            let mut records: Vec<Record> = live.entries.iter().map(|entry| entry.record.clone()).collect();
            if !edit(&mut records)? {
                return Ok(());
            }
            let bytes = List::encode(&records)?;
            let expected = live.source.as_ref().map_or(0, |(version, _)| *version);
            match self.store.put(TOKENS, &bytes, Some(expected)).await {
                Ok(version) => {
                    self.live.store(Arc::new(Live::new(Some((version, bytes)), records, &live)?));
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                // The next read shows the outcome.
                Err(error) if error.kind() == ErrorKind::Uncertain && unknown.is_none() => unknown = Some(error),
                Err(error) => return Err(TokenError::store("tokens cannot be written to the secure storage", &error)),
            }
        }
        let message = "other nodes kept changing the tokens; try again";
        Err(TokenError::new(TokenErrorKind::Store, message))
    }

    async fn read(&self, _turn: &MutexGuard<'_, ()>) -> Result<(), TokenError> {
        let stored = load(&self.store, TOKENS).await?;
        let before = self.live.load_full();
        let is_same = match (&stored, &before.source) {
            (None, None) => true,
            (Some(Sealed { bytes, version }), Some(known)) => known.0 == *version && known.1 == *bytes,
            _ => false,
        };
        if is_same {
            return Ok(());
        }
        let list = stored.as_ref().map(|stored| List::decode(&stored.bytes)).transpose()?.unwrap_or_default();
        let source = stored.map(|stored| (stored.version, stored.bytes));
        self.live.store(Arc::new(Live::new(source, list.tokens, &before)?));
        Ok(())
    }
}

fn find(tokens: &[Record], name: &str) -> Result<usize, usize> {
    tokens.binary_search_by(|record| record.name.as_str().cmp(name))
}
