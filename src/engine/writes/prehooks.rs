//! Pre hooks: the chain of one phase decides on one change, before the event exists.

use std::borrow::Cow;
use std::sync::Arc;

use snaphook_driver::{Json, Provenance};

use super::Writes;
use crate::catalog::FieldError;
use crate::catalog::document::Document;
use crate::engine::amended::check_amended;
use crate::engine::command::HookDecision;
use crate::engine::error::{Error, ErrorKind};
use crate::engine::models::LiveModel;
use crate::hooks::context::{Context, Failure, FailureCause, Outcome, Run};
use crate::hooks::grant_lines;
use crate::hooks::host::{BoundHook, FAILURE_BYTES_MAX, Mode};
use crate::memory::{Lease, Share, tree_bytes};
use crate::telemetry::line::shorten;
use crate::telemetry::repeats::Repeats;

/// Hooks that failed lately, each with its cause.
static FAILURES: Repeats = Repeats::new();

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
        entry: &LiveModel,
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
                        .map(|field| FieldError {
                            pointer: format!("{prefix}{}", field.pointer),
                            message: for_clients(field.message),
                        })
                        .collect();
                    let error = Error::new(ErrorKind::Rejected, for_clients(rejection.message))
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
    let (label, cause) = (hook.label(), failure.cause.as_str());
    // Every client may make it fail; its own log has each failure.
    if FAILURES.is_news(&format!("{label} {cause}")) {
        tracing::warn!("pre hook `{label}` failed ({cause}), so nothing was stored: {}", failure.message);
    }
    let message = for_clients(failure.message);
    let detail = format!("pre hook `{label}` failed ({cause}), so nothing was stored: {message}");
    Error::new(kind, detail).with_hook(hook.binding().id.name.clone())
}

/// What a client gets of a message of a hook. Whoever runs the server finds all of it in the log of the hook.
fn for_clients(message: String) -> String {
    match grant_lines::without(&message) {
        Cow::Borrowed(_) => message,
        Cow::Owned(shorter) => shorter,
    }
}

fn decision(hook: &BoundHook, run: &Run) -> HookDecision {
    let (decision, mut message) = match &run.outcome {
        Outcome::Accept => ("accept", None),
        Outcome::Amend(_) => ("amend", None),
        Outcome::Reject(rejection) => ("reject", Some(rejection.message.clone())),
        Outcome::Failed(failure) => ("failed", Some(failure.message.clone())),
    };
    if let Some(message) = &mut message {
        *message = for_clients(std::mem::take(message));
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
