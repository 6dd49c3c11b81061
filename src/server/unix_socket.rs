//! The file of a Unix socket: taken if nobody answers there, open to the owner and at most the group, removed at the end.
//!
//! Whoever finds a socket on which nobody answers cannot know whether its server is gone or has not begun to listen. So each
//! server holds a lock beside the socket for as long as it runs.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixSocket, UnixStream};
use tokio::time::timeout;

/// How long whoever listens may take to accept.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// What the process's umask may leave: reading and writing, to the owner and the group.
const MODE: u32 = 0o660;

/// The socket's file; removed when this is dropped, if it is still the same.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and number.
    identity: (u64, u64),
    /// Locked. It stays in the folder: removing it would let two servers lock two files.
    _lock: File,
}

/// A socket that is bound to the path; nobody can connect before it listens.
pub(super) async fn bind(path: &Path) -> io::Result<(UnixSocket, SocketFile)> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let lock = lock(path)?;
    remove_stale(path).await?;
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    let metadata = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), identity: (metadata.dev(), metadata.ino()), _lock: lock };
    fs::set_permissions(path, fs::Permissions::from_mode(metadata.permissions().mode() & MODE))?;
    Ok((socket, file))
}

fn lock(path: &Path) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&name)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(in_use("another server uses it")),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

async fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(in_use("it is not a socket, and is not replaced"));
    }
    match timeout(CONNECT_MAX, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!("{}: removed, a server that did not shut down cleanly left it", path.display());
            fs::remove_file(path)
        }
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Err(in_use("another process listens on it")),
    }
}

fn in_use(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, what)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("{} cannot be removed: {error}", self.path.display());
        }
    }
}
