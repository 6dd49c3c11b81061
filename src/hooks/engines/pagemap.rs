//! Finds the pages of memory that this process has written, if the kernel reports them (PAGEMAP_SCAN, Linux 6.7).
//!
//! The first write to a page is a page fault. So if the threads that could write had no page fault since a scan, no
//! pages were written but those that it found; counting faults takes a tenth of the time of a scan.
#![expect(unsafe_code, reason = "questions to the kernel for which there is no safe way")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// The kernel's page map of this process.
pub(super) struct Pagemap(File);

impl Pagemap {
    /// `None` if the kernel does not support it.
    pub(super) fn open() -> Option<Pagemap> {
        let pagemap = Pagemap(File::open("/proc/self/pagemap").ok()?);
        let page = [0; 1];
        pagemap.written(&page, &mut [Region::default()]).map(|_| pagemap)
    }

    /// The parts of `memory` that were written since it was mapped, with their offsets, in order: whole pages, borrowed
    /// from the memory. `None` if there are more than `regions`, or if the kernel does not report them.
    pub(super) fn written<'a>(
        &self,
        memory: &[u8],
        regions: &'a mut [Region],
    ) -> Option<impl Iterator<Item = Range<usize>> + 'a> {
        let page = rustix::param::page_size();
        let (start, length) = (memory.as_ptr().addr(), memory.len());
        let (first, end) = (start / page * page, (start + length).next_multiple_of(page));
        let file = self.0.as_raw_fd();
        // SAFETY: the length matches the number of regions.
        let scanned = unsafe { scan(file, first, end, FILE | NOTHING, regions.as_mut_ptr(), regions.len()) };
        let (found, until) = scanned.ok()?;
        (until >= end).then(|| {
            regions[..found].iter().map(move |region| {
                let within = |address: u64| (address as usize).saturating_sub(start).min(length);
                within(region.start)..within(region.end)
            })
        })
    }
}

/// Tells the kernel not to combine the pages of `memory` into huge pages, as it otherwise may at any time: all of a huge
/// page can be written without a page fault, even if only parts of it existed before. Returns whether it obeys.
pub(super) fn keep_pages_small(memory: &mut [u8]) -> bool {
    let page = rustix::param::page_size();
    if memory.is_empty() || !memory.as_ptr().addr().is_multiple_of(page) || !memory.len().is_multiple_of(page) {
        return false;
    }
    // SAFETY: the advice changes no contents; the pages are all those of `memory`.
    match unsafe { libc::madvise(memory.as_mut_ptr().cast(), memory.len(), libc::MADV_NOHUGEPAGE) } {
        0 => true,
        // A kernel without huge pages does not know the advice.
        _ => io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL),
    }
}

/// The number of page faults of this thread so far; `None` if the kernel does not count them.
pub(super) fn faults() -> Option<u64> {
    // SAFETY: the structure consists of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one structure.
    let failed = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    let faults = (usage.ru_minflt as u64).wrapping_add(usage.ru_majflt as u64);
    // A thread that has run has had some, such as those of its stack.
    (failed == 0 && faults > 0).then_some(faults)
}

/// `struct page_region` of the kernel.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Region {
    pub(super) start: u64,
    pub(super) end: u64,
    categories: u64,
}

/// `struct pm_scan_arg` of the kernel.
#[repr(C)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_length: u64,
    pages_max: u64,
    inverted: u64,
    all_of: u64,
    any_of: u64,
    told: u64,
}

/// Since Linux 6.7.
pub(super) const PAGEMAP_SCAN: u32 = 0xc060_6610;
/// The page belongs to a file and was not copied for this process.
pub(super) const FILE: u64 = 1 << 2;
const PRESENT: u64 = 1 << 3;
const SWAPPED: u64 = 1 << 4;
/// The page was only read, never written.
const NOTHING: u64 = 1 << 5;

/// Scans the pages between `start` and `end` for those that have contents, except the kinds in `not`. Returns how many
/// regions were found, and where the scan ended.
///
/// # Safety
///
/// `regions` must point to `length` regions.
pub(super) unsafe fn scan(
    pages: libc::c_int,
    start: usize,
    end: usize,
    not: u64,
    regions: *mut Region,
    length: usize,
) -> io::Result<(usize, usize)> {
    let mut scan = Scan {
        size: size_of::<Scan>() as u64,
        flags: 0,
        start: start as u64,
        end: end as u64,
        walk_end: 0,
        regions: regions as u64,
        regions_length: length as u64,
        pages_max: 0,
        inverted: not,
        all_of: not,
        any_of: PRESENT | SWAPPED,
        told: PRESENT,
    };
    // SAFETY: the structure is the one that the kernel defines, and the kernel writes no more regions than `length`.
    let found = unsafe { libc::ioctl(pages, libc::c_ulong::from(PAGEMAP_SCAN), &raw mut scan) };
    match usize::try_from(found) {
        Ok(found) => Ok((found, scan.walk_end as usize)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: usize = 64;

    /// Memory that nobody has written yet: private copies of a file's pages, as those of a sandbox are.
    fn fresh() -> (*mut u8, usize) {
        let page = rustix::param::page_size();
        let file = tempfile::tempfile().unwrap();
        file.set_len((PAGES * page) as u64).unwrap();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the place.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), PAGES * page, protection, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
        };
        assert_ne!(at, libc::MAP_FAILED);
        (at.cast(), page)
    }

    #[test]
    fn the_first_write_to_a_page_is_a_fault_and_later_ones_are_none() {
        let (at, page) = fresh();
        // SAFETY: mapped above, for this test alone, and never unmapped.
        let memory = unsafe { std::slice::from_raw_parts_mut(at, PAGES * page) };
        assert!(keep_pages_small(memory));
        assert!(!keep_pages_small(&mut memory[1..]), "half a page");
        let pagemap = Pagemap::open();
        let written = |memory: &[u8], expected: &[usize]| {
            let Some(pagemap) = &pagemap else { return };
            let mut regions = [Region::default(); PAGES];
            let found: Vec<usize> =
                pagemap.written(memory, &mut regions).unwrap().flat_map(|part| part.step_by(page)).collect();
            assert_eq!(found, expected.iter().map(|index| index * page).collect::<Vec<_>>());
        };
        for index in 0..PAGES {
            std::hint::black_box(memory[index * page]);
        }
        for (count, index) in [3, 4, 40].into_iter().enumerate() {
            let before = faults().unwrap();
            memory[index * page] = 1;
            assert!(faults().unwrap() > before, "the first write to page {index}");
            written(memory, &[3, 4, 40][..=count]);
        }
        // The first round may have a fault of its own, such as for a page of this code.
        let rounds = (0..3).map(|round| {
            let before = faults().unwrap();
            [3, 4, 40].into_iter().for_each(|index| memory[index * page + 7] = round);
            faults().unwrap() - before
        });
        assert_eq!(rounds.last(), Some(0));
    }
}
