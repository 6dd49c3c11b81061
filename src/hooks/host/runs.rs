//! Runs hooks: calls their code and handles the outcome.
//!
//! The steps of a run: current grants and limits, a permit among the calls of this hook, the engine with a session, the
//! amend grant, statistics and log. None of them takes a lock that hooks share.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures::FutureExt;
use snaphook_driver::{Json, PAYLOAD_BYTES_MAX};

use super::bound::BoundHook;
use super::code::HookCode;
use super::guard::panic_text;
use super::libraries::Libraries;
use super::logs::Logs;
use crate::catalog::rules::Right;
use crate::config::{Config, Phase, format_size};
use crate::hooks::artifacts::Artifacts;
use crate::hooks::binding::Mode;
use crate::hooks::code::Code;
use crate::hooks::context::{Context, Failure, FailureCause, Outcome, Retry, Run};
use crate::hooks::denial;
use crate::hooks::engines::engine::{CallReport, CallSettings};
use crate::hooks::session::{Services, Session};
use crate::telemetry::line::shorten;
use crate::telemetry::trace::{Span, SpanKind, scope};

/// Maximum size of a rejection, message and fields together, and number of fields.
const REJECTION_BYTES_MAX: usize = 64 * 1024;
const REJECTION_FIELDS_MAX: usize = 1_000;

/// Maximum size of a failure's message, which goes into logs, responses and the error store.
pub(crate) const FAILURE_BYTES_MAX: usize = 4 * 1024;

/// Runs hooks.
pub struct Runs {
    config: Arc<ArcSwap<Config>>,
    pub(super) code: Arc<HookCode>,
    libraries: Arc<Libraries>,
    logs: Arc<Logs>,
    pub(super) attached: OnceLock<Attached>,
}

pub(super) struct Attached {
    services: Arc<Services>,
    pub(super) artifacts: Arc<dyn Artifacts>,
}

impl Runs {
    pub(super) fn new(
        config: Arc<ArcSwap<Config>>,
        code: Arc<HookCode>,
        libraries: Arc<Libraries>,
        logs: Arc<Logs>,
    ) -> Runs {
        Runs { config, code, libraries, logs, attached: OnceLock::new() }
    }

    /// Only the first call has an effect.
    pub(super) fn attach(&self, services: Arc<Services>, artifacts: Arc<dyn Artifacts>) {
        let _ = self.attached.set(Attached { services, artifacts });
    }

    /// Reads a hook's code if the REST API needs it for the description.
    pub async fn look_at(&self, hook: &BoundHook) {
        let code = self.libraries.current(hook).await;
        let describes = self.code.engine(&hook.binding.engine).is_some_and(|engine| engine.describes_hooks());
        if let Some(attached) = self.attached.get().filter(|_| describes && !code.is_settled()) {
            // An error is reported as the hook's state.
            let _ = self.code.load(hook, &code, &*attached.artifacts).await;
        }
    }

    /// Runs a hook once. Never panics. A hook in shadow mode runs in the same way, but its outcome is always
    /// [`Outcome::Accept`]; the actual outcome is in its log and statistics.
    pub async fn run(&self, hook: &BoundHook, context: &Context) -> Run {
        self.checked(hook, context, |_| {}).await
    }

    /// The same, with a `check` of the caller that may change the outcome before it is counted and logged.
    pub async fn checked(&self, hook: &BoundHook, context: &Context, check: impl FnOnce(&mut Run)) -> Run {
        let mut run = self.unsettled(hook, context).await;
        check(&mut run);
        self.settle(hook, context, run)
    }

    /// The same, but neither counted nor logged: the caller may change the outcome and then passes it to
    /// [`Runs::settle`].
    pub async fn unsettled(&self, hook: &BoundHook, context: &Context) -> Run {
        let code = self.libraries.current(hook).await;
        let span = begin_span(hook, context);
        let run = match scope::within(span.scope_or_current(), self.call(hook, &code, context)).await {
            Ok(run) => run,
            Err(failure) => Run::unstarted(&code.id, failure),
        };
        Run { span, ..run }
    }

    /// Counts and logs a run. In shadow mode the outcome is then dropped.
    pub fn settle(&self, hook: &BoundHook, context: &Context, mut run: Run) -> Run {
        let shadow = hook.binding.mode == Mode::Shadow;
        match &mut run.outcome {
            Outcome::Failed(failure) => shorten(&mut failure.message, FAILURE_BYTES_MAX),
            // It is only logged.
            Outcome::Amend(data) if shadow => self.mask(hook, data),
            _ => {}
        }
        hook.stats.record(&run, shadow);
        hook.metrics.record(&run);
        run.span.note("snaphook.outcome", || outcome_word(&run.outcome));
        if let Outcome::Failed(failure) = &run.outcome {
            run.span.fail(|| failure.message.clone());
        }
        drop(std::mem::take(&mut run.span));
        self.logs.tell_run(hook, context, &run, shadow);
        tracing::debug!(
            hook = hook.label,
            instance = context.instance,
            outcome = outcome_word(&run.outcome),
            shadow,
            wall_us = run.wall.as_micros() as u64,
            host_us = run.host.as_micros() as u64,
            memory_bytes = run.memory_bytes,
            "hook ran"
        );
        if shadow {
            run.outcome = Outcome::Accept;
        }
        run
    }

