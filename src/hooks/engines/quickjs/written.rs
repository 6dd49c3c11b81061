//! Which parts of its memory the runs of a sandbox have written. Asking the kernel takes longer than a small handler, so
//! it is asked again only if a run had a page fault, without which it cannot have written to other pages.

use std::ops::Range;

#[cfg(target_os = "linux")]
use crate::hooks::engines::pagemap::{Pagemap, Region, faults, keep_pages_small};

/// If more was written, scanning and copying takes longer than creating a new sandbox.
#[cfg(target_os = "linux")]
const PIECES_MAX: usize = 256;
#[cfg(target_os = "linux")]
const BYTES_MAX: usize = 1 << 20;

/// What the runs of a sandbox have written.
#[derive(Default)]
pub(super) struct Written {
    /// The parts of its memory that the kernel has reported last; `None` if a run may have written to others since then.
    pieces: Option<Box<[Range<usize>]>>,
}

impl Written {
    /// Does `work`, a run, and watches whether it may write to other parts.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        if self.pieces.is_none() {
            return work.await;
        }
        let (done, had_faults) = watched(work).await;
        if had_faults {
            self.pieces = None;
        }
        done
    }

    /// The parts of the memory that were written, in order; `None` if they are too many, or the kernel does not report
    /// them.
    #[cfg(target_os = "linux")]
    pub(super) fn pieces(&mut self, memory: &mut [u8]) -> Option<&[Range<usize>]> {
        match &self.pieces {
            Some(pieces) => debug_assert!(is_covered(memory, pieces), "written without a page fault"),
            None => {
                // Before the report: from then on, the first write to a page is a page fault.
                if !keep_pages_small(memory) {
                    return None;
                }
                let pieces = found(memory)?;
                if pieces.iter().map(Range::len).sum::<usize>() > BYTES_MAX {
                    return None;
                }
                self.pieces = Some(pieces);
            }
        }
        self.pieces.as_deref()
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn pieces(&mut self, _: &mut [u8]) -> Option<&[Range<usize>]> {
        None
    }
}

/// Does `work`; also returns whether a thread that polled it had a page fault meanwhile, or may have had one.
#[cfg(target_os = "linux")]
async fn watched<T>(work: impl Future<Output = T>) -> (T, bool) {
    let mut work = std::pin::pin!(work);
    let mut had_faults = false;
    let done = std::future::poll_fn(|context| {
        let before = faults();
        let polled = work.as_mut().poll(context);
        had_faults |= before.is_none() || faults() != before;
        polled
    });
    (done.await, had_faults)
}

#[cfg(not(target_os = "linux"))]
async fn watched<T>(work: impl Future<Output = T>) -> (T, bool) {
    (work.await, true)
}

/// What the kernel reports.
#[cfg(target_os = "linux")]
fn found(memory: &[u8]) -> Option<Box<[Range<usize>]>> {
    use std::sync::LazyLock;

    static PAGEMAP: LazyLock<Option<Pagemap>> = LazyLock::new(Pagemap::open);

    let mut regions = [Region::default(); PIECES_MAX];
    let pieces = PAGEMAP.as_ref()?.written(memory, &mut regions)?;
    Some(pieces.collect())
}

/// Whether everything that the kernel reports is within `pieces`.
#[cfg(target_os = "linux")]
fn is_covered(memory: &[u8], pieces: &[Range<usize>]) -> bool {
    let is_within = |part: &Range<usize>| pieces.iter().any(|piece| piece.start <= part.start && part.end <= piece.end);
    found(memory).is_some_and(|found| found.iter().all(is_within))
}
