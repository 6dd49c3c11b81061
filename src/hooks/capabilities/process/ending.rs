//! The end of a program: killed with all of its group, then reaped.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_send_signal, waitid};

/// How long the end of a killed program is waited for.
const REAP_TIME: Duration = Duration::from_secs(1);

/// Ends a program that nobody runs.
pub(super) fn reap(pid: Pid, pidfd: &OwnedFd) {
    kill(pid, pidfd);
    wait(pidfd);
}

/// Kills the program and all of its group. Only before it is reaped: until then its number is nobody else's.
pub(super) fn kill(pid: Pid, pidfd: &OwnedFd) {
    // Errors mean that there is nothing left to kill.
    let _ = kill_process_group(pid, Signal::KILL);
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
}

/// The exit code, 128 + signal if a signal ended it. What was killed ends at once; should the kernel hold it longer,
/// it is left to the kernel.
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
