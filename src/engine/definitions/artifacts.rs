//! The code of hooks: read from a request or from the hooks directory, and returned from the event store.

use std::path::{Component, Path};

use super::Definitions;
use super::faults::cannot_bind;
use super::past_hooks::{DIGEST_LENGTH, PastArtifacts, is_hex};
use crate::catalog::{HookRecord, is_hook_name};
use crate::config::{Phase, read_regular};
use crate::engine::command::{BindingCode, BindingInput};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::hooks::engines::CODE_BYTES_MAX;
use crate::hooks::library;

impl Definitions {
    /// The code of a chain of one.
    pub async fn hook_artifact(&self, model: &str, phase: Phase) -> Result<(HookRecord, Vec<u8>)> {
        let entry = self.core.models.require(model)?;
        let [record] = entry.model.chain(phase) else {
            let count = entry.model.chain(phase).len();
            return Err(Error::not_found(format!(
                "`{model}.{phase}` has {count} hooks; only a chain of one has one artifact to return"
            )));
        };
        if let Some(library) = &record.library {
            return Err(Error::not_found(format!(
                "the hook `{}` is the library `{library}` in the hooks directory, which this API does not return",
                record.name
            )));
        }
        let bytes = self.core.stores.event.get_blob(&record.artifact).await?;
        let bytes = bytes.ok_or_else(|| {
            Error::new(ErrorKind::Storage, format!("the event store lost artifact `sha256:{}`", record.artifact))
        })?;
        Ok((record.clone(), bytes))
    }

    /// The code of a binding, and the name of the file that it came from.
    pub(super) async fn binding_code(
        &self,
        model: Option<&str>,
        binding: &BindingInput,
        pointer: &str,
        past: &mut Option<PastArtifacts>,
    ) -> Result<(Vec<u8>, Option<String>)> {
        let is_native = self.core.host.code.is_native(&binding.engine);
        match &binding.code {
            BindingCode::Inline(_) | BindingCode::Artifact(_) if is_native => Err(cannot_bind(
                format!("{pointer}/library"),
                format!(
                    "engine `{}` runs libraries of the hooks directory only, since they are not sandboxed: put the file \
                     there and name it in `library`",
                    binding.engine
                ),
            )),
            BindingCode::Inline(bytes) => Ok((bytes.clone(), None)),
            BindingCode::Library(name) if is_native => {
                let config = self.core.config.load();
                let file = name.clone();
                let read = tokio::task::spawn_blocking(move || library::read(&config, &file)).await;
                let bytes = read.unwrap_or_else(|error| Err(error.to_string()));
                let bytes = bytes.map_err(|message| cannot_bind(format!("{pointer}/library"), message))?;
                let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
                Ok((bytes, stem.filter(|stem| is_hook_name(stem))))
            }
            BindingCode::Library(_) => Err(cannot_bind(
                format!("{pointer}/library"),
                format!("`library` is for engine `native`, found engine `{}`", binding.engine),
            )),
            BindingCode::Artifact(name) => {
                let pointer = format!("{pointer}/artifact");
                let digits = name.strip_prefix("sha256:");
                let hex = match digits {
                    Some(digits) if digits.len() < DIGEST_LENGTH => {
                        self.whole_digest(model, digits, past).await.map_err(|error| match error.kind {
                            ErrorKind::BadRequest => cannot_bind(pointer.clone(), error.detail),
                            _ => error,
                        })?
                    }
                    _ => digits.unwrap_or(name).to_owned(),
                };
                if is_hex(&hex) && hex.len() == DIGEST_LENGTH {
                    return match self.core.stores.event.get_blob(&hex).await? {
                        Some(bytes) => Ok((bytes, None)),
                        None => {
                            Err(cannot_bind(pointer, format!("the server does not have an artifact `sha256:{hex}`")))
                        }
                    };
                }
                let config = self.core.config.load();
                let directory = config.directory.join(&config.hooks.directory);
                let file = name.clone();
                let bytes_max = CODE_BYTES_MAX.max(config.server.max_body_bytes);
                let read = tokio::task::spawn_blocking(move || read_artifact(&directory, &file, bytes_max));
                let bytes = read.await.map_err(|error| cannot_bind(pointer.clone(), error.to_string()))?;
                let bytes = bytes.map_err(|message| cannot_bind(pointer, message))?;
                let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
                Ok((bytes, stem.filter(|stem| is_hook_name(stem))))
            }
        }
    }
}

/// A file of the hooks directory; nothing outside it, also not through a link.
fn read_artifact(directory: &Path, name: &str, bytes_max: usize) -> std::result::Result<Vec<u8>, String> {
    let path = Path::new(name);
    if name.is_empty() || path.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(format!("`{}` is not a sha256 nor the name of a file in the hooks directory", name.escape_debug()));
    }
    let missing = |error: std::io::Error| format!("`{name}` in the hooks directory cannot be read: {error}");
    let root = directory.canonicalize().map_err(missing)?;
    let file = root.join(path).canonicalize().map_err(missing)?;
    if !file.starts_with(&root) {
        return Err(format!("`{name}` leads out of the hooks directory"));
    }
    read_regular(&file, bytes_max).map_err(missing)
}
