//! The memory for the output of filters. It counts towards the server's memory budget until the output is sent.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};

/// The server's budget.
pub trait Memory: Send + Sync {
    /// An empty lease.
    fn lease(&self) -> Box<dyn Lease>;
}

/// Reserved bytes; released when this is dropped.
pub trait Lease: Send + Sync {
    /// Reserves more bytes. `false` if there is not enough memory.
    fn grow(&self, bytes: usize) -> bool;
}

/// Bytes, and the lease of their memory, which other bytes may share.
struct Leased {
    bytes: Vec<u8>,
    _lease: Arc<Box<dyn Lease>>,
}

impl AsRef<[u8]> for Leased {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes that keep the lease until the last of them is dropped.
pub(crate) fn leased(bytes: Vec<u8>, lease: Option<&Arc<Box<dyn Lease>>>) -> Bytes {
    match lease {
        Some(lease) if !bytes.is_empty() => Bytes::from_owner(Leased { bytes, _lease: Arc::clone(lease) }),
        _ => bytes.into(),
    }
}

/// Chunks that wait to be written.
#[derive(Default)]
pub(crate) struct Pieces {
    pieces: VecDeque<Bytes>,
    bytes: usize,
}

impl Pieces {
    pub(crate) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.bytes += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// The first chunk; empty if there is none.
    pub(crate) fn first(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    /// Removes bytes from the first chunk, after they were written.
    pub(crate) fn advance(&mut self, count: usize) {
        let Some(first) = self.pieces.front_mut() else { return };
        first.advance(count);
        self.bytes -= count;
        if first.is_empty() {
            self.pieces.pop_front();
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Pieces::default();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A budget of `most` bytes.
    pub(crate) struct Budget {
        pub(crate) most: usize,
        pub(crate) used: Arc<AtomicUsize>,
    }

    struct Part {
        most: usize,
        used: Arc<AtomicUsize>,
        held: AtomicUsize,
    }

    impl Memory for Budget {
        fn lease(&self) -> Box<dyn Lease> {
            Box::new(Part { most: self.most, used: Arc::clone(&self.used), held: AtomicUsize::new(0) })
        }
    }

    impl Lease for Part {
        fn grow(&self, bytes: usize) -> bool {
            let fits = self.used.load(Ordering::SeqCst) + bytes <= self.most;
            if fits {
                self.used.fetch_add(bytes, Ordering::SeqCst);
                self.held.fetch_add(bytes, Ordering::SeqCst);
            }
            fits
        }
    }

    impl Drop for Part {
        fn drop(&mut self) {
            self.used.fetch_sub(self.held.load(Ordering::SeqCst), Ordering::SeqCst);
        }
    }

    #[test]
    fn bytes_count_until_the_last_of_them_is_written() {
        let budget = Budget { most: 10, used: Arc::default() };
        let used = || budget.used.load(Ordering::SeqCst);
        let lease = Arc::new(budget.lease());
        assert!(lease.grow(6) && !lease.grow(5));
        let (one, other) = (leased(vec![1; 4], Some(&lease)), leased(vec![2; 2], Some(&lease)));
        drop(lease);
        let mut pieces = Pieces::default();
        [one, Bytes::new(), other].into_iter().for_each(|piece| pieces.push(piece));
        assert_eq!((pieces.len(), pieces.first().len(), used()), (6, 4, 6));
        pieces.advance(3);
        pieces.advance(1);
        assert_eq!((pieces.len(), pieces.first(), used()), (2, &[2, 2][..], 6));
        pieces.advance(2);
        assert!(pieces.is_empty() && pieces.first().is_empty());
        assert_eq!(used(), 0);
    }
}
