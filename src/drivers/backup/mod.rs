//! Backups: everything that nothing else can give back, in one file that does not depend on the drivers.
//!
//! [`export`] reads the stores while a server works on them, [`archive`] is the file, [`restore`] fills empty stores,
//! [`transfer`] does it without a file. The
//! model store is not part of it (the log gives it back), nor is the private key of the secrets, which stay encrypted.

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
