//! Checks a library's file before it is loaded, and copies it to a private place where nobody changes it.
//!
//! The loader trusts the files that it maps: a file that is truncated, or that changes while its code runs, crashes the
//! process. It also identifies libraries by path and inode, so a changed file with the same name would not be loaded at
//! all. So each content gets a private copy with a unique name.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Once;
use std::time::{Duration, SystemTime};

use tempfile::TempPath;

/// Prefix of the names of copies.
const PREFIX: &str = "copy-";

/// A copy is only needed while its library is being loaded, which takes less than an hour.
const LEFT_AFTER: Duration = Duration::from_secs(60 * 60);

/// A copy that is removed when this value is dropped.
///
/// A loaded library stays loaded without its file name. On systems where that is impossible, a later start removes the
/// file.
pub struct Copy(TempPath);

impl Copy {
    /// Writes `bytes` to a file in `directory`, which is created for this user only.
    pub(super) fn make(directory: &Path, bytes: &[u8]) -> Result<Copy, String> {
        let failed = |error: io::Error| format!("a copy of it cannot be written in {}: {error}", directory.display());
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(directory).map_err(failed)?;
        static TIDIED: Once = Once::new();
        TIDIED.call_once(|| remove_left(directory, SystemTime::now()));
        // A name that is unique across processes, even in different PID namespaces.
        let file = tempfile::Builder::new().prefix(PREFIX).suffix(std::env::consts::DLL_SUFFIX).tempfile_in(directory);
        let mut file = file.map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        // An absolute path contains a slash, so the loader opens this file and does not search for another.
        file.path().canonicalize().map_err(failed)?;
        Ok(Copy(file.into_temp_path()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Removes copies left by processes that were killed. A loaded library no longer needs its file.
fn remove_left(directory: &Path, now: SystemTime) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let made = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = made.is_ok_and(|made| now.duration_since(made).is_ok_and(|age| age > LEFT_AFTER));
        if is_old && entry.file_name().to_string_lossy().starts_with(PREFIX) {
            // Some process that is allowed to remove it will do so.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Rejects files that are not libraries for this machine, or that are truncated.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    if bytes.is_empty() {
        return Err("the file is empty, expected a library".to_owned());
    }
    if cfg!(all(target_os = "linux", target_endian = "little", target_pointer_width = "64")) {
        return check_elf(bytes);
    }
    Ok(())
}

/// 64-bit ELF, little endian: everything that the headers refer to must be in the file.
fn check_elf(bytes: &[u8]) -> Result<(), String> {
    const MACHINE: u16 = if cfg!(target_arch = "x86_64") {
        62
    } else if cfg!(target_arch = "aarch64") {
        183
    } else if cfg!(target_arch = "riscv64") {
        243
    } else {
        0
    };
    const SHARED: u16 = 3;
    const LOAD: u32 = 1;
    let no_library = |what: String| format!("the file is not a shared library for this machine: {what}");
    if !bytes.starts_with(b"\x7fELF") {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(16)]).into_owned();
        return Err(no_library(format!("it begins with `{}`, expected ELF", start.escape_debug())));
    }
    let half = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let long =
        |at: usize| usize::try_from(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?)).ok();
    if bytes.get(4..6) != Some(&[2, 1]) {
        return Err(no_library("it is ELF, but not 64 bits with little endian".to_owned()));
    }
    if half(16) != Some(SHARED) {
        return Err(no_library("it is a program or an object file, expected a shared library".to_owned()));
    }
    if MACHINE != 0 && half(18) != Some(MACHINE) {
        return Err(no_library(format!("it is for ELF machine {}, expected {MACHINE}", half(18).unwrap_or(0))));
    }
    let end = |start: usize, size: usize| start.checked_add(size);
    let table = |start, size, count| end(long(start)?, usize::from(half(size)?) * usize::from(half(count)?));
    let mut ends = vec![table(32, 54, 56), table(40, 58, 60)];
    let (first, size, count) = (long(32), half(54).map_or(0, usize::from), half(56).map_or(0, usize::from));
    for index in 0..count {
        let Some(header) = first.and_then(|first| end(first, size * index)) else { break };
        if word(header) == Some(LOAD) {
            let last = long(header + 8).zip(long(header + 32)).and_then(|(start, size)| end(start, size));
            ends.push(last);
        }
    }
    match ends.iter().all(|end| end.is_some_and(|end| end <= bytes.len())) {
        true => Ok(()),
        false => Err(format!(
            "the file is truncated: its headers describe more than its {} bytes; write it again, under another name, \
             and rename it when it is complete",
            bytes.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    fn only_whole_libraries() {
        assert!(check(b"").unwrap_err().contains("is empty"));
        assert!(check(b"#!/bin/sh\necho").unwrap_err().contains("begins with `#!/bin/sh\\necho`"));
        assert!(check(b"\x7fELF\x01\x01").unwrap_err().contains("64 bits"));
        // Tests are programs of this machine, and position independent ones look like libraries.
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        check(&own).unwrap();
        for length in [64, 1000, own.len() / 2, own.len() - 1] {
            assert!(check(&own[..length]).unwrap_err().contains("is truncated"), "{length}");
        }
        let mut other = own;
        other[18] = 8;
        assert!(check(&other).unwrap_err().contains("ELF machine 8"));
        other[16] = 1;
        assert!(check(&other).unwrap_err().contains("object file"));
    }

    #[test]
    fn copies_are_private_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("native");
        let (one, two) = (Copy::make(&directory, b"1").unwrap(), Copy::make(&directory, b"2").unwrap());
        assert_ne!(one.path(), two.path());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        }
        drop((one, two));
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }

    #[test]
    fn what_killed_processes_left_goes() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let long_ago = now - 2 * LEFT_AFTER;
        for (name, made) in [("copy-old.so", long_ago), ("copy-new.so", now), ("other.so", long_ago)] {
            let file = fs::File::create(folder.path().join(name)).unwrap();
            file.set_modified(made).unwrap();
        }
        remove_left(folder.path(), now);
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["copy-new.so", "other.so"]);
    }
}
