//! `snaphook model pull`: models and hooks of a server, written as the files that `snaphook apply` reads.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value};

use crate::catalog::is_hook_name;
use crate::cli::client::{Client, path, with_query};
use crate::cli::failure::{Failure, Result};
use crate::cli::global::Global;
use crate::cli::{identity, output};
use crate::config::{Phase, is_model_id, read_regular};

/// Write models of a running server and their hooks to files, as `snaphook apply` reads them
///
/// Writes `<dir>/<model>/model.json` and the code of each phase beside it. Existing files that differ are kept, unless
/// --force is given.
///
/// Example: snaphook model pull order
#[derive(Args, Debug)]
pub(in crate::cli) struct Pull {
    /// The models [default: all]
    models: Vec<String>,
    /// The folder [default: `hooks.directory` of the configuration]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Replace files that differ
    #[arg(long)]
    force: bool,
}

/// What is to be written.
#[derive(Default)]
struct Files {
    files: Vec<(PathBuf, Vec<u8>)>,
    /// Files of the same phase, which would stand beside those.
    others: Vec<PathBuf>,
    warnings: Vec<String>,
}

impl Pull {
    pub(in crate::cli) async fn run(&self, global: &Global) -> Result<()> {
        let directory = match &self.dir {
            Some(directory) => directory.clone(),
            None => {
                let here = std::env::current_dir().unwrap_or_default();
                let directory = global.config_without_drivers()?.hooks.directory;
                directory.strip_prefix(&here).map(Path::to_owned).unwrap_or(directory)
            }
        };
        let client = global.client()?;
        output::note(identity::own_server(&client, global).await?);
        let models = match self.models.is_empty() {
            true => client.models().await?,
            false => {
                let mut models = Vec::new();
                for model in &self.models {
                    models.push(client.get(&path(&["models", model])).await?);
                }
                models
            }
        };
        let mut files = Files::default();
        for model in &models {
            files.add(&client, &directory, model).await?;
        }
        files.write(self.force)
    }
}

impl Files {
    async fn add(&mut self, client: &Client, directory: &Path, model: &Value) -> Result<()> {
        let id = text(model, "id");
        if !is_model_id(id) {
            return Err(Failure::new(format!(
                "the server has a model `{}`, which is not a valid folder name",
                id.escape_debug()
            )));
        }
        let folder = directory.join(id);
        let document = document(model);
        let document = serde_json::to_string_pretty(&document).unwrap_or_else(|_| document.to_string());
        self.files.push((folder.join("model.json"), format!("{document}\n").into_bytes()));
        let hooks = client.get(&path(&["models", id, "hooks"])).await?;
        for phase in Phase::ALL {
            let chain = hooks.get(phase.as_str()).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let by_hand = webhook(chain);
            match by_hand {
                None if chain.is_empty() => {}
                Some(name) => self.warnings.push(format!(
                    "`{id}.{phase}` is not written: the server does not return the whole address of the webhook \
                     `{name}`; write `{}` before the next `snaphook apply`",
                    folder.join(format!("{phase}.toml")).display()
                )),
                None => self.add_chain(client, &folder, id, phase, chain).await?,
            }
            for extension in ["js", "ts", "wasm", "toml"] {
                let other = folder.join(format!("{phase}.{extension}"));
                let is_by_hand = by_hand.is_some() && extension == "toml";
                if !is_by_hand && other.is_file() && !self.files.iter().any(|(file, _)| *file == other) {
                    self.others.push(other);
                }
            }
        }
        Ok(())
    }

    async fn add_chain(
        &mut self,
        client: &Client,
        folder: &Path,
        model: &str,
        phase: Phase,
        chain: &[Value],
    ) -> Result<()> {
        if let [hook] = chain
            && is_plain(hook, phase)
        {
            let (extension, bytes) = code(client, model, phase, hook).await?;
            self.files.push((folder.join(format!("{phase}.{extension}")), bytes));
            return Ok(());
        }
        let mut links = Vec::new();
        for hook in chain {
            let mut link = toml::Table::new();
            let mut set = |key: &str, value: &str| link.insert(key.to_owned(), toml::Value::from(value));
            set("name", text(hook, "name"));
            set("engine", text(hook, "engine"));
            if text(hook, "mode") == "shadow" {
                set("mode", "shadow");
            }
            if text(hook, "as") == "actor" {
                set("as", "actor");
            }
            match hook.get("library").and_then(Value::as_str) {
                Some(library) => {
                    set("library", library);
                }
                None => {
                    let hook_name = text(hook, "name");
                    // It becomes part of a path.
                    if !is_hook_name(hook_name) {
                        return Err(Failure::new(format!(
                            "the server has a hook `{}` of `{model}.{phase}`, which is not a valid hook name",
                            hook_name.escape_debug()
                        )));
                    }
                    let (extension, bytes) = code(client, model, phase, hook).await?;
                    let name = format!("{phase}-{hook_name}.{extension}");
                    set("file", &name);
                    self.files.push((folder.join(name), bytes));
                }
            }
            links.push(toml::Value::Table(link));
        }
        let chain = toml::Table::from_iter([("chain".to_owned(), toml::Value::Array(links))]);
        self.files.push((folder.join(format!("{phase}.toml")), chain.to_string().into_bytes()));
        Ok(())
    }

