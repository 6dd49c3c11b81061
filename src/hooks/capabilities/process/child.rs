//! Starts a program from a prepared [`Plan`]: the only place that forks.
//!
//! Between the fork and the exec, the child works on a snapshot of the memory of a multi-threaded server, including its
//! locks. So it may only make system calls: the code here must not allocate, lock, panic or drop. The [`Plan`] contains
//! everything that it needs.
#![expect(unsafe_code, reason = "fork, exec and the calls between them have no safe form")]

use std::ffi::{CString, c_char, c_int, c_long};
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;
use tokio::io::unix::AsyncFd;

use super::ending::reap;

/// The steps of the child before the program starts, in the order of the fields.
pub(super) struct Plan {
    /// `CLONE_NEW…` flags of the new namespaces.
    pub(super) namespaces: c_int,
    /// Paths and the contents to write there: the maps of a user namespace.
    pub(super) maps: Vec<(CString, CString)>,
    pub(super) directory: CString,
    pub(super) limits: Vec<(i64, u64)>,
    /// The user and group to switch to.
    pub(super) user: Option<u32>,
    /// A Landlock ruleset.
    pub(super) ruleset: Option<OwnedFd>,
    /// A seccomp filter; empty: none.
    pub(super) filter: Vec<libc::sock_filter>,
    pub(super) program: CString,
    pub(super) args: Vec<CString>,
    pub(super) env: Vec<CString>,
}

/// A started program, and the server's ends of its pipes.
pub(super) struct Started {
    pub(super) pid: Pid,
    /// Readable when the program has ended.
    pub(super) pidfd: OwnedFd,
    pub(super) stdin: PipeWriter,
    pub(super) stdout: PipeReader,
    pub(super) stderr: PipeReader,
}

/// Why a program could not be started: the step that failed and the system's error.
#[derive(Debug)]
pub(super) struct StartError {
    pub(super) step: StartStep,
    pub(super) error: io::Error,
}

/// Steps of the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum StartStep {
    Pipe,
    Fork,
    Session,
    Map,
    Stdio,
    Directory,
    Limit,
    User,
    Sandbox,
    Exec,
}

impl StartStep {
    const ALL: [StartStep; 10] = [
        StartStep::Pipe,
        StartStep::Fork,
        StartStep::Session,
        StartStep::Map,
        StartStep::Stdio,
        StartStep::Directory,
        StartStep::Limit,
        StartStep::User,
        StartStep::Sandbox,
        StartStep::Exec,
    ];
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        StartError { step: StartStep::Pipe, error }
    }
}

