//! The protocol between the server and a worker over their socket: frames of a length, a kind and fields.
//!
//! Both ends are the same binary, so the layout is private. The server trusts no length from a worker, because a worker
//! runs foreign code.

use std::io::{self, Read, Write};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Longest frame that the server reads: the largest allowed answer, in its longest encoding, with some margin.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// Bytes of length and kind.
const HEAD_BYTES: usize = 5;

/// The kind of a frame. Frames of the worker come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Worker: it waits for a hook, or for the next run. Process id; whether its memory can be restored.
    Ready = 1,
    /// Zygote: it cannot continue. A sentence.
    Refused,
    /// Level, message. No reply.
    Log,
    /// Operation, line feed, arguments.
    Ask,
    /// Number of an operation (calls.rs), text, bytes.
    Start,
    /// Number of a host call, 0 for any; milliseconds, or [`NO_TIMER`].
    Wait,
    /// Number of a host call that is no longer needed. No reply.
    Cancel,
    /// Flags, microseconds of processor time, bytes of memory, text.
    Answer,
    /// The handler waits for a promise that never settles.
    Stuck,
    /// The memory limit is reached.
    Memory,
    /// The worker cannot serve the next run.
    Spent,
    /// A fault of the worker itself. A sentence.
    Fault,
    /// Server: a hook's source. See [`Load`].
    Load,
    /// Server: one run. See [`Call`].
    Call,
    /// Server: the reply to Ask, Start, Wait. Number of the host call, or 0; its result.
    Reply,
}

impl Kind {
    const ALL: [Kind; 15] = [
        Kind::Ready,
        Kind::Refused,
        Kind::Log,
        Kind::Ask,
        Kind::Start,
        Kind::Wait,
        Kind::Cancel,
        Kind::Answer,
        Kind::Stuck,
        Kind::Memory,
        Kind::Spent,
        Kind::Fault,
        Kind::Load,
        Kind::Call,
        Kind::Reply,
    ];

    fn of(byte: u8) -> io::Result<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == byte).ok_or_else(|| broken("a frame of an unknown kind"))
    }
}

/// The state of a worker after a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Keep {
    /// The process has ended.
    #[default]
    Nothing,
    /// Reset to the state before its first run.
    Fresh,
    /// Unchanged after the run.
    State,
}

/// One hook, for the worker.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Only compile the source.
    pub(super) check: bool,
    pub(super) keep: Keep,
    /// Limit of memory, in bytes.
    pub(super) memory_bytes: u64,
    pub(super) source: String,
}

/// One run, for the worker.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    /// Limit of memory, in bytes.
    pub(super) memory_bytes: u64,
    pub(super) phase: String,
    pub(super) marker: String,
    pub(super) context: String,
}

/// Of [`Kind::Wait`].
pub(super) const NO_TIMER: u64 = u64::MAX;

/// Flags of [`Kind::Answer`].
pub(super) const REUSABLE: u8 = 1;

/// A frame that was read.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    fields: Vec<u8>,
    at: usize,
}

impl Frame {
    pub(super) fn byte(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn number(&mut self) -> io::Result<u64> {
        let bytes = self.take(8)?;
        Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| broken("a number that is cut off"))?))
    }

    pub(super) fn bytes(&mut self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.number()?).map_err(|_| broken("a field that is too long"))?;
        Ok(self.take(length)?.to_vec())
    }

    pub(super) fn text(&mut self) -> io::Result<String> {
        String::from_utf8(self.bytes()?).map_err(|_| broken("a text that is not UTF-8"))
    }

    pub(super) fn has_more(&self) -> bool {
        self.at < self.fields.len()
    }

    fn take(&mut self, count: usize) -> io::Result<&[u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.fields.len());
        let end = end.ok_or_else(|| broken("a frame that is cut off"))?;
        let taken = &self.fields[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub(super) fn load(&mut self) -> io::Result<Load> {
        let check = self.byte()? != 0;
        let keep = self.byte()?;
        let keep = [Keep::Nothing, Keep::Fresh, Keep::State].into_iter().find(|known| *known as u8 == keep);
        let keep = keep.ok_or_else(|| broken("a worker is to be kept in an unknown way"))?;
        Ok(Load { check, keep, memory_bytes: self.number()?, source: self.text()? })
    }

    pub(super) fn call(&mut self) -> io::Result<Call> {
        Ok(Call { memory_bytes: self.number()?, phase: self.text()?, marker: self.text()?, context: self.text()? })
    }
}

/// A frame to be written.
pub(super) struct Draft(Vec<u8>);

