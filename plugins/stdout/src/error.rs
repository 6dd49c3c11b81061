//! One JSON object per record and line.

use std::io::Write as _;

use async_trait::async_trait;
use snaphook_driver::{DriverError, ErrorKind, ErrorQuery, ErrorRecord, ErrorStore, Result};

/// See the crate's documentation.
pub struct StdoutErrorStore;

#[async_trait]
impl ErrorStore for StdoutErrorStore {
    fn readable(&self) -> bool {
        false
    }

    async fn health(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    async fn record(&self, record: &ErrorRecord) -> Result<()> {
        let mut line = serde_json::to_vec(record).map_err(|error| {
            DriverError::new(ErrorKind::Invalid, "record", "the record cannot be written as JSON").because(error)
        })?;
        line.push(b'\n');
        // A pipe whose reader is slow blocks; that must not stop the requests on this thread.
        let write = move || {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(&line).and_then(|()| stdout.flush())
        };
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            DriverError::new(ErrorKind::Unavailable, "record", "standard output cannot be written").because(error)
        };
        tokio::task::spawn_blocking(write)
            .await
            .map_err(|error| failed(error.into()))?
            .map_err(|error| failed(error.into()))
    }

    async fn list(&self, _query: &ErrorQuery) -> Result<Vec<ErrorRecord>> {
        Ok(Vec::new())
    }

    async fn get(&self, _id: &str) -> Result<Option<ErrorRecord>> {
        Ok(None)
    }

    async fn remove(&self, _id: &str) -> Result<bool> {
        Ok(false)
    }
}
