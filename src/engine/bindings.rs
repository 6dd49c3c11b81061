//! Hooks of a model: bound, replaced, removed. What cannot work is refused here, with the reason.

use std::collections::BTreeSet;
use std::path::{Component, Path};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde_json::Value;
use sha2::{Digest, Sha256};
use snaphook_driver::{EventFilter, EventKind, EventStore, Expected, Group};

use super::Engine;
use super::change::DefinitionChange;
use super::command::{BindingCode, BindingInput, Defined, DryRun, HookInfo, Origin, WriteOptions};
use super::definitions::{Step, check_precondition, definition_append};
use super::error::{Error, ErrorKind, Result};
use super::models::{Entry, Ready};
use crate::catalog::{FieldError, HookMode, HookRecord, Model, ModelRecord, is_hook_name};
use crate::config::Phase;
use crate::hooks::engines::PrepareError;
use crate::hooks::host::Artifacts;
use crate::hooks::stats::PhaseLine;

/// Hooks in one chain.
const CHAIN_MAX: usize = 32;

/// The consumer group of a model's post hooks.
pub(super) fn group_of(model: &str) -> Group {
    Group {
        name: format!("post:{model}"),
        filter: EventFilter {
            model: Some(model.to_owned()),
            kinds: vec![EventKind::InstanceCreated, EventKind::InstanceUpdated, EventKind::InstanceDeleted],
            ..EventFilter::default()
        },
    }
}

/// The code of hooks, in the event store.
pub(super) struct StoredArtifacts(pub(super) Arc<dyn EventStore>);

