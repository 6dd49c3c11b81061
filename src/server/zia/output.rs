//! Writes the output of the bridge and its modules to the server's log, with limits for the length of a line and for lines
//! per second.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout};

/// Maximum length of a logged line, in bytes.
const LINE_BYTES_MAX: usize = 4 * 1024;

/// Maximum number of lines that are logged in one [`PERIOD`].
const LINES_MAX: u32 = 500;
const PERIOD: Duration = Duration::from_secs(1);

/// Time to wait for output when no lines were dropped.
const NOTHING_DROPPED: Duration = Duration::from_hours(1);

/// Logs all output until its end.
pub(super) async fn log(mut from: impl AsyncRead + Unpin) {
    let mut lines = Lines::default();
    let mut pace = Pace::new(Instant::now());
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = timeout(pace.until_told(Instant::now()), from.read(&mut buffer)).await;
        match read {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(length)) => lines.add(&buffer[..length], |line| pace.tell(Instant::now(), line)),
            Err(_) => pace.begin(Instant::now()),
        }
    }
    lines.finish(|line| pace.tell(Instant::now(), line));
    pace.finish();
}

/// Splits bytes into lines.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    /// How many bytes of this line are cut off.
    cut: usize,
}

impl Lines {
    fn add(&mut self, bytes: &[u8], mut told: impl FnMut(&str)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            let taken = text.len().min(LINE_BYTES_MAX - self.line.len());
            self.line.extend(&text[..taken]);
            self.cut += text.len() - taken;
            if text.len() < part.len() {
                self.tell(&mut told);
            }
        }
    }

    fn finish(&mut self, mut told: impl FnMut(&str)) {
        if !self.line.is_empty() {
            self.tell(&mut told);
        }
    }

    fn tell(&mut self, told: &mut impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.line);
        let visible: String = text.trim_end().chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        match self.cut {
            0 => told(&visible),
            cut => told(&format!("{visible}… and {cut} more bytes")),
        }
        self.line.clear();
        self.cut = 0;
    }
}

/// How many lines were logged in the current period.
struct Pace {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Pace {
    fn new(now: Instant) -> Pace {
        Pace { since: now, lines: 0, left_out: 0 }
    }

    fn tell(&mut self, now: Instant, line: &str) {
        if now.duration_since(self.since) >= PERIOD {
            self.begin(now);
        }
        if self.lines < LINES_MAX {
            self.lines += 1;
            tracing::info!(target: "snaphook::zia", "{line}");
        } else {
            self.left_out += 1;
        }
    }

    /// How long until dropped lines are to be reported.
    fn until_told(&self, now: Instant) -> Duration {
        match self.left_out {
            0 => NOTHING_DROPPED,
            _ => PERIOD.saturating_sub(now.duration_since(self.since)),
        }
    }

    fn begin(&mut self, now: Instant) {
        self.finish();
        *self = Pace::new(now);
    }

    fn finish(&self) {
        if self.left_out > 0 {
            tracing::warn!(
                "modules printed more than {LINES_MAX} lines per second; {} lines were dropped",
                self.left_out
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_and_bounded() {
        let mut told = Vec::new();
        let mut lines = Lines::default();
        for part in [&b"a\nb"[..], b"c\n\n", b"\xff\x1b[1m\r\n", &[b'y'; LINE_BYTES_MAX], b"zz\n", b"end"] {
            lines.add(part, |line| told.push(line.to_owned()));
        }
        lines.finish(|line| told.push(line.to_owned()));
        let long = format!("{}… and 2 more bytes", "y".repeat(LINE_BYTES_MAX));
        assert_eq!(told, ["a", "bc", "", "\u{fffd} [1m", &long, "end"]);
    }

    #[test]
    fn lines_are_counted() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        (0..LINES_MAX + 7).for_each(|_| pace.tell(now, "x"));
        assert_eq!((pace.lines, pace.left_out), (LINES_MAX, 7));
        pace.tell(now + PERIOD, "x");
        assert_eq!((pace.lines, pace.left_out), (1, 0));
    }
}
