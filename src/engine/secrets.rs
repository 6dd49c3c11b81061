//! Secrets: kept sealed, named, never shown.

use super::Engine;
use super::error::{Error, ErrorKind, Result};
use crate::drivers::VaultError;

impl Engine {
    pub async fn put_secret(&self, name: &str, value: &[u8]) -> Result<()> {
        self.stores.vault.put(name, value).await?;
        Ok(())
    }

    /// Names only.
    pub async fn secrets(&self) -> Result<Vec<String>> {
        Ok(self.stores.vault.list().await?)
    }

    pub async fn delete_secret(&self, name: &str) -> Result<()> {
        match self.stores.vault.delete(name).await? {
            true => Ok(()),
            false => Err(Error::not_found(format!("there is no secret `{}`", name.escape_debug()))),
        }
    }
}

impl From<VaultError> for Error {
    fn from(error: VaultError) -> Self {
        let kind = match &error {
            VaultError::Name(_) => ErrorKind::BadRequest,
            VaultError::TooLarge(_) => ErrorKind::TooLarge,
            _ => ErrorKind::Storage,
        };
        Error::new(kind, error.to_string())
    }
}
