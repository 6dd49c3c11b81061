//! Rust source without comments and literals, so that a search finds only code.

/// Replaces comments and the contents of literals with spaces, so that lines and columns stay the same.
///
/// Not a parser: it knows line and nested block comments, strings (raw and byte ones too), characters and lifetimes.
pub(crate) fn blank_comments_and_strings(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => line_comment_end(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => block_comment_end(&chars, at),
            '"' => string_end(&chars, at),
            'r' if !follows_identifier(&chars, at) => raw_string_end(&chars, at).unwrap_or(at),
            '\'' => char_end(&chars, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Each line with its number, from 1.
pub(crate) fn lines(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// Whether `line` contains `word` as a complete identifier.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(start, _)| !line[..start].ends_with(is_part) && !line[start + word.len()..].starts_with(is_part))
}

fn follows_identifier(chars: &[char], at: usize) -> bool {
    // `br"…"` is a literal too: the `b` belongs to it.
    let before = |back: usize| at.checked_sub(back).map(|index| chars[index]);
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    match before(1) {
        Some('b' | 'c') => before(2).is_some_and(is_part),
        Some(c) => is_part(c),
        None => false,
    }
}

fn line_comment_end(chars: &[char], start: usize) -> usize {
    chars[start..].iter().position(|&c| c == '\n').map_or(chars.len(), |length| start + length)
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    chars.len()
}

fn string_end(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// The end of a raw string; `None` if none starts here: `r` may begin a name, and `r#name` is one.
fn raw_string_end(chars: &[char], start: usize) -> Option<usize> {
    let hashes = chars[start + 1..].iter().take_while(|&&c| c == '#').count();
    let open = start + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let closes = |at: usize| chars[at] == '"' && chars[at + 1..].iter().take_while(|&&c| c == '#').count() >= hashes;
    let close = (open + 1..chars.len()).find(|&at| closes(at));
    Some(close.map_or(chars.len(), |at| at + 1 + hashes))
}

/// The end of a character literal; `None` for a lifetime or a label.
fn char_end(chars: &[char], start: usize) -> Option<usize> {
    match (chars.get(start + 1)?, chars.get(start + 2)) {
        ('\\', _) => {
            // The escaped character may itself be a quote.
            let close = (start + 3..chars.len()).find(|&at| chars[at] == '\'')?;
            Some(close + 1)
        }
        (_, Some('\'')) => Some(start + 3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `~` in `expected` stands for a blanked character.
    #[track_caller]
    fn check(source: &str, expected: &str) {
        assert_eq!(blank_comments_and_strings(source), expected.replace('~', " "));
    }

    #[test]
    fn comments_go() {
        check("a // unsafe\nb", "a ~~~~~~~~~\nb");
        check("a /* x /* y */ z */ b", "a ~~~~~~~~~~~~~~~~~ b");
        check("a /* x\ny */ b", "a ~~~~\n~~~~ b");
    }

    #[test]
    fn literals_go() {
        check(r#"f("un\"safe", 'x')"#, "f(~~~~~~~~~~, ~~~)");
        check(r##"f(r#"a"b"#)"##, "f(~~~~~~~~)");
        check(r#"f(br"a\", x)"#, "f(b~~~~~, x)");
        check(r"f('\'', '\u{1f}')", "f(~~~~, ~~~~~~~~)");
    }

    #[test]
    fn lifetimes_and_raw_names_stay() {
        check("fn f<'a>(x: &'a str) -> r#type { 'l: loop {} }", "fn f<'a>(x: &'a str) -> r#type { 'l: loop {} }");
        check("for r in rows {}", "for r in rows {}");
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("let x = unsafe { y };", "unsafe"));
        assert!(!has_word("#![expect(unsafe_code)]", "unsafe"));
        assert!(!has_word("not_unsafe()", "unsafe"));
    }
}
