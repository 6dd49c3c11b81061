//! A live feed of hook runs: `GET /hooks/runs`, which `snaphook dev` uses.

use futures::stream::{self, Stream};
use serde::Serialize;
use snaphook_driver::time::{self, Millis};
use tokio::sync::broadcast;

use super::binding::{Binding, Mode};
use super::context::{Asked, Context, FieldError, LogLine, Outcome, Run};
use crate::config::Phase;

/// How far a follower may lag behind before it loses entries. The report of one run is at most 200 KiB.
const LAG_MAX: usize = 256;

/// One entry of the feed.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Told {
    Run(RunLine),
    Library(LibraryLine),
    Missed(Missed),
}

impl Told {
    /// The name of the entry's kind.
    pub fn name(&self) -> &'static str {
        match self {
            Told::Run(_) => "run",
            Told::Library(_) => "library",
            Told::Missed(_) => "missed",
        }
    }
}

/// The follower did not keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Missed {
    /// How many entries it missed.
    pub missed: u64,
}

/// A native library was loaded for a hook, or failed to load.
#[derive(Clone, Debug, Serialize)]
pub struct LibraryLine {
    #[serde(with = "time")]
    pub time: Millis,
    pub model: String,
    pub phase: Phase,
    /// The hook's name.
    pub hook: String,
    /// File name in the hooks directory.
    pub library: String,
    /// `sha256:…` of the file.
    pub artifact: String,
    /// Why the library does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

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
    /// The cause of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'static str>,
    /// The message of a rejection or a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldError>,
    /// Whether the verdict had no effect.
    pub shadow: bool,
    pub wall_ms: f64,
    pub host_ms: f64,
    pub memory_bytes: u64,
    pub log: Vec<LogLine>,
    pub asked: Vec<Asked>,
}

/// The feed. It costs nothing without followers.
pub(super) struct Feed(broadcast::Sender<Told>);

impl Default for Feed {
    fn default() -> Self {
        Feed(broadcast::Sender::new(LAG_MAX))
    }
}

impl Feed {
    /// A stream of all entries from now on.
    pub(super) fn follow(&self) -> impl Stream<Item = Told> + Send + use<> {
        use broadcast::error::RecvError;
        stream::unfold(self.0.subscribe(), |mut receiver| async move {
            match receiver.recv().await {
                Ok(told) => Some((told, receiver)),
                Err(RecvError::Lagged(missed)) => Some((Told::Missed(Missed { missed }), receiver)),
                Err(RecvError::Closed) => None,
            }
        })
    }

    /// Reports a library. `error` says why it does not run; without it, the library was loaded.
    pub(super) fn tell_library(&self, binding: &Binding, artifact: &str, error: Option<&str>) {
        let Some(library) = binding.library.as_ref().filter(|_| self.0.receiver_count() > 0) else { return };
        // An error means that the last follower has just left.
        let _ = self.0.send(Told::Library(LibraryLine {
            time: time::now(),
            model: binding.id.model.clone(),
            phase: binding.id.phase,
            hook: binding.id.name.clone(),
            library: library.clone(),
            artifact: artifact.to_owned(),
            error: error.map(str::to_owned),
        }));
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
        // An error means that the last follower has just left.
        let _ = self.0.send(Told::Run(RunLine {
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
        }));
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;
    use crate::hooks::grants::HookId;

    #[tokio::test]
    async fn who_lags_is_told_how_much_it_missed() {
        let feed = Feed::default();
        let id = HookId {
            model: "a".to_owned(),
            phase: Phase::PreCreate,
            name: "x".to_owned(),
            artifact: "sha256:00".to_owned(),
        };
        let binding = Binding {
            id,
            engine: "native".to_owned(),
            size: 1,
            mode: Mode::Enforce,
            position: 1,
            library: Some("libx.so".to_owned()),
            language: None,
            as_actor: false,
            origin: crate::catalog::HookOrigin::Rest,
        };
        let followed = feed.follow();
        for _ in 0..LAG_MAX + 7 {
            feed.tell_library(&binding, "sha256:01", None);
        }
        drop(feed);
        let told: Vec<Told> = followed.collect().await;
        let Told::Missed(missed) = &told[0] else { panic!("{:?}", told[0]) };
        assert_eq!((missed.missed, told.len()), (7, LAG_MAX + 1));
        assert!(told[1..].iter().all(|told| told.name() == "library"));
        assert_eq!(serde_json::to_string(&told[0]).unwrap(), r#"{"missed":7}"#);
    }
}
