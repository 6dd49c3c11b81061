//! The limits of a hook's call that `[hooks]` and grants set.

use std::time::Duration;

use super::document::Section;

/// Shortest and longest wall-clock time of one call. No sandbox starts in less than a millisecond; ten minutes is more
/// than any sensible pre hook needs, and a post hook that needs longer should delegate its work.
const TIMEOUT: (Duration, Duration) = (Duration::from_millis(1), Duration::from_mins(10));
/// Minimum and maximum memory of one sandbox: an interpreter needs about a megabyte; 32-bit WebAssembly can use up to 4
/// GiB.
const MEMORY_BYTES: (usize, usize) = (1 << 20, 4 << 30);
/// `timeout` of `[hooks]` and of a grant.
pub(super) fn timeout(section: &mut Section<'_>) -> Option<Duration> {
    section.duration("timeout", TIMEOUT.0, TIMEOUT.1)
}

/// `memory` of `[hooks]` and of a grant.
pub(super) fn memory(section: &mut Section<'_>) -> Option<usize> {
    section.size("memory", MEMORY_BYTES.0, MEMORY_BYTES.1)
}
