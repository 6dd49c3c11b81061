//! Restricts processes that work on untrusted code before they read it: no files, no network, no signals, and only the
//! system calls needed for computing.

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreated, RulesetError, Scope};

/// Denies files, the network, and signals and sockets to other processes.
pub(super) fn nothing() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V6))?
        .handle_access(AccessNet::from_all(ABI::V6))?
        .scope(Scope::from_all(ABI::V6))?
        .create()
}

/// The allowed system calls: memory, time, and descriptors that are already open.
pub(super) const CALLS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_pkey_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrusage,
    libc::SYS_setitimer,
    libc::SYS_setrlimit,
    libc::SYS_prctl,
    libc::SYS_seccomp,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::ErrorKind::PermissionDenied;
    use std::net::{TcpListener, TcpStream};

    use landlock::RulesetStatus::NotEnforced;

    use super::*;

    /// By itself: in a worker the filter of system calls comes before it, with another error.
    #[test]
    fn landlock_takes_files_and_network() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connect = move || TcpStream::connect(address).map(drop).map_err(|error| error.kind());
        assert_eq!(connect(), Ok(()));
        // It holds for the thread that asks for it.
        let confined = std::thread::spawn(move || {
            let status = nothing().unwrap().restrict_self().unwrap();
            let opened =
                ["/proc/self/environ", "/etc/passwd"].map(|path| File::open(path).map_err(|error| error.kind()));
            (status.ruleset, opened.map(|opened| opened.err()), connect())
        });
        let (status, opened, connected) = confined.join().unwrap();
        if status == NotEnforced {
            // The filter of system calls holds without it.
            crate::hooks::testing::say("skipped: this kernel has no Landlock");
            return;
        }
        assert_eq!((opened, connected), ([Some(PermissionDenied); 2], Err(PermissionDenied)));
    }
}
