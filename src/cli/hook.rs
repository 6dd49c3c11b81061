//! `snaphook hook`: make, build, try, bind and list hooks.

mod build;
mod deploy;
mod new;
pub(super) mod project;
mod replay;
mod test;
pub(super) mod types;

use std::path::Path;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::path;
use super::{Failure, Global, Result, output};
use crate::catalog::SourceLanguage;
use crate::config::{Config, ConfigHandle, Phase, closest};
use crate::hooks::engines::{self, Candidate, Prepared};
use crate::hooks::host::{HookHost, NOT_SANDBOXED};
use project::Project;

/// Make, build, try, bind and list hooks
#[derive(Debug, Subcommand)]
pub(super) enum Hook {
    /// List the hooks of a running server
    List {
        /// Only of this model
        model: Option<String>,
    },
    New(new::New),
    Build(build::Build),
    Test(test::Test),
    #[command(visible_alias = "put")]
    Deploy(deploy::Deploy),
    Types(types::Types),
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
    /// The engine: `v8` runs what `quickjs` runs [default: by the file's name]
    #[arg(long)]
    engine: Option<String>,
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
        let project = || Project::of_output(file)?.model;
        self.model.clone().or_else(folder).or_else(project)
    }
}

/// The engine and the code of a file, and what language it is in if it is a source.
fn read(file: &Path, place: &Place) -> Result<(String, Vec<u8>, Option<SourceLanguage>)> {
    let (engine, language) = match file.extension().and_then(|extension| extension.to_str()) {
        Some("wasm") => ("component", None),
        Some("so" | "dylib" | "dll") => ("native", None),
        Some(extension) if let language @ Some(_) = SourceLanguage::of_extension(extension) => ("quickjs", language),
        _ => {
            let name = file.display();
            return Err(Failure::new(format!(
                "`{name}` is of no kind that is known, expected `.js`, `.ts`, `.wasm` or a native library"
            )));
        }
    };
    let bytes =
        std::fs::read(file).map_err(|error| Failure::new(format!("`{}` cannot be read: {error}", file.display())))?;
    Ok((place.engine.clone().unwrap_or_else(|| engine.to_owned()), bytes, language))
}

impl Hook {
    pub(super) async fn run(&self, global: &Global) -> Result<()> {
        match self {
            Hook::List { model } => list(global, model.as_deref()).await,
            Hook::New(new) => new.run(),
            Hook::Build(build) => build.run(global).await,
            Hook::Test(test) => test.run(global).await,
            Hook::Deploy(deploy) => deploy.run(global).await,
            Hook::Types(types) => types.run(global).await,
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
                let columns = ["name", "engine", "mode", "sandbox"].map(|name| text(hook, name));
                let [name, mut engine, mode, sandbox] = columns;
                if !sandbox.is_empty() {
                    let more = hook.get("still_loaded").and_then(Value::as_array).map_or(0, Vec::len);
                    let more = if more > 0 { format!(", {more} more still loaded") } else { String::new() };
                    engine.push_str(&format!(" ({sandbox}{more})"));
                }
                rows.push(vec![format!("{model}.{phase}"), name, engine, mode, size.to_string(), artifact]);
            }
        }
    }
    if rows.is_empty() {
        return output::line("no hooks");
    }
    output::table(&["PHASE", "NAME", "ENGINE", "MODE", "BYTES", "ARTIFACT"], &rows)
}

/// A host that can check code; nothing runs on it until it is attached to data.
fn host(config: &Config) -> HookHost {
    HookHost::new(engines::all(config), ConfigHandle::new(config.clone()).shared())
}

/// Checks code as a server does when it is bound.
async fn prepare(host: &HookHost, engine: &str, candidate: Candidate<'_>) -> Result<Arc<dyn Prepared>> {
    if host.code.is_native(engine) {
        // Before, since it may be the last thing that this process does.
        output::warn(format!(
            "native code is {NOT_SANDBOXED}: it is loaded into this process and can do whatever you can"
        ));
    }
    host.code.prepare(engine, candidate).await.map_err(|error| {
        let place = match (error.line, error.column) {
            (Some(line), Some(column)) => format!(" (line {line}, column {column})"),
            (Some(line), None) => format!(" (line {line})"),
            _ => String::new(),
        };
        Failure::new(format!("the hook cannot be bound: {}{place}", error.message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("movie/preCreate.ts");
        std::fs::create_dir(folder.path().join("movie")).unwrap();
        let place = Place { model: None, phase: None, engine: None };
        assert_eq!(place.phase(&file).unwrap(), Phase::PreCreate);
        assert_eq!(place.model(&file), None);
        std::fs::write(folder.path().join("movie/model.json"), "{}").unwrap();
        assert_eq!(place.model(&file).as_deref(), Some("movie"));
        let place = Place { model: Some("other".to_owned()), phase: Some(Phase::PostDelete), engine: None };
        assert_eq!((place.phase(&file).unwrap(), place.model(&file).as_deref()), (Phase::PostDelete, Some("other")));
        assert_eq!(phase("precreate").unwrap_err(), "no phase, did you mean `preCreate`?");
    }
}
