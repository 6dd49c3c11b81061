//! Every run as it ends, for those who follow: `GET /hooks/runs`, and through it `snaphook dev`.

use serde::Serialize;
use snaphook_driver::time::{self, Millis};
use tokio::sync::broadcast;

use super::context::{Asked, Context, FieldError, LogLine, Outcome, Run};
use super::host::{Binding, Mode};
use crate::config::Phase;

/// Runs that a follower may lag behind before it loses some.
const LAG_MAX: usize = 1024;

/// One finished run.
#[derive(Clone, Debug, Serialize)]
pub struct RunLine {
    #[serde(with = "time")]
    pub time: Millis,
    pub model: String,
    pub phase: Phase,
    /// The hook's name.
    pub hook: String,
    pub instance: String,
    /// `accept`, `amend`, `reject` or `failed`.
    pub verdict: &'static str,
    /// Of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'static str>,
    /// Of a refusal or a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldError>,
    /// Whether the verdict decided nothing.
    pub shadow: bool,
    pub wall_ms: f64,
    pub host_ms: f64,
    pub memory_bytes: u64,
    pub log: Vec<LogLine>,
    pub asked: Vec<Asked>,
}

/// Costs nothing while nobody follows.
pub(super) struct Feed(broadcast::Sender<RunLine>);

impl Default for Feed {
    fn default() -> Self {
        Feed(broadcast::Sender::new(LAG_MAX))
    }
}

impl Feed {
    pub(super) fn follow(&self) -> broadcast::Receiver<RunLine> {
        self.0.subscribe()
    }

    pub(super) fn tell(&self, binding: &Binding, context: &Context, run: &Run) {
        if self.0.receiver_count() == 0 {
            return;
        }
        let ms = |duration: std::time::Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
        let (verdict, cause, message, fields) = match &run.outcome {
            Outcome::Accept => ("accept", None, None, Vec::new()),
            Outcome::Amend(_) => ("amend", None, None, Vec::new()),
            Outcome::Reject(rejection) => ("reject", None, Some(rejection.message.clone()), rejection.fields.clone()),
            Outcome::Failed(failure) => {
                ("failed", Some(failure.cause.as_str()), Some(failure.message.clone()), Vec::new())
            }
        };
        // An error means that the last follower just left.
        let _ = self.0.send(RunLine {
            time: time::now(),
            model: context.model.clone(),
            phase: context.phase,
            hook: binding.id.name.clone(),
            instance: context.instance.clone(),
            verdict,
            cause,
            message,
            fields,
            shadow: binding.mode == Mode::Shadow,
            wall_ms: ms(run.wall),
            host_ms: ms(run.host),
            memory_bytes: run.memory_bytes,
            log: run.log.clone(),
            asked: run.asked.clone(),
        });
    }
}
