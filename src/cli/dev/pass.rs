//! Makes the server match the files, again and again; what was said already is not said twice.
//!
//! Models are made one after the other. Hooks go to the server all at once: one that takes seconds to compile keeps no
//! other waiting, and is announced at once.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_json::Value;

use super::paths::shown;
use crate::catalog::files::{BindingFile, CodeFile, FileError, read_what_is_whole};
use crate::catalog::plan::{Plan, Step, plan};
use crate::cli::apply::{carry_out, states};
use crate::cli::client::{Client, path};
use crate::cli::failure::{Failure, Result};
use crate::cli::{identity, output};
use crate::config::Phase;

/// What takes longer is announced.
const LONG: Duration = Duration::from_millis(300);

/// What is known of the files and the server.
pub(super) struct Pass {
    client: Arc<Client>,
    directory: PathBuf,
    /// Where the server's data must be, unless the user named the server.
    own: Option<String>,
    /// The last error that is about no step.
    error: String,
    /// What is wrong with the files.
    faults: String,
    /// Which hooks stay though no file names them; said already.
    kept: String,
    /// Of each step that failed: which code or definition, and why.
    failed: HashMap<String, (u64, String)>,
    /// Hooks on their way to the server.
    under_way: FuturesUnordered<BoxFuture<'static, Arrived>>,
    /// Which they are; `true` if another pass found that there is more to do for it.
    places: HashMap<(String, Phase), bool>,
    /// The server did not answer the last time.
    pub(super) is_cut_off: bool,
    /// Whether a hook is a native library, which changes without a step.
    pub(super) has_libraries: bool,
}

/// A step that was taken.
struct Arrived {
    step: Step,
    took: Duration,
    result: Result<()>,
    /// What is worth knowing of what was bound.
    notes: Vec<String>,
}

impl Pass {
    pub(super) fn new(client: Arc<Client>, directory: &Path, own: Option<String>) -> Self {
        Pass {
            client,
            directory: directory.to_owned(),
            own,
            error: String::new(),
            faults: String::new(),
            kept: String::new(),
            failed: HashMap::new(),
            under_way: FuturesUnordered::new(),
            places: HashMap::new(),
            is_cut_off: false,
            has_libraries: false,
        }
    }

    /// Sends what differs. An error is one of printing.
    pub(super) async fn run(&mut self) -> Result<()> {
        let result = self.try_run().await;
        self.note(result)
    }

    /// Waits until a hook that is under way has arrived; for ever if there is none. Tells whether another pass is due.
    /// Nothing is lost if the wait is given up.
    pub(super) async fn arrival(&mut self) -> Result<bool> {
        match self.under_way.next().await {
            Some(arrived) => self.arrived(arrived),
            None => std::future::pending().await,
        }
    }

    /// Waits until nothing is under way.
    pub(super) async fn arrivals(&mut self) -> Result<()> {
        while let Some(arrived) = self.under_way.next().await {
            self.arrived(arrived)?;
        }
        Ok(())
    }

    fn arrived(&mut self, Arrived { step, took, result, notes }: Arrived) -> Result<bool> {
        let again = place(&step).and_then(|place| self.places.remove(&place)).unwrap_or(false);
        let result = self.taken(&step, took, result);
        self.note(result)?;
        notes.iter().try_for_each(|note| output::line(format!("    {note}")))?;
        Ok(again)
    }

    fn note(&mut self, result: Result<()>) -> Result<()> {
        match result {
            Err(Failure::OutputClosed) => Err(Failure::OutputClosed),
            Err(error @ (Failure::NoServer(_) | Failure::Broken(_))) => {
                if !std::mem::replace(&mut self.is_cut_off, true) {
                    output::line(error)?;
                }
                Ok(())
            }
            Err(error) => {
                let error = error.to_string();
                if error != self.error {
                    output::line(&error)?;
                    self.error = error;
                }
                Ok(())
            }
            Ok(()) => {
                self.error.clear();
                if std::mem::take(&mut self.is_cut_off) {
                    output::line("the server is available again")?;
                }
                Ok(())
            }
        }
    }

