//! Each connection is a file descriptor, and many systems allow a process 1,024 of them unless it asks for more.

/// More connections than any server of one machine has use for; each may hold 64 KiB of what it sent.
const CONNECTIONS_MAX: usize = 32 * 1024;
/// Descriptors that stores, hooks' requests and programs may need, and the processes of V8: three for each.
#[cfg(unix)]
const RESERVED: u64 = 1_536;

/// Raises the soft limit of open files to the hard one; gives the connections that may be open at once.
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
