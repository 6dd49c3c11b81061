//! Checks whether a recorded history of one instance is linearizable: whether its operations can be ordered, each at
//! one moment between its start and its end, so that every response is correct (the search of Wing and Gong, with
//! Lowe's memoization).

use std::collections::HashSet;

/// The state of the instance: its value, if it exists. Every write has a unique value.
type InstanceValue = Option<u64>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Creates the instance with this value; whether it was absent.
    Create(u64, bool),
    /// Writes the value; whether the instance existed.
    Put(u64, bool),
    /// Replaces the first value with the second; whether the first was present.
    Replace(u64, u64, bool),
    /// Deletes the instance; whether it existed.
    Delete(bool),
    Read(InstanceValue),
}

/// An operation of a history. All times come from one clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recorded {
    pub(super) operation: Operation,
    pub(super) start: u64,
    /// `None`: unknown whether and when the operation took effect.
    pub(super) end: Option<u64>,
}

/// Applies the operation to a state; `None` if its response would be wrong. Without a response any result is possible.
fn step(recorded: &Recorded, state: InstanceValue) -> Option<InstanceValue> {
    let is_known = recorded.end.is_some();
    match recorded.operation {
        Operation::Create(value, done) => match (state, is_known.then_some(done)) {
            (None, Some(true) | None) => Some(Some(value)),
            (Some(_), Some(false) | None) => Some(state),
            _ => None,
        },
        Operation::Put(value, done) => match (state, is_known.then_some(done)) {
            (Some(_), Some(true) | None) => Some(Some(value)),
            (None, Some(false) | None) => Some(None),
            _ => None,
        },
        Operation::Replace(before, after, done) => match (state == Some(before), is_known.then_some(done)) {
            (true, Some(true) | None) => Some(Some(after)),
            (false, Some(false) | None) => Some(state),
            _ => None,
        },
        Operation::Delete(done) => match is_known.then_some(done) {
            Some(done) => (state.is_some() == done).then_some(None),
            None => Some(None),
        },
        Operation::Read(found) => (found == state).then_some(state),
    }
}

/// Whether such an order exists, starting without the instance. At most 128 operations.
pub(super) fn is_linearizable(history: &[Recorded]) -> bool {
    assert!(history.len() <= 128, "the history is too long");
    let all = history.iter().enumerate().filter(|(_, recorded)| recorded.end.is_some());
    let answered: u128 = all.fold(0, |set, (index, _)| set | 1 << index);
    let mut tried: HashSet<(u128, InstanceValue)> = HashSet::new();
    let mut open: Vec<(u128, InstanceValue)> = vec![(0, None)];
    while let Some((done, state)) = open.pop() {
        if done & answered == answered {
            return true;
        }
        if !tried.insert((done, state)) {
            continue;
        }
        let left = || history.iter().enumerate().filter(|(index, _)| done & (1 << index) == 0);
        // An operation that started after another one's end cannot come before it.
        let first_end = left().filter_map(|(_, recorded)| recorded.end).min().unwrap_or(u64::MAX);
        let mut next: Vec<_> = left().filter(|(_, recorded)| recorded.start <= first_end).collect();
        // Try operations in the order of their ends; those without an end come last.
        next.sort_by_key(|(_, recorded)| std::cmp::Reverse(recorded.end.unwrap_or(u64::MAX)));
        for (index, recorded) in next {
            open.extend(step(recorded, state).map(|state| (done | 1 << index, state)));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::Operation::{Create, Delete, Put, Read, Replace};
    use super::*;

    fn history(operations: &[(Operation, u64, u64)]) -> Vec<Recorded> {
        let recorded = |&(operation, start, end): &(Operation, u64, u64)| Recorded {
            operation,
            start,
            end: (end > 0).then_some(end),
        };
        operations.iter().map(recorded).collect()
    }

    #[test]
    fn histories() {
        for (expected, operations) in [
            (true, vec![]),
            (true, vec![(Create(1, true), 1, 2), (Read(Some(1)), 3, 4)]),
            // A read that misses an acknowledged write.
            (false, vec![(Create(1, true), 1, 2), (Read(None), 3, 4)]),
            (true, vec![(Create(1, true), 1, 4), (Read(None), 2, 3)]),
            // A later read sees an older state than an earlier one.
            (false, vec![(Create(1, true), 1, 9), (Read(Some(1)), 2, 3), (Read(None), 4, 5)]),
            // Of two operations that replace the same value, one succeeds.
            (true, vec![(Create(1, true), 1, 2), (Replace(1, 2, true), 3, 5), (Replace(1, 3, false), 4, 6)]),
            (false, vec![(Create(1, true), 1, 2), (Replace(1, 2, true), 3, 5), (Replace(1, 3, true), 4, 6)]),
            // An operation without a response may have taken effect, also later, or not at all.
            (true, vec![(Create(1, true), 1, 0), (Read(None), 2, 3), (Read(Some(1)), 4, 5)]),
            (true, vec![(Create(1, true), 1, 0), (Read(None), 2, 3)]),
            (false, vec![(Create(1, true), 1, 0), (Read(Some(1)), 2, 3), (Read(None), 4, 5)]),
            (true, vec![(Create(1, true), 1, 2), (Delete(true), 3, 4), (Delete(false), 5, 6), (Read(None), 7, 8)]),
            (false, vec![(Create(1, true), 1, 2), (Delete(true), 3, 4), (Delete(true), 5, 6)]),
            (
                true,
                vec![(Put(1, false), 1, 2), (Create(2, true), 3, 4), (Put(3, true), 5, 6), (Create(4, false), 7, 8)],
            ),
            (false, vec![(Put(1, true), 1, 2)]),
            (false, vec![(Create(1, true), 1, 2), (Create(2, true), 3, 4)]),
        ] {
            assert_eq!(is_linearizable(&history(&operations)), expected, "{operations:?}");
        }
    }
}
