//! Provides the code of hooks.

use async_trait::async_trait;
use bytes::Bytes;

/// The store of the artifacts' code.
#[async_trait]
pub trait Artifacts: Send + Sync {
    /// Returns the code; the error is one sentence.
    async fn code(&self, artifact: &str) -> Result<Bytes, String>;
}