    fn mask(&self, hook: &BoundHook, data: &mut Json) {
        let Some(attached) = self.attached.get() else { return };
        let granted = hook.code.load().granted(&self.config);
        if let Cow::Owned(masked) = attached.services.masks.mask(data.as_str(), &granted.secret) {
            *data = Json::trusted(masked);
        }
    }

    async fn call(&self, hook: &BoundHook, code: &Code, context: &Context) -> Result<Run, Failure> {
        let attached = self.attached.get().ok_or_else(|| Failure {
            cause: FailureCause::Internal,
            message: "the server is not ready to run hooks".to_owned(),
            limit: None,
        })?;
        let prepared = self.code.load(hook, code, &*attached.artifacts).await?;
        let granted = code.granted(&self.config);
        let config = granted.config();
        let _place = hook.places.take(config.hooks.concurrency).await?;
        let settings = CallSettings { limits: granted.limits, isolation: config.hooks.isolation };
        let right = match hook.binding.as_actor {
            true => Right::of_actor(context.actor.as_ref()),
            false => Right::Server,
        };
        let session = Session::new(&attached.services, Arc::clone(&granted), context, right);
        let started = Instant::now();
        let report = AssertUnwindSafe(prepared.call(context, &settings, &session)).catch_unwind().await;
        let wall = started.elapsed();
        let CallReport { outcome, cpu, memory_bytes, retry } = report.unwrap_or_else(|panic| {
            let message = format!("engine `{}` failed: {}", hook.binding.engine, panic_text(&*panic));
            tracing::error!(hook = hook.label, "{message}");
            let outcome = Outcome::Failed(Failure { cause: FailureCause::Internal, message, limit: None });
            CallReport { outcome, cpu: Duration::ZERO, memory_bytes: 0, retry: Retry::Usual }
        });
        let outcome = check_outcome(outcome, context.phase, &session);
        let mut outcome = session.masked_outcome(outcome);
        let host = session.host_time();
        let (mut log, asked) = session.finish();
        if asked.iter().any(|asked| !asked.granted) {
            let failure = match &mut outcome {
                Outcome::Failed(failure) => Some(&mut failure.message),
                _ => None,
            };
            denial::tidy(failure, &mut log);
        }
        Ok(Run {
            hook: Arc::clone(&code.id),
            outcome,
            wall,
            host,
            cpu,
            memory_bytes,
            retry,
            log,
            asked,
            span: Span::default(),
        })
    }
}

/// Checks an outcome against the phase, the amend grant and the size limits.
fn check_outcome(outcome: Outcome, phase: Phase, session: &Session) -> Outcome {
    let too_large = |what: &str, bytes: usize, limit: usize| {
        let limit = format_size(limit);
        Outcome::Failed(Failure {
            cause: FailureCause::Output,
            message: format!("{what} is {bytes} bytes, at most {limit} are allowed"),
            limit: Some(format!("output {limit}")),
        })
    };
    match outcome {
        Outcome::Amend(data) => match session.check_amend() {
            Err(failure) => Outcome::Failed(failure),
            Ok(()) if data.len() > PAYLOAD_BYTES_MAX => too_large("the amended data", data.len(), PAYLOAD_BYTES_MAX),
            Ok(()) => Outcome::Amend(data),
        },
        // The event already happened and cannot be rejected: the run counts as failed and is retried.
        Outcome::Reject(rejection) if !phase.is_pre() => {
            Outcome::Failed(Failure { cause: FailureCause::Exception, message: rejection.message, limit: None })
        }
        Outcome::Reject(rejection) if rejection.fields.len() > REJECTION_FIELDS_MAX => Outcome::Failed(Failure {
            cause: FailureCause::Output,
            message: format!(
                "the refusal names {} fields, at most {REJECTION_FIELDS_MAX} are allowed",
                rejection.fields.len()
            ),
            limit: Some(format!("refusal {REJECTION_FIELDS_MAX} fields")),
        }),
        Outcome::Reject(rejection) => {
            let fields = rejection.fields.iter().map(|field| field.pointer.len() + field.message.len());
            let bytes = rejection.message.len() + fields.sum::<usize>();
            match bytes > REJECTION_BYTES_MAX {
                true => too_large("the refusal", bytes, REJECTION_BYTES_MAX),
                false => Outcome::Reject(rejection),
            }
        }
        other => other,
    }
}

/// The span of a run: a pre hook is a part of its request, a post hook follows from it.
fn begin_span(hook: &BoundHook, context: &Context) -> Span {
    let phase = context.phase;
    let kind = if phase.is_pre() { SpanKind::Internal } else { SpanKind::Consumer };
    let mut span = Span::begin("hook", kind);
    span.name(|| format!("hook {}", hook.label));
    span.note("snaphook.model", || context.model.clone());
    span.note("snaphook.phase", || phase.as_str());
    span.note("snaphook.hook", || hook.binding.id.name.clone());
    span.note("snaphook.engine", || hook.binding.engine.clone());
    if let Some(event) = &context.event {
        span.note("snaphook.event.position", || event.position);
        span.note("snaphook.attempt", || u64::from(context.attempt));
    }
    span
}

fn outcome_word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Accept => "accept",
        Outcome::Amend(_) => "amend",
        Outcome::Reject(_) => "reject",
        Outcome::Failed(failure) => failure.cause.as_str(),
    }
}
