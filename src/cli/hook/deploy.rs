//! `snaphook hook deploy`: binds files to phases of a running server's models, and says what changed.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::place::{Place, read};
use super::project::Project;
use super::shown::text;
use crate::catalog::files::{BindingFile, CodeFile};
use crate::cli::apply::put_chain;
use crate::cli::client::path;
use crate::cli::failure::{Failure, Result};
use crate::cli::global::Global;
use crate::cli::output;

/// Bind files to phases of a running server's models, each in the place of what is bound there
///
/// Model and phase come from the path (`hooks/movie/preCreate.ts`), from the `hook.toml` of a folder that `snaphook
/// hook build` built, or from the options. `snaphook apply` does the same for a whole folder of models and hooks.
///
/// Example: snaphook hook deploy hooks/movie/preCreate.ts
#[derive(Args, Debug)]
pub(in crate::cli) struct Deploy {
    /// JavaScript, TypeScript, WebAssembly components, folders of built hooks, or native libraries (in the server's folder)
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    place: Place,
    /// The hook's name [default: that of `hook.toml`, or the server chooses]
    #[arg(long)]
    name: Option<String>,
    /// Only look on: log and count what it would decide (pre phases)
    #[arg(long)]
    shadow: bool,
}

impl Deploy {
    pub(in crate::cli) async fn run(&self, global: &Global) -> Result<()> {
        for file in &self.files {
            self.one(global, file).await?;
        }
        Ok(())
    }

    async fn one(&self, global: &Global, file: &Path) -> Result<()> {
        let (project, file) = match file.is_dir() {
            true => {
                let project = Project::find(file)?.ok_or_else(|| {
                    Failure::new(format!(
                        "`{}` has no `hook.toml`; name a file, or use `snaphook apply`",
                        file.display()
                    ))
                })?;
                let target = project.target();
                (Some(project), target)
            }
            false => (Project::of_output(file), file.to_owned()),
        };
        let phase = self.place.phase(&file)?;
        let model = self.place.model(&file).ok_or_else(|| Failure::new("name the model with `--model`"))?;
        let (engine, bytes, language) = read(&file, &self.place)?;
        let code = match engine.as_str() {
            // A library never crosses the network: it lies in the server's own folder of hooks, under this name.
            "native" => CodeFile::Library(file.file_name().unwrap_or_default().to_string_lossy().into_owned()),
            _ => CodeFile::Inline { bytes, language },
        };
        let name = self.name.clone().or_else(|| project.map(|project| project.name));
        let chain = [BindingFile { name, engine, code, shadow: self.shadow, as_actor: false, path: file }];
        let client = global.client()?;
        let before = client.get(&path(&["models", &model, "hooks", phase.as_str()])).await?;
        let after = put_chain(&client, &model, phase, &chain, &[]).await?;
        let hooks = |chain: &Value| chain.as_array().cloned().unwrap_or_default();
        let (before, after) = (hooks(&before), hooks(&after));
        for hook in &after {
            let named = |old: &&Value| text(old, "name") == text(hook, "name");
            let same = |old: &Value| ["artifact", "engine", "mode"].iter().all(|key| old.get(key) == hook.get(key));
            let label = format!("{model}.{phase}/{}", text(hook, "name"));
            match before.iter().find(named) {
                Some(old) if same(old) => output::line(format!("{label} is bound already, unchanged"))?,
                Some(old) => output::line(format!("{label} is bound: {} (was {})", shown(hook), shown(old)))?,
                None => output::line(format!("{label} is bound: {}", shown(hook)))?,
            }
        }
        for gone in before.iter().filter(|old| !after.iter().any(|hook| text(hook, "name") == text(old, "name"))) {
            output::line(format!("{model}.{phase}/{} is no longer bound", text(gone, "name")))?;
        }
        Ok(())
    }
}

/// Engine, mode and artifact of a hook. Twelve digits tell artifacts apart.
fn shown(hook: &Value) -> String {
    let artifact: String = text(hook, "artifact").chars().take("sha256:".len() + 12).collect();
    let mode = if text(hook, "mode") == "shadow" { ", shadow" } else { "" };
    format!("{}{mode}, {artifact}", text(hook, "engine"))
}
