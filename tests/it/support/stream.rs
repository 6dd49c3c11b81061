//! A client for server-sent events.

use std::collections::VecDeque;
use std::io::{self, BufReader};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::PATIENCE;
use super::client::{read_chunk, read_head};

/// A received event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frame {
    pub(crate) id: Option<String>,
    pub(crate) event: String,
    pub(crate) data: Value,
}

impl Frame {
    /// The position in its id, which is `<log>.<position>`.
    #[track_caller]
    pub(crate) fn position(&self) -> u64 {
        let id = self.id.as_deref().expect("an id");
        let (log, position) = id.rsplit_once('.').unwrap_or_else(|| panic!("no log in `{id}`"));
        assert_eq!(log.len(), 36, "{id}");
        position.parse().unwrap_or_else(|_| panic!("no position in `{id}`"))
    }
}

/// An open stream.
pub(crate) struct EventStream {
    connection: BufReader<TcpStream>,
    status: u16,
    headers: Vec<(String, String)>,
    text: String,
    frames: VecDeque<Frame>,
    comments: u64,
}

impl EventStream {
    pub(super) fn new(mut connection: BufReader<TcpStream>) -> io::Result<EventStream> {
        let (status, headers) = read_head(&mut connection)?;
        let (text, frames) = (String::new(), VecDeque::new());
        Ok(EventStream { connection, status, headers, text, frames, comments: 0 })
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// How many comments were received so far.
    pub(crate) fn comments(&self) -> u64 {
        self.comments
    }

    /// The next event; fails the test if none arrives.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Frame {
        match self.poll(PATIENCE) {
            Ok(Some(frame)) => frame,
            other => panic!("no event came: {other:?}"),
        }
    }

    /// Waits until the server ends the stream; returns the events received until then.
    #[track_caller]
    pub(crate) fn rest(mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            match self.poll(PATIENCE) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return frames,
                Err(error) => panic!("the stream broke off: {error}"),
            }
        }
    }

    /// Reads until a comment arrives.
    #[track_caller]
    pub(crate) fn expect_comment(&mut self, within: Duration) {
        let (deadline, before) = (Instant::now() + within, self.comments);
        while self.comments == before {
            assert!(Instant::now() < deadline, "no comment came within {within:?}");
            assert!(self.read(deadline).expect("a stream"), "the stream ended");
        }
    }

    /// `Ok(None)`: the server ended the stream.
    pub(crate) fn poll(&mut self, within: Duration) -> io::Result<Option<Frame>> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(Some(frame));
            }
            if !self.read(deadline)? {
                return Ok(None);
            }
        }
    }

    /// Reads one chunk. `false` at the end of the stream.
    fn read(&mut self, deadline: Instant) -> io::Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.connection.get_ref().set_read_timeout(Some(left))?;
        let Some(chunk) = read_chunk(&mut self.connection)? else { return Ok(false) };
        self.text.push_str(std::str::from_utf8(&chunk).expect("text"));
        while let Some(end) = self.text.find("\n\n") {
            let block: String = self.text.drain(..end + 2).collect();
            self.take(&block);
        }
        Ok(true)
    }

    fn take(&mut self, block: &str) {
        let (mut id, mut event, mut data) = (None, None, String::new());
        for line in block.lines().filter(|line| !line.is_empty()) {
            match line.split_once(':').map(|(name, value)| (name, value.trim_start())) {
                Some(("", _)) => self.comments += 1,
                Some(("id", value)) => id = Some(value.to_owned()),
                Some(("event", value)) => event = Some(value.to_owned()),
                Some(("data", value)) => data.push_str(value),
                _ => panic!("an odd line in an event stream: `{line}`"),
            }
        }
        if let Some(event) = event {
            let data = snaphook_driver::json::parse(&data).unwrap_or_else(|error| panic!("{error}: `{data}`"));
            self.frames.push_back(Frame { id, event, data });
        }
    }
}
