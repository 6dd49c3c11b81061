//! Binds, replaces and removes the hooks of a model. Hooks that cannot work are rejected here, with the reason.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};
use snaphook_driver::{CarryOver, EventKind, Expected};

use super::Definitions;
use super::define::NewDefinition;
use super::event::definition_append;
use super::faults::{cannot_bind, check_precondition};
use super::past_hooks::PastHook;
use crate::catalog::{FieldError, HookMode, HookRecord, Model, ModelRecord, free_hook_name, is_hook_name};
use crate::config::Phase;
use crate::engine::change::DefinitionChange;
use crate::engine::command::{BindingCode, BindingInput, Defined, DryRun, HookInfo, Origin, WriteOptions};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::hanging::hanging;
use crate::engine::locks::OneModel;
use crate::engine::models::{LiveModel, Ready};
use crate::hooks::engines::{Candidate, PrepareError, PrepareErrorKind, PreparedCode};

/// Hooks in one chain.
const CHAIN_MAX: usize = 32;

/// A chain whose code runs.
#[derive(Default)]
struct Checked {
    /// Without their positions.
    records: Vec<HookRecord>,
    code: Vec<Arc<dyn PreparedCode>>,
    /// Lasting effects of a dry run.
    warnings: Vec<String>,
}

/// What could be bound.
#[derive(Debug, Serialize)]
pub struct CheckedHooks {
    pub items: Vec<PastHook>,
    /// What the trial itself did that stays, one sentence each.
    pub warnings: Vec<String>,
}

