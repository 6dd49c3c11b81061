//! Machine code that certainly comes from this server: either a subprocess has just produced it, or it is from a file
//! that only this user can have written.
//!
//! Loading a file runs it as machine code, so it must be one that this server wrote. A key could not prove that better
//! than the file system: a secret key would have to be stored beside the files, readable by the same user. So the
//! folder is created for this user only (0700), files of others, and files and folders that others can write, are not
//! used, and a checksum detects the results of a crash or a full disk.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

use crate::hooks::engines::engine::PrepareError;
use crate::hooks::engines::subprocess::{self, Job};

/// First bytes of a file; the number changes with the layout.
const MAGIC: &[u8; 8] = b"SNAPHK01";
const HEADER_BYTES: usize = MAGIC.len() + 32;

/// A use is recorded as the file's time, but at most this often.
const USE_NOTED_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Interval of progress messages.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// The complete bytes of a cached file that only this user can have written.
pub(super) struct Verified(Vec<u8>);

/// Code that a subprocess of this process has just compiled.
pub(super) struct Compiled(Vec<u8>);

impl Compiled {
    /// Compiles untrusted code, within limits.
    pub(super) async fn of_foreign(code: &[u8]) -> Result<Compiled, PrepareError> {
        Ok(Compiled(watched(subprocess::run(Job::Compile, code)).await?))
    }

    /// Compiles one of this program's own modules.
    pub(super) async fn of_own(code: &[u8]) -> Result<Compiled, PrepareError> {
        tracing::info!("compiling what runs JavaScript hooks, which is done once");
        let start = Instant::now();
        let compiled = Compiled(watched(subprocess::run_trusted(Job::CompileOwn, code)).await?);
        tracing::info!("compiled, {:.1} s", start.elapsed().as_secs_f64());
        Ok(compiled)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Writes it to a file.
    pub(super) fn write(&self, folder: &Path, path: &Path) -> io::Result<()> {
        make_folder(folder)?;
        only_ours(&fs::metadata(folder)?, "the cache folder")?;
        // Written under a temporary name, so that a crash leaves no incomplete file; tempfile sets mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(MAGIC)?;
        file.write_all(&Sha256::digest(&self.0))?;
        file.write_all(&self.0)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }
}

/// Logs progress while code is being compiled.
async fn watched<T>(compiling: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let mut compiling = std::pin::pin!(compiling);
    loop {
        match tokio::time::timeout(PROGRESS_EVERY, &mut compiling).await {
            Ok(compiled) => return compiled,
            Err(_) => tracing::info!("still compiling, {} s", start.elapsed().as_secs()),
        }
    }
}

impl Verified {
    /// `None` if there is no such file.
    pub(super) fn read(folder: &Path, path: &Path) -> io::Result<Option<Verified>> {
        let mut file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        only_ours(&fs::metadata(folder)?, "the cache folder")?;
        // Metadata of the open file, because the name may refer to another file later.
        let metadata = file.metadata()?;
        only_ours(&metadata, "the file")?;
        if metadata.modified().is_ok_and(|time| time.elapsed().is_ok_and(|age| age > USE_NOTED_EVERY)) {
            // If this fails, the file is only recreated sooner.
            let _ = file.set_modified(SystemTime::now());
        }
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes)?;
        let whole = bytes.len() > HEADER_BYTES
            && bytes.starts_with(MAGIC)
            && bytes[MAGIC.len()..HEADER_BYTES] == Sha256::digest(&bytes[HEADER_BYTES..])[..];
        if whole { Ok(Some(Verified(bytes))) } else { Err(io::Error::other("it is damaged")) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0[HEADER_BYTES..]
    }
}

#[cfg(unix)]
fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    // Existing folders keep their mode.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
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
