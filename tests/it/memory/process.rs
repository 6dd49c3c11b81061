//! The memory of a process, as the system counts it.

use crate::support::{Server, eventually};

pub(crate) const MIB: u64 = 1 << 20;

/// A server's memory at the start of a test.
pub(crate) struct Memory {
    pid: u32,
    before: u64,
}

impl Memory {
    /// Records the current memory and resets the peak.
    pub(crate) fn of(server: &Server) -> Memory {
        let pid = server.pid();
        // 5: reset the peak.
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the peak can be reset");
        Memory { pid, before: read(pid, "VmRSS:") }
    }

    /// The peak since then.
    #[track_caller]
    pub(crate) fn grew_by_at_most(&self, bytes: u64) {
        let grown = read(self.pid, "VmHWM:").saturating_sub(self.before);
        eprintln!("memory grew by {} MiB from {} MiB", grown / MIB, self.before / MIB);
        assert!(grown <= bytes, "{} MiB, at most {} are allowed", grown / MIB, bytes / MIB);
    }

    /// Waits until at most this much more memory is in use.
    #[track_caller]
    pub(crate) fn comes_down_to(&self, bytes: u64) {
        eventually("memory is given back", || (read(self.pid, "VmRSS:") <= self.before + bytes).then_some(()));
    }
}

fn read(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}
