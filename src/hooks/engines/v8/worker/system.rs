//! What a worker asks of the kernel for which there is no safe way: to fork, to end, to measure and to bound itself.
#![expect(unsafe_code, reason = "fork, signals, seccomp and limits of the process itself")]

use std::fs;
use std::io;
use std::time::Duration;

/// Which side of a fork this is.
pub(super) enum Forked {
    Parent,
    Child,
}

/// Forks this process. Only the calling thread goes on in the child.
pub(super) fn fork() -> io::Result<Forked> {
    // SAFETY: the caller is V8's thread inside a call to the host. The only other thread of the zygote waits for ever and
    // holds no lock: no allocator, V8 or library lock can be taken at this moment by anyone but this thread, which holds none.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        _ => Ok(Forked::Parent),
    }
}

/// Ends the process, without destructors: V8's would wait for threads that a child does not have.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: ends the process and touches no memory of it.
    unsafe { libc::_exit(code) }
}

/// Closes all that whoever started the server left open, beyond the three standard ones.
pub(super) fn close_inherited() {
    // SAFETY: called first of all, when this program has opened nothing itself.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Children that ended need nobody to ask for them.
pub(super) fn forget_children() {
    // SAFETY: sets a disposition; no handler runs.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Ends this process with its parent.
pub(super) fn end_with_parent() {
    // SAFETY: sets a number in the kernel.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Once `patience` on a core is used, the process gets less of it than others, as long calls of the other engines do.
pub(super) fn lower_priority_after(patience: Duration) {
    extern "C" fn on_time(_: libc::c_int) {
        // SAFETY: a system call, which may be made in a signal handler.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    }
    let timer = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
        it_value: libc::timeval { tv_sec: 0, tv_usec: patience.as_micros() as libc::suseconds_t },
    };
    // SAFETY: the handler does nothing but a system call; both structures are complete.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_time as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGPROF, &raw const action, std::ptr::null_mut());
        libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut());
    }
}

/// Weight 110 against 1024 of a process with the normal priority.
const NICENESS: i32 = 10;

/// Bounds the memory that this process may have for itself, written or not: no more than `bytes` above what it has. What
/// V8 only reserves does not count.
pub(super) fn limit_memory(present: u64, bytes: u64) -> io::Result<()> {
    let limits = libc::rlimit { rlim_cur: present.saturating_add(bytes), rlim_max: libc::RLIM_INFINITY };
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both structures are complete.
    let done = unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none) | libc::setrlimit(libc::RLIMIT_DATA, &raw const limits)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What RLIMIT_DATA counts, of this process at the moment.
pub(super) fn data_bytes() -> u64 {
    // Fields of statm: size, resident, shared, text, lib, data; in pages.
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(5).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// Microseconds on a core, and bytes of memory that became this process's own, since it began.
pub(super) fn usage() -> (u64, u64) {
    // SAFETY: a structure of numbers, filled by the kernel.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    (micros(usage.ru_utime) + micros(usage.ru_stime), usage.ru_minflt as u64 * rustix::param::page_size() as u64)
}

/// Puts large pieces of memory that only the zygote writes into large pages: a fork copies one entry for each page.
pub(super) fn use_large_pages() {
    const LARGE: usize = 4 << 20;
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, access, file) =
            (fields.next().unwrap_or_default(), fields.next().unwrap_or_default(), fields.nth(3));
        let Some((start, end)) = range.split_once('-') else { continue };
        let (Ok(start), Ok(end)) = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16)) else { continue };
        if file.is_none() && access.starts_with("rw") && end - start >= LARGE {
            // SAFETY: it changes how the kernel keeps the memory, not what is in it. An error leaves it as it was.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_COLLAPSE) };
        }
    }
}

/// Installs a seccomp filter for the calling thread and everything that it forks.
pub(super) fn filter_calls(filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program points to as many instructions as it says, which the kernel copies.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}
