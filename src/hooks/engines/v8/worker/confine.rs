//! Restricts a worker's system calls to memory, time and its own socket. No files, no network, no programs, no other
//! processes.

use std::io;

use landlock::RulesetCreated;

use super::{image, system};
use crate::hooks::engines::confine::{CALLS, nothing};
use crate::hooks::engines::pagemap::PAGEMAP_SCAN;
use crate::hooks::seccomp::Filter;

/// Restrictions shared by the zygote and its children. Returns the stricter ruleset that a child applies after it has
/// opened its two files.
pub(super) fn zygote() -> Result<RulesetCreated, String> {
    let ruleset = nothing().map_err(|error| format!("Landlock rejected the worker's rules: {error}"))?;
    let filter = Filter::new()
        .allow(ZYGOTE)
        .allow(CALLS)
        // The allowed requests for files.
        .allow_only(libc::SYS_ioctl, 1, &[PAGEMAP_SCAN, image::PROCMAP_QUERY]);
    system::filter_calls(&itself(filter).otherwise_refuse())
        .map_err(|error| format!("seccomp rejected the worker's filter: {error}"))?;
    Ok(ruleset)
}

/// The process argument: 0 is the caller itself.
fn itself(filter: Filter) -> Filter {
    filter.allow_only(libc::SYS_prlimit64, 0, &[0]).allow_only(libc::SYS_setpriority, 1, &[0])
}

/// Additional restrictions of a child: no files and sockets, by Landlock if the kernel has it and always by the system
/// call filter; no new processes, no received descriptors.
pub(super) fn child(ruleset: RulesetCreated) -> io::Result<()> {
    ruleset.restrict_self().map_err(io::Error::other)?;
    system::filter_calls(&Filter::new().refuse(ZYGOTE).otherwise_allow())
}

/// System calls that only the zygote needs.
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
