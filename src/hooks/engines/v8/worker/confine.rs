//! What a worker may ask of the kernel: memory, time and its own socket. No files, no network, no programs, no other
//! process.

use std::io;

use landlock::RulesetCreated;

use super::{image, system};
use crate::hooks::engines::confine::{CALLS, nothing};
use crate::hooks::engines::pagemap::PAGEMAP_SCAN;
use crate::hooks::seccomp::Filter;

/// Confines the calling thread and all that it forks, as far as it makes no child useless: those open two files. What comes
/// back is for them.
pub(super) fn zygote() -> Result<RulesetCreated, String> {
    let ruleset = nothing().map_err(|error| format!("Landlock refused the worker's rules: {error}"))?;
    let filter = Filter::new()
        .allow(ZYGOTE)
        .allow(CALLS)
        // What is asked of a file.
        .allow_only(libc::SYS_ioctl, 1, &[PAGEMAP_SCAN, image::PROCMAP_QUERY]);
    system::filter_calls(&itself(filter).otherwise_refuse())
        .map_err(|error| format!("seccomp refused the worker's filter: {error}"))?;
    Ok(ruleset)
}

/// Which process: 0 is the caller itself.
fn itself(filter: Filter) -> Filter {
    filter.allow_only(libc::SYS_prlimit64, 0, &[0]).allow_only(libc::SYS_setpriority, 1, &[0])
}

/// What a child gives up beyond what the zygote did: all files and sockets, where the kernel has Landlock, and by the filter
/// of system calls always; making processes, taking descriptors.
pub(super) fn child(ruleset: RulesetCreated) -> io::Result<()> {
    ruleset.restrict_self().map_err(io::Error::other)?;
    system::filter_calls(&Filter::new().refuse(ZYGOTE).otherwise_allow())
}

/// Only the zygote needs them.
const ZYGOTE: &[libc::c_long] = &[
    libc::SYS_clone,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    libc::SYS_recvmsg,
    libc::SYS_getppid,
    libc::SYS_openat,
    libc::SYS_landlock_restrict_self,
    libc::SYS_set_robust_list,
    libc::SYS_dup3,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
];
