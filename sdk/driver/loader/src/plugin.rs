//! A loaded library with drivers, as the server uses it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use snaphook_driver::wire::{Opened, PluginDescription};
use snaphook_driver::{OpenContext, Result, Store};

use crate::deadline::Deadlines;
use crate::fault::LoadError;
use crate::loaded::{Faults, Loaded};
use crate::store;

/// A library with drivers. It stays loaded until the process ends.
#[derive(Clone)]
pub struct Plugin(Arc<Loaded>);

impl Plugin {
    /// Loads a library into this process, which runs its initialisers: see [`crate::inspect_in_child`].
    pub fn load(file: &Path, deadlines: Deadlines) -> Result<Plugin, LoadError> {
        Loaded::load(file, deadlines).map(Plugin)
    }

    /// The description that the library gives of itself and its drivers.
    pub fn description(&self) -> &PluginDescription {
        &self.0.description
    }

    pub fn file(&self) -> &Path {
        self.0.file()
    }

    /// Opens a store of a driver; `driver` is an index into the description's drivers. The store is closed when it is
    /// dropped, unless it was closed before.
    pub async fn open(&self, driver: usize, store: Store, context: OpenContext) -> Result<Opened> {
        store::open(&self.0, driver, store, context).await
    }

    /// The rule violations of the plugin so far.
    pub fn faults(&self) -> Faults {
        self.0.counted()
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("file", &self.0.file()).field("description", &self.0.description).finish()
    }
}
