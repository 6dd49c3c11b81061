//! Collects the rows of a page, and sorts them as far as no index does.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use snaphook_driver::{Instance, PAGE_BYTES_MAX};

use super::lanes::{Halt, Meter};
use super::page_position::PagePosition;

/// A matching row.
pub(super) struct PageEntry {
    /// Rows with the same run are adjacent, and are sorted here.
    pub(super) run: Vec<u8>,
    /// Whether the row is already in its place.
    pub(super) is_alone: bool,
    pub(super) place: PagePosition,
    pub(super) size: usize,
    pub(super) instance: Option<Instance>,
}

/// Collects the rows of a page in order.
#[derive(Default)]
pub(super) struct PageBuilder {
    /// `None`: rows are only counted.
    wanted: Option<usize>,
    entries: Vec<PageEntry>,
    bytes: usize,
    run: Vec<u8>,
    /// The first rows of the current run.
    heap: BinaryHeap<PageEntry>,
    /// Bytes of the heap, now and at most.
    held: (usize, usize),
    matched: u64,
}

impl PageBuilder {
    pub(super) fn new(wanted: Option<usize>) -> PageBuilder {
        PageBuilder { wanted, ..PageBuilder::default() }
    }

    /// The rows in order, and how many matched.
    pub(super) fn end(self) -> (Vec<PageEntry>, u64) {
        (self.entries, self.matched)
    }

    /// How many more rows are wanted.
    pub(super) fn left(&self) -> usize {
        self.wanted.map_or(usize::MAX, |wanted| wanted.saturating_sub(self.entries.len()))
    }

    pub(super) fn is_full(&self) -> bool {
        self.left() == 0 || (self.bytes > PAGE_BYTES_MAX && self.entries.len() > 1)
    }

    /// Adds a matching row.
    pub(super) fn push(&mut self, entry: PageEntry, meter: &Meter) -> Result<(), Halt> {
        self.matched += 1;
        if self.wanted.is_none() {
            return Ok(());
        }
        if entry.is_alone {
            self.flush();
            self.take(entry);
            return Ok(());
        }
        if self.run != entry.run {
            self.flush();
            self.run.clone_from(&entry.run);
        }
        if self.left() == 0 {
            return Ok(());
        }
        self.held.0 += entry.bytes();
        self.heap.push(entry);
        if self.heap.len() > self.left()
            && let Some(last) = self.heap.pop()
        {
            self.held.0 -= last.bytes();
        }
        if self.held.0 > self.held.1 {
            meter.look(meter.budget.hold(self.held.0 - self.held.1))?;
            self.held.1 = self.held.0;
        }
        Ok(())
    }

    /// Ends the current run.
    pub(super) fn flush(&mut self) {
        self.held.0 = 0;
        for entry in std::mem::take(&mut self.heap).into_sorted_vec() {
            self.take(entry);
        }
    }

    fn take(&mut self, entry: PageEntry) {
        if !self.is_full() {
            self.bytes += entry.size;
            self.entries.push(entry);
        }
    }
}

impl PageEntry {
    fn bytes(&self) -> usize {
        self.place.keys.iter().map(Vec::len).sum::<usize>() + self.place.id.len() + size_of::<PageEntry>()
    }
}

impl PartialEq for PageEntry {
    fn eq(&self, other: &PageEntry) -> bool {
        self.place == other.place
    }
}

impl Eq for PageEntry {}

impl PartialOrd for PageEntry {
    fn partial_cmp(&self, other: &PageEntry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PageEntry {
    fn cmp(&self, other: &PageEntry) -> Ordering {
        (&self.place.keys, &self.place.id).cmp(&(&other.place.keys, &other.place.id))
    }
}
