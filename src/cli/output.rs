//! What commands print: results to stdout, what went wrong to stderr.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, Result};

/// One line of the result.
pub(super) fn line(text: impl std::fmt::Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    // A pipe gets each line as it is made.
    out.flush()?;
    Ok(())
}

/// What somebody should know before they see the result.
pub(super) fn warn(text: impl std::fmt::Display) {
    // If stderr is gone, the result still is not.
    let _ = writeln!(std::io::stderr().lock(), "warning: {text}");
}

/// Says why the command failed. A configuration's faults stand one per line, so that an editor can jump to them.
pub(super) fn fail(failure: &Failure) -> ExitCode {
    let mut err = std::io::stderr().lock();
    // If stderr is gone, the exit code is all that is left.
    let _ = match failure {
        Failure::Config(errors) => writeln!(err, "{errors}"),
        other => writeln!(err, "error: {other}"),
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

/// Rows under headings, columns as wide as they need.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
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
