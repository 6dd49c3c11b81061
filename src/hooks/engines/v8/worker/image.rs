//! Restores the memory of a worker process after each run to its state before the first run: the next run gets a clean
//! process, for much less than the cost of a fork and an exit.
//!
//! The zygote moves its writable memory into a memory file, of which it and its children have private copy-on-write
//! mappings. So the kernel knows exactly which pages a child has written: those that no longer belong to the file.
//! Before its first run a child saves the pages that it has written so far ([`Mark::set`]). After a run all written
//! pages get their content back, from the saved pages or from the file, and the thread continues where it waited
//! ([`Mark::put_back`]). A process whose mappings have changed, or that has written much, ends instead, and so do all
//! if the kernel does not support this.
//!
//! State outside of memory is not restored: the worker's own code handles its priority and its limits.
//!
//! The unsafe code here relies on:
//!
//! - the kernel: PAGEMAP_SCAN reports every written page of a private file mapping; PROCMAP_QUERY reports every
//!   writable mapping. Both are tested before a process is kept ([`Image::works`], [`Mark::set`]).
//! - V8: with `--single-threaded` no other thread of it runs in a child, so nothing writes while memory is moved or
//!   restored, and no state is outside of its memory: compiled code, timers and caches are in private mappings of the
//!   process. The library has one version, whose digest `cargo xtask v8` checks.
//! - glibc: `swapcontext` and `setcontext` save the registers, the floating point state and the signal mask, and change
//!   nothing else; the state of `malloc`, the stacks, `errno` and other thread-local variables are in private writable
//!   memory.
//! - mimalloc, the allocator of the server's own code: its state is in such memory as well. With
//!   `MIMALLOC_PURGE_DELAY=-1` it returns no memory to the kernel, so the mappings stay the same between two runs.
//!
//! A process whose mappings have changed after a run ends, so a violation that changes the mappings costs only time.
#![expect(unsafe_code, reason = "it exchanges the memory of the process under itself")]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::system::{self, DONE};
use crate::hooks::engines::pagemap::{FILE, Region, scan};

/// The page size on the supported architecture.
const PAGE: usize = 4096;

/// Maximum number of pages written by a run, 8 MiB: scanning and copying more is no faster than a new process.
const WRITTEN_MAX: usize = 2048;

/// Maximum number of pages saved before the first run: half of what a run may write.
const SAVED_MAX: usize = 1024;

/// Maximum number of writable mappings. A process with more is not restored.
const RANGES_MAX: usize = 128;

/// Mappings that are this close are scanned together: the kernel skips unmapped gaps faster than it performs another
/// call.
const NEAR: usize = 64 << 20;

/// Stack of [`away`], which calls few functions and keeps large data in [`SavedState`].
const STACK_BYTES: usize = 64 << 10;

/// Regions per kernel call while the zygote's memory is moved; if there are more, the call is repeated.
const REGIONS: usize = 512;

/// The parts of the zygote's memory in the memory file.
pub(super) struct Image {
    ranges: Vec<Range>,
}

/// A memory range.
#[derive(Clone, Copy)]
struct Range {
    start: usize,
    end: usize,
    /// The address of its original content; 0: none, it is the stack of the thread.
    content: usize,
}

