//! Text of others in lines of the log.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_of_the_log() {
        assert_eq!(one_line("a\nb\r\u{1b}[0m \u{85}\"ä"), "a\\nb\\r\\u{1b}[0m \\u{85}\"ä");
    }
}
