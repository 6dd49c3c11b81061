//! The lines of configuration that a denial ends in, wherever they were copied to.
//!
//! A language may show an error as a literal of its own, as Python's traceback does: there the line breaks are `\n`, and
//! nobody can paste them. Such a copy is cut out, up to the end of the literal, and the lines themselves end the message.

use super::context::{LogLevel, LogLine};
use super::grant_lines::TO_ALLOW;

/// What they begin with.
const TABLE: &str = "[[grants]]";

/// Makes every copy of suggested lines one that can be pasted. `failure`: the message of a run that failed.
pub(super) fn tidy(failure: Option<&mut String>, log: &mut [LogLine]) {
    if let Some(message) = failure
        && cut(message)
    {
        // The host wrote the denial to the log when it happened.
        let lines = log.iter().rev().filter_map(|line| line.message.split_once(TO_ALLOW));
        if let Some((_, lines)) = lines.into_iter().find(|(_, lines)| is_whole(lines)) {
            message.push_str(TO_ALLOW);
            message.push_str(lines);
        }
    }
    // What stderr gets is a warning. What a hook logs as information is its own.
    for line in log.iter_mut().filter(|line| matches!(line.level, LogLevel::Warn | LogLevel::Error)) {
        cut(&mut line.message);
    }
}

/// Whether the lines stand on lines of their own.
fn is_whole(lines: &str) -> bool {
    lines.split('\n').nth(1) == Some(TABLE)
}

/// Removes the copies that cannot be pasted; returns whether there were any. One pass: a guest decides how long the text is.
fn cut(text: &mut String) -> bool {
    let (mut kept, mut rest, mut is_cut) = (String::new(), text.as_str(), false);
    while let Some(start) = rest.find(TO_ALLOW) {
        // Without a table up to there, no later start before the end has one.
        let end = start + literal_end(&rest[start..]);
        let is_copy = rest[start..end].contains(TABLE);
        kept.push_str(&rest[..if is_copy { start } else { end }]);
        is_cut |= is_copy;
        rest = &rest[end..];
    }
    if is_cut {
        kept.push_str(rest);
        *text = kept;
    }
    is_cut
}

/// The first double quote that nothing escapes, or the end of the line: what a hook logs as JSON stays JSON.
fn literal_end(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\n' => return at,
            b'"' if !is_escaped => return at,
            _ => is_escaped = byte == b'\\' && !is_escaped,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "; to allow it, add to config.toml:\n[[grants]]\nmodel = 'a'\nread = ['b']";

    fn log(messages: &[&str]) -> Vec<LogLine> {
        let line = |message: &&str| LogLine { time: 0, level: LogLevel::Warn, message: (*message).to_owned() };
        messages.iter().map(line).collect()
    }

    #[test]
    fn a_literal_becomes_lines() {
        let denial = format!("hook asked for read, which no grant opens{LINES}");
        let literal = format!("Err: AccessError({:?})", denial);
        let mut lines = log(&[&denial, "Traceback", &literal]);
        let mut message = format!("the hook gave up: Traceback\n{literal}\n  more");
        tidy(Some(&mut message), &mut lines);
        assert_eq!(
            message,
            format!(
                "the hook gave up: Traceback\nErr: AccessError(\"hook asked for read, which no grant opens\")\n  more{LINES}"
            )
        );
        assert_eq!(lines[0].message, denial);
        assert_eq!(lines[2].message, "Err: AccessError(\"hook asked for read, which no grant opens\")");
    }

    #[test]
    fn a_guest_repeats_the_words() {
        let words = TO_ALLOW.repeat(100_000);
        let mut message = format!("{words}\n{words}:[[grants]]");
        assert!(cut(&mut message));
        assert_eq!(message, format!("{words}\n"));
    }

    #[test]
    fn what_is_logged_as_json_stays_json() {
        let lines = LINES.replace("['b']", r#"["it's"]"#);
        let said = serde_json::json!({"message": format!("asked{lines}"), "code": "denied"});
        let mut log = log(&[&said.to_string()]);
        tidy(None, &mut log);
        let left: serde_json::Value = snaphook_driver::json::parse(&log[0].message).unwrap();
        assert_eq!(left, serde_json::json!({"message": "asked", "code": "denied"}));
    }

    #[test]
    fn what_can_be_pasted_stays() {
        let denial = format!("hook asked for read, which no grant opens{LINES}");
        let (mut message, mut lines) =
            (format!("threw at line 2: {denial}"), log(&[&denial, "é; to allow it, add to é"]));
        let text = |lines: &[LogLine]| lines.iter().map(|line| line.message.clone()).collect::<Vec<_>>();
        let before = (message.clone(), text(&lines));
        tidy(Some(&mut message), &mut lines);
        assert_eq!((message, text(&lines)), before);
    }
}
