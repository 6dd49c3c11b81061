//! Compiled code on disk: a component is compiled once per machine, not once per start.
//!
//! Derived state: any file may be removed at any time and is then recreated. compiled.rs decides which files may be
//! run.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::{Duration, SystemTime};

use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use super::artifact::{self, Code};
use super::compiled::{Compiled, Verified};
use super::config::{ENGINE_NAME, Runtime};
use crate::hooks::engines::engine::PrepareError;

/// Compiled code that was not used for this long is removed, even if there is room.
const AGE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Total size of compiled code; beyond that, the least recently used is removed.
const FOLDER_BYTES_MAX: u64 = 1 << 30;

/// The folder of compiled code, `[hooks] cache`.
#[derive(Clone, Debug)]
pub(in crate::hooks::engines) struct CodeCache {
    folder: PathBuf,
}

/// Names of files with compiled code.
pub(in crate::hooks::engines) struct CachedNames(BTreeSet<String>);

impl CachedNames {
    /// Whether there is a file for a key with this prefix. Its content is checked when it is loaded.
    pub(in crate::hooks::engines) fn may_have(&self, key: &str) -> bool {
        self.0
            .range::<str, _>((Bound::Included(key), Bound::Unbounded))
            .next()
            .is_some_and(|name| name.starts_with(key))
    }
}

impl CodeCache {
    pub(in crate::hooks::engines) fn new(folder: &Path) -> Self {
        CodeCache { folder: folder.to_owned() }
    }

    /// The names of the files that are there now.
    pub(in crate::hooks::engines) fn names(&self) -> CachedNames {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        CachedNames(names.filter(|name| name.contains(ENGINE_NAME) && name.ends_with(".bin")).collect())
    }

    /// The cached code for `key`, if any. `key` identifies the code and everything that it depends on.
    async fn find<C: Code>(&self, runtime: &Runtime, key: &str) -> Option<C> {
        static PRUNED: Once = Once::new();
        let (cache, engine, path) = (self.clone(), runtime.engine.clone(), self.path(&runtime.engine, key));
        let found = tokio::task::spawn_blocking(move || {
            PRUNED.call_once(|| cache.prune(SystemTime::now(), FOLDER_BYTES_MAX));
            cache.load(&engine, &path)
        });
        found.await.ok().flatten()
    }

    /// The cached code for `key`; otherwise compiles `code` and caches it.
    pub(in crate::hooks::engines) async fn component(
        &self,
        runtime: &Runtime,
        key: &str,
        code: &[u8],
    ) -> Result<Component, PrepareError> {
        match self.find(runtime, key).await {
            Some(component) => Ok(component),
            None => {
                let compiled = Compiled::of_foreign(code).await.map_err(PrepareError::of_compiler)?;
                self.keep(runtime, key, Arc::new(compiled)).await
            }
        }
    }

    /// The same for one of this program's own modules, which is not checked, in each of the runtimes.
    pub(in crate::hooks::engines) async fn own_module<const N: usize>(
        &self,
        runtimes: [&Runtime; N],
        key: &str,
        code: &[u8],
    ) -> Result<[Module; N], PrepareError> {
        let mut compiled = None;
        let mut modules = Vec::with_capacity(N);
        for runtime in runtimes {
            modules.push(match self.find(runtime, key).await {
                Some(module) => module,
                None => {
                    // The compiled code is the same for all of them.
                    let compiled = match &compiled {
                        Some(compiled) => compiled,
                        None => compiled.insert(Arc::new(Compiled::of_own(code).await?)),
                    };
                    self.keep(runtime, key, Arc::clone(compiled)).await?
                }
            });
        }
        modules.try_into().map_err(|_| PrepareError::plain("a module is not there"))
    }

    async fn keep<C: Code>(&self, runtime: &Runtime, key: &str, compiled: Arc<Compiled>) -> Result<C, PrepareError> {
        let (cache, engine, path) = (self.clone(), runtime.engine.clone(), self.path(&runtime.engine, key));
        let loaded = tokio::task::spawn_blocking(move || {
            let code = artifact::load_compiled(&engine, &compiled).map_err(|error| format!("{error:#}"))?;
            // Without a cache everything still works, only slower.
            if let Err(error) = compiled.write(&cache.folder, &path) {
                tracing::warn!(path = %path.display(), %error, "cannot store compiled code");
            }
            Ok::<_, String>(code)
        });
        let loaded = loaded.await.unwrap_or_else(|error| Err(error.to_string()));
        loaded.map_err(PrepareError::plain)
    }

    fn load<C: Code>(&self, engine: &Engine, path: &Path) -> Option<C> {
        let content = match Verified::read(&self.folder, path) {
            Ok(content) => content?,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "compiled code is not used and is rebuilt");
                return None;
            }
        };
        match artifact::load_verified(engine, &content) {
            Ok(code) => Some(code),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "compiled code is not used and is rebuilt");
                None
            }
        }
    }

    /// Removes files that were not used for long or exceed the size limit. Only touches files that the cache wrote,
    /// complete or not.
    fn prune(&self, now: SystemTime, bytes_max: u64) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut files = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if let Ok(metadata) = entry.metadata()
                && metadata.is_file()
                && (name.ends_with(".bin") || name.starts_with(".tmp"))
                && let Ok(used) = metadata.modified()
            {
                files.push((used, metadata.len(), entry.path()));
            }
        }
        // Most recently used first.
        files.sort_by_key(|(used, ..)| std::cmp::Reverse(*used));
        let mut bytes = 0;
        for (used, size, path) in files {
            bytes += size;
            let old = now.duration_since(used).is_ok_and(|age| age > AGE_MAX);
            if (old || bytes > bytes_max)
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove old compiled code");
            }
        }
    }

    fn path(&self, engine: &Engine, key: &str) -> PathBuf {
        // wasmtime's own hash of its version, settings and target; it checks them again when it loads.
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        self.folder.join(format!("{key}-{ENGINE_NAME}-{:016x}.bin", hasher.finish()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_known_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CodeCache::new(&folder.path().join("none"));
        assert!(!cache.names().may_have("ab"));
        let cache = CodeCache::new(folder.path());
        for name in
            ["ab-wasmtime-1-0.bin", &format!("cd-{ENGINE_NAME}-0.bin.tmp"), &format!("ef-x-{ENGINE_NAME}-0.bin")]
        {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let names = cache.names();
        let keys = ["ab", "cd", "e", "ef-x", "f"];
        assert_eq!(keys.map(|key| names.may_have(key)), [false, false, true, true, false]);
    }

    #[test]
    fn what_nobody_uses_goes() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CodeCache::new(folder.path());
        let now = SystemTime::now();
        let day = Duration::from_secs(24 * 60 * 60);
        for (name, days) in [("a.bin", 0), ("b.bin", 3), ("c.bin", 2), ("d.bin", 31), (".tmpx", 40), ("notes.txt", 99)]
        {
            let file = fs::File::create(folder.path().join(name)).unwrap();
            file.set_len(100).unwrap();
            file.set_modified(now - day * days).unwrap();
        }
        let left = || {
            let entries = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names
        };
        cache.prune(now, 1000);
        assert_eq!(left(), ["a.bin", "b.bin", "c.bin", "notes.txt"]);
        cache.prune(now, 250);
        assert_eq!(left(), ["a.bin", "c.bin", "notes.txt"]);
    }
}