    async fn try_run(&mut self) -> Result<()> {
        let (files, faults) = read_what_is_whole(&self.directory);
        let faults = faults.into_iter().map(|fault| FileError { path: shown(&fault.path).into(), ..fault }.to_string());
        let faults = faults.collect::<Vec<_>>().join("\n");
        if faults != self.faults {
            if !faults.is_empty() {
                output::line(&faults)?;
            }
            self.faults = faults;
        }
        let client = Arc::clone(&self.client);
        if self.is_cut_off {
            // Another project's may listen there now.
            identity::check(&client, self.own.as_deref()).await?;
        }
        let server = states(&client, files.iter().map(|model| model.id.as_str())).await?;
        let bound = || server.iter().flat_map(|model| model.hooks.values().flatten());
        self.has_libraries = bound().any(|hook| hook.library.is_some());
        let artifacts: Arc<HashSet<String>> =
            Arc::new(bound().map(|hook| hook.artifact.trim_start_matches("sha256:").to_owned()).collect());
        let Plan { steps, kept } = plan(&files, &server);
        let kept = kept.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        if kept != self.kept {
            if !kept.is_empty() {
                output::line(&kept)?;
            }
            self.kept = kept;
        }
        self.failed.retain(|step, _| steps.iter().any(|now| now.to_string() == *step));
        for step in steps {
            let Some(place) = place(&step) else {
                let started = Instant::now();
                let result = carry_out(&client, &step, &[]).await;
                self.taken(&step, started.elapsed(), result)?;
                continue;
            };
            if let Some(again) = self.places.get_mut(&place) {
                *again = true;
                continue;
            }
            self.places.insert(place, false);
            // What failed is tried again at each change: another file may have been the reason.
            let tried = self.failed.get(&step.to_string()).is_some_and(|(tried, _)| *tried == digest(&step));
            let (client, artifacts) = (Arc::clone(&client), Arc::clone(&artifacts));
            self.under_way.push(Box::pin(send(client, step, artifacts, !tried)));
        }
        Ok(())
    }

    /// Says how a step went; the error of a server that is gone is given back.
    fn taken(&mut self, step: &Step, took: Duration, result: Result<()>) -> Result<()> {
        let name = step.to_string();
        match result {
            Ok(()) => {
                self.failed.remove(&name);
                output::line(format!("{step}, {:.0} ms", took.as_secs_f64() * 1e3))
            }
            Err(error @ (Failure::NoServer(_) | Failure::Broken(_))) => Err(error),
            Err(error) => {
                let now = (digest(step), error.to_string());
                if self.failed.get(&name) != Some(&now) {
                    output::line(format!("{}: {}", position(step, &self.directory, &now.1), now.1))?;
                    output::line(format!("    {}", goes_on(step)))?;
                    self.failed.insert(name, now);
                }
                Ok(())
            }
        }
    }
}

/// What the server has instead of what it could not take.
fn goes_on(step: &Step) -> String {
    match step {
        Step::CreateModel { id, .. } => format!("there is still no model `{id}`"),
        Step::ChangeModel { id, .. } => format!("model `{id}` stays as it was"),
        Step::PutHooks { model, phase, new: true, .. } => format!("`{model}.{phase}` still has no hook"),
        Step::PutHooks { model, phase, new: false, .. } | Step::RemoveHooks { model, phase, .. } => {
            format!("`{model}.{phase}` keeps running the code that was bound before")
        }
    }
}

/// The phase that a step is about, if it is about hooks.
fn place(step: &Step) -> Option<(String, Phase)> {
    match step {
        Step::PutHooks { model, phase, .. } | Step::RemoveHooks { model, phase, .. } => Some((model.clone(), *phase)),
        Step::CreateModel { .. } | Step::ChangeModel { .. } => None,
    }
}

