//! Checks and compiles the code of hooks, and keeps it as long as it is in use.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use futures::FutureExt;
use sha2::{Digest, Sha256};

use super::bound::BoundHook;
use super::guard::{lock, panic_text};
use crate::catalog::SourceLanguage;
use crate::config::{Limits, Phase};
use crate::hooks::artifacts::Artifacts;
use crate::hooks::code::Code;
use crate::hooks::context::{Failure, FailureCause};
use crate::hooks::engines::engine::{Candidate, EngineFact, HookEngine, PrepareError, PrepareErrorKind, PreparedCode};
use crate::hooks::grants::Granted;

/// How long the code of a bound hook may wait to be compiled.
const LOAD_MAX: Duration = Duration::from_secs(30);

/// Engine, phase, name (which appears in messages and stack traces) and SHA-256 of the code.
type PreparedKey = (&'static str, Phase, String, Option<SourceLanguage>, [u8; 32]);

/// The engines and the code that they have prepared.
pub struct HookCode {
    engines: Vec<Arc<dyn HookEngine>>,
    /// Code in use, so that the same code is only prepared once.
    prepared: Mutex<HashMap<PreparedKey, Weak<dyn PreparedCode>>>,
}

impl HookCode {
    pub(super) fn new(engines: Vec<Arc<dyn HookEngine>>) -> HookCode {
        HookCode { engines, prepared: Mutex::default() }
    }

    /// The names of this build's engines.
    pub fn engine_names(&self) -> impl Iterator<Item = &'static str> {
        self.engines.iter().map(|engine| engine.name())
    }

    /// The facts about the engines for metrics.
    pub fn engine_facts(&self) -> impl Iterator<Item = EngineFact> {
        self.engines.iter().filter_map(|engine| engine.fact())
    }

    /// Whether an engine runs libraries of the hooks directory with the server's own privileges.
    pub fn is_native(&self, engine: &str) -> bool {
        self.engine(engine).is_some_and(|engine| engine.is_native())
    }

    /// The limits of a call, given the engine and the grants.
    pub(super) fn limits(&self, engine: &str, granted: &Granted) -> Limits {
        self.engine(engine).map_or(granted.limits, |engine| engine.limits(granted))
    }

    /// The engine of that name.
    pub(super) fn engine(&self, name: &str) -> Option<&Arc<dyn HookEngine>> {
        self.engines.iter().find(|engine| engine.name() == name)
    }

    /// Checks and prepares code for a phase. The same code for the same phase and name is only prepared once while it
    /// is in use.
    pub async fn prepare(&self, engine: &str, candidate: Candidate<'_>) -> Result<Arc<dyn PreparedCode>, PrepareError> {
        let Candidate { code, phase, name, language } = candidate;
        let engine = self.engine(engine).ok_or_else(|| {
            let names: Vec<String> = self.engine_names().map(|name| format!("`{name}`")).collect();
            PrepareError::plain(format!("no engine `{engine}` in this build; there are {}", names.join(", ")))
        })?;
        let key = (engine.name(), phase, name.to_owned(), language, Sha256::digest(code).into());
        if let Some(prepared) = lock(&self.prepared).get(&key).and_then(Weak::upgrade) {
            return Ok(prepared);
        }
        let prepared = AssertUnwindSafe(engine.prepare(candidate)).catch_unwind().await.unwrap_or_else(|panic| {
            Err(PrepareError::plain(format!("engine `{}` failed on this code: {}", engine.name(), panic_text(&*panic))))
        })?;
        let mut cache = lock(&self.prepared);
        // Two callers may have prepared the same code at once: both use the first result.
        if let Some(first) = cache.get(&key).and_then(Weak::upgrade) {
            return Ok(first);
        }
        cache.retain(|_, prepared| prepared.strong_count() > 0);
        cache.insert(key, Arc::downgrade(&prepared));
        Ok(prepared)
    }

    /// Returns the prepared code; the first call loads it while the others wait.
    pub(super) async fn load(
        &self,
        hook: &BoundHook,
        code: &Code,
        artifacts: &dyn Artifacts,
    ) -> Result<Arc<dyn PreparedCode>, Failure> {
        if let Some(prepared) = code.prepared.get() {
            return Ok(Arc::clone(prepared));
        }
        let failed = |message: String| Failure {
            cause: FailureCause::Load,
            message: format!("hook `{}` could not be loaded: {message}", hook.label),
            limit: None,
        };
        if let Some(message) = code.recent_failure() {
            return Err(failed(message));
        }
        let load = async {
            if hook.file.is_some() {
                return Err(PrepareError::plain("its library was not loaded"));
            }
            let bytes = artifacts.code(&code.id.artifact).await.map_err(PrepareError::plain)?;
            let started = Instant::now();
            loop {
                let candidate = Candidate {
                    code: &bytes,
                    phase: code.id.phase,
                    name: &code.id.name,
                    language: hook.binding.language,
                };
                let prepared = self.prepare(&hook.binding.engine, candidate).await;
                match prepared {
                    // It was bound before, so it can be compiled: wait for a turn.
                    Err(error) if error.kind == PrepareErrorKind::Overloaded && started.elapsed() < LOAD_MAX => {}
                    prepared => return prepared,
                }
            }
        };
        match code.prepared.get_or_try_init(|| load).await {
            Ok(prepared) => Ok(Arc::clone(prepared)),
            Err(error) => {
                let message = error.to_string();
                match error.repeats {
                    true => code.failed_for_good(message.clone()),
                    false => code.failed(message.clone()),
                }
                Err(failed(message))
            }
        }
    }
}
