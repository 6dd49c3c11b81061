//! Reads files whose names come from outside: a pipe, a socket or a device must not block the server.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use super::units::format_size;

/// Reads a whole file of at most `bytes_max`. The error says what is there instead of a regular file.
pub fn read_regular(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0).min(bytes_max));
    // The file may grow in the meantime.
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() > bytes_max {
        true => {
            let limit = format_size(bytes_max);
            Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit}")))
        }
        false => Ok(bytes),
    }
}

/// Opens without waiting for the writer of a pipe.
#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_and_only_small_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_regular(&path, 5).unwrap(), b"12345");
        assert!(read_regular(&path, 4).unwrap_err().to_string().contains("larger than"));
        assert!(read_regular(folder.path(), 5).is_err());
        #[cfg(unix)]
        for (name, kind) in [("pipe", rustix::fs::FileType::Fifo), ("socket", rustix::fs::FileType::Socket)] {
            let path = folder.path().join(name);
            rustix::fs::mknodat(rustix::fs::CWD, &path, kind, rustix::fs::Mode::RUSR, 0).unwrap();
            assert!(read_regular(&path, 5).is_err(), "{name}");
        }
        #[cfg(unix)]
        assert!(read_regular(Path::new("/dev/zero"), 5).unwrap_err().to_string().contains("not a regular file"));
    }
}
