//! Backups: everything that cannot be rebuilt, in one driver-independent file.
//!
//! [`export`] reads the stores while a server works on them, [`archive`] is the file, [`restore`] fills empty stores,
//! [`transfer`] copies without a file. A backup contains neither the model store, which is rebuilt from the log, nor
//! the private key of the secrets, which stay encrypted.

mod archive;
mod error;
mod export;
mod record;
mod restore;
mod transfer;

#[cfg(test)]
mod tests;

pub use archive::{Damage, Header, Scanner, verify};
pub use error::BackupError;
pub use export::{Piece, export, export_stored};
pub use record::Counts;
pub use restore::{Restored, restore};
pub use transfer::{ComparedModel, Transfer, Transferred};