#[async_trait]
impl Artifacts for StoredArtifacts {
    async fn code(&self, artifact: &str) -> std::result::Result<Bytes, String> {
        let sha256 = artifact.strip_prefix("sha256:").unwrap_or(artifact);
        match self.0.get_blob(sha256).await {
            Ok(Some(bytes)) => Ok(bytes.into()),
            Ok(None) => Err(format!("the event store does not have its code `{artifact}`; bind the hook again")),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Engine {
    /// A phase's hooks, in order.
    pub fn hook_infos(&self, model: &Model, phase: Phase) -> Vec<HookInfo> {
        let Some(entry) = self.models.get(&model.record.id) else { return Vec::new() };
        entry.chain(phase).iter().map(|hook| self.host.info(hook)).collect()
    }

    /// Replaces a phase's chain. The same chain again changes nothing.
    pub async fn put_hooks(
        &self,
        model: &str,
        phase: Phase,
        chain: Vec<BindingInput>,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Defined<Vec<HookInfo>>> {
        self.check_available()?;
        if chain.is_empty() {
            return Err(Error::bad_request("the chain is empty; DELETE removes a phase's hooks"));
        }
        if chain.len() > CHAIN_MAX {
            return Err(Error::bad_request(format!(
                "{} hooks in one chain, at most {CHAIN_MAX} are allowed",
                chain.len()
            )));
        }
        let _one = self.definitions.lock().await;
        let entry = self.models.require(model)?;
        check_precondition(&entry, &options.precondition)?;
        let mut records = Vec::with_capacity(chain.len());
        let mut code_ready = Vec::with_capacity(chain.len());
        let mut names = BTreeSet::new();
        for (index, binding) in chain.into_iter().enumerate() {
            let pointer = format!("/chain/{index}");
            if binding.shadow && !phase.is_pre() {
                return Err(cannot_bind(
                    format!("{pointer}/mode"),
                    format!("`shadow` is for pre hooks; `{phase}` runs after the change"),
                ));
            }
            let (code, file) = self.code(&binding.code, &pointer).await?;
            let name = match binding.name {
                Some(name) => name,
                None => free_name(file.as_deref().unwrap_or(phase.as_str()), &names),
            };
            if !is_hook_name(&name) {
                return Err(cannot_bind(
                    format!("{pointer}/name"),
                    format!(
                        "`{}` is not a hook name: 1 to 63 letters, digits, `.`, `_`, `-` are expected",
                        name.escape_debug()
                    ),
                ));
            }
            if !names.insert(name.clone()) {
                return Err(cannot_bind(format!("{pointer}/name"), format!("`{name}` stands twice in the chain")));
            }
            let prepared = self.host.prepare(&binding.engine, &code, phase, &name).await;
            code_ready.push(prepared.map_err(|error| does_not_load(&pointer, &name, &error))?);
            let artifact = format!("{:x}", Sha256::digest(&code));
            if !options.dry_run {
                self.stores.event.put_blob(&artifact, &code).await?;
            }
            let mode = if binding.shadow { HookMode::Shadow } else { HookMode::Enforce };
            let same = entry.model.chain(phase).iter().find(|old| {
                old.name == name && old.artifact == artifact && old.engine == binding.engine && old.mode == mode
            });
            records.push(HookRecord {
                name,
                engine: binding.engine,
                artifact,
                size: code.len() as u64,
                mode,
                position: same.map_or(0, |old| old.position),
            });
        }
        if records == entry.model.chain(phase) {
            return Ok(Defined::unchanged(options, self.hook_infos(&entry.model, phase)));
        }
        let mut record = next_version(&entry.model.record);
        record.hooks.insert(phase, records);
        record.hooked_since.entry(phase).or_insert(0);
        let ready = Ready { phase, code: code_ready };
        let changed = self.change_hooks(&entry, EventKind::HookUpdated, record, ready, options, origin).await?;
        Ok(changed.map(|model| self.hook_infos(&model, phase)))
    }

    /// Removes a phase's hooks; nothing happens if there are none.
    pub async fn delete_hooks(
        &self,
        model: &str,
        phase: Phase,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Defined<()>> {
        self.check_available()?;
        let _one = self.definitions.lock().await;
        let entry = self.models.require(model)?;
        check_precondition(&entry, &options.precondition)?;
        if entry.model.chain(phase).is_empty() {
            return Ok(Defined::unchanged(options, ()));
        }
        let mut record = next_version(&entry.model.record);
        record.hooks.remove(&phase);
        record.hooked_since.remove(&phase);
        let ready = Ready { phase, code: Vec::new() };
        let changed = self.change_hooks(&entry, EventKind::HookDeleted, record, ready, options, origin).await?;
        Ok(changed.map(|_| ()))
    }

    async fn change_hooks(
        &self,
        entry: &Arc<Entry>,
        kind: EventKind,
        record: ModelRecord,
        ready: Ready,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Defined<Arc<Model>>> {
        let id = record.id.clone();
        let change = DefinitionChange { definition: record.clone(), renames: Vec::new(), phase: Some(ready.phase) };
        let append = definition_append(kind, &record, &change, Expected::At(entry.model.record.position), origin)?;
        if options.dry_run {
            return Ok(Defined::DryRun(DryRun::unhooked(Some(append.event))));
        }
        let new = Model { record, schema: Arc::clone(&entry.model.schema) };
        let reacts = new.record.hooks.keys().any(|phase| !phase.is_pre());
        let group = (reacts && entry.reacts_since().is_none()).then(|| group_of(&id));
        let old = Arc::clone(entry);
        let host = Arc::clone(&self.host);
        let model = self
            .committer
            .exclusive(move |writer| {
                let step = Step { old: Some(&old), group: group.as_ref(), ready: Some(&ready), ..Step::default() };
                writer.define(append, new, &host, step)
            })
            .await??;
        match reacts {
            true => self.dispatcher.serve(&id),
            false => self.dispatcher.forget(&id).await,
        }
        Ok(Defined::Done(model))
    }

    /// The code of a binding, and the name of the file that it came from.
    async fn code(&self, code: &BindingCode, pointer: &str) -> Result<(Vec<u8>, Option<String>)> {
        match code {
            BindingCode::Inline(bytes) => Ok((bytes.clone(), None)),
            BindingCode::Library(_) => Err(cannot_bind(
                format!("{pointer}/library"),
                "native hooks are not part of this version; use engine `component` or `quickjs`".to_owned(),
            )),
            BindingCode::Artifact(name) => {
                let pointer = format!("{pointer}/artifact");
                let hex = name.strip_prefix("sha256:").unwrap_or(name);
                if hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
                    return match self.stores.event.get_blob(hex).await? {
                        Some(bytes) => Ok((bytes, None)),
                        None => {
                            Err(cannot_bind(pointer, format!("the server does not have an artifact `sha256:{hex}`")))
                        }
                    };
                }
                let config = self.config.load();
                let directory = config.directory.join(&config.hooks.directory);
                let file = name.clone();
                let read =
                    tokio::task::spawn_blocking(move || read_artifact(&directory, &file, config.server.max_body_bytes));
                let bytes = read.await.map_err(|error| cannot_bind(pointer.clone(), error.to_string()))?;
                let bytes = bytes.map_err(|message| cannot_bind(pointer, message))?;
                let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
                Ok((bytes, stem.filter(|stem| is_hook_name(stem))))
            }
        }
    }

    /// The code of a chain of one.
    pub async fn hook_artifact(&self, model: &str, phase: Phase) -> Result<(HookRecord, Vec<u8>)> {
        let entry = self.models.require(model)?;
        let [record] = entry.model.chain(phase) else {
            let count = entry.model.chain(phase).len();
            return Err(Error::not_found(format!(
                "`{model}.{phase}` has {count} hooks; only a chain of one has one artifact to give"
            )));
        };
        let bytes = self.stores.event.get_blob(&record.artifact).await?;
        let bytes = bytes.ok_or_else(|| {
            Error::new(ErrorKind::Storage, format!("the event store lost artifact `sha256:{}`", record.artifact))
        })?;
        Ok((record.clone(), bytes))
    }

    /// The last 200 log lines of a phase's runs.
    pub fn hook_log(&self, model: &str, phase: Phase) -> Result<Vec<PhaseLine>> {
        self.models.require(model)?;
        Ok(self.host.phase_log(model, phase).lines())
    }

    /// The lines that are kept, then those from now on.
    pub fn follow_hook_log(&self, model: &str, phase: Phase) -> Result<BoxStream<'static, PhaseLine>> {
        self.models.require(model)?;
        let (lines, receiver) = self.host.phase_log(model, phase).follow();
        let live = stream::unfold(receiver, |mut receiver| async move {
            use tokio::sync::broadcast::error::RecvError;
            loop {
                match receiver.recv().await {
                    Ok(line) => return Some((line, receiver)),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        let ended = self.stopping.subscribe();
        Ok(stream::iter(lines).chain(live).take_until(super::stopped_signal(ended)).boxed())
    }

    /// One object per hook of the phase.
    pub fn hook_stats(&self, model: &str, phase: Phase) -> Result<Vec<Value>> {
        let entry = self.models.require(model)?;
        let stats = entry.chain(phase).iter().map(|hook| {
            let mut stats = self.host.stats(hook);
            if let Value::Object(map) = &mut stats {
                map.shift_insert(0, "name".to_owned(), Value::String(hook.binding().id.name.clone()));
            }
            stats
        });
        Ok(stats.collect())
    }
}

fn next_version(record: &ModelRecord) -> ModelRecord {
    ModelRecord { version: record.version + 1, position: 0, ..record.clone() }
}

fn cannot_bind(pointer: String, message: String) -> Error {
    Error::new(ErrorKind::Invalid, message.clone()).with_errors(vec![FieldError { pointer, message }])
}

fn does_not_load(pointer: &str, name: &str, error: &PrepareError) -> Error {
    let place = match (error.line, error.column) {
        (Some(line), Some(column)) => format!(" (line {line}, column {column})"),
        (Some(line), None) => format!(" (line {line})"),
        _ => String::new(),
    };
    cannot_bind(pointer.to_owned(), format!("hook `{name}` cannot be bound: {}{place}", error.message))
}

fn free_name(wanted: &str, taken: &BTreeSet<String>) -> String {
    let mut name = wanted.to_owned();
    let mut count = 1;
    while taken.contains(&name) {
        count += 1;
        name = format!("{wanted}-{count}");
    }
    name
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
    let size = std::fs::metadata(&file).map_err(missing)?.len();
    if size > bytes_max as u64 {
        return Err(format!("`{name}` has {size} bytes, at most {bytes_max} are allowed (`max-body`)"));
    }
    std::fs::read(&file).map_err(missing)
}
