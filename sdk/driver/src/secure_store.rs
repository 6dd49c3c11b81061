//! Secrets, as bytes that the server has encrypted, and the server's own records, which contain only digests.

use async_trait::async_trait;

use crate::capabilities::Capabilities;
use crate::error::Result;

/// One stored secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Ciphertext, or digests. A driver never gets plaintext.
    pub bytes: Vec<u8>,
    /// Counts the `put` calls for this name, starting at 1, and again at 1 after a deletion.
    pub version: u64,
}

/// A store of sealed values by name.
///
/// Names match `^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`; the server checks that. All methods may be called concurrently
/// from many tasks.
#[async_trait]
pub trait SecureStore: Send + Sync {
    /// Constant while the store is open.
    fn capabilities(&self) -> Capabilities;

    /// Whether the store currently works. Cheap; called by `/readyz`.
    async fn health(&self) -> Result<()>;

    /// Ends background work. Called once, last; nothing is called afterwards.
    async fn close(&self) -> Result<()>;

    /// The secret; `None` if there is none of that name.
    async fn get(&self, name: &str) -> Result<Option<Sealed>>;

    /// Stores a secret durably, and returns its new version. `expected` is the required current version (0: no secret);
    /// if it differs, the call fails with `ErrorKind::Conflict`. `None` replaces any version.
    async fn put(&self, name: &str, bytes: &[u8], expected: Option<u64>) -> Result<u64>;

    /// Removes a secret; `false` if there was none, which is not an error.
    async fn delete(&self, name: &str) -> Result<bool>;

    /// Names that start with `prefix`, sorted by code point; an empty prefix lists all.
    async fn list(&self, prefix: &str) -> Result<Vec<String>>;
}
