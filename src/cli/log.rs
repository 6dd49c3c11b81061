//! Logging: lines to stderr, plain or as JSON.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, format};
use tracing_subscriber::registry::LookupSpan;

use super::failure::{Failure, Result};
use super::json_log;
use crate::config::closest;
use crate::telemetry::trace::scope;

/// Whether lines are JSON. The configuration may set this after the first lines were written.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LineFormat {
    /// For people
    Text,
    /// One JSON document each, with the id of its request
    Json,
}

/// Writes JSON lines from now on.
pub(super) fn use_json() {
    IS_JSON.store(true, Ordering::Relaxed);
    scope::log_ids();
}

/// Both forms of a line.
pub(super) struct Lines {
    text: Format<Full>,
    is_always_json: bool,
}

impl Lines {
    fn new() -> Lines {
        Lines { text: format().with_target(false), is_always_json: false }
    }

    #[cfg(test)]
    pub(super) fn json() -> Lines {
        Lines { is_always_json: true, ..Lines::new() }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        match self.is_always_json || IS_JSON.load(Ordering::Relaxed) {
            true => json_log::write(writer, event),
            false => self.text.format_event(context, writer, event),
        }
    }
}

/// Standard error, with each log entry on one line, whatever untrusted text it contains.
struct OneLineEach {
    /// Whether the library colours lines. It escapes this byte in texts.
    has_colours: bool,
}

impl Write for OneLineEach {
    /// Each write is one complete entry, because that is how the library writes.
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(&on_one_line(entry, self.has_colours))?;
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Escapes all control characters of an entry except the last line break: otherwise a text could break the line and
/// imitate another entry, in programs that read the log or on a terminal.
fn on_one_line(entry: &[u8], has_colours: bool) -> Cow<'_, [u8]> {
    let text = entry.strip_suffix(b"\n").unwrap_or(entry);
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~' | b'\t') || (has_colours && byte == 0x1b);
    if text.iter().all(|byte| is_plain(*byte)) {
        return Cow::Borrowed(entry);
    }
    let mut line = String::with_capacity(entry.len() + 16);
    for char in String::from_utf8_lossy(text).chars() {
        match char {
            '\t' => line.push(char),
            '\x1b' if has_colours => line.push(char),
            // The line and paragraph separators are not control characters.
            char if char.is_control() || matches!(char, '\u{2028}' | '\u{2029}') => line.extend(char.escape_default()),
            char => line.push(char),
        }
    }
    line.push('\n');
    Cow::Owned(line.into_bytes())
}

/// The levels, from none to all.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Starts logging; `filter` is a level or `target=level,…`.
pub(super) fn init(filter: &str, format: Option<LineFormat>) -> Result<()> {
    check(filter)?;
    if format == Some(LineFormat::Json) {
        use_json();
    }
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::new(format!("`--log` is `{filter}`, expected a level or `target=level,…`: {error}"))
    })?;
    let has_colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || OneLineEach { has_colours })
        .with_ansi(has_colours)
        .event_format(Lines::new())
        .try_init()
        .map_err(|error| Failure::new(format!("logging cannot start: {error}")))
}

/// Reports mistyped levels: the library would take them for targets and silently ignore them.
fn check(filter: &str) -> Result<()> {
    for part in filter.split(',').map(str::trim) {
        // The library checks the brackets of spans.
        let word = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if part.contains('[') || LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word)) {
            continue;
        }
        let hint = match closest(word, LEVELS) {
            Some(level) => format!("did you mean `{level}`?"),
            None => format!("expected one of {}, or `target=level`", LEVELS.join(", ")),
        };
        return Err(Failure::new(format!("`--log` has `{part}`: {hint}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_line() {
        for (entry, written) in [
            ("INFO said\n", "INFO said\n"),
            ("INFO said", "INFO said"),
            ("INFO a\r\nERROR b\n", "INFO a\\r\\nERROR b\n"),
            ("INFO a\n\n", "INFO a\\n\n"),
            ("", ""),
            ("INFO ä\tb\n", "INFO ä\tb\n"),
            ("INFO a\u{b}b\u{c}c\0\n", "INFO a\\u{b}b\\u{c}c\\u{0}\n"),
            ("INFO a\u{85}b\u{2028}c\u{2029}\n", "INFO a\\u{85}b\\u{2028}c\\u{2029}\n"),
            ("INFO a\u{1b}[2K\n", "INFO a\\u{1b}[2K\n"),
        ] {
            assert_eq!(String::from_utf8_lossy(&on_one_line(entry.as_bytes(), false)), written);
        }
        assert_eq!(&*on_one_line(b"\x1b[32m INFO\x1b[0m a\rb\n", true), b"\x1b[32m INFO\x1b[0m a\\rb\n");
    }

    #[test]
    fn words() {
        for good in
            ["info", "WARN", "off", "info,hyper=debug", "snaphook::engine=trace", "warn, hyper=off", "[span]=debug"]
        {
            assert!(check(good).is_ok(), "{good}");
        }
        for (bad, says) in [
            ("verbose", "expected one of off, error"),
            ("inof", "did you mean `info`?"),
            ("hyper", "expected one of"),
            ("info,snaphook", "`snaphook`"),
            ("snaphook=dbug", "did you mean `debug`?"),
            ("", "expected one of"),
            ("info,", "expected one of"),
            ("snaphook=", "expected one of"),
        ] {
            let told = check(bad).unwrap_err().to_string();
            assert!(told.contains(says) && told.contains("`--log`"), "{bad}: {told}");
        }
    }
}
