//! Foreign text in log lines and messages: on one line, and shortened.

use std::borrow::Cow;

/// A text for the server's log, where a line break would look like the start of another entry.
pub fn one_line(text: &str) -> String {
    text.chars()
        .flat_map(|char| {
            let (plain, escaped) =
                if char.is_control() { (None, Some(char.escape_default())) } else { (Some(char), None) };
            plain.into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}

/// The start of a text, of at most this many bytes, cut at a character boundary, with `…` if it was cut.
pub fn shortened(text: &str, bytes_max: usize) -> Cow<'_, str> {
    match text.len() > bytes_max {
        true => Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(bytes_max)])),
        false => Cow::Borrowed(text),
    }
}

/// Shortens a text in place, and frees the rest.
pub fn shorten(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
        text.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        for (text, short) in
            [("", ""), ("abcd", "abcd"), ("abcde", "abcd…"), ("abcüd", "abc…"), ("üü", "üü"), ("üüü", "üü…")]
        {
            assert_eq!(shortened(text, 4), short);
            let mut whole = text.to_owned();
            shorten(&mut whole, 4);
            assert_eq!(whole, short);
        }
        let mut long = "x".repeat(1 << 20);
        shorten(&mut long, 4);
        assert!(long.capacity() < 100);
    }

    #[test]
    fn a_message_is_one_line_of_the_log() {
        assert_eq!(one_line("a\nb\r\u{1b}[0m \u{85}\"ä"), "a\\nb\\r\\u{1b}[0m \\u{85}\"ä");
    }
}
