//! Limits of a hook's call, which `[hooks]` and grants set.

use std::time::Duration;

use super::document::Section;

/// Shortest and longest wall clock of one call. Below a millisecond no sandbox starts; ten minutes is past any
/// sensible pre hook, and a post hook that needs longer should hand its work on.
const TIMEOUT: (Duration, Duration) = (Duration::from_millis(1), Duration::from_mins(10));
/// Least and most memory of one sandbox: an interpreter needs about a megabyte, 32-bit WebAssembly ends at 4 GiB.
const MEMORY_BYTES: (usize, usize) = (1 << 20, 4 << 30);
/// `timeout` of `[hooks]` and of a grant.
pub(super) fn timeout(section: &mut Section<'_>) -> Option<Duration> {
    section.duration("timeout", TIMEOUT.0, TIMEOUT.1)
}

/// `memory` of `[hooks]` and of a grant.
pub(super) fn memory(section: &mut Section<'_>) -> Option<usize> {
    section.size("memory", MEMORY_BYTES.0, MEMORY_BYTES.1)
}
