//! The engine `webhook`: sends the event of a post hook to a URL, signed by the scheme of Standard Webhooks.
//!
//! Its "code" is the description in the binding (`catalog::Webhook`). One call is one request (attempt.rs), which needs
//! the grants of its hook like any request of a hook; the event delivery decides when to retry. The number of
//! concurrent requests to one server is limited (targets.rs), so that a slow server does not use up resources that
//! others need.

mod attempt;
mod lacks;
mod signature;
mod targets;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use snaphook_driver::time::{self, Millis};

pub use self::lacks::lacks;
use self::targets::{Targets, WebhookTarget};
use super::engine::{CallReport, CallSettings, Candidate, HookEngine, HookState, PrepareError, PreparedCode};
use crate::catalog::{WEBHOOK, Webhook};
use crate::config::Limits;
use crate::hooks::capabilities::http::{TIMEOUT_MAX, check_url};
use crate::hooks::context::{Context, Failure, FailureCause, LogLevel, Outcome, Retry};
use crate::hooks::grants::Granted;
use crate::hooks::session::Session;

/// Timeout for a receiver if no grant sets one.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

/// CPU time: no code of an author runs.
const NO_CODE: Duration = Duration::ZERO;

/// The engine.
#[derive(Default)]
pub(super) struct WebhookEngine {
    targets: Targets,
}

#[async_trait]
impl HookEngine for WebhookEngine {
    fn name(&self) -> &'static str {
        WEBHOOK
    }

    async fn prepare(&self, candidate: Candidate<'_>) -> Result<Arc<dyn PreparedCode>, PrepareError> {
        let Candidate { code, phase, .. } = candidate;
        if phase.is_pre() {
            return Err(PrepareError::plain(Webhook::too_early(phase)));
        }
        let webhook = Webhook::parse(code).map_err(PrepareError::plain)?;
        check_url(&webhook.url).map_err(|error| PrepareError::plain(format!("`url`: {error}")))?;
        let target = self.targets.of(&webhook.url);
        Ok(Arc::new(PreparedWebhook { webhook, target, gone_since: Mutex::default() }))
    }

    fn describes_hooks(&self) -> bool {
        true
    }

    fn limits(&self, granted: &Granted) -> Limits {
        Limits { timeout: timeout(granted.timeout), ..granted.limits }
    }
}

/// A bound webhook.
struct PreparedWebhook {
    webhook: Webhook,
    target: Arc<WebhookTarget>,
    /// When the receiver responded that it wants no more events.
    gone_since: Mutex<Option<Millis>>,
}

/// From the connection to the response's head; the `timeout` of the grants, if any.
fn timeout(granted: Option<Duration>) -> Duration {
    granted.unwrap_or(TIMEOUT_DEFAULT).min(TIMEOUT_MAX)
}

/// A failed delivery attempt.
struct Undelivered {
    failure: Failure,
    retry: Retry,
}

impl Undelivered {
    fn of(cause: FailureCause, message: String) -> Self {
        Undelivered { failure: Failure { cause, message, limit: None }, retry: Retry::Usual }
    }
}

impl PreparedWebhook {
    fn gone_since(&self) -> Option<Millis> {
        *self.gone_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_gone(&self, since: Option<Millis>) {
        *self.gone_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

#[async_trait]
impl PreparedCode for PreparedWebhook {
    async fn call(&self, context: &Context, _: &CallSettings, session: &Arc<Session>) -> CallReport {
        let delivered = self.attempt(context, session).await;
        // Each attempt writes one line to the hook's log; for a failure, the failure itself does that.
        let position = context.event.as_ref().map_or(0, |event| event.position);
        let which = format!("event {position}, attempt {}", context.attempt);
        match delivered {
            Ok(told) => {
                // A single line never exceeds the limits.
                let _ = session.log(LogLevel::Info, format!("{which}: {told}"));
                CallReport::new(Outcome::Accept, NO_CODE, 0)
            }
            Err(Undelivered { failure, retry }) => {
                let failure = Failure { message: format!("{which}: {}", failure.message), ..failure };
                CallReport { retry, ..CallReport::new(Outcome::Failed(failure), NO_CODE, 0) }
            }
        }
    }

    fn bound_anew(&self, _: &str) {
        self.set_gone(None);
    }

    fn state(&self, _: &str) -> HookState {
        match self.gone_since() {
            Some(_) => HookState::Unavailable,
            None => HookState::Ok,
        }
    }

    fn webhook(&self) -> Option<&Webhook> {
        Some(&self.webhook)
    }
}

/// The failure of a hook whose receiver wants no more events.
fn gone(since: Millis) -> Undelivered {
    let message = format!(
        "the receiver returned 410 Gone at {}, so nothing is sent to it until the hook is bound again",
        time::format(since)
    );
    Undelivered { retry: Retry::Never, ..Undelivered::of(FailureCause::Exception, message) }
}

#[cfg(test)]
mod tests;
