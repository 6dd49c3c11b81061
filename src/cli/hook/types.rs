//! `snaphook hook types`: TypeScript types of a model's data and of its hooks' handlers.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use crate::catalog::typescript;
use crate::cli::client::path;
use crate::cli::failure::{Failure, Result};
use crate::cli::global::Global;
use crate::cli::output;

/// The types of the contract, the same that npm's `@snaphook/hook` has.
const CONTRACT: &str = include_str!("../../../sdk/js/index.d.ts");
const CONTRACT_FILE: &str = "snaphook-hook.d.ts";
const PACKAGE: &str = "@snaphook/hook";

/// Write `<model>.d.ts`: TypeScript types of a model's data and of its hooks
///
/// For a model in `<hooks>/<model>/model.json`, the file is written beside it; for a model of the running server, to the
/// current folder. Without the npm package `@snaphook/hook`, the types of the contract are written too.
///
/// Example: snaphook hook types order
#[derive(Args, Debug)]
pub(in crate::cli) struct Types {
    /// The model
    model: String,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Types {
    pub(in crate::cli) async fn run(&self, global: &Global) -> Result<()> {
        let directory = global.config_without_drivers()?.hooks.directory;
        let file = directory.join(&self.model).join("model.json");
        let is_named = global.url.is_some();
        let written = match file.is_file() && !is_named && self.out.is_none() {
            true => write_beside(&file, &self.model)?,
            false => {
                let definition = match file.is_file() && !is_named {
                    true => document(&file)?,
                    false => global.client()?.get(&path(&["models", &self.model])).await?,
                };
                let out = self.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.d.ts", self.model)));
                let folder = out.parent().unwrap_or(Path::new("")).to_owned();
                write(&out, &self.model, &definition, &folder)?
            }
        };
        let here = std::env::current_dir().unwrap_or_default();
        let shown = |path: PathBuf| path.strip_prefix(&here).map(Path::to_owned).unwrap_or(path);
        written.into_iter().try_for_each(|path| output::line(format!("wrote {}", shown(path).display())))
    }
}

/// Writes the types of a model kept as files beside it, and the contract's above, if need be. Gives what was written.
pub(in crate::cli) fn write_beside(model_file: &Path, model: &str) -> Result<Vec<PathBuf>> {
    let folder = model_file.parent().unwrap_or(Path::new(""));
    let out = folder.join(format!("{model}.d.ts"));
    write(&out, model, &document(model_file)?, folder.parent().unwrap_or(folder))
}

/// Writes the contract's types as those of a package that is not installed. Gives the file's name.
pub(in crate::cli) fn write_contract(directory: &Path) -> Result<String> {
    save(&directory.join(CONTRACT_FILE), &ambient(CONTRACT))?;
    Ok(CONTRACT_FILE.to_owned())
}

fn write(out: &Path, model: &str, definition: &Value, contract: &Path) -> Result<Vec<PathBuf>> {
    let schema = definition.get("schema").cloned().unwrap_or_default();
    save(out, &typescript::module(model, &schema))?;
    let mut written = vec![out.to_owned()];
    let absolute = std::path::absolute(out).unwrap_or_else(|_| out.to_owned());
    let is_installed = absolute.ancestors().any(|folder| folder.join("node_modules").join(PACKAGE).is_dir());
    if !is_installed {
        written.push(contract.join(write_contract(contract)?));
    }
    Ok(written)
}

fn document(file: &Path) -> Result<Value> {
    let shown = file.display();
    let text = std::fs::read(file).map_err(|error| Failure::new(format!("`{shown}` cannot be read: {error}")))?;
    snaphook_driver::json::parse_bytes(&text)
        .map_err(|error| Failure::new(format!("{shown}:{}: not valid JSON: {error}", error.line())))
}

fn save(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|error| Failure::new(format!("`{}` cannot be written: {error}", path.display())))
}

/// A module's declarations as those of a package that is not installed.
fn ambient(module: &str) -> String {
    let mut out = String::new();
    let mut lines = module.lines().peekable();
    while let Some(line) = lines.next_if(|line| line.starts_with("//") || line.is_empty()) {
        out.push_str(&format!("{line}\n"));
    }
    out.push_str(&format!("declare module \"{PACKAGE}\" {{\n"));
    for line in lines {
        let line = line.replace("declare global", "global");
        out.push_str(&if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") });
    }
    out + "}\n"
}
