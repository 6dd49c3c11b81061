//! `snaphook hook deploy`: binds files to phases of a running server's models, and says what changed.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::location::{HookLocation, read};
use super::project::Project;
use super::shown::{summary, text};
use crate::catalog::HookOrigin;
use crate::catalog::files::{BindingFile, CodeFile, read_chain_file};
use crate::cli::bindings::put_chain;
use crate::cli::client::{Client, path};
use crate::cli::failure::{Failure, Result};
use crate::cli::global::Global;
use crate::cli::{identity, output};
use crate::config::Phase;

/// Bind files to phases of a running server's models, replacing the hooks bound there
///
/// The path (`hooks/movie/preCreate.ts`), the `hook.toml` of a built folder, or the options name model and phase. `snaphook
/// apply` does the same for a whole folder of models and hooks.
///
/// Example: snaphook hook deploy hooks/movie/preCreate.ts
#[derive(Args, Debug)]
pub(in crate::cli) struct Deploy {
    /// JavaScript, TypeScript, WebAssembly components, folders of built hooks, native libraries (in the server's folder), or
    /// chains with webhooks (`<phase>.toml`)
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    place: HookLocation,
    /// The name of the hook [default: from `hook.toml`, else chosen by the server]
    #[arg(long)]
    name: Option<String>,
    /// Shadow mode: only log and count the verdicts (pre phases)
    #[arg(long)]
    shadow: bool,
    /// Read and write with the rights of the actor, under the rules of the models
    #[arg(long)]
    as_actor: bool,
}

impl Deploy {
    pub(in crate::cli) async fn run(&self, global: &Global) -> Result<()> {
        let client = global.client()?;
        output::note(identity::own_server(&client, global).await?);
        for file in &self.files {
            self.one(&client, file).await?;
        }
        Ok(())
    }

    /// What a file of code is bound as.
    fn single(&self, file: PathBuf, project: Option<Project>) -> Result<BindingFile> {
        let (engine, bytes, language) = read(&file, &self.place)?;
        let code = match engine.as_str() {
            // A library never crosses the network: it lies in the server's own folder of hooks, under this name.
            "native" => CodeFile::Library(file.file_name().unwrap_or_default().to_string_lossy().into_owned()),
            _ => CodeFile::Inline { bytes, language },
        };
        let name = self.name.clone().or_else(|| project.map(|project| project.name));
        Ok(BindingFile { name, engine, code, shadow: self.shadow, as_actor: self.as_actor, path: file })
    }

    /// What a `<phase>.toml` says.
    fn chain(&self, file: &Path, phase: Phase) -> Result<Vec<BindingFile>> {
        if self.name.is_some() || self.shadow || self.as_actor || self.place.engine.is_some() {
            let file = file.display();
            return Err(Failure::new(format!(
                "`{file}` itself defines the name, engine, mode and rights of each hook; remove the options"
            )));
        }
        read_chain_file(file, phase).map_err(|errors| {
            let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
            Failure::new(lines.join("\n"))
        })
    }

    async fn one(&self, client: &Client, file: &Path) -> Result<()> {
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
        if let Some(project) = project.as_ref().filter(|project| project.native) {
            return Err(in_hooks_folder(project, self.place.model.as_deref(), self.place.phase));
        }
        let phase = self.place.phase(&file)?;
        let model = self.place.model(&file).ok_or_else(|| Failure::new("name the model with `--model`"))?;
        let chain = match file.extension().is_some_and(|extension| extension == "toml") {
            true => self.chain(&file, phase)?,
            false => vec![self.single(file, project)?],
        };
        let before = client.get(&path(&["models", &model, "hooks", phase.as_str()])).await?;
        let hooks = |chain: &Value| chain.as_array().cloned().unwrap_or_default();
        let before = hooks(&before);
        let digests: Vec<String> =
            before.iter().map(|hook| text(hook, "artifact").trim_start_matches("sha256:").to_owned()).collect();
        let digests: Vec<&str> = digests.iter().map(String::as_str).collect();
        let after = hooks(&put_chain(client, &model, phase, &chain, &digests, HookOrigin::Rest).await?);
        for hook in &after {
            let named = |old: &&Value| text(old, "name") == text(hook, "name");
            let members = ["artifact", "engine", "mode", "as", "language", "library"];
            let same = |old: &Value| members.iter().all(|key| old.get(key) == hook.get(key));
            let label = format!("{model}.{phase}/{}", text(hook, "name"));
            match before.iter().find(named) {
                Some(old) if same(old) => output::line(format!("{label} is bound already, unchanged"))?,
                Some(old) => output::line(format!("{label} is bound: {} (was {})", summary(hook), summary(old)))?,
                None => output::line(format!("{label} is bound: {}", summary(hook)))?,
            }
        }
        for gone in before.iter().filter(|old| !after.iter().any(|hook| text(hook, "name") == text(old, "name"))) {
            output::line(format!("{model}.{phase}/{} is no longer bound", text(gone, "name")))?;
        }
        Ok(())
    }
}

/// A server loads libraries from its own folder only, so one that was built elsewhere cannot be bound.
fn in_hooks_folder(project: &Project, model: Option<&str>, phase: Option<Phase>) -> Failure {
    let (name, extension) = (&project.name, std::env::consts::DLL_EXTENSION);
    let folder = project.directory.display();
    let model = model.map(str::to_owned).or_else(|| project.model()).unwrap_or_else(|| "MODEL".to_owned());
    let phase = phase.unwrap_or(project.phase);
    Failure::new(format!(
        "`{name}` is a native hook, and a server loads libraries only from its hooks folder; build it there, then bind it:\n  \
         snaphook hook build {folder} --out hooks/{name}.{extension}\n  \
         snaphook hook deploy hooks/{name}.{extension} --model {model} --phase {phase}"
    ))
}
