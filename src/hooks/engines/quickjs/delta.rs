//! The changes in the runner's memory from loading a hook: a run starts from the module's snapshot and a copy of these
//! changes.

use wasmtime::Result;

use super::instance::outside;

/// Changes are stored in whole cache lines of the processor.
const LINE_BYTES: usize = 64;

/// Gaps of up to this many unchanged lines are copied too, which takes less time than another range.
const GAP_LINES: usize = 2;

/// Bytes that differ from the snapshot, by address.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Delta {
    /// In order.
    ranges: Vec<Range>,
    /// The bytes of all ranges, concatenated.
    bytes: Vec<u8>,
    /// Size of the memory.
    memory_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: usize,
    length: usize,
    /// Where its bytes begin in `bytes`.
    at: usize,
}

impl Delta {
    /// The changes from `base`, which has whole lines, to `after`, which may be longer. Bytes before `start` are
    /// ignored.
    pub(super) fn between(base: &[u8], after: &[u8], start: usize) -> Delta {
        const NOTHING: [u8; LINE_BYTES] = [0; LINE_BYTES];
        let mut delta = Delta { memory_bytes: after.len(), ..Delta::default() };
        let is_same = |line: usize| {
            let range = line * LINE_BYTES..((line + 1) * LINE_BYTES).min(after.len());
            let before = base.get(range.clone()).unwrap_or(&NOTHING[..range.len()]);
            before == &after[range]
        };
        // First and last changed line of a range.
        let mut open: Option<(usize, usize)> = None;
        for line in start / LINE_BYTES..after.len().div_ceil(LINE_BYTES) {
            if is_same(line) {
                continue;
            }
            open = match open {
                Some((first, last)) if line - last <= GAP_LINES + 1 => Some((first, line)),
                Some(range) => {
                    delta.push(after, range);
                    Some((line, line))
                }
                None => Some((line, line)),
            };
        }
        open.into_iter().for_each(|range| delta.push(after, range));
        delta.bytes.shrink_to_fit();
        delta.ranges.shrink_to_fit();
        delta
    }

    fn push(&mut self, after: &[u8], (first, last): (usize, usize)) {
        let (start, end) = (first * LINE_BYTES, ((last + 1) * LINE_BYTES).min(after.len()));
        self.ranges.push(Range { start, length: end - start, at: self.bytes.len() });
        self.bytes.extend_from_slice(&after[start..end]);
    }

    /// Copies the changes into a memory that is at least [`Delta::memory_bytes`] long.
    pub(super) fn apply(&self, memory: &mut [u8]) -> Result<()> {
        for &Range { start, length, at } in &self.ranges {
            let place = memory.get_mut(start..start + length).ok_or_else(outside)?;
            place.copy_from_slice(&self.bytes[at..at + length]);
        }
        Ok(())
    }

    /// The same for a piece of memory that begins at `from`.
    pub(super) fn apply_within(&self, from: usize, piece: &mut [u8]) {
        let until = from + piece.len();
        let first = self.ranges.partition_point(|range| range.start + range.length <= from);
        for &Range { start, length, at } in self.ranges[first..].iter().take_while(|range| range.start < until) {
            let (low, high) = (start.max(from), (start + length).min(until));
            piece[low - from..high - from].copy_from_slice(&self.bytes[at + low - start..at + high - start]);
        }
    }

    pub(super) const fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Its memory in this process, which is also the amount that each run copies.
    pub(super) const fn copied_bytes(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_changes_makes_the_same_memory() {
        let base: Vec<u8> = (0..4096).map(|index| (index % 251) as u8).collect();
        let mut after = base.clone();
        after.resize(4096 + 1000, 0);
        // Before the start, at it, two near each other, one far away, at the end of the base, in what grew, at the very end.
        for place in [3, 128, 700, 830, 2000, 4095, 4500, 5095] {
            after[place] ^= 0x55;
        }
        let delta = Delta::between(&base, &after, 128);
        assert_eq!(delta.memory_bytes(), after.len());
        assert!(delta.copied_bytes() < 1000, "{}", delta.copied_bytes());
        assert_eq!(delta.ranges.len(), 6, "{:?}", delta.ranges);
        let mut memory = base.clone();
        memory.resize(after.len(), 0);
        delta.apply(&mut memory).unwrap();
        assert_eq!(memory[128..], after[128..]);
        assert_eq!(memory[..128], base[..128]);
        // Pieces of it, wherever they begin and end.
        for (from, until) in
            [(0, 5096), (0, 64), (100, 200), (700, 832), (704, 705), (4095, 4096), (4400, 5096), (5000, 5096)]
        {
            let mut piece = base.clone();
            piece.resize(after.len(), 0);
            delta.apply_within(from, &mut piece[from..until]);
            assert_eq!(piece[from..until], memory[from..until], "{from}..{until}");
        }
        assert!(delta.apply(&mut base.clone()).is_err(), "a memory that is too short");
    }

    #[test]
    fn nothing_changed_is_nothing_to_copy() {
        let base = vec![7; 1024];
        let delta = Delta::between(&base, &base, 0);
        assert_eq!((delta.copied_bytes(), delta.memory_bytes()), (0, 1024));
        assert_eq!(Delta::between(&base, &[&base[..], &[0; 64]].concat(), 0).copied_bytes(), 0);
    }
}
