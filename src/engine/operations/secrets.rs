//! Secrets: stored encrypted, listed by name, never returned.

use super::Operations;
use crate::drivers::{Secret, VaultError};
use crate::engine::error::{Error, ErrorKind, Result};

impl Operations {
    pub async fn put_secret(&self, name: &str, value: &[u8]) -> Result<()> {
        self.core.stores.vault.put(name, value).await?;
        Ok(())
    }

    /// The value, for the server's own use.
    pub async fn secret(&self, name: &str) -> Result<Option<Secret>> {
        Ok(self.core.stores.vault.get(name).await?)
    }

    /// Names only.
    pub async fn secrets(&self) -> Result<Vec<String>> {
        Ok(self.core.stores.vault.list().await?)
    }

    pub async fn delete_secret(&self, name: &str) -> Result<()> {
        match self.core.stores.vault.delete(name).await? {
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
