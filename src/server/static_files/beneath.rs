//! Opens only files below one folder: the kernel resolves the path and rejects one that leaves the folder.
//!
//! On Linux, links that stay inside are followed; on other systems no links are. The folder is resolved each time, so
//! that it can be replaced as a whole. A file that cannot be opened because of its name counts as missing.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tower_http::services::fs;

/// The files of one folder.
#[derive(Clone)]
pub(super) struct Beneath {
    folder: Arc<Path>,
}

/// The purpose of opening a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Content,
    Metadata,
}

impl Beneath {
    pub(super) fn new(folder: &Path) -> Self {
        Beneath { folder: folder.into() }
    }

    fn look(&self, path: PathBuf, look: Look) -> BoxFuture<'static, io::Result<(File, Metadata)>> {
        let folder = Arc::clone(&self.folder);
        Box::pin(async move {
            tokio::task::spawn_blocking(move || {
                let path = path.strip_prefix(".").unwrap_or(&path);
                let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
                let file = system::open(&folder, path)?;
                let metadata = file.metadata()?;
                match look {
                    _ if metadata.is_file() => Ok((file, metadata)),
                    Look::Metadata if metadata.is_dir() => Ok((file, metadata)),
                    _ => Err(io::ErrorKind::NotFound.into()),
                }
            })
            .await
            .map_err(io::Error::other)?
        })
    }
}

impl fs::Backend for Beneath {
    type File = OpenFile;
    type Metadata = Metadata;
    type OpenFuture = BoxFuture<'static, io::Result<OpenFile>>;
    type MetadataFuture = BoxFuture<'static, io::Result<Metadata>>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        let look = self.look(path, Look::Content);
        Box::pin(async move { look.await.map(|(file, _)| OpenFile(tokio::fs::File::from_std(file))) })
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        let look = self.look(path, Look::Metadata);
        Box::pin(async move { look.await.map(|(_, metadata)| metadata) })
    }
}

/// A file that may be sent.
pub(super) struct OpenFile(tokio::fs::File);

impl fs::File for OpenFile {
    type Metadata = Metadata;
    type MetadataFuture<'a> = BoxFuture<'a, io::Result<Metadata>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        Box::pin(self.0.metadata())
    }
}

impl AsyncRead for OpenFile {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncSeek for OpenFile {
    fn start_seek(mut self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.0).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.0).poll_complete(cx)
    }
}

#[cfg(unix)]
mod system {
    use std::ffi::OsStr;
    use std::fs::File;
    use std::io;
    use std::os::fd::OwnedFd;
    use std::path::{Component, Path};

    use rustix::fs::{CWD, Mode, OFlags, openat};
    use rustix::io::Errno;

    /// A pipe is opened without waiting for a writer.
    const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

    pub(super) fn open(folder: &Path, path: &Path) -> io::Result<File> {
        let folder = openat(CWD, folder, READ | OFlags::DIRECTORY, Mode::empty())?;
        match beneath(&folder, path) {
            Ok(file) => Ok(file.into()),
            // The path leads outside, in a circle, to what nobody may read, or is no path of this system.
            Err(Errno::XDEV | Errno::LOOP | Errno::ACCESS | Errno::NAMETOOLONG | Errno::NOTDIR | Errno::INVAL) => {
                Err(io::ErrorKind::NotFound.into())
            }
            // A socket, or a device without its driver.
            Err(Errno::NXIO | Errno::NODEV) => Err(io::ErrorKind::NotFound.into()),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(target_os = "linux")]
    fn beneath(folder: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
        use rustix::fs::{ResolveFlags, openat2};

        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        // Again where something was renamed meanwhile, so that the kernel cannot tell where the path leads.
        for _ in 0..8 {
            match openat2(folder, path, READ, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                // An old kernel, or a sandbox that does not know the call.
                Err(Errno::NOSYS | Errno::PERM) => return step_by_step(folder, path),
                opened => return opened,
            }
        }
        Err(Errno::NOENT)
    }

    #[cfg(not(target_os = "linux"))]
    fn beneath(folder: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
        step_by_step(folder, path)
    }

    /// Without any link.
    fn step_by_step(folder: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
        let mut current = openat(folder, ".", READ | OFlags::DIRECTORY, Mode::empty())?;
        let mut names = Vec::<&OsStr>::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => names.push(name),
                Component::CurDir => {}
                _ => return Err(Errno::XDEV),
            }
        }
        let last = names.len().saturating_sub(1);
        for (index, name) in names.into_iter().enumerate() {
            let kind = if index < last { OFlags::DIRECTORY } else { OFlags::empty() };
            current = openat(&current, name, READ | OFlags::NOFOLLOW | kind, Mode::empty())?;
        }
        Ok(current)
    }

    #[cfg(test)]
    mod tests {
        use std::os::unix::fs::symlink;

        use super::*;

        #[test]
        fn both_ways_stay_inside() {
            let root = tempfile::tempdir().unwrap();
            let folder = root.path().join("public");
            std::fs::create_dir_all(folder.join("a")).unwrap();
            std::fs::write(folder.join("a/file"), "in").unwrap();
            std::fs::write(root.path().join("outside"), "out").unwrap();
            symlink("a/file", folder.join("inner")).unwrap();
            symlink("../outside", folder.join("outer")).unwrap();
            symlink("/etc/passwd", folder.join("absolute")).unwrap();
            symlink("..", folder.join("up")).unwrap();
            symlink("self", folder.join("self")).unwrap();
            let fd = openat(CWD, &folder, READ | OFlags::DIRECTORY, Mode::empty()).unwrap();
            for open in [beneath, step_by_step] {
                assert!(open(&fd, Path::new("a/file")).is_ok());
                assert!(open(&fd, Path::new(".")).is_ok());
                for path in [
                    "outer",
                    "absolute",
                    "up/outside",
                    "self",
                    "../outside",
                    "a/../../outside",
                    "/etc/passwd",
                    "a/file/b",
                ] {
                    assert!(open(&fd, Path::new(path)).is_err(), "{path}");
                }
            }
            assert_eq!(beneath(&fd, Path::new("inner")).is_ok(), cfg!(target_os = "linux"));
            assert!(step_by_step(&fd, Path::new("inner")).is_err());
        }
    }
}

#[cfg(not(unix))]
mod system {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    /// The name is checked, then opened under the name that was checked.
    pub(super) fn open(folder: &Path, path: &Path) -> io::Result<File> {
        let folder = folder.canonicalize()?;
        let real = folder.join(path).canonicalize()?;
        if real.starts_with(&folder) { File::open(real) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}
