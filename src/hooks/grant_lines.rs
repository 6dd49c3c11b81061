//! The lines of configuration at the end of a refusal, which would grant what was asked: for admins, in logs and the error store.
//! A client that meets a failed hook learns what the hook asked for, not how this server is configured.

use std::borrow::Cow;

/// What a refusal says before those lines.
pub const TO_ALLOW: &str = "; to allow it, add to ";
/// What it says of a grant that is for somebody else, before [`TO_ALLOW`].
pub const ELSEWHERE: &str = " to it (the one at ";

const TABLE: &str = ":\n[[grants]]\n";
/// The keys that say whom a grant is for.
const TARGETS: [&str; 5] = ["model", "phase", "hook", "endpoint", "module"];

/// A message without the lines of all refusals in it. What follows them, such as a place in the source, stays. Lines that do not
/// look as they were written end the message: whoever passed it on may have changed it.
pub fn without(message: &str) -> Cow<'_, str> {
    if !message.contains(TO_ALLOW) {
        return Cow::Borrowed(message);
    }
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((said, lines)) = rest.split_once(TO_ALLOW) {
        let elsewhere = said.rfind(ELSEWHERE).filter(|_| said.ends_with(')'));
        out.push_str(&said[..elsewhere.unwrap_or(said.len())]);
        rest = after(lines).unwrap_or_default();
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// What follows the name of the file and one table.
fn after(lines: &str) -> Option<&str> {
    let (file, mut rest) = lines.split_once(TABLE)?;
    if file.contains('\n') {
        return None;
    }
    while let Some(value) = TARGETS.iter().find_map(|key| value_of(rest, key)) {
        rest = value.split_once('\n')?.1;
    }
    rest = past_value(any_value(rest)?)?;
    // A webhook may lack two.
    while let Some(value) = rest.strip_prefix('\n').and_then(any_value) {
        rest = past_value(value)?;
    }
    Some(rest)
}

fn value_of<'t>(line: &'t str, key: &str) -> Option<&'t str> {
    line.strip_prefix(key)?.strip_prefix(" = ")
}

/// The value of whichever capability.
fn any_value(line: &str) -> Option<&str> {
    let (key, value) = line.split_once(" = ")?;
    (!key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase())).then_some(value)
}

/// What follows a TOML value on one line: a string, `true`, an array or a table of these.
fn past_value(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match *bytes.get(at)? {
            b'\'' => at += text[at + 1..].find('\'')? + 2,
            b'"' => {
                at += 1;
                while *bytes.get(at)? != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'[' | b'{' => (at, depth) = (at + 1, depth + 1),
            b']' | b'}' => (at, depth) = (at + 1, depth.checked_sub(1)?),
            b'\n' => return None,
            _ if depth > 0 => {
                at += 1;
                continue;
            }
            byte if byte.is_ascii_lowercase() => {
                at += bytes[at..].iter().take_while(|byte| byte.is_ascii_lowercase()).count();
            }
            _ => return None,
        }
        if depth == 0 {
            return text.get(at..);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOOK: &str = "; to allow it, add to config.toml:\n[[grants]]\nmodel = 'a'\nphase = 'preCreate'\nhook = 'h'\n";

    #[test]
    fn lines_go_and_what_follows_stays() {
        for value in [
            "read = ['staff']",
            r#"read = ["it's [\"x\"]"]"#,
            "amend = true",
            "process = [{ run = 'a b', args = ['*'] }]",
            "http = ['POST https://example.com/x']\nsecret = ['key']",
        ] {
            for end in ["", " (line 2, column 4)", "\n    at f (hook.js:1)", "; and more"] {
                let message = format!("threw: hook `a` asked for x, which no grant opens{HOOK}{value}{end}");
                let expected = format!("threw: hook `a` asked for x, which no grant opens{end}");
                assert_eq!(without(&message), expected, "{message}");
            }
        }
        let twice = format!("one{HOOK}amend = true, two{HOOK}read = ['b'].");
        assert_eq!(without(&twice), "one, two.");
        let elsewhere =
            format!("which no grant opens to it (the one at config.toml:7 is for model `b`){HOOK}read = ['b']!");
        assert_eq!(without(&elsewhere), "which no grant opens!");
        let endpoint = "no; to allow it, add to c.toml:\n[[grants]]\nendpoint = 'e'\nread = ['b'] x";
        assert_eq!(without(endpoint), "no x");
        assert!(matches!(without("the hook failed"), Cow::Borrowed(_)));
    }

    #[test]
    fn lines_that_somebody_changed_end_the_message() {
        for lines in [
            "; to allow it, add to ",
            "; to allow it, add to config.toml",
            "; to allow it, add to config.toml:\\n[[grants]]\\nmodel = 'a'",
            "; to allow it, add to config.toml:\n[[grants]]\nmodel = 'a",
            "; to allow it, add to config.toml:\n[[grants]]\nmodel = 'a'\nread = ['b",
            "; to allow it, add to config.toml:\n[[grants]]\nmodel = 'a'\nread = ['b'\n]",
            "; to allow it, add to config.toml:\n[[grants]]\n  model = 'a'\n  read = ['b']",
            "; to allow it, add to config.toml:\n[[grants]]\nmodel = 'a'\nread = ]",
        ] {
            assert_eq!(without(&format!("no{lines}")), "no", "{lines}");
        }
    }
}
