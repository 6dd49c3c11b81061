//! Blobs as files, named by their digests.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use sha2::{Digest as _, Sha256};
use snaphook_driver::files::{make_folder, sync_folder};
use snaphook_driver::{DriverError, ErrorKind, Result};

use crate::fault::{fault, unusable};
use crate::folder::{clear, names_in, write_durably};
use crate::task::locked;

/// The folder of blobs inside the log's folder.
pub(super) struct Blobs {
    path: PathBuf,
    /// Locked while a blob is written.
    writing: Mutex<()>,
}

impl Blobs {
    pub(super) fn open(log: &Path) -> Result<Blobs> {
        let path = log.join("blobs");
        make_folder(&path).and_then(|()| clear(&path, is_digest)).map_err(unusable(&path))?;
        Ok(Blobs { path, writing: Mutex::default() })
    }

    pub(super) fn put(&self, sha256: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path("put_blob", sha256)?;
        let _writing = locked(&self.writing);
        // An existing file may be damaged, or the result of a write whose last step failed.
        let is_there = matches!(self.get("put_blob", sha256), Ok(Some(_)));
        let put = if is_there { sync_folder(&self.path) } else { write_durably(&path, bytes) };
        put.map_err(fault("put_blob", &path))
    }

    pub(super) fn get(&self, operation: &'static str, sha256: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path(operation, sha256)?;
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fault(operation, &path)(error)),
        };
        let found = format!("{:x}", Sha256::digest(&bytes));
        if found != sha256 {
            let message = format!("the file is damaged: expected the SHA-256 in its name, found {found}");
            return Err(DriverError::new(ErrorKind::Corrupt, operation, message).with("path", path.display()));
        }
        Ok(Some(bytes))
    }

    /// Digests of all blobs, sorted.
    pub(super) fn names(&self, operation: &'static str) -> Result<Vec<String>> {
        let mut names = names_in(&self.path).map_err(fault(operation, &self.path))?;
        names.retain(|name| is_digest(name));
        Ok(names)
    }

    fn path(&self, operation: &'static str, sha256: &str) -> Result<PathBuf> {
        if is_digest(sha256) {
            return Ok(self.path.join(sha256));
        }
        let message = format!("expected a digest in lowercase hexadecimal, found `{}`", sha256.escape_debug());
        Err(DriverError::new(ErrorKind::Invalid, operation, message))
    }
}

/// Only hexadecimal digits, so that no name is a path or a device, and no two names differ only in case.
fn is_digest(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
