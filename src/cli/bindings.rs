//! Chains of hooks as requests carry them: code alone where that says everything, else JSON.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::client::{Client, ClientBody, path, with_query};
use super::failure::Result;
use crate::catalog::files::{BindingFile, CodeFile};
use crate::catalog::{HookOrigin, SourceLanguage};
use crate::config::Phase;

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
pub(super) fn chain_body(
    model: &str,
    chain: &[BindingFile],
    artifacts: &[&str],
) -> (Vec<(&'static str, String)>, ClientBody) {
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
        return (query, ClientBody { media_type, bytes: bytes.clone() });
    }
    let bindings: Vec<_> = chain.iter().map(|file| binding(model, file, artifacts)).collect();
    (Vec::new(), ClientBody::json(&json!({ "chain": bindings })))
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
}
