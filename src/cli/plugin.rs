//! `snaphook plugin`: the libraries with drivers.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use snaphook_driver::json;

use super::failure::{Failure, Result};
use super::global::Global;
use super::{output, sdk, templates};
use crate::drivers::{self, PluginInfo};

/// Create a plugin with drivers, or list those in the plugins folder
#[derive(Debug, Subcommand)]
pub(super) enum Plugin {
    /// Create a folder with the template of a plugin: a driver for secrets
    ///
    /// The folder contains the SDK; no package of Snaphook is needed.
    ///
    /// Example: snaphook plugin new my-store --language rust
    New {
        /// The name of the plugin, its driver and its folder
        name: String,
        #[arg(long)]
        language: Language,
        /// The parent of the new folder [default: the current folder]
        #[arg(long, value_name = "DIR")]
        r#in: Option<PathBuf>,
    },
    /// Print the file, name, version, drivers and digest of each plugin
    ///
    /// Inspects each file in the plugins folder of the configuration, in a separate process; needs no server.
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

/// Languages that there is a template for. Any other works behind `driver = 'remote'`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    Rust,
    C,
}

impl Plugin {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        match self {
            Plugin::New { name, language, r#in } => {
                let parent = r#in.as_deref().unwrap_or(Path::new(""));
                new(name, *language, &parent.join(name))
            }
            Plugin::List { json } => list(&drivers::plugins(&global.config()?)?, *json),
        }
    }
}

fn new(name: &str, language: Language, directory: &Path) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.len() > 63 || !name.starts_with(|first: char| first.is_ascii_lowercase()) || !name.bytes().all(plain) {
        return Err(Failure::new(format!(
            "`{}` is not a valid driver name, expected a letter `a` to `z` and up to 62 of `a` to `z`, `0` to `9` and \
             `-`",
            name.escape_debug()
        )));
    }
    let in_code = name.replace('-', "_");
    let values = [("name", name), ("crate", &in_code)];
    let (mut files, next) = match language {
        Language::Rust => {
            let files = templates::write("plugin-rust", directory, &values)?;
            sdk::write(&directory.join("snaphook"))?;
            (files, "cargo build --release")
        }
        Language::C => {
            let mut files = templates::write("plugin-c", directory, &values)?;
            // What it says of the checkout is not so here.
            let source = sdk::EXAMPLE.split_once("*/").map_or(sdk::EXAMPLE, |(_, source)| source);
            let head =
                format!("/* The driver `{name}`: secrets in memory, to begin with. `make` builds its library. */");
            let source = format!("{head}{}", source.replace("\"memory-c\"", &format!("{name:?}")));
            let more =
                [("driver.c", source.as_str()), ("protobuf.h", sdk::PROTOBUF), ("snaphook_driver.h", sdk::HEADER)];
            for (file, text) in more {
                sdk::write_file(&directory.join(file), text.as_bytes())?;
                files.push(file.to_owned());
            }
            (files, "make")
        }
    };
    files.sort();
    for file in files {
        output::line(format!("created {}", directory.join(file).display()))?;
    }
    output::line(format!("next: cd {} && {next}", directory.display()))
}

fn list(plugins: &[PluginInfo], json: bool) -> Result<()> {
    if json {
        let items = json::to_tree(&plugins).map_err(|error| Failure::new(error.to_string()))?;
        return output::line(serde_json::json!({"items": items}));
    }
    if plugins.is_empty() {
        return output::line("no plugins");
    }
    plugins.iter().try_for_each(|plugin| output::line(line(plugin)))
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