/// Takes a step; `announced`: says so if it takes long.
async fn send(client: Arc<Client>, step: Step, artifacts: Arc<HashSet<String>>, announced: bool) -> Arrived {
    let started = Instant::now();
    let artifacts: Vec<&str> = artifacts.iter().map(String::as_str).collect();
    let mut sent = Box::pin(carry_out(&client, &step, &artifacts));
    let result = match tokio::time::timeout(LONG, &mut sent).await {
        Ok(result) => result,
        Err(_) => {
            if let (true, Step::PutHooks { model, phase, chain, .. }) = (announced, &step) {
                let files: Vec<_> = chain.iter().map(file).collect();
                // Who does not read it does not read the end either, and that is noticed.
                let _ = output::line(format!("{model}.{phase}: binding {} …", files.join(", ")));
            }
            sent.as_mut().await
        }
    };
    drop(sent);
    let took = started.elapsed();
    let notes = match (&result, &step) {
        (Ok(()), Step::PutHooks { model, phase, .. }) => top_levels(&client, model, *phase).await,
        _ => Vec::new(),
    };
    Arrived { took, result, step, notes }
}

/// The hooks whose code outside of functions runs at each call, which costs time that it need not cost.
async fn top_levels(client: &Client, model: &str, phase: Phase) -> Vec<String> {
    // Nobody misses it where it cannot be asked for.
    let Ok(hooks) = client.get(&path(&["models", model, "hooks"])).await else { return Vec::new() };
    let hooks = hooks[phase.as_str()].as_array().cloned().unwrap_or_default();
    let note = |hook: &Value| {
        let (name, reason) = (hook["name"].as_str()?, hook["top_level_reason"].as_str()?);
        Some(format!("{name}: its top level runs at each call, since it {reason}"))
    };
    hooks.iter().filter_map(note).collect()
}

/// A file's name, and its size where that says why it takes long.
fn file(binding: &BindingFile) -> String {
    let name = binding.path.file_name().unwrap_or_default().to_string_lossy();
    match &binding.code {
        CodeFile::Inline { bytes, .. } => format!("{name} ({}, {} bytes)", binding.engine, bytes.len()),
        CodeFile::Artifact(_) | CodeFile::Library(_) | CodeFile::Webhook(_) => format!("{name} ({})", binding.engine),
    }
}

fn digest(step: &Step) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{step:?}").hash(&mut hasher);
    hasher.finish()
}

/// The file that a step is about, with line and column if the message names them, so that an editor can jump there.
fn position(step: &Step, directory: &Path, message: &str) -> String {
    let file = match step {
        Step::CreateModel { id, .. } | Step::ChangeModel { id, .. } => directory.join(id).join("model.json"),
        Step::PutHooks { chain, .. } if !chain.is_empty() => chain[0].path.clone(),
        Step::PutHooks { model, .. } | Step::RemoveHooks { model, .. } => directory.join(model),
    };
    let shown = shown(&file);
    let number = |word: &str| {
        let rest = &message[message.find(word)? + word.len()..];
        let digits = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
        (digits > 0).then(|| &rest[..digits])
    };
    match (number("(line "), number(", column ")) {
        (Some(line), Some(column)) => format!("{shown}:{line}:{column}"),
        (Some(line), None) => format!("{shown}:{line}"),
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions() {
        let step = Step::RemoveHooks { model: "a".to_owned(), phase: crate::config::Phase::PreCreate, names: vec![] };
        let place = |message| position(&step, Path::new("hooks"), message);
        assert_eq!(place("it is wrong (line 3, column 10)"), "hooks/a:3:10");
        assert_eq!(place("it is wrong (line 3)"), "hooks/a:3");
        assert_eq!(place("it is wrong (line x)"), "hooks/a");
    }
}
