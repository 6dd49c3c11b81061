//! Pre hooks: the chain of one phase decides on one change, before the event exists.

use std::sync::Arc;

use snaphook_driver::{Json, Provenance};

use super::Writes;
use crate::catalog::FieldError;
use crate::catalog::document::Document;
use crate::engine::amended::check_amended;
use crate::engine::command::HookDecision;
use crate::engine::error::{Error, ErrorKind};
use crate::engine::models::Entry;
use crate::hooks::context::{Context, Failure, FailureCause, Outcome, Run};
use crate::hooks::host::{BoundHook, FAILURE_BYTES_MAX, Mode};
use crate::memory::{Lease, Share, tree_bytes};
use crate::telemetry::line::shorten;

/// The result of a chain.
pub(super) enum Decided {
    Pass { document: Option<Document>, provenance: Vec<Provenance>, decisions: Vec<HookDecision> },
    Stop { error: Error, decisions: Vec<HookDecision> },
}

impl Writes {
    /// Runs the chain in order; each hook gets the data as the one before left it. The first one that rejects or fails
    /// stops the change. `trees` holds the memory of amended data.
    #[expect(clippy::too_many_arguments, reason = "each is a part of one change, and there is one caller")]
    pub(super) async fn decide(
        &self,
        entry: &Entry,
        chain: &[Arc<BoundHook>],
        mut context: Context,
        mut document: Option<Document>,
        prefix: &str,
        collect: bool,
        trees: &Lease<&Share>,
    ) -> Decided {
        let mut provenance = Vec::with_capacity(chain.len());
        let mut decisions = Vec::new();
        for hook in chain {
            let mut amended = None;
            let mut run = self.core.host.runs.unsettled(hook, &context).await;
            // Before the run is counted, and in shadow mode too.
            if let Outcome::Amend(data) = &run.outcome {
                let checked = match hold(trees, data) {
                    Ok(()) => check_amended(&self.core.workers, &entry.model, data, hook).await,
                    Err(failure) => Err(failure),
                };
                match checked {
                    Ok(document) => amended = Some(document),
                    Err(failure) => run.outcome = Outcome::Failed(failure),
                }
            }
            // Here, because the verdict of a hook in shadow mode is not visible elsewhere.
            if collect {
                decisions.push(decision(hook, &run));
            }
            let run = self.core.host.runs.settle(hook, &context, run);
            if matches!(run.outcome, Outcome::Amend(_))
                && let Some(amended) = amended
            {
                context.after = Some(amended.text.clone());
                document = Some(amended);
            }
            match run.outcome {
                Outcome::Accept | Outcome::Amend(_) => provenance.push(hook.provenance(&run)),
                Outcome::Reject(rejection) => {
                    let errors = rejection
                        .fields
                        .into_iter()
                        .map(|field| FieldError { pointer: format!("{prefix}{}", field.pointer), ..field })
                        .collect();
                    let error = Error::new(ErrorKind::Rejected, rejection.message)
                        .with_errors(errors)
                        .with_hook(hook.binding().id.name.clone());
                    return Decided::Stop { error, decisions };
                }
                Outcome::Failed(failure) => return Decided::Stop { error: failed(hook, failure), decisions },
            }
        }
        Decided::Pass { document, provenance, decisions }
    }
}

/// Memory for amended data and its tree.
fn hold(trees: &Lease<&Share>, data: &Json) -> Result<(), Failure> {
    trees.grow(data.len() + tree_bytes(data.as_bytes())).map_err(|shortage| Failure {
        cause: if shortage.can_fit() { FailureCause::Overloaded } else { FailureCause::Output },
        message: format!("the data that the hook returned needs too much memory: {shortage}"),
        limit: None,
    })
}

fn failed(hook: &BoundHook, failure: Failure) -> Error {
    let kind = match failure.cause {
        FailureCause::Overloaded => ErrorKind::Overloaded,
        _ => ErrorKind::HookFailed,
    };
    let detail = format!(
        "pre hook `{}` failed ({}), so nothing was stored: {}",
        hook.label(),
        failure.cause.as_str(),
        failure.message
    );
    Error::new(kind, detail).with_hook(hook.binding().id.name.clone())
}

fn decision(hook: &BoundHook, run: &Run) -> HookDecision {
    let (decision, mut message) = match &run.outcome {
        Outcome::Accept => ("accept", None),
        Outcome::Amend(_) => ("amend", None),
        Outcome::Reject(rejection) => ("reject", Some(rejection.message.clone())),
        Outcome::Failed(failure) => ("failed", Some(failure.message.clone())),
    };
    if let Some(message) = &mut message {
        shorten(message, FAILURE_BYTES_MAX);
    }
    let provenance = hook.provenance(run);
    HookDecision {
        name: provenance.name,
        model: None,
        engine: provenance.engine,
        artifact: provenance.artifact,
        decision,
        message,
        shadow: hook.binding().mode == Mode::Shadow,
        ms: provenance.ms,
    }
}