impl Image {
    /// Moves the writable memory of this process into a file, and continues with private copies. Called on the thread
    /// that continues in children, while no other thread writes.
    pub(super) fn take() -> io::Result<Image> {
        if !cfg!(all(target_arch = "x86_64", target_env = "gnu")) || rustix::param::page_size() != PAGE {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let smaps = fs::read_to_string("/proc/self/smaps")?;
        let pages = File::open("/proc/self/pagemap")?;
        let here = ptr::from_ref(&smaps).addr();
        let pieces: Vec<Piece> = pieces(&smaps).collect();
        let stack = pieces.iter().find(|piece| (piece.start..piece.end).contains(&here));
        let stack = stack.ok_or_else(|| io::Error::other("the stack is nowhere"))?;
        let shared: Vec<&Piece> = pieces.iter().filter(|piece| piece.start != stack.start && piece.is_ours()).collect();
        if shared.len() >= RANGES_MAX {
            return Err(io::Error::other("the memory is in too many pieces"));
        }
        let total: usize = shared.iter().map(|piece| piece.end - piece.start).sum();
        // SAFETY: makes a file that nobody else has.
        let file = unsafe { libc::memfd_create(c"v8".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
        if file < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was just opened, and nothing else closes it.
        let file = unsafe { OwnedFd::from_raw_fd(file) };
        rustix::fs::ftruncate(&file, total as u64)?;
        // The heap itself is moved: no allocations from here on.
        let mut ranges = Vec::with_capacity(RANGES_MAX);
        let mut regions = vec![Region::default(); REGIONS];
        let mut offset = 0;
        for piece in shared {
            // SAFETY: the piece is this process's own, readable and writable memory, and no other thread writes to it.
            unsafe { piece.move_into(&file, offset, &pages, &mut regions) }?;
            ranges.push(Range { start: piece.start, end: piece.end, content: offset });
            offset += piece.end - piece.start;
        }
        let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
        // SAFETY: a private view of a file at an address that the kernel chooses.
        let view = unsafe {
            libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals);
            let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE;
            libc::mmap(ptr::null_mut(), total, libc::PROT_READ, flags, file.as_raw_fd(), 0)
        };
        if view == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        ranges.iter_mut().for_each(|range| range.content += view.addr());
        ranges.push(Range { start: stack.start, end: stack.end, content: 0 });
        ranges.sort_unstable_by_key(|range| range.start);
        Ok(Image { ranges })
    }

    /// Whether this kernel supports the call that a restore begins with.
    pub(super) fn works(&self) -> bool {
        File::open("/proc/self/maps").is_ok_and(|maps| map_from(maps.as_raw_fd(), 0).is_some())
    }
}

/// One line of `/proc/self/smaps`.
struct Piece {
    start: usize,
    end: usize,
    access: [u8; 4],
    has_file: bool,
    is_special: bool,
}

impl Piece {
    fn is_ours(&self) -> bool {
        self.access.starts_with(b"rw") && self.access[3] == b'p' && !self.is_special
    }

    /// # Safety
    ///
    /// Nobody writes to the piece meanwhile, and it is no stack that is in use.
    unsafe fn move_into(&self, file: &OwnedFd, at: usize, pages: &File, regions: &mut [Region]) -> io::Result<()> {
        let write = |start: usize, end: usize| {
            let mut done = start;
            while done < end {
                let offset = (at + done - self.start) as libc::off_t;
                // SAFETY: the memory is readable; the kernel only reads it.
                let written =
                    unsafe { libc::pwrite(file.as_raw_fd(), done as *const libc::c_void, end - done, offset) };
                match usize::try_from(written) {
                    Ok(written) if written > 0 => done += written,
                    _ => return Err(io::Error::last_os_error()),
                }
            }
            Ok(())
        };
        if self.has_file {
            write(self.start, self.end)?;
        } else {
            let mut from = self.start;
            while from < self.end {
                // SAFETY: the regions are as many as are said.
                let (found, until) =
                    unsafe { scan(pages.as_raw_fd(), from, self.end, 0, regions.as_mut_ptr(), regions.len()) }?;
                for region in &regions[..found] {
                    write(region.start as usize, region.end as usize)?;
                }
                from = until;
            }
        }
        let executable = if self.access[2] == b'x' { libc::PROT_EXEC } else { 0 };
        let access = libc::PROT_READ | libc::PROT_WRITE | executable;
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let (start, length) = (self.start as *mut libc::c_void, self.end - self.start);
        // SAFETY: the file holds at that place what the memory holds, so nobody sees a difference. Only `regions` may have been
        // written since it was copied, if it stands in this piece, and each scan writes it before it is read.
        let moved = unsafe { libc::mmap(start, length, access, flags, file.as_raw_fd(), at as libc::off_t) };
        if moved == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn pieces(smaps: &str) -> impl Iterator<Item = Piece> + '_ {
    let mut lines = smaps.lines().peekable();
    std::iter::from_fn(move || {
        let head = lines.next()?;
        let mut flags = "";
        // The fields of a mapping have names with a colon.
        while let Some(line) = lines.next_if(|line| line.split(' ').next().is_some_and(|word| word.ends_with(':'))) {
            flags = line.strip_prefix("VmFlags:").unwrap_or(flags);
        }
        let mut fields = head.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let access = fields.next()?.as_bytes().try_into().ok()?;
        let name = fields.nth(3);
        let number = |text| usize::from_str_radix(text, 16).ok();
        // Special mappings: the first thread's stack, and memory that is not inherited by a fork.
        let is_special = name
            .is_some_and(|name| name.starts_with('[') && name != "[heap]" && !name.starts_with("[anon"))
            || flags.split(' ').any(|flag| matches!(flag, "wf" | "dc" | "dp" | "io" | "pf" | "ht"));
        let has_file = name.is_some_and(|name| name.starts_with('/'));
        Some(Piece { start: number(start)?, end: number(end)?, access, has_file, is_special })
    })
}

/// The files that a child needs to inspect its own memory; opened before it loses the right to open files.
pub(super) struct Files {
    maps: File,
    pages: File,
}

impl Files {
    pub(super) fn open() -> io::Result<Files> {
        Ok(Files { maps: File::open("/proc/self/maps")?, pages: File::open("/proc/self/pagemap")? })
    }
}

/// The point to which a process returns.
pub(super) struct Mark {
    /// Open as long as it is used.
    _files: Files,
}

/// State that must survive a restore, in separate pages. Zeros are a valid value.
#[repr(C, align(4096))]
struct SavedState {
    pages: [[u8; PAGE]; SAVED_MAX],
    stack: [u8; STACK_BYTES],
    here: libc::ucontext_t,
    away: libc::ucontext_t,
    /// All writable mappings, in order, and space to detect more of them.
    maps: [Map; RANGES_MAX],
    maps_count: usize,
    ranges: [Range; RANGES_MAX],
    ranges_count: usize,
    regions: [Region; WRITTEN_MAX],
    /// Addresses of the pages in `pages`, in order.
    saved: [usize; SAVED_MAX],
    saved_count: usize,
    files: [libc::c_int; 2],
    is_taken: bool,
    written: usize,
}

static KEPT: AtomicPtr<SavedState> = AtomicPtr::new(ptr::null_mut());

impl Mark {
    /// Nothing is saved yet; `set` does that.
    pub(super) fn new(image: &Image, files: Files) -> io::Result<Mark> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: new memory of that size, full of zeros. It is shared so that it is no part of any private piece.
        let kept = unsafe { libc::mmap(ptr::null_mut(), size_of::<SavedState>(), access, flags, -1, 0) };
        if kept == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let kept = kept.cast::<SavedState>();
        // SAFETY: the memory is new, large enough and aligned, and zeros are a value. `image` has at most as many ranges.
        unsafe {
            let kept = &mut *kept;
            kept.ranges_count = image.ranges.len();
            kept.ranges[..image.ranges.len()].copy_from_slice(&image.ranges);
            kept.files = [files.maps.as_raw_fd(), files.pages.as_raw_fd()];
            libc::getcontext(&raw mut kept.away);
            kept.away.uc_stack.ss_sp = (&raw mut kept.stack).cast();
            kept.away.uc_stack.ss_size = STACK_BYTES;
            kept.away.uc_link = ptr::null_mut();
            libc::makecontext(&raw mut kept.away, away, 0);
        }
        KEPT.store(kept, Ordering::Relaxed);
        Ok(Mark { _files: files })
    }

    /// Saves the current state. Returns again after each call of [`Mark::put_back`].
    pub(super) fn set(&self) -> io::Result<()> {
        let kept = KEPT.load(Ordering::Relaxed);
        // SAFETY: `new` made it. `away` runs on a stack of its own and comes back here, at first with all as it was and later
        // with all put back as it was; to this function both are a call that returns.
        unsafe {
            if libc::swapcontext(&raw mut (*kept).here, &raw const (*kept).away) != 0 {
                return Err(io::Error::last_os_error());
            }
            match ptr::read_volatile(&raw const (*kept).is_taken) {
                false => Err(io::Error::other("this moment cannot be saved")),
                true => Ok(()),
            }
        }
    }

    /// Bytes written before the last reset.
    pub(super) fn written(&self) -> u64 {
        // SAFETY: `new` made it, and the number is written while nothing else runs.
        unsafe { (*KEPT.load(Ordering::Relaxed)).written as u64 * PAGE as u64 }
    }

    /// Returns to the point of `set`, with the memory of that time; ends the process if that is impossible.
    pub(super) fn put_back(&self) -> ! {
        let kept = KEPT.load(Ordering::Relaxed);
        // The server can process the answer meanwhile, maybe on this core.
        rustix::thread::sched_yield();
        // SAFETY: `new` made it; the context has a stack of its own. What is on this one is given up.
        unsafe { libc::setcontext(&raw const (*kept).away) };
        system::exit(DONE)
    }
}

/// Runs on its own stack, while nothing else runs. It must not allocate.
extern "C" fn away() {
    let kept = KEPT.load(Ordering::Relaxed);
    // SAFETY: `set` saved the context and is not left; the memory of `kept` is nobody else's.
    unsafe {
        if (*kept).is_taken {
            if restore(kept).is_none() {
                system::exit(DONE);
            }
        } else {
            (*kept).is_taken = save(kept).is_some();
        }
        libc::setcontext(&raw const (*kept).here);
    }
    system::exit(DONE)
}

/// # Safety
///
/// Only from `away`.
unsafe fn save(kept: *mut SavedState) -> Option<()> {
    // SAFETY: all is in `kept`, whose sizes bound what is written; the pages that are read are this process's.
    unsafe {
        let maps = (&raw mut (*kept).maps).cast::<Map>();
        let mut from = 0;
        while let Some(map) = map_from((*kept).files[0], from)? {
            if (*kept).maps_count == RANGES_MAX {
                return None;
            }
            maps.add((*kept).maps_count).write(map);
            (*kept).maps_count += 1;
            from = map.end;
        }
        // Below the pointer the stack holds nothing that anybody comes back to.
        let pointer = stack_pointer(&raw const (*kept).here);
        let ranges = (&raw mut (*kept).ranges).cast::<Range>();
        for index in 0..(*kept).ranges_count {
            let range = ranges.add(index);
            if (*range).content == 0 {
                (*range).start = (pointer - RED_ZONE) / PAGE * PAGE;
            }
        }
        let saved = (&raw mut (*kept).saved).cast::<usize>();
        let pages = (&raw mut (*kept).pages).cast::<[u8; PAGE]>();
        each_written(kept, |page, _| {
            let count = (*kept).saved_count;
            if count == SAVED_MAX {
                return None;
            }
            saved.add(count).write(page);
            ptr::copy_nonoverlapping(page as *const u8, pages.add(count).cast(), PAGE);
            (*kept).saved_count = count + 1;
            Some(())
        })
    }
}

/// # Safety
///
/// Only from `away`, after [`save`].
unsafe fn restore(kept: *mut SavedState) -> Option<()> {
    // SAFETY: as in `save`. The map of memory is the same, so all pages that are written are there and may be written.
    unsafe {
        let maps = (&raw const (*kept).maps).cast::<Map>();
        let mut from = 0;
        for index in 0..(*kept).maps_count {
            let map = *maps.add(index);
            if map_from((*kept).files[0], from)? != Some(map) {
                return None;
            }
            from = map.end;
        }
        if map_from((*kept).files[0], from)?.is_some() {
            return None;
        }
        let saved = (&raw const (*kept).saved).cast::<usize>();
        let pages = (&raw const (*kept).pages).cast::<[u8; PAGE]>();
        let mut next = 0;
        let count = (*kept).saved_count;
        // Both are in the order of addresses.
        (*kept).written = 0;
        each_written(kept, |page, content| {
            while next < count && *saved.add(next) < page {
                put(*saved.add(next), pages.add(next).cast());
                next += 1;
            }
            if next < count && *saved.add(next) == page {
                put(page, pages.add(next).cast());
                next += 1;
            } else if content == 0 {
                ptr::write_bytes(page as *mut u8, 0, PAGE);
            } else {
                put(page, content as *const u8);
            }
            (*kept).written += 1;
            Some(())
        })?;
        while next < count {
            put(*saved.add(next), pages.add(next).cast());
            next += 1;
        }
        Some(())
    }
}

/// # Safety
///
/// Both are a page.
unsafe fn put(page: usize, content: *const u8) {
    // SAFETY: as above.
    unsafe { ptr::copy_nonoverlapping(content, page as *mut u8, PAGE) };
}

/// Calls `act` with each page that this process has written, in order, and the address of its original content (0:
/// none). `None` if there are too many, or if `act` returns that.
///
/// # Safety
///
/// Only from `away`.
unsafe fn each_written(kept: *mut SavedState, mut act: impl FnMut(usize, usize) -> Option<()>) -> Option<()> {
    // SAFETY: as in `save`.
    unsafe {
        let regions = (&raw mut (*kept).regions).cast::<Region>();
        let ranges = (&raw const (*kept).ranges).cast::<Range>();
        let count = (*kept).ranges_count;
        let (mut written, mut first) = (0, 0);
        while first < count {
            let mut last = first;
            while last + 1 < count && (*ranges.add(last + 1)).start - (*ranges.add(last)).end < NEAR {
                last += 1;
            }
            let (start, end) = ((*ranges.add(first)).start, (*ranges.add(last)).end);
            let (found, until) = scan((*kept).files[1], start, end, FILE, regions, WRITTEN_MAX).ok()?;
            if until < end {
                return None;
            }
            for index in 0..found {
                let region = *regions.add(index);
                let mut page = region.start as usize;
                while page < region.end as usize {
                    // Both are in the order of addresses.
                    while first < last && (*ranges.add(first)).end <= page {
                        first += 1;
                    }
                    let range = *ranges.add(first);
                    if page < range.start || page >= range.end {
                        // Between two ranges: memory that is not writable.
                        page = if page < range.start { range.start } else { end };
                        continue;
                    }
                    written += 1;
                    if written > WRITTEN_MAX {
                        return None;
                    }
                    let content = if range.content == 0 { 0 } else { range.content + (page - range.start) };
                    act(page, content)?;
                    page += PAGE;
                }
            }
            first = last + 1;
        }
        Some(())
    }
}

/// The next writable mapping from an address on. `None`: the kernel call failed.
fn map_from(maps: libc::c_int, from: usize) -> Option<Option<Map>> {
    let mut query = Query {
        size: size_of::<Query>() as u64,
        asked: WRITABLE | COVERING_OR_NEXT,
        address: from as u64,
        map: Map { start: 0, end: 0, access: 0, page_size: 0, offset: 0, inode: 0, device: [0; 2] },
        name_and_build_id: [0; 3],
    };
    // SAFETY: the structure is the kernel's, and asks for no texts.
    let answer = unsafe { libc::ioctl(maps, libc::c_ulong::from(PROCMAP_QUERY), &raw mut query) };
    match answer {
        0 => Some(Some(query.map)),
        _ if rustix::io::Errno::from_io_error(&io::Error::last_os_error()) == Some(rustix::io::Errno::NOENT) => {
            Some(None)
        }
        _ => None,
    }
}

/// Bytes below the stack pointer that a function may use.
const RED_ZONE: usize = 256;

#[cfg(target_arch = "x86_64")]
fn stack_pointer(context: *const libc::ucontext_t) -> usize {
    // SAFETY: the caller's context was saved.
    unsafe { (*context).uc_mcontext.gregs[libc::REG_RSP as usize] as usize }
}

#[cfg(not(target_arch = "x86_64"))]
const fn stack_pointer(_: *const libc::ucontext_t) -> usize {
    // No image was taken.
    RED_ZONE
}

/// The members of `struct procmap_query` without the name.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
struct Map {
    start: usize,
    end: usize,
    access: u64,
    page_size: u64,
    offset: u64,
    inode: u64,
    device: [u32; 2],
}

/// `struct procmap_query` of the kernel.
#[repr(C)]
struct Query {
    size: u64,
    asked: u64,
    address: u64,
    map: Map,
    name_and_build_id: [u64; 3],
}

/// Since Linux 6.11.
pub(super) const PROCMAP_QUERY: u32 = 0xc068_6611;
const WRITABLE: u64 = 1 << 1;
const COVERING_OR_NEXT: u64 = 1 << 4;
