//! What a worker asks of the kernel for which there is no safe way: to fork, to end, to measure and to bound itself.
#![expect(unsafe_code, reason = "fork, signals, seccomp and limits of the process itself")]

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
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
pub(in crate::hooks::engines) fn close_inherited() {
    // SAFETY: called first of all, when this program has opened nothing itself.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Children that ended need nobody to ask for them.
pub(super) fn forget_children() {
    // SAFETY: sets a disposition; no handler runs.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// When the system is short of memory, this process and those that it forks are ended before the server.
pub(in crate::hooks::engines) fn yield_memory() {
    // Where the kernel does not know the file, it decides by size.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
}

/// Ends this process with its parent, `parent`, or now if that has ended before.
pub(super) fn end_with_parent(parent: u32) {
    // SAFETY: sets a number in the kernel.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if std::os::unix::process::parent_id() != parent {
        exit(0);
    }
}

/// Once the time of [`lower_priority_after`] on a core is used, the process gets less of it than others, as long calls of the
/// other engines do. Children do the same.
pub(super) fn lower_priority_in_time() {
    extern "C" fn on_time(_: libc::c_int) {
        LOW_PRIORITY.store(true, Ordering::Relaxed);
        // SAFETY: a system call, which may be made in a signal handler.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    }
    // SAFETY: the handler does nothing but that; the structure is complete.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_time as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGPROF, &raw const action, std::ptr::null_mut());
    }
}

/// From now on.
pub(super) fn lower_priority_after(patience: Duration) {
    let timer = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
        it_value: libc::timeval { tv_sec: 0, tv_usec: patience.as_micros() as libc::suseconds_t },
    };
    // SAFETY: the structure is complete.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut()) };
}

/// Whether the time of [`lower_priority_after`] was over; from here on it runs no more.
pub(super) fn has_low_priority() -> bool {
    // SAFETY: zeros are a timer that does not run.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &std::mem::zeroed(), std::ptr::null_mut()) };
    LOW_PRIORITY.load(Ordering::Relaxed)
}

static LOW_PRIORITY: AtomicBool = AtomicBool::new(false);

/// When the library stops at a trap, which it does without a word if an allocation of its own fails, the process says
/// [`TRAPPED`] and ends.
pub(super) fn tell_of_traps() {
    extern "C" fn on_trap(_: libc::c_int) {
        // SAFETY: system calls, which may be made in a signal handler; the text is a constant.
        unsafe {
            libc::write(libc::STDERR_FILENO, TRAPPED.as_ptr().cast(), TRAPPED.len());
            libc::_exit(libc::EXIT_FAILURE);
        }
    }
    // SAFETY: the handler does nothing but system calls; the structure is complete.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_trap as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGTRAP, &raw const action, std::ptr::null_mut());
    }
}

/// How a worker process ends.
pub(crate) const DONE: i32 = 0;
pub(crate) const FAILED: i32 = 70;

/// A line of its own on standard error.
pub(crate) const TRAPPED: &str = "\n[trapped]\n";

/// Weight 110 against 1024 of a process with the normal priority.
const NICENESS: i32 = 10;

/// Bounds the memory that this process may have for itself, written or not: no more than `bytes` above what it has. What
/// V8 only reserves does not count.
pub(super) fn limit_memory(present: u64, bytes: u64, most: u64) -> io::Result<()> {
    let limits = libc::rlimit { rlim_cur: present.saturating_add(bytes).min(most), rlim_max: most };
    // SAFETY: the structure is complete.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limits) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The hard limit of that: whoever started the server may have set one, which nobody without privileges can raise.
pub(super) fn memory_most() -> io::Result<u64> {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is complete.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_DATA, &raw mut limits) };
    if done == 0 { Ok(limits.rlim_max) } else { Err(io::Error::last_os_error()) }
}

/// No image of this process's memory on a disk, however it ends.
pub(in crate::hooks::engines) fn leave_no_core() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is complete. To lower a limit needs no privilege.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
}

