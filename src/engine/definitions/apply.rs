//! Applies models and hooks that are stored as files to this server, at start.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use snaphook_driver::json;

use super::Definitions;
use crate::catalog::files::{BindingFile, CodeFile, ModelFiles, read_directory};
use crate::catalog::plan::{HookState, KeptHooks, ModelState, Plan, Step, plan};
use crate::catalog::{HookMode, HookOrigin, Model};
use crate::engine::command::{BindingCode, BindingInput, ModelInput, Origin, WriteOptions};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::input::model_version;

/// How many steps others may take first before applying fails.
const RACES_MAX: u32 = 10;
/// Delay before the remaining steps are determined again.
const RACE_PAUSE: Duration = Duration::from_millis(200);

/// What became of files.
#[derive(Debug)]
pub struct Applied {
    /// Those that were taken.
    pub steps: Vec<Step>,
    pub kept: Vec<KeptHooks>,
}

impl Definitions {
    /// Makes the models and hooks match the files of a directory. Models and hooks that already match, models without files,
    /// and hooks that were bound over REST are left alone.
    pub async fn apply(&self, directory: &Path, origin: &Origin) -> Result<Applied> {
        let folder = directory.to_owned();
        let files = tokio::task::spawn_blocking(move || read_directory(&folder))
            .await
            .map_err(|error| Error::bad_request(error.to_string()))?
            .map_err(|errors| {
                let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
                Error::bad_request(lines.join("\n"))
            })?;
        self.apply_files(&files, origin).await
    }

    /// The same for files that were read already.
    pub async fn apply_files(&self, files: &[ModelFiles], origin: &Origin) -> Result<Applied> {
        let mut done = Vec::new();
        let mut lost = 0;
        'plan: loop {
            // Steps that other nodes have already taken are not repeated.
            self.core.catch_up(0).await?;
            let states: Vec<ModelState> = self.all().iter().map(state).collect();
            let Plan { steps, kept } = plan(files, &states);
            for step in steps {
                match self.carry_out(&step, origin).await {
                    Ok(()) => done.push(step),
                    // Another node that starts with the same files was first: each step is done by one of them.
                    Err(error) if is_race(&error) && lost < RACES_MAX => {
                        lost += 1;
                        tokio::time::sleep(RACE_PAUSE).await;
                        continue 'plan;
                    }
                    Err(error) => return Err(Error { detail: format!("{step}: {}", explain(&error)), ..error }),
                }
            }
            return Ok(Applied { steps: done, kept });
        }
    }

    async fn carry_out(&self, step: &Step, origin: &Origin) -> Result<()> {
        let options = WriteOptions::default();
        match step {
            Step::CreateModel { id, document } => {
                self.create(id, input(document)?, &options, origin).await?;
            }
            Step::ChangeModel { id, document, .. } => {
                self.update(id, input(document)?, &options, origin).await?;
            }
            Step::PutHooks { model, phase, chain, .. } => {
                let chain = chain.iter().map(binding).collect();
                self.put_hooks(model, *phase, chain, &options, origin).await?;
            }
            Step::RemoveHooks { model, phase, .. } => {
                self.delete_hooks(model, *phase, &options, origin).await?;
            }
        }
        Ok(())
    }
}

/// Whether somebody else changed the model meanwhile.
fn is_race(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Conflict | ErrorKind::Exists)
}

/// The error with its rows, since there is no problem document here.
fn explain(error: &Error) -> String {
    let mut text = error.detail.clone();
    for row in error.errors.iter().filter(|row| row.message != error.detail) {
        text.push_str(&format!("\n  {} {}", row.pointer, row.message));
    }
    text
}

fn state(model: &Arc<Model>) -> ModelState {
    let record = &model.record;
    let hook = |hook: &crate::catalog::HookRecord| HookState {
        name: hook.name.clone(),
        engine: hook.engine.clone(),
        artifact: hook.artifact.clone(),
        shadow: hook.mode == HookMode::Shadow,
        library: hook.library.clone(),
        language: hook.language,
        as_actor: hook.as_actor,
        origin: hook.origin,
    };
    ModelState {
        id: record.id.clone(),
        schema: record.schema.to_value().unwrap_or_default(),
        indexes: json::to_tree(&record.indexes).unwrap_or_default(),
        unique: json::to_tree(&record.unique).unwrap_or_default(),
        rules: record.rules.as_ref().and_then(|rules| rules.to_value().ok()).unwrap_or_default(),
        hooks: record.hooks.iter().map(|(phase, chain)| (*phase, chain.iter().map(hook).collect())).collect(),
    }
}

fn input(document: &Value) -> Result<ModelInput> {
    model_version(document.to_string().as_bytes())
}

fn binding(file: &BindingFile) -> BindingInput {
    BindingInput {
        name: file.name.clone(),
        engine: file.engine.clone(),
        code: match &file.code {
            CodeFile::Inline { bytes, .. } => BindingCode::Inline(bytes.clone()),
            CodeFile::Artifact(artifact) => BindingCode::Artifact(artifact.clone()),
            CodeFile::Library(library) => BindingCode::Library(library.clone()),
            CodeFile::Webhook(webhook) => BindingCode::Inline(webhook.code()),
        },
        shadow: file.shadow,
        as_actor: file.as_actor,
        language: file.code.language(),
        origin: HookOrigin::Files,
    }
}
