//! The allocator of QuickJS and of Rust: small blocks by size class, everything else by the C library's.
//!
//! Small blocks are carved from slabs, one after the other, and go back to a list of their class. When the snapshot is taken,
//! [`seal`] forgets the free blocks and starts a slab on a page of its own: what a call allocates lies together, in few
//! pages, and a fresh sandbox is cheap to reset.

#![expect(unsafe_code, reason = "the memory that QuickJS and Rust allocate")]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::ptr::null_mut;

use rquickjs::allocator::Allocator;

use crate::single::Single;

/// Blocks are multiples of it, and lie at them; what is behind a header lies at a multiple of 8.
const GRAIN: usize = 16;
const ALIGNMENT_MAX: usize = 8;
const LINEAR_MAX: usize = 1024;
const LINEAR_CLASSES: usize = LINEAR_MAX / GRAIN;
/// Above it four classes per doubling.
const SMALL_MAX: usize = 8192;
const CLASSES: usize = LINEAR_CLASSES + 12 + 1;
/// The class of what the C library allocated.
const LARGE: u32 = u32::MAX;
const SLAB_BYTES: usize = 64 << 10;
/// The first slab after the snapshot: most calls need no other.
const SEALED_SLAB_BYTES: usize = 256 << 10;
const PAGE_BYTES: usize = 4096;
const SIZE_MAX: usize = i32::MAX as usize - SLAB_BYTES;

/// In front of each block.
#[repr(C)]
struct Header {
    /// Of the block, this header included.
    size: u32,
    class: u32,
}

const HEADER_BYTES: usize = size_of::<Header>();

/// In a block that is free.
struct Free {
    next: *mut Free,
}

struct Heap {
    free: [Cell<*mut Free>; CLASSES],
    slab: Cell<*mut u8>,
    slab_end: Cell<*mut u8>,
    /// Blocks handed out so far.
    count: Cell<u32>,
}

static HEAP: Single<Heap> = Single::new(Heap {
    free: [const { Cell::new(null_mut()) }; CLASSES],
    slab: Cell::new(null_mut()),
    slab_end: Cell::new(null_mut()),
    count: Cell::new(0),
});

// The C library's.
unsafe extern "C" {
    fn malloc(size: usize) -> *mut u8;
    fn free(pointer: *mut u8);
    fn realloc(pointer: *mut u8, size: usize) -> *mut u8;
}

/// The class of a small size, header included, and the size of its blocks.
const fn class_of(size: usize) -> (usize, usize) {
    if size <= LINEAR_MAX {
        let class = size.div_ceil(GRAIN);
        return (class, class * GRAIN);
    }
    // 10, 11 or 12.
    let doubling = (size - 1).ilog2() as usize;
    let step = 1 << (doubling - 2);
    // 1 to 4.
    let steps = (size - (1 << doubling)).div_ceil(step);
    (LINEAR_CLASSES + (doubling - 10) * 4 + steps, (1 << doubling) + steps * step)
}

fn new_slab(bytes: usize, alignment: usize) -> bool {
    // SAFETY: any size may be asked for.
    let slab = unsafe { malloc(bytes) };
    if slab.is_null() {
        return false;
    }
    HEAP.slab.set(slab.wrapping_add(slab.align_offset(alignment)));
    HEAP.slab_end.set(slab.wrapping_add(bytes));
    true
}

/// More than any memory holds. The server is asked for it all the same, so that it knows why the call fails.
#[cold]
fn too_much() -> *mut u8 {
    core::arch::wasm32::memory_grow(0, 65535);
    null_mut()
}

fn allocate(size: usize) -> *mut u8 {
    if size > SIZE_MAX {
        return too_much();
    }
    HEAP.count.set(HEAP.count.get().wrapping_add(1));
    let size = size + HEADER_BYTES;
    if size > SMALL_MAX {
        // SAFETY: any size may be asked for.
        let header = unsafe { malloc(size) }.cast::<Header>();
        if header.is_null() {
            return null_mut();
        }
        // SAFETY: malloc gave room for a header and more, at a multiple of 16.
        return unsafe { behind(header, Header { size: size as u32, class: LARGE }) };
    }
    let (class, size) = class_of(size);
    let block = HEAP.free[class].get();
    if !block.is_null() {
        // SAFETY: what is in the list was freed (`deallocate`), and holds the next of the list.
        HEAP.free[class].set(unsafe { (*block).next });
        return block.cast();
    }
    if (HEAP.slab_end.get() as usize) - (HEAP.slab.get() as usize) < size && !new_slab(SLAB_BYTES, GRAIN) {
        return null_mut();
    }
    let header = HEAP.slab.get().cast::<Header>();
    HEAP.slab.set(HEAP.slab.get().wrapping_add(size));
    // SAFETY: the slab has room for the block, and starts at a multiple of 16 as all of its blocks are.
    unsafe { behind(header, Header { size: size as u32, class: class as u32 }) }
}

