//! `snaphook apply`: makes a running server match the models and hooks kept as files.

mod trial;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value};

use super::bindings::put_chain;
use super::client::{Client, ClientBody, path};
use super::failure::{Failure, Result};
use super::global::Global;
use super::{identity, output};
use crate::catalog::HookOrigin;
use crate::catalog::files::{read_directory, without_model};
use crate::catalog::plan::{HookState, ModelState, Plan, Step, plan};
use crate::config::{Config, Phase};

/// Make a running server match the models and hooks in a folder
///
/// Reads `<dir>/<model>/model.json` and `<dir>/<model>/<phase>.js`, `.ts`, `.wasm` or `.toml`, prints the differences and
/// applies them. Without differences it changes nothing, so it can run at every deployment. Models without files stay as they
/// are. A hook without a file is removed, unless it was bound over REST; then a warning names it.
///
/// With --plan the server only checks each step and changes nothing. The exit code is 3 if a step would fail.
#[derive(Args, Debug)]
pub(super) struct Apply {
    /// The folder [default: `hooks.directory` of the configuration]
    directory: Option<PathBuf>,
    /// Only print the steps, and whether each would succeed
    #[arg(long)]
    plan: bool,
}

impl Apply {
    pub(super) async fn run(&self, global: &Global) -> Result<()> {
        let directory = match &self.directory {
            Some(directory) => directory.clone(),
            None => global.config_without_drivers()?.hooks.directory,
        };
        if !directory.is_dir() {
            return Err(Failure::new(format!("`{}` is not a folder", directory.display())));
        }
        let files = read_directory(&directory).map_err(|errors| {
            let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
            Failure::new(format!("nothing was applied:\n{}", lines.join("\n")))
        })?;
        let notes = left_out(&directory, files.len());
        if files.is_empty() {
            return Err(Failure::new(notes.join("\n")));
        }
        notes.iter().for_each(output::warn);
        let client = global.client()?;
        output::note(identity::own_server(&client, global).await?);
        let server = states(&client, files.iter().map(|model| model.id.as_str())).await?;
        let Plan { steps, kept } = plan(&files, &server);
        kept.iter().for_each(output::warn);
        if steps.is_empty() {
            let count = output::counted(files.len(), "model");
            return output::line(format!("nothing to do, {count} up to date"));
        }
        let artifacts: Vec<&str> = server
            .iter()
            .flat_map(|model| model.hooks.values().flatten())
            .map(|hook| hook.artifact.trim_start_matches("sha256:"))
            .collect();
        if self.plan {
            return trial::run(&client, &steps, &artifacts).await;
        }
        for step in &steps {
            output::line(step)?;
            carry_out(&client, step, &artifacts)
                .await
                .map_err(|error| Failure::new(format!("{error}\nthe steps after this one were not taken")))?;
        }
        Ok(())
    }
}

/// What in a folder of models and hooks is not applied, though it looks as if it were.
pub(super) fn left_out(directory: &Path, models: usize) -> Vec<String> {
    let mut notes: Vec<String> = without_model(directory)
        .iter()
        .map(|folder| format!("`{}` has hooks and no `model.json`, so it is not applied", folder.display()))
        .collect();
    if models == 0 {
        let shown = directory.display();
        notes.push(format!(
            "`{shown}` contains no model: no folder in it has a `model.json`, so there is nothing to apply"
        ));
    }
    notes
}

/// `hooks.apply` is true; the folder must be there.
pub(super) fn check_folder(config: &Config) -> Result<()> {
    let directory = &config.hooks.directory;
    if directory.is_dir() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "`hooks.apply` is true, but `hooks.directory` is `{}`, which is not a folder; create it, or set `apply = \
         false`",
        directory.display()
    )))
}

/// The models of those names as the server has them.
pub(super) async fn states(client: &Client, ids: impl Iterator<Item = &str>) -> Result<Vec<ModelState>> {
    let mut states = Vec::new();
    for id in ids {
        let Some(model) = client.find(&path(&["models", id])).await? else { continue };
        let hooks = client.get(&path(&["models", id, "hooks"])).await?;
        let member = |name: &str| model.get(name).cloned().unwrap_or_default();
        states.push(ModelState {
            id: id.to_owned(),
            schema: member("schema"),
            indexes: member("indexes"),
            unique: member("unique"),
            rules: member("rules"),
            hooks: Phase::ALL.into_iter().map(|phase| (phase, chain(&hooks, phase))).collect::<BTreeMap<_, _>>(),
        });
    }
    Ok(states)
}

fn chain(hooks: &Value, phase: Phase) -> Vec<HookState> {
    let chain = hooks.get(phase.as_str()).and_then(Value::as_array);
    let hook = |hook: &Value| {
        let text = |name: &str| hook.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        HookState {
            name: text("name"),
            engine: text("engine"),
            artifact: text("artifact"),
            shadow: text("mode") == "shadow",
            as_actor: text("as") == "actor",
            origin: HookOrigin::from_name(&text("origin")).unwrap_or_default(),
            library: hook.get("library").and_then(Value::as_str).map(str::to_owned),
            language: hook.get("language").and_then(|language| snaphook_driver::json::from_tree(language.clone()).ok()),
        }
    };
    chain.into_iter().flatten().map(hook).collect()
}

pub(super) async fn carry_out(client: &Client, step: &Step, artifacts: &[&str]) -> Result<()> {
    match step {
        Step::CreateModel { id, document } => {
            let mut body = Map::from_iter([("id".to_owned(), Value::from(id.as_str()))]);
            body.extend(document.as_object().cloned().unwrap_or_default());
            client.post("/models", Some(ClientBody::json(&Value::Object(body)))).await.map(drop)
        }
        Step::ChangeModel { id, document, .. } => {
            client.put(&path(&["models", id]), ClientBody::json(document)).await.map(drop)
        }
        Step::PutHooks { model, phase, chain, .. } => {
            put_chain(client, model, *phase, chain, artifacts, HookOrigin::Files).await.map(drop)
        }
        Step::RemoveHooks { model, phase, .. } => {
            client.delete(&path(&["models", model, "hooks", phase.as_str()])).await
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn chains_of_the_server() {
        let hooks = json!({"preCreate": [{"name": "n", "engine": "quickjs", "artifact": "sha256:00", "mode": "shadow",
                "origin": "files"}]});
        let expected = HookState {
            name: "n".to_owned(),
            engine: "quickjs".to_owned(),
            artifact: "sha256:00".to_owned(),
            shadow: true,
            as_actor: false,
            library: None,
            language: None,
            origin: HookOrigin::Files,
        };
        assert_eq!(chain(&hooks, Phase::PreCreate), [expected]);
        assert_eq!(chain(&hooks, Phase::PostCreate), []);
    }
}
