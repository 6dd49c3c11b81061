//! Messages that quote values and stay short, whatever they quote.

use std::fmt::{self, Write};

/// Maximum number of characters of one message.
const CHARS_MAX: usize = 300;

/// The beginning of the text that `shown` displays; the rest is not even written.
pub(crate) fn bounded(shown: &impl fmt::Display) -> String {
    let mut text = Bounded { text: String::new(), left: CHARS_MAX };
    if write!(text, "{shown}").is_err() {
        text.text.push('…');
    }
    text.text
}

/// A JSON Pointer, truncated if it is too long for a message.
pub(crate) fn bounded_place(pointer: &str) -> String {
    const BYTES_MAX: usize = 4096;
    if pointer.len() <= BYTES_MAX {
        return pointer.to_owned();
    }
    format!("{}…", &pointer[..pointer.floor_char_boundary(BYTES_MAX)])
}

struct Bounded {
    text: String,
    left: usize,
}

impl Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        match part.char_indices().nth(self.left) {
            Some((end, _)) => {
                self.text.push_str(&part[..end]);
                Err(fmt::Error)
            }
            None => {
                self.left -= part.chars().count();
                self.text.push_str(part);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_cut() {
        assert_eq!(bounded(&"abc"), "abc");
        assert_eq!(bounded(&"ä".repeat(CHARS_MAX)), "ä".repeat(CHARS_MAX));
        assert_eq!(bounded(&"ä".repeat(CHARS_MAX + 1)), format!("{}…", "ä".repeat(CHARS_MAX)));
        let value = serde_json::Value::from(vec![1; 1_000_000]);
        assert_eq!(bounded(&value).chars().count(), CHARS_MAX + 1);
    }
}