/// Starts a program. Blocks until it runs or has failed to start. Call it from a thread that outlives the program,
/// because the program is killed when that thread ends.
pub(super) fn start(plan: &Plan) -> Result<Started, StartError> {
    let (stdin_theirs, stdin) = io::pipe()?;
    let (stdout, stdout_theirs) = io::pipe()?;
    let (stderr, stderr_theirs) = io::pipe()?;
    // The exec closes this pipe; anything received before names the step that failed.
    let (mut report, report_theirs) = io::pipe()?;
    let pointers = |texts: &[CString]| -> Vec<*const c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let layout = Layout {
        plan,
        args: pointers(&plan.args),
        env: pointers(&plan.env),
        stdio: [stdin_theirs.as_raw_fd(), stdout_theirs.as_raw_fd(), stderr_theirs.as_raw_fd()],
        report: report_theirs.as_raw_fd(),
    };
    let (pid, pidfd) = fork(&layout).map_err(|error| StartError { step: StartStep::Fork, error })?;
    drop((stdin_theirs, stdout_theirs, stderr_theirs, report_theirs));
    let started = Started { pid, pidfd, stdin, stdout, stderr };
    let mut message = [0_u8; 5];
    let mut length = 0;
    while length < message.len() {
        match report.read(&mut message[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    if length < message.len() {
        return Ok(started);
    }
    reap(started.pid, &started.pidfd);
    let [step, code @ ..] = message;
    let step = StartStep::ALL.into_iter().find(|known| *known as u8 == step).unwrap_or(StartStep::Exec);
    Err(StartError { step, error: io::Error::from_raw_os_error(i32::from_ne_bytes(code)) })
}

/// Returns a descriptor that becomes readable when the program has ended.
pub(super) fn end_of(pidfd: &OwnedFd) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
    // SAFETY: the borrow keeps the descriptor open for as long as it is registered.
    unsafe { AsyncFd::register(pidfd.as_fd()) }.map_err(io::Error::from)
}

/// All data that the child uses, at fixed addresses.
struct Layout<'a> {
    plan: &'a Plan,
    args: Vec<*const c_char>,
    env: Vec<*const c_char>,
    stdio: [RawFd; 3],
    report: RawFd,
}

fn fork(layout: &Layout<'_>) -> io::Result<(Pid, OwnedFd)> {
    let flags = c_long::from(layout.plan.namespaces | libc::CLONE_PIDFD | libc::SIGCHLD);
    let mut pidfd: c_int = -1;
    let none: c_long = 0;
    // SAFETY: the signal sets are plain data that the calls fill. With all signals blocked no handler of the server runs
    // in the child before it has taken the handlers off. Without CLONE_VM the child works on its own copy of the
    // memory, so both sides return from this call as from a fork; the third argument is where the kernel puts the
    // pidfd, an int of ours that outlives the call.
    let pid = unsafe {
        let (mut all, mut before) = (std::mem::zeroed::<libc::sigset_t>(), std::mem::zeroed::<libc::sigset_t>());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let pid = libc::syscall(libc::SYS_clone, flags, none, &raw mut pidfd, none, none);
        if pid == 0 {
            child(layout);
        }
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        if pid < 0 {
            return Err(error);
        }
        pid
    };
    // SAFETY: the kernel has just made this descriptor for us and nobody else has it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    Ok((pid, pidfd))
}

/// Runs in the child: carries out the plan's steps and executes the program.
///
/// # Safety
///
/// Only in the child of [`fork`].
unsafe fn child(layout: &Layout<'_>) -> ! {
    let Layout { plan, args, env, stdio, report } = layout;
    let fail = |step: StartStep| -> ! {
        // SAFETY: errno is the child's own, `message` lives until the call returns; nothing runs after _exit.
        unsafe {
            let code = (*libc::__errno_location()).to_ne_bytes();
            let message = [step as u8, code[0], code[1], code[2], code[3]];
            libc::write(*report, message.as_ptr().cast(), message.len());
            libc::_exit(127)
        }
    };
    let check = |result: c_long, step: StartStep| {
        if result < 0 {
            fail(step);
        }
    };
    // SAFETY: system calls whose pointers lead into `layout`, which is the child's own copy and stays; strings end with
    // NUL, and lists with a null pointer. `setres[ug]id` and `setgroups` are called directly because the wrappers of the C library
    // would signal threads that do not exist here.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        check(libc::setsid().into(), StartStep::Session);
        for (path, text) in &plan.maps {
            let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            check(file.into(), StartStep::Map);
            let bytes = text.to_bytes();
            check(libc::write(file, bytes.as_ptr().cast(), bytes.len()) as c_long, StartStep::Map);
        }
        for (target, source) in stdio.iter().enumerate() {
            check(libc::dup2(*source, target as c_int).into(), StartStep::Stdio);
        }
        // The exec closes all other descriptors of the server, including those that a library opened without CLOEXEC.
        if libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) < 0 {
            for fd in 3..65_536 {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
        check(libc::chdir(plan.directory.as_ptr()).into(), StartStep::Directory);
        libc::umask(0o077);
        for &(resource, most) in &plan.limits {
            let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
            check(libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, 0), StartStep::Limit);
        }
        if let Some(user) = plan.user {
            check(libc::syscall(libc::SYS_setgroups, 0, 0), StartStep::User);
            check(libc::syscall(libc::SYS_setresgid, user, user, user), StartStep::User);
            check(libc::syscall(libc::SYS_setresuid, user, user, user), StartStep::User);
        }
        // Set after the change of user, which resets it.
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL).into(), StartStep::Sandbox);
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into(), StartStep::Sandbox);
        if let Some(ruleset) = &plan.ruleset {
            check(libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0), StartStep::Sandbox);
        }
        if !plan.filter.is_empty() {
            let program = libc::sock_fprog { len: plan.filter.len() as u16, filter: plan.filter.as_ptr().cast_mut() };
            let mode = libc::SECCOMP_MODE_FILTER;
            check(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program).into(), StartStep::Sandbox);
        }
        let mut no_signals = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut no_signals);
        libc::pthread_sigmask(libc::SIG_SETMASK, &no_signals, std::ptr::null_mut());
        libc::execve(plan.program.as_ptr(), args.as_ptr(), env.as_ptr());
        fail(StartStep::Exec)
    }
}
