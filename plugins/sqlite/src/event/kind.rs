//! Kinds of events as numbers.

use snaphook_driver::EventKind;

/// The kind with that number, which is its index in [`EventKind::ALL`] and part of the file format.
pub(super) fn kind_of(number: i64) -> Option<EventKind> {
    usize::try_from(number).ok().and_then(|index| EventKind::ALL.get(index)).copied()
}
