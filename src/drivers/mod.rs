//! The linked drivers, the four stores that a configuration opens, and the vault that encrypts secrets.
//!
//! The layers above only use the four traits and do not depend on any driver.

pub mod backup;
mod connections;
mod guard;
mod node;
mod plugins;
#[cfg(test)]
mod reference;
pub(crate) mod references;
mod registry;
mod settings;
mod stores;
mod vault;

#[cfg(test)]
pub(crate) use guard::Faults;
pub use node::node_id;
pub use plugins::{DriverInfo, INSPECT_COMMAND, PluginInfo};
pub use registry::{check, plugins};
pub use snaphook_driver::limits::is_secret_name;
pub use stores::{HostedStores, OpenError, Stores};
pub use vault::{SECRET_BYTES_MAX, Secret, Vault, VaultError};
