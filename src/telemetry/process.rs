//! The system's numbers of this process, under the standard metric names.

use super::exposition::Exposition;

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessUse {
    cpu_seconds: f64,
    /// Since 1970.
    start_seconds: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
    threads: u64,
    open_descriptors: Option<u64>,
    descriptors_max: Option<u64>,
}

impl ProcessUse {
    pub fn write(&self, out: &mut Exposition) {
        out.counter("process_cpu_seconds", "Processor time of the server's process").sample(&[], self.cpu_seconds);
        let help = "When the server's process started, in seconds since 1970";
        out.gauge("process_start_time_seconds", help).sample(&[], self.start_seconds);
        let help = "Memory of the server's process that is in use";
        out.gauge("process_resident_memory_bytes", help).sample(&[], self.resident_bytes);
        let help = "Addresses that the server's process has reserved";
        out.gauge("process_virtual_memory_bytes", help).sample(&[], self.virtual_bytes);
        out.gauge("process_threads", "Threads of the server's process").sample(&[], self.threads);
        for (name, help, value) in [
            ("process_open_fds", "Open file descriptors", self.open_descriptors),
            ("process_max_fds", "Most file descriptors that may be open", self.descriptors_max),
        ] {
            if let Some(value) = value {
                out.gauge(name, help).sample(&[], value);
            }
        }
    }
}

/// Reads the numbers; `None` if the system does not provide them. Blocks for a moment, because there may be many
/// descriptors.
#[cfg(target_os = "linux")]
pub fn read() -> Option<ProcessUse> {
    use rustix::process::{Resource, getrlimit};

    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let read = parse(&stat, boot, rustix::param::clock_ticks_per_second(), rustix::param::page_size())?;
    // Reading the folder opens a descriptor itself.
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as u64);
    Some(ProcessUse { open_descriptors: open, descriptors_max: getrlimit(Resource::Nofile).current, ..read })
}

#[cfg(not(target_os = "linux"))]
pub fn read() -> Option<ProcessUse> {
    None
}

/// A line of `/proc/<pid>/stat`, as proc(5) describes it.
#[cfg(target_os = "linux")]
fn parse(stat: &str, boot_seconds: u64, ticks: u64, page_bytes: usize) -> Option<ProcessUse> {
    // The name of the program may have spaces and brackets.
    let (_, rest) = stat.rsplit_once(')')?;
    // The first one here is the third of the line.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let seconds = |ticks_of_it: u64| ticks_of_it as f64 / ticks.max(1) as f64;
    Some(ProcessUse {
        cpu_seconds: seconds(field(14)? + field(15)?),
        threads: field(20)?,
        start_seconds: boot_seconds as f64 + seconds(field(22)?),
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * page_bytes as u64,
        open_descriptors: None,
        descriptors_max: None,
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_system() {
        let line = "4711 (a) b) c) S 1 4711 4711 0 -1 4194560 1500 0 2 0 150 50 9 9 20 0 12 0 250 1048576 256 184467";
        let found = parse(line, 1_000, 100, 4096).unwrap();
        let expected = ProcessUse {
            cpu_seconds: 2.0,
            start_seconds: 1_002.5,
            virtual_bytes: 1_048_576,
            resident_bytes: 1_048_576,
            threads: 12,
            open_descriptors: None,
            descriptors_max: None,
        };
        assert_eq!(found, expected);
        assert_eq!(parse("4711 (a", 0, 100, 4096), None);
        assert_eq!(parse("4711 (a) S 1", 0, 100, 4096), None);
    }

    #[test]
    fn this_process() {
        let found = read().expect("Linux says it");
        assert!(found.resident_bytes > 1 << 20 && found.threads >= 1 && found.open_descriptors > Some(0), "{found:?}");
    }
}
