//! Raises the limit of file descriptors: each connection needs one, and many systems allow a process only 1,024 by
//! default.

/// More connections than a single machine can use; each may buffer 64 KiB of received data.
const CONNECTIONS_MAX: usize = 32 * 1024;
/// Descriptors for stores, requests of hooks, programs, and the processes of V8: three for each.
#[cfg(unix)]
const RESERVED: u64 = 1_536;

/// Raises the soft limit of open files to the hard one; returns the maximum number of connections.
#[cfg(unix)]
pub(super) fn raise_limit() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        match setrlimit(Resource::Nofile, limit) {
            Ok(()) => tracing::debug!("open files: up to {:?}, {before:?} before", limit.maximum),
            Err(error) => {
                tracing::debug!("open files: {before:?}, which cannot be raised: {error}");
                limit.current = before;
            }
        }
    }
    let Some(files) = limit.current else { return CONNECTIONS_MAX };
    let connections = files.saturating_sub(RESERVED).max(files / 2);
    usize::try_from(connections).map_or(CONNECTIONS_MAX, |connections| connections.min(CONNECTIONS_MAX))
}

/// Other systems have no such limit.
#[cfg(not(unix))]
pub(super) fn raise_limit() -> usize {
    CONNECTIONS_MAX
}
