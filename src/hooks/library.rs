//! The files of native hooks' libraries: finds them by name in the hooks directory, reads them, and detects changes
//! without reading them.
//!
//! A library is code without a sandbox, so it may only come from this directory: whoever can write there can run any
//! code with the server's privileges.

use std::fs::Metadata;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::config::{Config, format_size, read_regular};

/// The label of native code wherever it is shown.
pub const NOT_SANDBOXED: &str = "not sandboxed";

/// Largest library that is read. A hook in Rust has about 0.5 MB, or 20 MB with debug symbols.
const LIBRARY_BYTES_MAX: usize = 256 << 20;

/// A file that was written to so recently may not be complete.
const QUIET: Duration = Duration::from_millis(100);

/// The configured directory of libraries.
pub(super) fn directory(config: &Config) -> PathBuf {
    config.directory.join(&config.hooks.directory)
}

/// The bytes of a library; the error is one sentence with its name.
pub fn read(config: &Config, name: &str) -> Result<Vec<u8>, String> {
    read_with_stamp(&directory(config), name).map(|(_, bytes)| bytes)
}

/// Metadata that changes when the file changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    /// Device, inode, and the time of the last change of either.
    #[cfg(unix)]
    identity: (u64, u64, i64, i64),
}

impl Stamp {
    /// `None`: there is no such file.
    pub(super) fn of(directory: &Path, name: &str) -> Option<Stamp> {
        Stamp::at(&directory.join(name))
    }

    /// The same for a path.
    pub fn at(path: &Path) -> Option<Stamp> {
        std::fs::metadata(path).ok().map(|found| Stamp::new(&found))
    }

    fn new(found: &Metadata) -> Stamp {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt;
        Stamp {
            bytes: found.len(),
            modified: found.modified().ok(),
            #[cfg(unix)]
            identity: (found.dev(), found.ino(), found.ctime(), found.ctime_nsec()),
        }
    }

    /// Whether the file is probably not being written any more. A time in the future is ignored.
    pub(super) fn is_quiet(&self) -> bool {
        let age = self.modified.and_then(|modified| modified.elapsed().ok());
        age.is_none_or(|age| age >= QUIET)
    }
}

/// Reads the bytes and the stamp, which was the same before and after reading.
pub(super) fn read_with_stamp(directory: &Path, name: &str) -> Result<(Stamp, Vec<u8>), String> {
    let path = locate(directory, name)?;
    let unreadable = |error: std::io::Error| format!("library `{name}` cannot be read: {error}");
    let before = std::fs::metadata(&path).map_err(unreadable)?;
    if !before.is_file() {
        return Err(format!("`{name}` in the hooks directory is not a file, expected a library"));
    }
    if before.len() > LIBRARY_BYTES_MAX as u64 {
        let limit = format_size(LIBRARY_BYTES_MAX);
        return Err(format!("library `{name}` has {} bytes, at most {limit} are allowed", before.len()));
    }
    let bytes = read_regular(&path, LIBRARY_BYTES_MAX).map_err(unreadable)?;
    let after = std::fs::metadata(&path).map_err(unreadable)?;
    let stamp = Stamp::new(&before);
    if stamp != Stamp::new(&after) || bytes.len() as u64 != before.len() {
        return Err(format!("library `{name}` is being written to; try again when that is done"));
    }
    Ok((stamp, bytes))
}

/// Finds the file of that name, which must be in the directory even after links are resolved.
fn locate(directory: &Path, name: &str) -> Result<PathBuf, String> {
    let shown = name.chars().take(200).collect::<String>();
    let shown = shown.escape_debug();
    let mut parts = Path::new(name).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    if !plain || name.contains(['/', '\\', '\0']) {
        return Err(format!("`{shown}` is not the name of a file in the hooks directory (`hooks.directory`)"));
    }
    let here = directory.display();
    let root = directory
        .canonicalize()
        .map_err(|error| format!("the hooks directory `{here}` (`hooks.directory`) cannot be opened: {error}"))?;
    let file = root.join(name).canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("there is no library `{shown}` in the hooks directory `{here}`; put it there first")
        }
        _ => format!("library `{shown}` cannot be opened: {error}"),
    })?;
    match file.starts_with(&root) {
        true => Ok(file),
        false => Err(format!("library `{shown}` leads out of the hooks directory `{here}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_directory() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("hooks");
        std::fs::create_dir_all(root.join("folder")).unwrap();
        std::fs::write(outer.path().join("secret.so"), "x").unwrap();
        std::fs::write(root.join("a.so"), "code").unwrap();
        assert_eq!(read_with_stamp(&root, "a.so").unwrap().1, b"code");
        for (name, message) in [
            ("", "is not the name"),
            (".", "is not the name"),
            ("..", "is not the name"),
            ("../secret.so", "is not the name"),
            ("/etc/passwd", "is not the name"),
            ("folder/x.so", "is not the name"),
            ("a.so\0", "is not the name"),
            ("b.so", "there is no library `b.so`"),
            ("folder", "is not a file"),
        ] {
            let error = read_with_stamp(&root, name).unwrap_err();
            assert!(error.contains(message), "{name}: {error}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("../secret.so", root.join("link.so")).unwrap();
            let error = read_with_stamp(&root, "link.so").unwrap_err();
            assert!(error.contains("leads out"), "{error}");
        }
    }

    #[test]
    fn a_changed_file_has_another_stamp() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Stamp::of(root.path(), "a.so"), None);
        std::fs::write(root.path().join("a.so"), "one").unwrap();
        let first = Stamp::of(root.path(), "a.so").unwrap();
        assert_eq!(Stamp::of(root.path(), "a.so"), Some(first));
        std::fs::write(root.path().join("b.so"), "two").unwrap();
        std::fs::rename(root.path().join("b.so"), root.path().join("a.so")).unwrap();
        assert_ne!(Stamp::of(root.path(), "a.so"), Some(first));
    }
}
