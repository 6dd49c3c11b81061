//! A backup of this server while it continues to run.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Operations;
use crate::drivers::backup::{self, BackupError, Piece};
use crate::engine::error::{Error, ErrorKind, Result};

/// Pieces of the file that wait for the reader; each is about one mebibyte before compression.
const PIECES_MAX: usize = 2;
/// Memory of a backup with small records: some records, a block of them, the waiting pieces.
const START_BYTES: usize = 4 << 20;

impl Operations {
    /// Begins a backup of this moment; the file comes through the channel, and its memory counts as that of a request.
    /// If it fails on the way, or the server stops, the end of the file is missing, which every reader detects.
    pub async fn backup(&self) -> Result<mpsc::Receiver<Piece>> {
        let permit = Arc::clone(&self.backing_up).try_acquire_owned();
        let permit = permit
            .map_err(|_| Error::new(ErrorKind::Conflict, "a backup is already being created; wait until it is done"))?;
        let memory = Arc::new(self.core.memory.whole());
        // A backup that would only wait for memory does not begin.
        memory.lease().grow(START_BYTES)?;
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        let (event, error, secure) = (
            Arc::clone(&self.core.stores.event),
            Arc::clone(&self.core.stores.error),
            Arc::clone(&self.core.stores.secure),
        );
        let work = backup::export(event, error, secure, memory, sender).await.map_err(|error| match error {
            BackupError::Store(_, error) => Error::from(error),
            other => Error::new(ErrorKind::Storage, other.to_string()),
        })?;
        tokio::spawn(async move {
            match work.await {
                Ok(()) => tracing::info!("a backup was created"),
                Err(error) => tracing::error!("a backup was aborted: {error}"),
            }
            drop(permit);
        });
        Ok(receiver)
    }
}
