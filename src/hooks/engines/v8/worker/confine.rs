//! What a worker may ask of the kernel: memory, time and its own socket. No files, no network, no programs, no other
//! process.

use std::io;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreated, RulesetError, Scope};

use super::{image, system};

/// Confines the calling thread and all that it forks, as far as it makes no child useless: those open two files. What comes
/// back is for them.
pub(super) fn zygote() -> Result<RulesetCreated, String> {
    let ruleset = nothing().map_err(|error| format!("Landlock refused the worker's rules: {error}"))?;
    system::filter_calls(&allowing(&[ZYGOTE, CALL].concat()))
        .map_err(|error| format!("seccomp refused the worker's filter: {error}"))?;
    Ok(ruleset)
}

/// What a child gives up beyond what the zygote did: all files and sockets, where the kernel has Landlock, and by the filter
/// of system calls always; making processes, taking descriptors.
pub(super) fn child(ruleset: RulesetCreated) -> io::Result<()> {
    ruleset.restrict_self().map_err(io::Error::other)?;
    system::filter_calls(&refusing(ZYGOTE))
}

/// No file, no network, no signal or socket to anyone outside.
fn nothing() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V6))?
        .handle_access(AccessNet::from_all(ABI::V6))?
        .scope(Scope::from_all(ABI::V6))?
        .create()
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

/// What JavaScript needs, and the way to the server.
const CALL: &[libc::c_long] = &[
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

/// Of these the argument at that offset must be one of those: which process (0 is the caller itself), what is asked of a
/// file.
const LIMITED: &[(libc::c_long, u32, &[u32])] = &[
    (libc::SYS_prlimit64, 16, &[0]),
    (libc::SYS_setpriority, 24, &[0]),
    (libc::SYS_ioctl, 24, &[image::PAGEMAP_SCAN, image::PROCMAP_QUERY]),
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

// Of `seccomp_data`, the number is at offset 0, the architecture at 4, the low halves of the arguments from 16 on.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

fn allowing(calls: &[libc::c_long]) -> Vec<libc::sock_filter> {
    let mut filter = head();
    for number in calls {
        filter.extend([jump(*number as u32, 0, 1), allow()]);
    }
    for (number, offset, values) in LIMITED {
        filter.extend([jump(*number as u32, 0, 2 * values.len() as u8 + 2), statement(LOAD, *offset)]);
        filter.extend(values.iter().flat_map(|value| [jump(*value, 0, 1), allow()]));
        filter.push(refuse());
    }
    filter.push(refuse());
    filter
}

fn refusing(calls: &[libc::c_long]) -> Vec<libc::sock_filter> {
    let mut filter = head();
    for number in calls {
        filter.extend([jump(*number as u32, 0, 1), refuse()]);
    }
    filter.push(allow());
    filter
}

/// Another architecture's numbers mean other calls. (The numbers of x32 are those of no call in the lists.)
fn head() -> Vec<libc::sock_filter> {
    vec![statement(LOAD, ARCH), jump(ARCHITECTURE, 1, 0), refuse(), statement(LOAD, NUMBER)]
}

const fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

const fn jump(k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: EQUAL, jt, jf, k }
}

const fn allow() -> libc::sock_filter {
    statement(RETURN, libc::SECCOMP_RET_ALLOW)
}

const fn refuse() -> libc::sock_filter {
    statement(RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32)
}

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
