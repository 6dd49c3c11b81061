//! Finds the pages of memory that this process has written, if the kernel reports them (PAGEMAP_SCAN, Linux 6.7).
#![expect(unsafe_code, reason = "a question to the kernel for which there is no safe way")]

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
