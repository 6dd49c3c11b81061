//! How much time and memory one piece of foreign code may take to be compiled, by its size, and how many may be under way.

use std::sync::LazyLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::catalog::SourceLanguage;
use crate::config::{Phase, format_duration};
use crate::hooks::engines::engine::PrepareError;

/// What a subprocess does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::hooks::engines) enum Job {
    /// WebAssembly to machine code.
    Compile,
    /// A module of this program's own to machine code.
    CompileOwn,
    /// An author's JavaScript or TypeScript to what the runners evaluate.
    Parse { phase: Phase, language: Option<SourceLanguage> },
    /// A native library, loaded and asked what it is. Instead of code it gets the path. Trusted: what is bounded is how long
    /// it takes.
    Load,
    /// The library of a server module, the same way.
    LoadModule,
}

/// From here on a file counts as large: it has permits of its own, so that files of usual sizes never wait for one.
const LARGE_BYTES: usize = 1 << 20;

/// How long a piece of work waits for others. Short: whoever asks waits as well. A large one may wait for as long as it may take.
const QUEUE_WAIT: Duration = Duration::from_millis(800);

/// The limits of one piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// On cores.
    pub(super) cpu: Duration,
    /// From its start, with the time in which others have the cores.
    pub(super) wall: Duration,
    pub(super) memory_bytes: u64,
    pub(super) reply_bytes: usize,
}

impl Budget {
    /// What code of that size may take. Measured without optimisation: 0.2 s for a hook of 200 KB in Rust, 1.8 s and 140 MiB for
    /// QuickJS in 1.3 MB; parsing takes 1 s and 125 MiB for a MiB of source.
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

/// Permits for the pieces of work of this process.
struct Permits {
    compile: Semaphore,
    compile_large: Semaphore,
    parse: Semaphore,
    at_once: usize,
}

/// For as long as the work goes on.
pub(super) type Permit = SemaphorePermit<'static>;

/// Waits for a permit, for a moment.
pub(super) async fn permit(job: Job, bytes: usize) -> Result<Permit, PrepareError> {
    static PERMITS: LazyLock<Permits> = LazyLock::new(|| {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let at_once = (cores / 2).clamp(2, 8);
        Permits {
            compile: Semaphore::new(at_once),
            compile_large: Semaphore::new(at_once / 2),
            parse: Semaphore::new(at_once),
            at_once,
        }
    });
    let (permits, count, wait) = match job {
        Job::Parse { .. } | Job::Load | Job::LoadModule => (&PERMITS.parse, PERMITS.at_once, QUEUE_WAIT),
        Job::Compile | Job::CompileOwn if bytes < LARGE_BYTES => (&PERMITS.compile, PERMITS.at_once, QUEUE_WAIT),
        Job::Compile | Job::CompileOwn => (&PERMITS.compile_large, PERMITS.at_once / 2, Budget::of(job, bytes).wall),
    };
    match tokio::time::timeout(wait, permits.acquire()).await {
        Ok(Ok(permit)) => Ok(permit),
        // Nobody closes them.
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
