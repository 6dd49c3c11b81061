//! What a filter gives out, collected until it returns.

use crate::exchange::{Impossible, Side};

/// The most that one call of a filter may give out.
const OUTPUT_BYTES_MAX: usize = 16 << 20;

/// The bytes that one call wrote, to either side.
#[derive(Default)]
pub(crate) struct Output {
    pub(crate) to_server: Vec<u8>,
    pub(crate) to_peer: Vec<u8>,
    /// The only side that takes bytes; `None`: both do.
    only: Option<Side>,
    pub(crate) lie: Option<String>,
}

impl Output {
    /// Of a filter of a body.
    pub(crate) fn of(side: Side) -> Output {
        Output { only: Some(side), ..Output::default() }
    }

    pub(crate) fn write(&mut self, side: Side, bytes: &[u8]) -> Result<(), Impossible> {
        let written = self.to_server.len() + self.to_peer.len();
        if self.only.is_some_and(|only| only != side) || written + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(Impossible);
        }
        match side {
            Side::Request => self.to_server.extend_from_slice(bytes),
            Side::Response => self.to_peer.extend_from_slice(bytes),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_an_end_and_a_side() {
        let mut output = Output::of(Side::Response);
        assert_eq!(output.write(Side::Request, b"a"), Err(Impossible));
        let half = vec![0; OUTPUT_BYTES_MAX / 2];
        assert_eq!([output.write(Side::Response, &half), output.write(Side::Response, &half)], [Ok(()); 2]);
        assert_eq!(output.write(Side::Response, b"a"), Err(Impossible));
        assert_eq!(output.to_peer.len(), OUTPUT_BYTES_MAX);
    }
}
