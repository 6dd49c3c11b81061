//! Machine code as bytes of which it is known that this server made them: a subprocess just gave them, or a file has them that
//! only this user can have written.
//!
//! Loading a file runs it as machine code, so it must be one that this server wrote. There is no key that would show that
//! better than the file system does: a secret key would have to lie beside the files, readable for the same user. So the
//! folder is made for this user alone (0700), files of others or files and folders that others may write are not touched, and
//! a checksum finds what a crash or a full disk left behind.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

use crate::hooks::engines::engine::PrepareError;
use crate::hooks::engines::subprocess::{self, Job};

/// First bytes of a file; another layout gets another number.
const MAGIC: &[u8; 8] = b"SNAPHK01";
const HEADER_BYTES: usize = MAGIC.len() + 32;

/// A use is noted as the file's time, but not at each start of a server that is started often.
const USE_NOTED_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Interval of progress messages.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// The bytes of a cached file that only this user can have written and that are whole.
pub(super) struct Verified(Vec<u8>);

/// What a subprocess of this process just compiled.
pub(super) struct Compiled(Vec<u8>);

impl Compiled {
    /// Other people's code, within limits.
    pub(super) async fn of_foreign(code: &[u8]) -> Result<Compiled, PrepareError> {
        Ok(Compiled(watched(subprocess::run(Job::Compile, code)).await?))
    }

    /// A module of this program's own.
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

    /// Keeps it in a file.
    pub(super) fn write(&self, folder: &Path, path: &Path) -> io::Result<()> {
        make_folder(folder)?;
        only_ours(&fs::metadata(folder)?, "the cache folder")?;
        // Made under another name, so that a crash leaves no half file; 0600 by tempfile.
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
    /// `None`: there is none.
    pub(super) fn read(folder: &Path, path: &Path) -> io::Result<Option<Verified>> {
        let mut file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        only_ours(&fs::metadata(folder)?, "the cache folder")?;
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
