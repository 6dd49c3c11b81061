//! Each connection is a file descriptor, and many systems allow a process 1,024 of them unless it asks for more.

/// Raises the soft limit of open files to the hard one. Failing to is no reason not to serve.
#[cfg(unix)]
pub(super) fn raise_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let before = limit.current;
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => tracing::debug!("open files: up to {:?}, {before:?} before", limit.maximum),
        Err(error) => tracing::debug!("open files: {before:?}, which cannot be raised: {error}"),
    }
}

/// Other systems have no such limit.
#[cfg(not(unix))]
pub(super) fn raise_limit() {}
