//! Compiles the code of hooks before anybody has to wait for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bound::BoundHook;
use super::runs::Runs;

/// Hooks that wait for the same compilation.
pub type Uncompiled = Vec<Arc<BoundHook>>;

impl Runs {
    /// The hooks whose first run would have to wait until their code is compiled. The cache is read once per engine.
    pub fn uncompiled(&self, hooks: impl IntoIterator<Item = Arc<BoundHook>>) -> Vec<Uncompiled> {
        let mut of_engine: BTreeMap<String, Vec<(String, Arc<BoundHook>)>> = BTreeMap::new();
        for hook in hooks {
            let code = hook.code.load_full();
            if let Some(digest) = code.id.artifact.strip_prefix("sha256:")
                && hook.file.is_none()
                && !code.is_settled()
            {
                of_engine.entry(hook.binding.engine.clone()).or_default().push((digest.to_owned(), hook));
            }
        }
        let mut groups: BTreeMap<(String, String), Uncompiled> = BTreeMap::new();
        for (name, hooks) in of_engine {
            let Some(engine) = self.code.engine(&name) else { continue };
            let digests: Vec<&str> = hooks.iter().map(|(digest, _)| &**digest).collect();
            let uncompiled = engine.uncompiled(&digests);
            for ((_, hook), uncompiled) in hooks.into_iter().zip(uncompiled) {
                if let Some(uncompiled) = uncompiled {
                    groups.entry((name.clone(), uncompiled)).or_default().push(hook);
                }
            }
        }
        groups.into_values().collect()
    }

    /// Compiles what a group waits for, by loading the code of one of its hooks. If the code cannot be compiled, none of them
    /// tries it again. Returns the hooks whose calls fail, with the reason.
    pub async fn compile(&self, group: &Uncompiled) -> Vec<(Arc<BoundHook>, String)> {
        let Some(attached) = self.attached.get() else { return Vec::new() };
        let mut failed = Vec::new();
        for (number, hook) in (1..).zip(group) {
            let code = hook.code.load_full();
            let Err(failure) = self.code.load(hook, &code, &*attached.artifacts).await else { break };
            failed.push((Arc::clone(hook), failure.message));
            let rest = &group[number..];
            if let Some(message) = code.lasting_failure() {
                for other in rest {
                    other.code.load().failed_for_good(message.clone());
                    let message = format!("hook `{}` could not be loaded: {message}", other.label);
                    failed.push((Arc::clone(other), message));
                }
                break;
            }
            // The compilation may have succeeded, and only this hook failed after it.
            if self.uncompiled(rest.first().cloned()).is_empty() {
                break;
            }
        }
        failed
    }

    /// Code that could not be loaded is loaded again at the next run: somebody has bound it again.
    pub fn bound_anew(&self, hook: &BoundHook) {
        hook.code.load().bound_anew();
    }
}