    fn write(self, force: bool) -> Result<()> {
        let differs = |(path, bytes): &&(PathBuf, Vec<u8>)| path.exists() && !is_so(path, bytes);
        let in_the_way: Vec<&PathBuf> =
            self.files.iter().filter(differs).map(|(path, _)| path).chain(&self.others).collect();
        if !force && !in_the_way.is_empty() {
            let names: Vec<_> = in_the_way.iter().map(|path| format!("  {}", path.display())).collect();
            return Err(Failure::new(format!(
                "nothing was written: these files differ from those of the server; `--force` replaces or removes \
                 them\n{}",
                names.join("\n")
            )));
        }
        self.warnings.iter().for_each(output::warn);
        for (path, bytes) in &self.files {
            if is_so(path, bytes) {
                output::line(format!("unchanged {}", path.display()))?;
                continue;
            }
            crate::cli::sdk::write_file(path, bytes)?;
            output::line(format!("wrote {}", path.display()))?;
        }
        // Last: a failed write loses nothing.
        for path in &self.others {
            let shown = path.display();
            std::fs::remove_file(path)
                .map_err(|error| Failure::new(format!("`{shown}` cannot be removed: {error}")))?;
            output::line(format!("removed {shown}"))?;
        }
        Ok(())
    }
}

fn is_so(path: &Path, bytes: &[u8]) -> bool {
    read_regular(path, usize::MAX >> 1).is_ok_and(|found| found == bytes)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// `model.json`: the definition, without what is there by default.
fn document(model: &Value) -> Value {
    let members = ["schema", "indexes", "unique", "rules"].into_iter().filter_map(|name| {
        let value = model.get(name)?.clone();
        let is_default = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        (!is_default).then(|| (name.to_owned(), value))
    });
    Value::Object(members.collect::<Map<_, _>>())
}

/// The name of a webhook in a chain.
fn webhook(chain: &[Value]) -> Option<&str> {
    chain.iter().find(|hook| text(hook, "engine") == "webhook").map(|hook| text(hook, "name"))
}

/// Whether a file of code alone says everything.
fn is_plain(hook: &Value, phase: Phase) -> bool {
    text(hook, "name") == phase.as_str()
        && matches!(text(hook, "engine"), "quickjs" | "component")
        && text(hook, "mode") != "shadow"
        && hook.get("as").is_none()
}

/// The code of a hook, and the extension of a file for it.
async fn code(client: &Client, model: &str, phase: Phase, hook: &Value) -> Result<(&'static str, Vec<u8>)> {
    let query = [("hook", text(hook, "name").to_owned())];
    let path = with_query(&path(&["models", model, "hooks", phase.as_str(), "source"]), &query);
    let (media_type, bytes) = client.get_bytes(&path).await?;
    let extension = match media_type.as_str() {
        "application/wasm" => "wasm",
        "application/typescript" => "ts",
        _ => "js",
    };
    Ok((extension, bytes))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_says_everything() {
        let hook = json!({"name": "preCreate", "engine": "quickjs", "mode": "enforce"});
        assert!(is_plain(&hook, Phase::PreCreate));
        assert!(!is_plain(&hook, Phase::PreUpdate));
        for (member, value) in [("engine", "v8"), ("mode", "shadow"), ("as", "actor"), ("name", "other")] {
            let mut hook = hook.clone();
            hook[member] = json!(value);
            assert!(!is_plain(&hook, Phase::PreCreate), "{member}");
        }
        assert_eq!(webhook(&[hook, json!({"name": "send", "engine": "webhook"})]), Some("send"));
        let model = json!({"id": "a", "version": 3, "schema": {"type": "object"}, "indexes": [], "unique": [["n"]]});
        assert_eq!(document(&model), json!({"schema": {"type": "object"}, "unique": [["n"]]}));
    }
}
