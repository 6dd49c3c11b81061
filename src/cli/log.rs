//! Logging: plain lines to stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::failure::{Failure, Result};
use crate::config::closest;

/// The levels, from none to all.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Starts logging; `filter` is a level or `target=level,…`.
pub(super) fn init(filter: &str) -> Result<()> {
    check(filter)?;
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::new(format!("`--log` is `{filter}`, expected a level or `target=level,…`: {error}"))
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init()
        .map_err(|error| Failure::new(format!("logging cannot start: {error}")))
}

/// What the library takes for a target, so that a mistyped level would silence nothing and nobody would be told.
fn check(filter: &str) -> Result<()> {
    for part in filter.split(',').map(str::trim) {
        // The library knows what stands in the brackets of spans.
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
