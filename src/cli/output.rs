//! What commands print: results to stdout, what went wrong to stderr.
//!
//! Much of it is foreign text (data, messages of hooks, names of files), and a terminal obeys some characters instead of showing
//! them. All that is printed goes through [`plain`].

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::failure::{Failure, Result};

/// One line of the result.
pub(super) fn line(text: impl std::fmt::Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", plain(&text.to_string()))?;
    // A pipe gets each line as it is made.
    out.flush()?;
    Ok(())
}

/// What somebody may want to know beside the result.
pub(super) fn note(text: impl std::fmt::Display) {
    // If stderr is gone, the result still is not.
    let _ = writeln!(std::io::stderr().lock(), "{}", plain(&text.to_string()));
}

/// Bytes as they are. For a terminal text is made harmless, and what is no text is refused.
pub(super) fn bytes(bytes: &[u8], what: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if out.is_terminal() {
        let text = std::str::from_utf8(bytes).map_err(|_| {
            Failure::new(format!("{what} is not text; name a file with `--out`, or send it into a pipe"))
        })?;
        out.write_all(plain(text).as_bytes())?;
    } else {
        out.write_all(bytes)?;
    }
    out.flush()?;
    Ok(())
}

/// What somebody should know before they see the result.
pub(super) fn warn(text: impl std::fmt::Display) {
    // If stderr is gone, the result still is not.
    let _ = writeln!(std::io::stderr().lock(), "warning: {}", plain(&text.to_string()));
}

/// The text with all that a terminal would obey, but for line ends and tabs, in escapes as JSON has them: a JSON document says
/// the same as before.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match is_obeyed(char) {
            // Writing into a `String` cannot fail. All of them have at most four digits.
            true => drop(write!(out, "\\u{:04x}", u32::from(char))),
            false => out.push(char),
        }
    }
    Cow::Owned(out)
}

/// Control characters, and those that change the direction of what follows.
fn is_obeyed(char: char) -> bool {
    char.is_control() && !matches!(char, '\n' | '\t')
        || matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}')
}

/// Says why the command failed. A configuration's faults stand one per line, so that an editor can jump to them.
pub(super) fn fail(failure: &Failure) -> ExitCode {
    let mut err = std::io::stderr().lock();
    // If stderr is gone, the exit code is all that is left.
    let _ = match failure {
        Failure::Config(errors) => writeln!(err, "{}", plain(&errors.to_string())),
        other => writeln!(err, "error: {}", plain(&other.to_string())),
    };
    ExitCode::FAILURE
}

/// A bar on a terminal, nothing elsewhere.
pub(super) fn progress_bar(what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{prefix} {bar:40} {percent:>3}% · {msg} · {elapsed}, {eta} to go";
    // The template is a constant of this file; if it were wrong, the default would do.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style).with_prefix(what);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// `1 model`, `2 models`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Rows under headings, columns as wide as they need. A cell is one line.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let cell = |text: &String| plain(text).replace('\n', "\\n").replace('\t', "\\t");
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(cell).collect()).collect();
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let print = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        line(padded.join("  ").trim_end())
    };
    print(headings.to_vec())?;
    rows.iter().try_for_each(|row| print(row.iter().map(String::as_str).collect()))
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn a_terminal_has_nothing_to_obey() {
        for number in (0..0x3000).filter_map(char::from_u32) {
            let text = format!("a{number}b");
            let shown = plain(&text);
            let kept = shown == text;
            let harmless = !number.is_control() || matches!(number, '\n' | '\t');
            assert!(harmless || !kept, "U+{:04x}", u32::from(number));
            assert!(!shown.chars().any(|char| char.is_control() && !matches!(char, '\n' | '\t')), "{shown:?}");
        }
        assert_eq!(
            plain("\u{1b}]0;owned\u{7}\r\u{9b}2J\u{202e}x\ty\n"),
            "\\u001b]0;owned\\u0007\\u000d\\u009b2J\\u202ex\ty\n"
        );
        assert_eq!(plain("größe 🎈"), "größe 🎈");
    }

    #[test]
    fn json_says_the_same() {
        let value = serde_json::json!({ "a\u{7f}": "\u{1b}[31m\u{9b}\u{202e}\n" });
        let shown = plain(&value.to_string()).into_owned();
        assert_eq!(snaphook_driver::json::parse(&shown).unwrap(), value);
        assert!(shown.is_ascii());
    }
}
