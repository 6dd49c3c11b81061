//! The glob of model lists and grants: `*` stands for any text, including none; all other characters are literal.
//!
//! There is only one special character, so that a `?` in a URL, a `[` in a name or a `{` in an argument never has a
//! special meaning. Patterns are stored as text, so that a thousand bound hooks do not need a thousand compiled
//! automata.

/// Whether `pattern` matches the whole `text`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, mut rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    // Each piece between two stars is matched at its first occurrence, which leaves the most text for the rest.
    while let Some((piece, after)) = rest.split_once('*') {
        let Some(at) = text.find(piece) else { return false };
        text = &text[at + piece.len()..];
        rest = after;
    }
    text.ends_with(rest)
}

/// Whether one of `patterns` matches `text`.
pub fn any_matches(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, text))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn star_is_any_text_and_nothing_else_is_special() {
        let rows = [
            ("invoice", "invoice", true),
            ("invoice", "invoices", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything/at all", true),
            ("audit-*", "audit-", true),
            ("audit-*", "audit-7", true),
            ("audit-*", "xaudit-7", false),
            ("*-log", "audit-log", true),
            ("*-log", "audit-log-2", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("a**a", "aa", true),
            ("*ab*ab", "ab", false),
            ("*ab*ab", "abab", true),
            ("a?c", "abc", false),
            ("a?c", "a?c", true),
            ("[ab]", "a", false),
            ("{a,b}", "a", false),
            ("ü*", "über", true),
        ];
        for (pattern, text, expected) in rows {
            assert_eq!(matches(pattern, text), expected, "`{pattern}` on `{text}`");
        }
    }

    #[test]
    fn many_stars_stay_fast() {
        let pattern = "*a".repeat(1000);
        assert!(!matches(&format!("{pattern}b"), &"a".repeat(100_000)));
    }
}
