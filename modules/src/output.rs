//! The output of a filter, collected until it returns.

use std::sync::Arc;

use bytes::Bytes;

use crate::exchange::{Impossible, Side};
use crate::fault::Fault;
use crate::memory::{Lease, Memory, leased};

/// Maximum output of one filter call.
const OUTPUT_BYTES_MAX: usize = 16 << 20;

/// The bytes that one call has written to each side.
#[derive(Default)]
pub(crate) struct Output {
    pub(crate) to_server: Vec<u8>,
    pub(crate) to_peer: Vec<u8>,
    /// The only side that may be written to; `None`: both.
    only: Option<Side>,
    pub(crate) lie: Option<String>,
    /// Reserves memory for the bytes.
    lease: Option<Arc<Box<dyn Lease>>>,
    /// Whether a write failed for lack of memory.
    is_short: bool,
}

impl Output {
    /// The output of a connection filter.
    pub(crate) fn new(memory: Option<Arc<dyn Memory>>) -> Output {
        Output { lease: memory.map(|memory| Arc::new(memory.lease())), ..Output::default() }
    }

    /// The output of a body filter.
    pub(crate) fn of(side: Side, memory: Option<Arc<dyn Memory>>) -> Output {
        Output { only: Some(side), ..Output::new(memory) }
    }

    pub(crate) fn write(&mut self, side: Side, bytes: &[u8]) -> Result<(), Impossible> {
        let written = self.to_server.len() + self.to_peer.len();
        if self.only.is_some_and(|only| only != side) || written + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(Impossible);
        }
        if self.lease.as_ref().is_some_and(|lease| !lease.grow(bytes.len())) {
            self.is_short = true;
            return Err(Impossible);
        }
        match side {
            Side::Request => self.to_server.extend_from_slice(bytes),
            Side::Response => self.to_peer.extend_from_slice(bytes),
        }
        Ok(())
    }

    /// The bytes for the server and for the peer. Their memory stays reserved until they are dropped.
    pub(crate) fn into_bytes(self) -> Result<[Bytes; 2], Fault> {
        if self.is_short {
            return Err(Fault::NoMemory);
        }
        let lease = self.lease.as_ref();
        Ok([self.to_server, self.to_peer].map(|bytes| leased(bytes, lease)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::memory::tests::Budget;

    #[test]
    fn it_has_an_end_and_a_side() {
        let mut output = Output::of(Side::Response, None);
        assert_eq!(output.write(Side::Request, b"a"), Err(Impossible));
        let half = vec![0; OUTPUT_BYTES_MAX / 2];
        assert_eq!([output.write(Side::Response, &half), output.write(Side::Response, &half)], [Ok(()); 2]);
        assert_eq!(output.write(Side::Response, b"a"), Err(Impossible));
        assert_eq!(output.to_peer.len(), OUTPUT_BYTES_MAX);
    }

    #[test]
    fn it_counts_in_the_memory_of_requests() {
        let budget = Arc::new(Budget { most: 10, used: Arc::default() });
        let used = || budget.used.load(Ordering::SeqCst);
        let output = || Output::new(Some(Arc::clone(&budget) as Arc<dyn Memory>));
        let mut first = output();
        assert_eq!(first.write(Side::Request, &[1; 4]), Ok(()));
        assert_eq!(first.write(Side::Response, &[2; 3]), Ok(()));
        let [to_server, to_peer] = first.into_bytes().unwrap();
        drop(to_server);
        assert_eq!((&to_peer[..], used()), (&[2, 2, 2][..], 7));
        let mut second = output();
        assert_eq!(second.write(Side::Response, &[3; 3]), Ok(()));
        assert_eq!(second.write(Side::Response, &[3; 3]), Err(Impossible));
        // Even if the module ignores the failed write.
        assert_eq!(second.into_bytes().unwrap_err(), Fault::NoMemory);
        assert_eq!(used(), 7);
        drop(to_peer);
        assert_eq!(used(), 0);
    }
}
