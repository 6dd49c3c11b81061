//! `snaphook plugin`: the libraries with drivers.

use std::path::Path;

use clap::Subcommand;
use snaphook_driver::json;

use super::failure::{Failure, Result};
use super::global::Global;
use super::output;
use crate::drivers::{self, PluginInfo};

/// List the libraries with drivers that the plugins folder holds
#[derive(Debug, Subcommand)]
pub(super) enum Plugin {
    /// Print file, name, version, drivers and digest of each
    ///
    /// Inspects each file of the folder that the configuration names, in a process of its own; needs no server.
    List {
        /// As one JSON document
        #[arg(long)]
        json: bool,
    },
}

impl Plugin {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        let Plugin::List { json } = self;
        let plugins = drivers::plugins(&global.config()?)?;
        if *json {
            let items = json::to_tree(&plugins).map_err(|error| Failure::new(error.to_string()))?;
            return output::line(serde_json::json!({"items": items}));
        }
        if plugins.is_empty() {
            return output::line("no plugins");
        }
        plugins.iter().try_for_each(|plugin| output::line(line(plugin)))
    }
}

fn line(plugin: &PluginInfo) -> String {
    let PluginInfo { file, sha256, name, version, abi, drivers } = plugin;
    let drivers: Vec<_> =
        drivers.iter().map(|driver| format!("{} ({})", driver.name, driver.stores.join(", "))).collect();
    format!("{file}  {name} {version}, interface {abi}, {}  {sha256}", drivers.join(", "))
}

/// Inspects one library for [`drivers::plugins`]; the process ends after it.
pub(super) fn inspect(file: &Path) -> ! {
    let code = snaphook_driver_loader::answer_inspection(file);
    // Exit handlers of a library are none of ours.
    crate::hooks::engines::exit_at_once(u8::from(code != std::process::ExitCode::SUCCESS))
}
