//! The description that a library gives of itself and its drivers.

use std::collections::HashSet;

use snaphook_driver::wire::{PluginDescription, decode, proto};

use crate::fault::Fault;
use crate::library::Library;

/// Reads and checks the description of a library.
pub(crate) fn describe(library: &Library) -> Result<PluginDescription, Fault> {
    let refuse = |fault: String| Fault::Description(fault);
    let message: proto::Plugin = decode(&library.description).map_err(|fault| refuse(fault.to_string()))?;
    let description = PluginDescription::try_from(message).map_err(|fault| refuse(fault.to_string()))?;
    for (what, found, expected) in
        [("name", &description.name, &library.name), ("version", &description.version, &library.version)]
    {
        if found != expected {
            return Err(refuse(format!("its {what} is `{found}`, but that of the descriptor is `{expected}`")));
        }
    }
    if description.drivers.is_empty() {
        return Err(refuse("it has no drivers".to_owned()));
    }
    let mut names = HashSet::new();
    for driver in &description.drivers {
        let name = &driver.name;
        if !names.insert(name) {
            return Err(refuse(format!("two of its drivers are named `{name}`")));
        }
        if driver.stores.is_empty() {
            return Err(refuse(format!("its driver `{name}` provides no stores")));
        }
    }
    Ok(description)
}
