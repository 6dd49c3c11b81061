//! Writes the log output of endpoints and modules to the server's log.

use crate::hooks::context::LogLevel;
use crate::hooks::grants::Grantee;
use crate::hooks::session::Session;

/// Writes the log lines of a run that has ended.
pub(super) fn tell(session: &Session, request_id: &str) {
    let (lines, _) = session.finish();
    for line in lines {
        let message = shown(&line.message);
        // The names of fields are fixed.
        macro_rules! write {
            ($level:ident) => {
                match session.grantee() {
                    Grantee::Endpoint(name) => tracing::$level!(endpoint = &**name, request_id, "{message}"),
                    Grantee::Module(name) => tracing::$level!(module = &**name, request_id, "{message}"),
                    Grantee::Hook(hook) => tracing::$level!(%hook, request_id, "{message}"),
                }
            };
        }
        match line.level {
            LogLevel::Debug => write!(debug),
            LogLevel::Info => write!(info),
            LogLevel::Warn => write!(warn),
            LogLevel::Error => write!(error),
        }
    }
}

/// Makes a guest's text safe for the log, which puts it on one line: removes control characters.
pub(super) fn shown(text: &str) -> String {
    let shown = |character: char| match character {
        '\n' => '\n',
        '\t' => ' ',
        control if control.is_control() => '\u{fffd}',
        other => other,
    };
    text.trim_end().chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_logs_is_text() {
        assert_eq!(shown("a\nERROR b\x1b[0m\tü\r\n"), "a\nERROR b\u{fffd}[0m ü");
    }
}
