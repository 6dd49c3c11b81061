//! Definitions: creates, changes and deletes models and their hooks.
//!
//! Every change of a definition is an event, which the projector puts in use when it reaches it.

mod apply;
mod artifacts;
mod bindings;
mod create;
mod define;
mod delete;
mod discard;
mod event;
mod faults;
mod hold;
pub(super) mod lists;
mod pace;
mod past_hooks;
mod prepared;
mod references;
mod review;
mod twins;
mod update;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures::{StreamExt, stream};
use tokio::sync::Semaphore;

use super::command::{HookInfo, ModelInput};
use super::core::Core;
use super::error::{Error, ErrorKind, Result};
use super::gate::{Closed, Closing};
use super::hanging::hanging;
use super::locks::OneModel;
use super::models::LiveModel;
use crate::catalog::{Definition, Effort, Model};
use crate::config::Phase;
use crate::hooks::engines::compiled_at_once;
use crate::hooks::host::Uncompiled;

/// Chains that are prepared concurrently.
const PREPARING_MAX: usize = 64;
/// Incompatible instances that are listed.
const LISTED_MAX: usize = 20;
/// Instances per page.
const PAGE: u32 = 500;
/// How often writes of other nodes may interrupt a change before it fails.
const DISTURBED_MAX: u32 = 8;

/// The service for models and their hooks.
#[derive(Clone)]
pub struct Definitions {
    core: Arc<Core>,
    /// Each of them may compile for seconds, on all cores.
    preparing: Arc<Semaphore>,
}

impl Definitions {
    pub(super) fn new(core: Arc<Core>) -> Definitions {
        Definitions { core, preparing: Arc::new(Semaphore::new(PREPARING_MAX)) }
    }

    /// Every model, by id.
    pub fn all(&self) -> Vec<Arc<Model>> {
        self.core.models.all().into_iter().map(|entry| Arc::clone(&entry.model)).collect()
    }

    /// `not-found` if there is none.
    pub fn get(&self, id: &str) -> Result<Arc<Model>> {
        Ok(Arc::clone(&self.core.models.require(id)?.model))
    }

    /// Updates the data of [`Definitions::hook_infos`]: checks the files of libraries, and reads the code of webhooks.
    pub async fn look_at_hooks(&self, model: &Model) {
        let Some(entry) = self.core.models.get(&model.record.id) else { return };
        for hook in entry.hooks() {
            self.core.host.runs.look_at(hook).await;
        }
    }

    /// Compiles the code of hooks that is not in the cache, so that no request has to wait for it. Logs the progress. Ends when
    /// everything is compiled or has failed: each compilation has limits.
    pub async fn compile_hooks(&self) {
        let runs = &self.core.host.runs;
        let entries = self.core.models.all();
        let groups = runs.uncompiled(entries.iter().flat_map(|entry| entry.hooks()).map(Arc::clone));
        if groups.is_empty() {
            return;
        }
        let (start, count) = (Instant::now(), groups.iter().map(Vec::len).sum::<usize>());
        tracing::info!("compiling the code of {count} hooks, which is not in the cache; the port opens afterwards");
        let done = &AtomicUsize::new(0);
        let compile = move |group: Uncompiled| async move {
            let failed = runs.compile(&group).await;
            for hook in &group {
                let number = done.fetch_add(1, Ordering::Relaxed) + 1;
                match failed.iter().find(|(other, _)| Arc::ptr_eq(other, hook)) {
                    None => tracing::info!("compiled `{}`, {number} of {count}", hook.label()),
                    Some((_, message)) => tracing::warn!("{number} of {count}, its calls fail: {message}"),
                }
            }
        };
        stream::iter(groups).for_each_concurrent(compiled_at_once(), compile).await;
        tracing::info!("the code of hooks is compiled, {:.1} s", start.elapsed().as_secs_f64());
    }

    /// A phase's hooks, in order.
    pub fn hook_infos(&self, model: &Model, phase: Phase) -> Vec<HookInfo> {
        let Some(entry) = self.core.models.get(&model.record.id) else { return Vec::new() };
        entry.chain(phase).iter().map(|hook| self.core.host.info(hook)).collect()
    }

    /// Checks and compiles a definition, when it is the model's turn.
    async fn compile(&self, model: &str, input: &ModelInput) -> Result<Definition> {
        let input = input.clone();
        let work = move |effort: &Effort| Definition::new_within(&input, effort);
        Ok(self.core.workers.run(model, work).await??)
    }

    /// Does long work on the worker threads, in turns with the checks of models. The work must respect the given
    /// effort.
    pub async fn in_turn<T: Send + 'static>(&self, work: impl FnOnce(&Effort) -> T + Send + 'static) -> Result<T> {
        /// No model can have this name.
        const TURN: &str = "openapi.json";
        self.core.workers.run(TURN, work).await
    }

    /// Waits until nobody else changes this model.
    async fn lock_model(&self, id: &str) -> Result<OneModel> {
        self.core.committer.answered(self.core.locks.of(id)).await.ok_or_else(hanging)
    }

    /// Rejects results from the model store if it has failed since then, because it may have missed events.
    fn check_undisturbed(&self, model: &str, outages: u64) -> Result<()> {
        self.core.availability.check_model(model)?;
        if self.core.availability.begun() == outages {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("the model store failed while the instances of `{model}` were checked; try again in a moment"),
        ))
    }

    /// Closes a model's gate. When this returns, every earlier write is in the model store.
    async fn close_gate(&self, entry: &Arc<LiveModel>, why: Closing) -> Result<Closed> {
        let closed = Closed::new(&entry.gate, why);
        self.core.committer.answered(self.core.committer.barrier()).await.ok_or_else(hanging)??;
        Ok(closed)
    }
}