/// What RLIMIT_DATA counts, of this process at the moment.
pub(in crate::hooks::engines) fn data_bytes() -> u64 {
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

/// Puts the code and the constants of a library that was just opened into large pages that are this process's own, and says whether
/// there are any. With many processes in turns on a core, the processor looks up small pages for a tenth of a call's time and more.
/// Large pages of the file itself are not to be had: few kernels are built for them.
///
/// # Safety
///
/// Nothing of the library may run meanwhile.
pub(super) unsafe fn own_in_large_pages(library: &Path) -> bool {
    let Ok(library) = library.canonicalize() else { return false };
    // Without large pages a fork would have to copy thousands of entries instead.
    let enabled = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    if !enabled.is_ok_and(|enabled| enabled.contains("[always]") || enabled.contains("[madvise]")) {
        return false;
    }
    for map in maps() {
        let access = match map.access.as_str() {
            "r--p" => libc::PROT_READ,
            "r-xp" => libc::PROT_READ | libc::PROT_EXEC,
            _ => continue,
        };
        let (start, end) = (map.start.next_multiple_of(LARGE), map.end / LARGE * LARGE);
        if map.file.as_ref() != Some(&library) || start >= end {
            continue;
        }
        let length = end - start;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: the copy is a new mapping, long enough to hold `length` bytes from a border of a large page on. What it is
        // copied from is readable and, as nothing of the library runs, stays as it is; the copy takes its place with
        // the same content and access. If something fails before that, only the copy is lost.
        unsafe {
            let reserved =
                libc::mmap(std::ptr::null_mut(), length + LARGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            if reserved == libc::MAP_FAILED {
                return false;
            }
            let copy = (reserved as usize).next_multiple_of(LARGE) as *mut libc::c_void;
            libc::madvise(copy, length, libc::MADV_HUGEPAGE);
            std::ptr::copy_nonoverlapping(start as *const u8, copy.cast(), length);
            let moved = libc::mprotect(copy, length, access) == 0
                && libc::mremap(copy, length, length, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, start)
                    != libc::MAP_FAILED;
            let before = copy as usize - reserved as usize;
            if before > 0 {
                libc::munmap(reserved, before);
            }
            libc::munmap(copy.byte_add(length), LARGE - before);
            if !moved {
                libc::munmap(copy, length);
            }
        }
    }
    true
}

/// Has a fork copy what the kernel knows of a library's pages. Of a mapping that holds nothing but pages of a file it copies
/// nothing, and each child would ask for those that it needs, about 165 times; of one that holds a page of the process's own it
/// copies all. So a byte of each is written over with itself, by the way that is open for memory that cannot be written: where
/// it is closed, children are slower.
pub(super) fn fork_with_pages_of(library: &Path) -> io::Result<()> {
    let library = library.canonicalize()?;
    let memory = fs::File::options().read(true).write(true).open("/proc/self/mem")?;
    for map in maps() {
        if map.file.as_ref() == Some(&library) && matches!(&*map.access, "r--p" | "r-xp") {
            let mut byte = [0];
            memory.read_exact_at(&mut byte, map.start as u64)?;
            memory.write_all_at(&byte, map.start as u64)?;
        }
    }
    Ok(())
}

/// The size of a large page.
const LARGE: usize = 2 << 20;

/// A piece of this process's memory.
struct Map {
    start: usize,
    end: usize,
    access: String,
    file: Option<PathBuf>,
}

fn maps() -> Vec<Map> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let parse = |line: &str| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let access = fields.next()?.to_owned();
        let number = |text| usize::from_str_radix(text, 16).ok();
        // Offset, device and inode are between. A path may have spaces; what is no file has a name in brackets.
        let file = line.find(['/', '[']).map(|at| PathBuf::from(&line[at..]));
        Some(Map { start: number(start)?, end: number(end)?, access, file })
    };
    maps.lines().filter_map(parse).collect()
}

/// Installs a seccomp filter for the calling thread and everything that it forks.
pub(in crate::hooks::engines) fn filter_calls(filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program points to as many instructions as it says, which the kernel copies.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}
