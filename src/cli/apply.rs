//! `snaphook apply`: makes a running server match the models and hooks kept as files.

mod trial;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::{Body, Client, path, with_query};
use super::failure::{Failure, Result};
use super::global::Global;
use super::{identity, output};
use crate::catalog::files::{BindingFile, CodeFile, read_directory, without_model};
use crate::catalog::plan::{HookState, ModelState, Plan, Step, plan};
use crate::catalog::{HookOrigin, SourceLanguage};
use crate::config::{Config, Phase};

/// Make a running server match the models and hooks in a folder
///
/// Reads `<dir>/<model>/model.json` and `<dir>/<model>/<phase>.js`, `.ts`, `.wasm` or `.toml`, prints what differs and
/// does it. What is already so is left alone, so it can run at every deploy. Models that no file names are left alone;
/// a model's hook that no file names is removed, unless it was bound over REST: that is said.
///
/// With --plan the server is asked of each step whether it could be done; nothing is changed. The exit code is 3 if one could
/// not.
#[derive(Args, Debug)]
pub(super) struct Apply {
    /// The folder [default: `hooks.directory` of the configuration]
    directory: Option<PathBuf>,
    /// Only print what would be done, and whether the server could do it
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
            return Err(Failure::new(format!("`{}` is no folder", directory.display())));
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
            return output::line(format!("nothing to do: {} models are as the files say", files.len()));
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
            "`{shown}` holds no model: no folder in it has a `model.json`, so there is nothing to apply"
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
        "`hooks.apply` is true, but `hooks.directory` is `{}`, which is no folder; make it, or set `apply = false`",
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
            client.post("/models", Some(Body::json(&Value::Object(body)))).await.map(drop)
        }
        Step::ChangeModel { id, document, .. } => {
            client.put(&path(&["models", id]), Body::json(document)).await.map(drop)
        }
        Step::PutHooks { model, phase, chain, .. } => {
            put_chain(client, model, *phase, chain, artifacts, HookOrigin::Files).await.map(drop)
        }
        Step::RemoveHooks { model, phase, .. } => {
            client.delete(&path(&["models", model, "hooks", phase.as_str()])).await
        }
    }
}

/// Binds a chain. `artifacts`: digests of code that the server has.
pub(super) async fn put_chain(
    client: &Client,
    model: &str,
    phase: Phase,
    chain: &[BindingFile],
    artifacts: &[&str],
    origin: HookOrigin,
) -> Result<Value> {
    let (mut query, body) = chain_body(model, chain, artifacts);
    query.push(("origin", origin.as_str().to_owned()));
    client.put(&with_query(&path(&["models", model, "hooks", phase.as_str()]), &query), body).await
}

/// What a request that names a chain carries: parameters and the body.
fn chain_body(model: &str, chain: &[BindingFile], artifacts: &[&str]) -> (Vec<(&'static str, String)>, Body) {
    if let [
        BindingFile {
            name, engine, code: CodeFile::Inline { bytes, language }, shadow: false, as_actor: false, ..
        },
    ] = chain
    {
        let mut query = vec![("engine", engine.clone())];
        query.extend(name.clone().map(|name| ("name", name)));
        let media_type = match (engine.as_str(), language) {
            ("component", _) => "application/wasm",
            (_, Some(SourceLanguage::TypeScript)) => "application/typescript",
            (_, Some(SourceLanguage::JavaScript) | None) => "text/javascript",
        };
        return (query, Body { media_type, bytes: bytes.clone() });
    }
    let bindings: Vec<_> = chain.iter().map(|file| binding(model, file, artifacts)).collect();
    (Vec::new(), Body::json(&json!({ "chain": bindings })))
}

/// A `Binding` of the REST API.
fn binding(model: &str, file: &BindingFile, artifacts: &[&str]) -> Value {
    let mut binding = Map::new();
    binding.extend(file.name.clone().map(|name| ("name".to_owned(), Value::from(name))));
    binding.insert("engine".to_owned(), Value::from(file.engine.as_str()));
    let (key, code) = match &file.code {
        CodeFile::Webhook(webhook) => {
            binding.insert("secret".to_owned(), Value::from(webhook.secret.as_str()));
            ("url", webhook.url.clone())
        }
        CodeFile::Inline { bytes, .. } => match std::str::from_utf8(bytes) {
            Ok(source) if file.engine != "component" => ("source", source.to_owned()),
            // Bytes have no place in JSON: the server must have them, bound already or in its own folder of hooks.
            _ => ("artifact", stored(model, file, bytes, artifacts)),
        },
        CodeFile::Artifact(artifact) => ("artifact", artifact.clone()),
        CodeFile::Library(library) => ("library", library.clone()),
    };
    binding.insert(key.to_owned(), Value::from(code));
    if let Some(language) = file.code.language().filter(|_| key == "source") {
        binding.insert("language".to_owned(), Value::from(language.as_str()));
    }
    if file.as_actor {
        binding.insert("as".to_owned(), Value::from("actor"));
    }
    if file.shadow {
        binding.insert("mode".to_owned(), Value::from("shadow"));
    }
    Value::Object(binding)
}

fn stored(model: &str, file: &BindingFile, bytes: &[u8], artifacts: &[&str]) -> String {
    use sha2::{Digest, Sha256};
    let digest = format!("{:x}", Sha256::digest(bytes));
    if artifacts.contains(&digest.as_str()) {
        return format!("sha256:{digest}");
    }
    // Beside the model, or below it: such as what a project in a folder of its own is built to.
    let folder = file.path.ancestors().find(|folder| folder.join("model.json").is_file());
    let below = folder.and_then(|folder| file.path.strip_prefix(folder).ok());
    let name = below.map_or_else(|| PathBuf::from(file.path.file_name().unwrap_or_default()), PathBuf::from);
    format!("{model}/{}", name.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Webhook;

    fn file(engine: &str, code: CodeFile, shadow: bool) -> BindingFile {
        BindingFile {
            name: None,
            engine: engine.to_owned(),
            code,
            shadow,
            as_actor: false,
            path: PathBuf::from("hooks/a/check.wasm"),
        }
    }

    #[test]
    fn bindings() {
        let inline = |text: &str| CodeFile::Inline {
            bytes: text.as_bytes().to_vec(),
            language: Some(SourceLanguage::TypeScript),
        };
        assert_eq!(
            binding("a", &file("quickjs", inline("x"), true), &[]),
            json!({"engine": "quickjs", "source": "x", "language": "typescript", "mode": "shadow"})
        );
        assert_eq!(
            binding("a", &file("component", inline("x"), false), &[]),
            json!({"engine": "component", "artifact": "a/check.wasm"})
        );
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("model.json"), "{}").unwrap();
        let below = BindingFile { path: folder.join("check/dist/x.wasm"), ..file("component", inline("x"), false) };
        assert_eq!(binding("a", &below, &[])["artifact"], "a/check/dist/x.wasm");
        let digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
        assert_eq!(
            binding("a", &file("component", inline("x"), false), &[digest]),
            json!({"engine": "component", "artifact": format!("sha256:{digest}")})
        );
        assert_eq!(
            binding("a", &file("native", CodeFile::Library("libx.so".to_owned()), false), &[]),
            json!({"engine": "native", "library": "libx.so"})
        );
        let webhook = Webhook { url: "https://a.example/in".to_owned(), secret: "key".to_owned() };
        assert_eq!(
            binding("a", &file("webhook", CodeFile::Webhook(webhook), false), &[]),
            json!({"engine": "webhook", "url": "https://a.example/in", "secret": "key"})
        );
    }

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
