//! System calls of a worker without a safe interface: forking, exiting, measuring and limiting itself.
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

/// Forks this process. Only the calling thread continues in the child.
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

/// Closes all inherited descriptors except the three standard ones.
pub(in crate::hooks::engines) fn close_inherited() {
    // SAFETY: called first of all, when this program has opened nothing itself.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Lets the kernel reap ended children.
pub(super) fn forget_children() {
    // SAFETY: sets a disposition; no handler runs.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// When the system runs out of memory, the kernel kills this process and its children before the server.
pub(in crate::hooks::engines) fn yield_memory() {
    // Without this file, the kernel decides by size.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
}

/// Ends this process with its parent, `parent`, or now if the parent has already ended.
pub(super) fn end_with_parent(parent: u32) {
    // SAFETY: sets a number in the kernel.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if std::os::unix::process::parent_id() != parent {
        exit(0);
    }
}

/// After the processor time of [`lower_priority_after`], the process gets a lower priority, like long runs of the other
/// engines. Children inherit this.
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

/// Starts the timer.
pub(super) fn lower_priority_after(patience: Duration) {
    let timer = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
        it_value: libc::timeval { tv_sec: 0, tv_usec: patience.as_micros() as libc::suseconds_t },
    };
    // SAFETY: the structure is complete.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut()) };
}

/// Whether the time of [`lower_priority_after`] has elapsed; stops the timer.
pub(super) fn has_low_priority() -> bool {
    // SAFETY: zeros are a timer that does not run.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &std::mem::zeroed(), std::ptr::null_mut()) };
    LOW_PRIORITY.load(Ordering::Relaxed)
}

static LOW_PRIORITY: AtomicBool = AtomicBool::new(false);

/// If the library executes a trap instruction, which it does silently when one of its allocations fails, the process
/// prints [`TRAPPED`] and ends.
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

/// A separate line on standard error.
pub(crate) const TRAPPED: &str = "\n[trapped]\n";

/// A weight of 110, against 1024 at normal priority.
const NICENESS: i32 = 10;

/// Limits the private memory of this process, written or not, to `bytes` more than it has now. Address space that V8
/// only reserves does not count.
pub(super) fn limit_memory(present: u64, bytes: u64, most: u64) -> io::Result<()> {
    let limits = libc::rlimit { rlim_cur: present.saturating_add(bytes).min(most), rlim_max: most };
    // SAFETY: the structure is complete.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limits) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The hard limit of that: the server's parent may have set one, which cannot be raised without privileges.
pub(super) fn memory_most() -> io::Result<u64> {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is complete.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_DATA, &raw mut limits) };
    if done == 0 { Ok(limits.rlim_max) } else { Err(io::Error::last_os_error()) }
}

/// Prevents core dumps.
pub(in crate::hooks::engines) fn leave_no_core() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is complete. To lower a limit needs no privilege.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
}

/// The current memory of this process as counted by RLIMIT_DATA.
pub(in crate::hooks::engines) fn data_bytes() -> u64 {
    // Fields of statm: size, resident, shared, text, lib, data; in pages.
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(5).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// Processor time in microseconds, and bytes of private memory, since the start of the process.
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

/// Moves the code and the constants of a just opened library into private large pages, and returns whether that worked.
/// With many processes taking turns on a core, page walks for small pages take a tenth of a run's time and more. Large
/// pages of the file itself are not an option, because few kernels support them.
///
/// # Safety
///
/// Nothing of the library may run meanwhile.
pub(super) unsafe fn own_in_large_pages(library: &Path) -> bool {
    let Ok(library) = library.canonicalize() else { return false };
    // Without large pages a fork would have to copy thousands of page table entries.
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

/// Makes a fork copy the page table of a library. For a mapping with only file pages the kernel copies nothing, so each
/// child would have about 165 page faults; for a mapping with a private page it copies everything. So one byte of each
/// mapping is overwritten with itself, through `/proc/self/mem`, which can write to read-only memory. If that is not
/// possible, children are slower.
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

/// A mapping of this process.
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
        // Offset, device and inode are in between. A path may contain spaces; mappings without a file have a name in
        // brackets.
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
