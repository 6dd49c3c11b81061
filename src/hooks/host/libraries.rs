//! Native libraries: loads them when their file appears or changes, and reports where they run.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::bound::BoundHook;
use super::code::HookCode;
use super::logs::Logs;
use crate::config::{Config, format_duration};
use crate::hooks::code::{Code, Followed, Found, Loading, Seen};
use crate::hooks::engines::engine::{Candidate, PrepareError};
use crate::hooks::grants::HookId;
use crate::hooks::library::{self, NOT_SANDBOXED};
use crate::hooks::loaded::Loaded;

/// The libraries that are loaded into the server's process, and those that hooks use.
pub struct Libraries {
    config: Arc<ArcSwap<Config>>,
    code: Arc<HookCode>,
    logs: Arc<Logs>,
    loaded: Loaded,
}

impl Libraries {
    pub(super) fn new(config: Arc<ArcSwap<Config>>, code: Arc<HookCode>, logs: Arc<Logs>) -> Libraries {
        Libraries { config, code, logs, loaded: Loaded::default() }
    }

    /// Loads a library now, so that the log shows it or why it failed; other code is loaded at its first run.
    pub async fn load(&self, hook: &BoundHook) {
        if hook.file.is_some() {
            let code = self.current(hook).await;
            if let Some(message) = code.recent_failure() {
                tracing::error!(hook = hook.label, "a native hook cannot run, so its calls fail: {message}");
            }
        }
    }

    /// The libraries loaded into the server's process, bound or not: the file, and how many versions of it.
    pub fn counts(&self) -> Vec<(String, usize)> {
        self.loaded.counts()
    }

    /// Records a library that was loaded to be checked, whether it is bound or not; returns a sentence that says so.
    /// `artifact` begins with `sha256:`.
    pub fn checked(&self, file: &str, artifact: &str) -> String {
        self.loaded.note(file, artifact);
        format!(
            "native library `{file}` ({artifact}) was loaded into the server to be checked: {NOT_SANDBOXED}, and it stays \
             until the server ends"
        )
    }

    /// The artifacts loaded from a hook's file, other than the running one.
    pub(super) fn beside(&self, hook: &BoundHook, code: &Code) -> Vec<String> {
        hook.file.as_ref().map_or_else(Vec::new, |file| self.loaded.beside(&file.name, &code.id.artifact))
    }

    /// Reports a loaded library for every hook that runs it, so that it is always clear which code is not sandboxed.
    pub(super) fn announce(&self, hook: &BoundHook, code: &Code) {
        let Some(file) = &hook.file else { return };
        self.loaded.note(&file.name, &code.id.artifact);
        let stay = match self.loaded.beside(&file.name, &code.id.artifact).len() {
            0 => String::new(),
            1 => "; 1 other content of this file stays loaded until the server ends".to_owned(),
            count => format!("; {count} other contents of this file stay loaded until the server ends"),
        };
        tracing::warn!(
            hook = hook.label,
            "native library `{}` ({}) is loaded: {NOT_SANDBOXED}, it can do whatever the server can{stay}",
            file.name,
            code.id.artifact
        );
        self.logs.tell_library(&hook.binding, &code.id.artifact, None);
    }

    /// The code that a call runs and that the API reports. For a library this is the current version of the file: after
    /// a change, the first call loads it while other calls continue with the previous version, if any.
    pub(super) async fn current(&self, hook: &BoundHook) -> Arc<Code> {
        let code = hook.code.load_full();
        let Some(file) = &hook.file else { return code };
        if code.is_settled() && !file.is_due() {
            return code;
        }
        let mut seen = match code.is_settled() {
            true => match file.seen.try_lock() {
                Ok(seen) => seen,
                Err(_) => return code,
            },
            false => file.seen.lock().await,
        };
        // Another call may have loaded it in the meantime.
        let code = hook.code.load_full();
        if code.is_settled() && !file.is_due() {
            return code;
        }
        let is_first = seen.loading.is_none();
        if is_first {
            match self.look(hook, file, &mut seen, &code).await {
                Ok(loading) => seen.loading = Some(loading),
                Err(code) => return code,
            }
        }
        let Some(mut loading) = seen.loading.take() else { return code };
        // The call that found the change waits for it, but no longer than a call may take.
        let patience = if is_first { code.granted(&self.config).limits.timeout } else { Duration::ZERO };
        let loaded = match tokio::time::timeout(patience, &mut loading.task).await {
            Ok(loaded) => loaded.unwrap_or_else(|error| Err(PrepareError::plain(error.to_string()))),
            Err(_) => {
                let name = &file.name;
                if is_first {
                    tracing::warn!(
                        hook = hook.label,
                        "native library `{name}` is still being loaded after {}",
                        format_duration(patience)
                    );
                }
                let waiting = Code::new(loading.id.clone(), loading.size, None);
                seen.loading = Some(loading);
                if code.prepared.initialized() {
                    return code;
                }
                waiting.failed(format!("`{name}` is still being loaded; its calls fail until it is"));
                hook.code.store(Arc::clone(&waiting));
                return waiting;
            }
        };
        let Loading { id, size, .. } = loading;
        let new = match loaded {
            Ok(prepared) => Code::new(id, size, Some(prepared)),
            Err(error) => {
                let broken = Code::new(id, size, None);
                let message =
                    format!("`{}`: {error}; put a library there that loads: until then its calls fail", file.name);
                tracing::error!(hook = hook.label, "a native hook's library cannot be loaded: {message}");
                self.logs.tell_library(&hook.binding, &broken.id.artifact, Some(&message));
                broken.failed(message);
                broken
            }
        };
        if new.prepared.initialized() {
            self.announce(hook, &new);
        }
        hook.code.store(Arc::clone(&new));
        new
    }

    /// Checks a hook's file and starts to load a new version; returns the current code if there is none.
    async fn look(
        &self,
        hook: &BoundHook,
        file: &Followed,
        seen: &mut Seen,
        code: &Arc<Code>,
    ) -> Result<Loading, Arc<Code>> {
        let (bytes, digest) = match file.look(seen, library::directory(&self.config.load()), code).await {
            Found::Same => return Err(Arc::clone(code)),
            Found::Fault(message) => {
                let broken = Code::new(HookId::clone(&code.id), code.size, None);
                self.logs.tell_library(&hook.binding, &code.id.artifact, Some(&message));
                broken.failed(format!("{message}; its calls fail until the file is there again"));
                tracing::error!(hook = hook.label, "a native hook lost its library, so its calls fail: {message}");
                hook.code.store(Arc::clone(&broken));
                return Err(broken);
            }
            Found::Bytes { bytes, digest } => (bytes, digest),
        };
        let id = HookId { artifact: format!("sha256:{digest}"), ..HookId::clone(&code.id) };
        tracing::info!(hook = hook.label, "loading native library `{}` ({})", file.name, id.artifact);
        let engine = self.code.engine(&hook.binding.engine).map(Arc::clone);
        let (size, phase, name) = (bytes.len() as u64, id.phase, id.name.clone());
        // Loading continues even if the call that found it has ended.
        let task = tokio::spawn(async move {
            let engine = engine.ok_or_else(|| PrepareError::plain("this build cannot load libraries"))?;
            engine.prepare(Candidate { code: &bytes, phase, name: &name, language: None }).await
        });
        Ok(Loading { id, size, task })
    }
}