/// Writes a header; what lies behind it.
///
/// # Safety
///
/// There is room for it, at a multiple of 8.
unsafe fn behind(place: *mut Header, header: Header) -> *mut u8 {
    // SAFETY: as above.
    unsafe {
        place.write(header);
        place.add(1).cast()
    }
}

/// The header of a block.
///
/// # Safety
///
/// `allocate` gave the pointer, and it was not freed since.
unsafe fn header_of(pointer: *const u8) -> *mut Header {
    // SAFETY: `allocate` gives what lies behind a header.
    unsafe { pointer.cast_mut().cast::<Header>().sub(1) }
}

/// # Safety
///
/// As for [`header_of`], or null.
unsafe fn deallocate(pointer: *mut u8) {
    if pointer.is_null() {
        return;
    }
    // SAFETY: the caller's. A block is at least as long as a header and a pointer, and nobody else uses it from now on.
    unsafe {
        let header = header_of(pointer);
        let class = (*header).class;
        if class == LARGE {
            return free(header.cast());
        }
        let list = &HEAP.free[class as usize];
        let block = pointer.cast::<Free>();
        block.write(Free { next: list.get() });
        list.set(block);
    }
}

/// # Safety
///
/// As for [`header_of`].
unsafe fn usable(pointer: *const u8) -> usize {
    // SAFETY: the caller's.
    unsafe { (*header_of(pointer)).size as usize - HEADER_BYTES }
}

/// # Safety
///
/// As for [`header_of`], or null.
unsafe fn reallocate(pointer: *mut u8, size: usize) -> *mut u8 {
    if pointer.is_null() {
        return allocate(size);
    }
    if size > SIZE_MAX {
        return too_much();
    }
    // SAFETY: the caller's; what is copied fits into both blocks.
    unsafe {
        let header = header_of(pointer);
        let is_large = (*header).class == LARGE;
        if is_large && size + HEADER_BYTES > SMALL_MAX {
            let header = realloc(header.cast(), size + HEADER_BYTES).cast::<Header>();
            if header.is_null() {
                return null_mut();
            }
            return behind(header, Header { size: (size + HEADER_BYTES) as u32, class: LARGE });
        }
        let usable = usable(pointer);
        if !is_large && size <= usable {
            return pointer;
        }
        let moved = allocate(size);
        if !moved.is_null() {
            moved.copy_from_nonoverlapping(pointer, usable.min(size));
            deallocate(pointer);
        }
        moved
    }
}

/// The heap as QuickJS uses it.
pub(crate) struct QuickJsHeap;

// SAFETY: `allocate` and `reallocate` give null or at least as many bytes as they were asked for, at a multiple of 8; each
// block knows its size.
unsafe impl Allocator for QuickJsHeap {
    fn alloc(&mut self, size: usize) -> *mut u8 {
        allocate(size)
    }

    fn calloc(&mut self, count: usize, size: usize) -> *mut u8 {
        let Some(bytes) = count.checked_mul(size) else { return too_much() };
        let pointer = allocate(bytes);
        if !pointer.is_null() {
            // SAFETY: the block has so many bytes.
            unsafe { pointer.write_bytes(0, bytes) };
        }
        pointer
    }

    unsafe fn dealloc(&mut self, pointer: *mut u8) {
        // SAFETY: QuickJS gives back what it got.
        unsafe { deallocate(pointer) }
    }

    unsafe fn realloc(&mut self, pointer: *mut u8, size: usize) -> *mut u8 {
        if size == 0 {
            // SAFETY: as above.
            unsafe { deallocate(pointer) };
            return null_mut();
        }
        // SAFETY: as above.
        unsafe { reallocate(pointer, size) }
    }

    unsafe fn usable_size(pointer: *mut u8) -> usize {
        // SAFETY: QuickJS asks for what it got.
        unsafe { usable(pointer) }
    }
}

struct RustHeap;

#[global_allocator]
static RUST_HEAP: RustHeap = RustHeap;

// SAFETY: as above; what wants to lie at more than 8 gets nothing.
unsafe impl GlobalAlloc for RustHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > ALIGNMENT_MAX { null_mut() } else { allocate(layout.size()) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, _: Layout) {
        // SAFETY: Rust gives back what it got.
        unsafe { deallocate(pointer) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, _: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; nothing that wants to lie at more than 8 was given.
        unsafe { reallocate(pointer, size) }
    }
}

/// Memory for the server to write to; null if there is none.
pub(crate) fn lend(size: usize) -> *mut u8 {
    allocate(size)
}

/// # Safety
///
/// [`lend`] gave it, and nobody uses it any more.
pub(crate) unsafe fn take_back(pointer: *mut u8) {
    // SAFETY: the caller's.
    unsafe { deallocate(pointer) }
}

/// How many blocks were handed out so far.
pub(crate) fn blocks_handed_out() -> u32 {
    HEAP.count.get()
}

/// What is allocated from here on lies in pages of its own.
pub(crate) fn seal() {
    HEAP.free.iter().for_each(|list| list.set(null_mut()));
    if !new_slab(SEALED_SLAB_BYTES, PAGE_BYTES) {
        core::arch::wasm32::unreachable();
    }
}
