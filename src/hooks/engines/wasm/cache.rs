//! Compiled code on disk: a component is compiled once per machine, not once per start.
//!
//! Derived state: any file may go at any time, and is made again. Loading a file runs it as machine code, so it must be
//! one that this server wrote. There is no key that would show that better than the file system does: a secret key
//! would have to lie beside the files, readable for the same user. So the folder is made for this user alone (0700), files
//! of others or files and folders that others may write are not touched, and a checksum finds what a crash or a full
//! disk left behind.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use super::artifact::{self, Code};
use super::config::{ENGINE_NAME, Runtime};
use crate::hooks::engines::PrepareError;
use crate::hooks::engines::subprocess::{self, Job};

/// First bytes of a file; another layout gets another number.
const MAGIC: &[u8; 8] = b"SNAPHK01";
const HEADER_BYTES: usize = MAGIC.len() + 32;

/// Compiled code that was not used for so long goes, whatever there is room for.
const AGE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// All compiled code together; beyond it what was not used for longest goes.
const FOLDER_BYTES_MAX: u64 = 1 << 30;

/// A use is noted as the file's time, but not at each start of a server that is started often.
const USE_NOTED_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// The folder of compiled code, `[hooks] cache`.
#[derive(Clone, Debug)]
pub(in crate::hooks::engines) struct CodeCache {
    folder: PathBuf,
}

/// The bytes of a cached file that only this user can have written and that are whole.
pub(super) struct Verified(Vec<u8>);

/// What a subprocess of this process just compiled.
pub(super) struct Compiled(Vec<u8>);

impl Compiled {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Verified {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0[HEADER_BYTES..]
    }
}

async fn compile_own(code: &[u8]) -> Result<Compiled, PrepareError> {
    tracing::info!("compiling what runs JavaScript hooks, which is done once");
    let start = Instant::now();
    let compiled = Compiled(subprocess::run_trusted(Job::CompileOwn, code).await?);
    tracing::info!("compiled, {:.1} s", start.elapsed().as_secs_f64());
    Ok(compiled)
}

impl CodeCache {
    pub(in crate::hooks::engines) fn new(folder: &Path) -> Self {
        CodeCache { folder: folder.to_owned() }
    }

    /// What is cached for `key`, if it is. `key` names the code and everything that went into it.
    async fn find<C: Code>(&self, runtime: &Runtime, key: &str) -> Option<C> {
        static PRUNED: Once = Once::new();
        let (cache, engine, path) = (self.clone(), runtime.engine.clone(), self.path(&runtime.engine, key));
        let found = tokio::task::spawn_blocking(move || {
            PRUNED.call_once(|| cache.prune(SystemTime::now(), FOLDER_BYTES_MAX));
            cache.load(&engine, &path)
        });
        found.await.ok().flatten()
    }

    /// What is cached for `key`, or `code` compiled, which is kept.
    pub(in crate::hooks::engines) async fn component(
        &self,
        runtime: &Runtime,
        key: &str,
        code: &[u8],
    ) -> Result<Component, PrepareError> {
        match self.find(runtime, key).await {
            Some(component) => Ok(component),
            None => {
                let compiled = Compiled(subprocess::run(Job::Compile, code).await?);
                self.keep(runtime, key, Arc::new(compiled)).await
            }
        }
    }

    /// The same for a module of this program's own, which is not looked at, in each of the runtimes.
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
                    // What it comes to is the same in all of them.
                    let compiled = match &compiled {
                        Some(compiled) => compiled,
                        None => compiled.insert(Arc::new(compile_own(code).await?)),
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
            // Without a cache everything works, only slower.
            if let Err(error) = cache.write(&path, &compiled.0) {
                tracing::warn!(path = %path.display(), %error, "cannot keep compiled code");
            }
            Ok::<_, String>(code)
        });
        let loaded = loaded.await.unwrap_or_else(|error| Err(error.to_string()));
        loaded.map_err(PrepareError::plain)
    }

    fn load<C: Code>(&self, engine: &Engine, path: &Path) -> Option<C> {
        let content = match self.read(path) {
            Ok(content) => content?,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "compiled code is not used and made again");
                return None;
            }
        };
        match artifact::load_verified(engine, &content) {
            Ok(code) => Some(code),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "compiled code is not used and made again");
                None
            }
        }
    }

    /// `None`: there is none.
    fn read(&self, path: &Path) -> io::Result<Option<Verified>> {
        let mut file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        only_ours(&fs::metadata(&self.folder)?, "the cache folder")?;
        // Of the open file: what the name stands for may change meanwhile.
        let metadata = file.metadata()?;
        only_ours(&metadata, "the file")?;
        if metadata.modified().is_ok_and(|time| time.elapsed().is_ok_and(|age| age > USE_NOTED_EVERY)) {
            // If it cannot be noted, the file is only made again sooner.
            let _ = file.set_modified(SystemTime::now());
        }
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes)?;
        let whole = bytes.len() > HEADER_BYTES
            && bytes.starts_with(MAGIC)
            && bytes[MAGIC.len()..HEADER_BYTES] == Sha256::digest(&bytes[HEADER_BYTES..])[..];
        if whole { Ok(Some(Verified(bytes))) } else { Err(io::Error::other("it is damaged")) }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        make_folder(&self.folder)?;
        only_ours(&fs::metadata(&self.folder)?, "the cache folder")?;
        // Made under another name, so that a crash leaves no half file; 0600 by tempfile.
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(MAGIC)?;
        file.write_all(&Sha256::digest(bytes))?;
        file.write_all(bytes)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    /// Removes what was not used for long, and what does not fit. Only files that this wrote, whole or half.
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
        // Last used first.
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

#[cfg(unix)]
fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

#[cfg(not(unix))]
fn make_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

#[cfg(unix)]
fn only_ours(metadata: &fs::Metadata, what: &str) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other(format!("{what} belongs to another user")));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other(format!("{what} may be written by other users")));
    }
    Ok(())
}

#[cfg(not(unix))]
fn only_ours(_: &fs::Metadata, _: &str) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
