//! Ends a program: kills it and its process group, then reaps it.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_send_signal, waitid};

/// How long to wait for a killed program to end.
const REAP_TIME: Duration = Duration::from_secs(1);

/// Ends a program that nobody waits for.
pub(super) fn reap(pid: Pid, pidfd: &OwnedFd) {
    kill(pid, pidfd);
    wait(pidfd);
}

/// Kills the program and its process group. Only call this before it is reaped: until then its process id cannot be
/// reused.
pub(super) fn kill(pid: Pid, pidfd: &OwnedFd) {
    // An error means that there is nothing left to kill.
    let _ = kill_process_group(pid, Signal::KILL);
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
}

/// The exit code, or 128 + signal if a signal ended it. A killed program ends at once; if the kernel takes longer, this
/// stops waiting.
pub(super) fn wait(pidfd: &OwnedFd) -> Option<i32> {
    let deadline = Instant::now() + REAP_TIME;
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(status)) => {
                return status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
            }
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            Err(rustix::io::Errno::INTR) => {}
            _ => return None,
        }
    }
}
