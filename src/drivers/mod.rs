//! The drivers that are linked in, the four stores that a configuration opens, and the vault that encrypts secrets.
//!
//! After the table nobody can tell one driver from another: the layers above see the four traits only.

pub mod backup;
mod stores;
mod table;
mod vault;

pub use stores::{OpenError, Stores};
pub use table::{DRIVERS, Store, check};
pub use vault::{SECRET_BYTES_MAX, Secret, Vault, VaultError, is_secret_name};
