//! The load generator: one thread, an event loop, one request at a time on each connection.
//!
//! It shares the cores with the server, so it does as little as possible: requests are prepared, each takes one read
//! and one write, and the only timing is one reading of the clock per response.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::http;
use crate::shell::Result;

/// The result of a run.
#[derive(Debug)]
pub(crate) struct LoadOutcome {
    /// One per response, sorted.
    latencies: Vec<Duration>,
    elapsed: Duration,
    /// Number of responses, including those of the warm-up.
    answers: usize,
}

impl LoadOutcome {
    pub(crate) fn new(mut latencies: Vec<Duration>, elapsed: Duration) -> LoadOutcome {
        latencies.sort_unstable();
        LoadOutcome { answers: latencies.len(), latencies, elapsed }
    }

    /// The number of responses, including those of the warm-up.
    pub(crate) fn answers(&self) -> usize {
        self.answers
    }

    /// Combines consecutive runs.
    pub(crate) fn join(parts: Vec<LoadOutcome>) -> LoadOutcome {
        let elapsed = parts.iter().map(|part| part.elapsed).sum();
        LoadOutcome::new(parts.into_iter().flat_map(|part| part.latencies).collect(), elapsed)
    }

    /// Combines concurrent runs.
    pub(crate) fn beside(parts: Vec<LoadOutcome>) -> LoadOutcome {
        let elapsed = parts.iter().map(|part| part.elapsed).max().unwrap_or_default();
        LoadOutcome::new(parts.into_iter().flat_map(|part| part.latencies).collect(), elapsed)
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that `share` of the responses did not exceed; zero if there were no responses.
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        let rank = (self.latencies.len() as f64 * share).ceil() as usize;
        self.latencies.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// The load to generate.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    /// Sent in order by all connections together, and repeated from the start.
    pub(crate) requests: &'a [Vec<u8>],
    /// The expected status; any other is an error.
    pub(crate) status: u16,
    pub(crate) run: Duration,
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The unsent rest of a request: its index in `requests` and the offset.
    unsent: Option<(usize, usize)>,
    sent_at: Instant,
}

impl Load<'_> {
    /// Warms up for a fifth of the time, then measures.
    pub(crate) fn run(&self) -> Result<LoadOutcome> {
        let mut poll = Poll::new().map_err(|error| format!("cannot create an event loop: {error}"))?;
        let mut connections = (0..self.connections)
            .map(|index| self.connect(&poll, index))
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(|error| format!("cannot connect to {}: {error}", self.address))?;
        let mut next = 0;
        for connection in &mut connections {
            self.start(connection, &mut next)?;
        }
        let warm_at = Instant::now() + self.run / 5;
        let end_at = warm_at + self.run;
        let mut latencies = Vec::with_capacity(1 << 20);
        let mut events = Events::with_capacity(self.connections.max(16));
        let mut last_answer_at = Instant::now();
        let mut measured_from = None;
        let mut answers = 0;
        loop {
            poll.poll(&mut events, Some(Duration::from_millis(100)))
                .map_err(|error| format!("cannot wait: {error}"))?;
            let now = Instant::now();
            if now >= end_at {
                let from = measured_from.unwrap_or(warm_at);
                return Ok(LoadOutcome { answers, ..LoadOutcome::new(latencies, now - from) });
            }
            if events.is_empty() && now - last_answer_at > Duration::from_secs(30) {
                return Err("no response for 30 s".into());
            }
            if now >= warm_at && measured_from.is_none() {
                measured_from = Some(now);
            }
            for event in &events {
                let connection = &mut connections[event.token().0];
                if event.is_writable() && connection.unsent.is_some() {
                    self.flush(connection)?;
                }
                if event.is_readable() && self.read(connection)? {
                    last_answer_at = Instant::now();
                    answers += 1;
                    if measured_from.is_some() {
                        latencies.push(last_answer_at - connection.sent_at);
                    }
                    self.start(connection, &mut next)?;
                }
            }
        }
    }

    fn connect(&self, poll: &Poll, index: usize) -> std::io::Result<Connection> {
        // Connected before it is registered, so that the first event is a response.
        let stream = std::net::TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Connection { stream, buffer: Vec::with_capacity(4096), unsent: None, sent_at: Instant::now() })
    }

    fn start(&self, connection: &mut Connection, next: &mut usize) -> Result {
        connection.unsent = Some((*next, 0));
        *next = (*next + 1) % self.requests.len();
        connection.sent_at = Instant::now();
        self.flush(connection)
    }

    fn flush(&self, connection: &mut Connection) -> Result {
        while let Some((request, offset)) = connection.unsent {
            let rest = &self.requests[request][offset..];
            match connection.stream.write(rest) {
                Ok(count) if count == rest.len() => connection.unsent = None,
                Ok(count) => connection.unsent = Some((request, offset + count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("cannot send a request: {error}")),
            }
        }
        Ok(())
    }

    /// Whether a complete response was received. Stops reading at its end: no more data can arrive before the next
    /// request, and the edge-triggered event of the next response does not require the socket to be drained.
    fn read(&self, connection: &mut Connection) -> Result<bool> {
        loop {
            let mut chunk = [0; 8 * 1024];
            match connection.stream.read(&mut chunk) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(count) => connection.buffer.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("no response: {error}")),
            }
            let Some(answer) = http::parse(&connection.buffer)? else { continue };
            if answer.status != self.status {
                let body = String::from_utf8_lossy(&connection.buffer[answer.body..answer.end]).into_owned();
                return Err(format!("expected status {}, got {}: {body}", self.status, answer.status));
            }
            connection.buffer.clear();
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_answers() {
        let milliseconds = [5, 1, 4, 2, 3].map(Duration::from_millis);
        let outcome = LoadOutcome::new(milliseconds.to_vec(), Duration::from_secs(1));
        assert_eq!(outcome.percentile(0.5), Duration::from_millis(3));
        assert_eq!(outcome.percentile(0.99), Duration::from_millis(5));
        assert_eq!(outcome.per_second(), 5.0);
        assert_eq!(LoadOutcome::new(Vec::new(), Duration::from_secs(1)).percentile(0.5), Duration::ZERO);
    }
}
