//! `snaphook hook`: list, bind and try hooks.

mod test;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::apply::put_chain;
use super::client::path;
use super::{Failure, Global, Result, output};
use crate::catalog::files::{BindingFile, CodeFile};
use crate::config::{Phase, closest};

/// List, bind and try hooks
#[derive(Debug, Subcommand)]
pub(super) enum Hook {
    /// List the hooks of a running server
    List {
        /// Only of this model
        model: Option<String>,
    },
    /// Bind a file to a phase of a model, in the place of what is bound there
    ///
    /// Example: snaphook hook put hooks/movie/preCreate.ts
    Put(Put),
    Test(test::Test),
}

#[derive(Args, Debug)]
pub(super) struct Put {
    /// JavaScript, TypeScript or a WebAssembly component
    file: PathBuf,
    #[command(flatten)]
    place: Place,
    /// The hook's name [default: the server chooses]
    #[arg(long)]
    name: Option<String>,
    /// Only look on: log and count what it would decide (pre phases)
    #[arg(long)]
    shadow: bool,
}

/// Where a hook belongs.
#[derive(Args, Debug)]
pub(super) struct Place {
    /// The model [default: the file's folder, if that holds a model.json]
    #[arg(long)]
    model: Option<String>,
    /// preCreate, postCreate, preUpdate, postUpdate, preDelete or postDelete [default: the file's name]
    #[arg(long, value_parser = phase)]
    phase: Option<Phase>,
}

fn phase(text: &str) -> std::result::Result<Phase, String> {
    Phase::from_name(text).ok_or_else(|| {
        let names = Phase::ALL.map(Phase::as_str);
        match closest(text, names) {
            Some(name) => format!("no phase, did you mean `{name}`?"),
            None => format!("no phase, expected one of {}", names.join(", ")),
        }
    })
}

impl Place {
    fn phase(&self, file: &Path) -> Result<Phase> {
        let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        self.phase.or_else(|| Phase::from_name(stem)).ok_or_else(|| {
            Failure::new(format!("the file's name `{stem}` is no phase; name one, such as `--phase preCreate`"))
        })
    }

    fn model(&self, file: &Path) -> Option<String> {
        let folder = || {
            let folder = std::path::absolute(file).ok()?.parent()?.to_owned();
            let name = folder.file_name()?.to_str()?.to_owned();
            folder.join("model.json").is_file().then_some(name)
        };
        self.model.clone().or_else(folder)
    }
}

/// The engine and the code of a file.
fn read(file: &Path) -> Result<(&'static str, Vec<u8>, bool)> {
    let (engine, typescript) = match file.extension().and_then(|extension| extension.to_str()) {
        Some("js" | "mjs") => ("quickjs", false),
        Some("ts" | "mts") => ("quickjs", true),
        Some("wasm") => ("component", false),
        _ => {
            let name = file.display();
            return Err(Failure::new(format!(
                "`{name}` is of no kind that is known, expected `.js`, `.ts` or `.wasm`"
            )));
        }
    };
    let bytes =
        std::fs::read(file).map_err(|error| Failure::new(format!("`{}` cannot be read: {error}", file.display())))?;
    Ok((engine, bytes, typescript))
}

impl Hook {
    pub(super) async fn run(&self, global: &Global) -> Result<()> {
        match self {
            Hook::List { model } => list(global, model.as_deref()).await,
            Hook::Put(put) => put.run(global).await,
            Hook::Test(test) => test.run(global).await,
        }
    }
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

async fn list(global: &Global, model: Option<&str>) -> Result<()> {
    let client = global.client()?;
    let models: Vec<String> = match model {
        Some(model) => vec![model.to_owned()],
        None => {
            let page = client.get("/models").await?;
            let items = page.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
            items.iter().map(|model| text(model, "id")).collect()
        }
    };
    let mut rows = Vec::new();
    for model in models {
        let hooks = client.get(&path(&["models", &model, "hooks"])).await?;
        for phase in Phase::ALL {
            for hook in hooks.get(phase.as_str()).and_then(Value::as_array).into_iter().flatten() {
                let size = hook.get("size").and_then(Value::as_u64).unwrap_or(0);
                // Twelve digits tell artifacts apart; `GET …/hooks/{phase}` has them all.
                let artifact: String = text(hook, "artifact").chars().take("sha256:".len() + 12).collect();
                let columns = ["name", "engine", "mode"].map(|name| text(hook, name));
                let [name, engine, mode] = columns;
                rows.push(vec![format!("{model}.{phase}"), name, engine, mode, size.to_string(), artifact]);
            }
        }
    }
    if rows.is_empty() {
        return output::line("no hooks");
    }
    output::table(&["PHASE", "NAME", "ENGINE", "MODE", "BYTES", "ARTIFACT"], &rows)
}

impl Put {
    async fn run(&self, global: &Global) -> Result<()> {
        let phase = self.place.phase(&self.file)?;
        let model = self.place.model(&self.file).ok_or_else(|| Failure::new("name the model with `--model`"))?;
        let (engine, bytes, typescript) = read(&self.file)?;
        let chain = [BindingFile {
            name: self.name.clone(),
            engine: engine.to_owned(),
            code: CodeFile::Inline { bytes, typescript },
            shadow: self.shadow,
            path: self.file.clone(),
        }];
        let bound = put_chain(&global.client()?, &model, phase, &chain, &[]).await?;
        for hook in bound.as_array().into_iter().flatten() {
            let (name, artifact) = (text(hook, "name"), text(hook, "artifact"));
            output::line(format!("{model}.{phase}/{name} is bound, {artifact}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("movie/preCreate.ts");
        std::fs::create_dir(folder.path().join("movie")).unwrap();
        let place = Place { model: None, phase: None };
        assert_eq!(place.phase(&file).unwrap(), Phase::PreCreate);
        assert_eq!(place.model(&file), None);
        std::fs::write(folder.path().join("movie/model.json"), "{}").unwrap();
        assert_eq!(place.model(&file).as_deref(), Some("movie"));
        let place = Place { model: Some("other".to_owned()), phase: Some(Phase::PostDelete) };
        assert_eq!((place.phase(&file).unwrap(), place.model(&file).as_deref()), (Phase::PostDelete, Some("other")));
        assert_eq!(phase("precreate").unwrap_err(), "no phase, did you mean `preCreate`?");
    }
}
