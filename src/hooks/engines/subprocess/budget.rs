//! How much time and memory the compilation of foreign code may take, depending on its size, and how many may run at
//! once.

use std::sync::LazyLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::catalog::SourceLanguage;
use crate::config::{Phase, format_duration};
use crate::hooks::engines::engine::PrepareError;

/// The work of a subprocess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::hooks::engines) enum Job {
    /// Compile WebAssembly to machine code.
    Compile,
    /// Compile one of this program's own modules to machine code.
    CompileOwn,
    /// Parse an author's JavaScript or TypeScript into the form that the runners evaluate.
    Parse { phase: Phase, language: Option<SourceLanguage> },
    /// Load a native library and read its descriptor. Gets the path instead of code. The library is trusted: only the
    /// time is limited.
    Load,
    /// The same for the library of a server module.
    LoadModule,
}

/// Files of at least this size count as large: they have separate permits, so that files of usual size never wait for
/// them.
const LARGE_BYTES: usize = 1 << 20;

/// How long a job waits for others. This is short, because the caller waits as well. A large job may wait for as long
/// as it may run.
const QUEUE_WAIT: Duration = Duration::from_millis(800);

/// The limits of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// CPU time.
    pub(super) cpu: Duration,
    /// Wall-clock time since its start, including time in which other processes use the cores.
    pub(super) wall: Duration,
    pub(super) memory_bytes: u64,
    pub(super) reply_bytes: usize,
}

impl Budget {
    /// The budget for code of that size. Measured in a debug build: 0.2 s for a 200 KB hook in Rust, 1.8 s and 140 MiB
    /// for QuickJS with 1.3 MB; parsing takes 1 s and 125 MiB per MiB of source.
    pub(super) fn of(job: Job, bytes: usize) -> Budget {
        let mib = bytes as f64 / f64::from(1 << 20);
        let (base, cpu_per_mib, memory_per_mib) = match job {
            Job::Compile | Job::CompileOwn => (2.0, 4.0, 48.0),
            Job::Parse { .. } | Job::Load | Job::LoadModule => (2.0, 1.0, 128.0),
        };
        let cpu = Duration::from_secs_f64(base + cpu_per_mib * mib.floor());
        Budget {
            cpu,
            wall: cpu.mul_f64(1.25) + Duration::from_secs(1),
            memory_bytes: (256 + (memory_per_mib * mib) as u64) << 20,
            reply_bytes: (32 << 20) + 12 * bytes,
        }
    }
}

/// Permits for the jobs of this process.
struct Permits {
    compile: Semaphore,
    compile_large: Semaphore,
    parse: Semaphore,
}

/// How many files are compiled at once. Each compilation uses several cores itself.
pub fn at_once() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / 2).clamp(2, 8)
}

/// A permit for as long as the job runs.
pub(super) type Permit = SemaphorePermit<'static>;

/// Waits for a permit for a limited time.
pub(super) async fn permit(job: Job, bytes: usize) -> Result<Permit, PrepareError> {
    static PERMITS: LazyLock<Permits> = LazyLock::new(|| Permits {
        compile: Semaphore::new(at_once()),
        compile_large: Semaphore::new(at_once() / 2),
        parse: Semaphore::new(at_once()),
    });
    let (permits, count, wait) = match job {
        Job::Parse { .. } | Job::Load | Job::LoadModule => (&PERMITS.parse, at_once(), QUEUE_WAIT),
        Job::Compile | Job::CompileOwn if bytes < LARGE_BYTES => (&PERMITS.compile, at_once(), QUEUE_WAIT),
        Job::Compile | Job::CompileOwn => (&PERMITS.compile_large, at_once() / 2, Budget::of(job, bytes).wall),
    };
    match tokio::time::timeout(wait, permits.acquire()).await {
        Ok(Ok(permit)) => Ok(permit),
        // The semaphores are never closed.
        Ok(Err(_)) | Err(_) => Err(PrepareError::overloaded(format!(
            "{count} hooks are being compiled, and none of them was done within {}; try again",
            format_duration(wait)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_is_answered_within_five_seconds_its_wait_included() {
        for job in [Job::Compile, Job::Parse { phase: Phase::PreCreate, language: None }] {
            let budget = Budget::of(job, 184 << 10);
            assert!(QUEUE_WAIT + budget.wall < Duration::from_millis(4500), "{budget:?}");
            assert!(budget.memory_bytes < 300 << 20, "{budget:?}");
        }
        let large = Budget::of(Job::Compile, 18 << 20);
        assert_eq!((large.cpu, large.memory_bytes), (Duration::from_secs(74), 1120 << 20));
    }
}
