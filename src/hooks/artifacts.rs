//! Where the code of hooks comes from.

use async_trait::async_trait;
use bytes::Bytes;

/// Where the code of artifacts is kept.
#[async_trait]
pub trait Artifacts: Send + Sync {
    /// The code; the error is one sentence.
    async fn code(&self, artifact: &str) -> Result<Bytes, String>;
}