impl Draft {
    pub(super) fn new(kind: Kind) -> Self {
        Draft(vec![0, 0, 0, 0, kind as u8])
    }

    pub(super) fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    pub(super) fn number(mut self, number: u64) -> Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        let mut draft = self.number(bytes.len() as u64);
        draft.0.extend(bytes);
        draft
    }

    pub(super) fn load(load: &Load) -> Self {
        let draft = Draft::new(Kind::Load).byte(load.check.into()).byte(load.keep as u8).number(load.memory_bytes);
        draft.bytes(load.source.as_bytes())
    }

    pub(super) fn call(call: &Call) -> Self {
        Draft::new(Kind::Call)
            .number(call.memory_bytes)
            .bytes(call.phase.as_bytes())
            .bytes(call.marker.as_bytes())
            .bytes(call.context.as_bytes())
    }

    pub(super) fn finish(mut self) -> io::Result<Vec<u8>> {
        let length = u32::try_from(self.0.len() - HEAD_BYTES).map_err(|_| broken("a frame that is too long"))?;
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        Ok(self.0)
    }

    /// The worker's side.
    pub(super) fn write(self, mut to: impl Write) -> io::Result<()> {
        to.write_all(&self.finish()?)
    }

    /// The server's side.
    pub(super) async fn send(self, to: &mut (impl AsyncWriteExt + Unpin)) -> io::Result<()> {
        to.write_all(&self.finish()?).await
    }
}

/// The worker's side, which trusts the server. `None`: the server has ended.
pub(super) fn read(mut from: impl Read) -> io::Result<Option<Frame>> {
    let mut head = [0; HEAD_BYTES];
    match from.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let (length, kind) = parse(head)?;
    let mut fields = vec![0; length];
    from.read_exact(&mut fields)?;
    Ok(Some(Frame { kind, fields, at: 0 }))
}

/// The server's side. `None`: the worker has ended; an error "connection reset" also means that, and that it has not
/// read everything.
pub(super) async fn receive(from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Option<Frame>> {
    let mut head = [0; HEAD_BYTES];
    match from.read_exact(&mut head).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other.map(|_| ())?,
    }
    let (length, kind) = parse(head)?;
    // Grows with the received bytes, not with the announced length.
    let mut fields = Vec::with_capacity(length.min(64 << 10));
    let read = (&mut *from).take(length as u64).read_to_end(&mut fields).await?;
    if read < length {
        return Ok(None);
    }
    Ok(Some(Frame { kind, fields, at: 0 }))
}

fn parse([a, b, c, d, kind]: [u8; HEAD_BYTES]) -> io::Result<(usize, Kind)> {
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(broken("a frame that is too long"));
    }
    Ok((length, Kind::of(kind)?))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_arrives_as_it_was_sent() {
        let load = Load { check: false, keep: Keep::State, memory_bytes: 1 << 40, source: "ü".into() };
        let bytes = Draft::load(&load).finish().unwrap();
        let mut frame = read(&bytes[..]).unwrap().unwrap();
        assert_eq!((frame.kind, frame.load().unwrap()), (Kind::Load, load));
        assert!(!frame.has_more());
        let call = Call {
            memory_bytes: 1 << 40,
            phase: "preCreate".into(),
            marker: String::new(),
            context: "{}".repeat(100_000),
        };
        let bytes = Draft::call(&call).finish().unwrap();
        let mut frame = read(&bytes[..]).unwrap().unwrap();
        assert_eq!((frame.kind, frame.call().unwrap()), (Kind::Call, call));
        assert!(!frame.has_more());
        let mut received = receive(&mut &bytes[..]).await.unwrap().unwrap();
        assert_eq!(received.call().unwrap().phase, "preCreate");
    }

    #[tokio::test]
    async fn what_a_worker_sends_is_not_trusted() {
        let refused = async |bytes: &[u8]| receive(&mut &*bytes).await.unwrap_err().to_string();
        assert_eq!(refused(&[255, 255, 255, 255, 1]).await, "a frame that is too long");
        assert_eq!(refused(&[0, 0, 0, 0, 99]).await, "a frame of an unknown kind");
        assert!(receive(&mut &[9, 0, 0, 0, 1, 0][..]).await.unwrap().is_none(), "cut off");
        let mut frame = read(&[8, 0, 0, 0, 3, 255, 255, 255, 255, 255, 255, 255, 255][..]).unwrap().unwrap();
        assert_eq!(frame.bytes().unwrap_err().to_string(), "a frame that is cut off");
        let mut frame = read(&[9, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0, 0, 255][..]).unwrap().unwrap();
        assert_eq!(frame.text().unwrap_err().to_string(), "a text that is not UTF-8");
    }
}