impl Definitions {
    /// Replaces a phase's chain. The same chain again changes nothing.
    pub async fn put_hooks(
        &self,
        model: &str,
        phase: Phase,
        chain: Vec<BindingInput>,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Defined<Vec<HookInfo>>> {
        self.core.availability.check_model(model)?;
        check_length(&chain)?;
        let entry = self.core.models.require(model)?;
        check_precondition(&entry, &options.precondition)?;
        // Before any lock: a component may compile for seconds, and others may change definitions meanwhile.
        let Checked { mut records, code: code_ready, warnings } =
            self.check_chain(Some(model), chain, phase, options.dry_run).await?;
        let one = self.lock_model(model).await?;
        self.core.availability.check_model(model)?;
        let entry = self.core.models.require(model)?;
        check_precondition(&entry, &options.precondition)?;
        let bound = entry.model.chain(phase);
        let is_same = |new: &HookRecord, old: &HookRecord| {
            *old == HookRecord { position: old.position, origin: old.origin, ..new.clone() }
        };
        // Whoever binds what is bound already does not take it over.
        let is_unchanged =
            records.len() == bound.len() && records.iter().zip(bound).all(|(new, old)| is_same(new, old));
        for record in &mut records {
            let same = bound.iter().find(|old| is_same(record, old));
            record.position = same.map_or(0, |old| old.position);
        }
        if !options.dry_run {
            code_ready.iter().for_each(|code| code.bound_anew(model));
        }
        if is_unchanged {
            entry.chain(phase).iter().for_each(|hook| self.core.host.runs.bound_anew(hook));
            return Ok(Defined::unchanged(options, self.hook_infos(&entry.model, phase)).warn(warnings));
        }
        let mut record = next_version(&entry.model.record);
        record.hooks.insert(phase, records);
        record.hooked_since.entry(phase).or_insert(0);
        let ready = Ready { phase, code: code_ready };
        let changed = self.change_hooks(one, &entry, EventKind::HookUpdated, record, ready, options, origin).await?;
        Ok(changed.map(|model| self.hook_infos(&model, phase)).warn(warnings))
    }

    /// Whether a chain could be bound, to whichever model.
    pub async fn check_hooks(&self, phase: Phase, chain: Vec<BindingInput>) -> Result<CheckedHooks> {
        check_length(&chain)?;
        let Checked { records, warnings, .. } = self.check_chain(None, chain, phase, true).await?;
        Ok(CheckedHooks { items: records.into_iter().map(PastHook::from).collect(), warnings })
    }

    /// Prepares the code of a chain and, unless it is `only_tried`, stores it; the error says what cannot be bound. `model`: whose
    /// earlier artifacts may be named by their first digits.
    async fn check_chain(
        &self,
        model: Option<&str>,
        chain: Vec<BindingInput>,
        phase: Phase,
        only_tried: bool,
    ) -> Result<Checked> {
        let closed = |_| Error::new(ErrorKind::Unavailable, "the server is stopping");
        let _place = self.preparing.acquire().await.map_err(closed)?;
        let mut checked = Checked::default();
        let (mut names, mut past) = (BTreeSet::new(), None);
        for (index, binding) in chain.into_iter().enumerate() {
            let pointer = format!("/chain/{index}");
            if binding.shadow && !phase.is_pre() {
                return Err(cannot_bind(
                    format!("{pointer}/mode"),
                    format!("`shadow` is for pre hooks; `{phase}` runs after the change"),
                ));
            }
            let (code, file) = self.binding_code(model, &binding, &pointer, &mut past).await?;
            let name = match binding.name {
                Some(name) => name,
                None => free_hook_name(file.as_deref().unwrap_or(phase.as_str()), &names),
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
                return Err(cannot_bind(format!("{pointer}/name"), format!("`{name}` appears twice in the chain")));
            }
            let library = match binding.code {
                BindingCode::Library(library) => Some(library),
                _ => None,
            };
            if let Some(library) = &library {
                tracing::info!("loading native library `{library}` for `{phase}`, hook `{name}`");
            }
            let candidate = Candidate { code: &code, phase, name: &name, language: binding.language };
            let prepared = self.core.host.code.prepare(&binding.engine, candidate).await;
            checked.code.push(prepared.map_err(|error| does_not_load(&pointer, &name, library.as_deref(), &error))?);
            let artifact = format!("{:x}", Sha256::digest(&code));
            if let Some(library) = &library {
                let warning = self.core.host.libraries.checked(library, &format!("sha256:{artifact}"));
                if only_tried {
                    tracing::warn!("a dry run has a lasting effect: {warning}");
                    checked.warnings.push(warning);
                }
            }
            // Libraries are not shared with other nodes: each has its own directory.
            if !only_tried && library.is_none() {
                let put = self.core.stores.event.put_blob(&artifact, &code);
                self.core.committer.answered(put).await.ok_or_else(hanging)??;
            }
            checked.records.push(HookRecord {
                name,
                engine: binding.engine,
                artifact,
                size: code.len() as u64,
                mode: if binding.shadow { HookMode::Shadow } else { HookMode::Enforce },
                position: 0,
                library,
                language: binding.language,
                as_actor: binding.as_actor,
                origin: binding.origin,
            });
        }
        Ok(checked)
    }

    /// Removes a phase's hooks; no effect if there are none.
    pub async fn delete_hooks(
        &self,
        model: &str,
        phase: Phase,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Defined<()>> {
        self.core.availability.check_model(model)?;
        let one = self.lock_model(model).await?;
        self.core.availability.check_model(model)?;
        let entry = self.core.models.require(model)?;
        check_precondition(&entry, &options.precondition)?;
        if entry.model.chain(phase).is_empty() {
            return Ok(Defined::unchanged(options, ()));
        }
        let mut record = next_version(&entry.model.record);
        record.hooks.remove(&phase);
        record.hooked_since.remove(&phase);
        let ready = Ready { phase, code: Vec::new() };
        let changed = self.change_hooks(one, &entry, EventKind::HookDeleted, record, ready, options, origin).await?;
        Ok(changed.map(|_| ()))
    }

    #[expect(clippy::too_many_arguments, reason = "each says one thing about the change")]
    async fn change_hooks(
        &self,
        one: OneModel,
        entry: &Arc<LiveModel>,
        kind: EventKind,
        record: ModelRecord,
        ready: Ready,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Defined<Arc<Model>>> {
        let id = record.id.clone();
        let change = DefinitionChange {
            definition: record.clone(),
            renames: Vec::new(),
            phase: Some(ready.phase),
            is_target: false,
        };
        let append = definition_append(kind, &record, &change, Expected::At(entry.model.record.position), origin)?;
        if options.dry_run {
            return Ok(Defined::DryRun(DryRun::unhooked(Some(append.event))));
        }
        let reacts = record.hooks.keys().any(|phase| !phase.is_pre());
        let schema = Arc::clone(&entry.model.schema);
        let definitions = self.clone();
        let define = async move {
            let _one = one;
            let definition = NewDefinition { append, schema, carry: CarryOver::default(), ready: Some(ready) };
            let model = definitions.define(definition).await?.done()?;
            if !reacts {
                definitions.core.forget_post_hooks(&id).await;
            }
            Ok(model)
        };
        self.core.commit(define).await.map(Defined::Done)
    }
}

fn check_length(chain: &[BindingInput]) -> Result<()> {
    if chain.is_empty() {
        return Err(Error::bad_request("the chain is empty; DELETE removes a phase's hooks"));
    }
    if chain.len() > CHAIN_MAX {
        return Err(Error::bad_request(format!("{} hooks in one chain, at most {CHAIN_MAX} are allowed", chain.len())));
    }
    Ok(())
}

fn next_version(record: &ModelRecord) -> ModelRecord {
    ModelRecord { version: record.version + 1, position: 0, ..record.clone() }
}

fn does_not_load(pointer: &str, name: &str, library: Option<&str>, error: &PrepareError) -> Error {
    let place = match (error.line, error.column) {
        (Some(line), Some(column)) => format!(" (line {line}, column {column})"),
        (Some(line), None) => format!(" (line {line})"),
        _ => String::new(),
    };
    let file = library.map_or_else(String::new, |library| format!("`{library}`: "));
    let message = format!("hook `{name}` cannot be bound: {file}{}{place}", error.message);
    match error.kind {
        PrepareErrorKind::Invalid => cannot_bind(pointer.to_owned(), message),
        PrepareErrorKind::TooComplex => Error::new(ErrorKind::TooComplex, message.clone())
            .with_errors(vec![FieldError { pointer: pointer.to_owned(), message }]),
        PrepareErrorKind::Overloaded => Error::new(ErrorKind::Overloaded, message),
    }
}
