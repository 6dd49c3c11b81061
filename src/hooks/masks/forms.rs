//! The forms in which a secret is recognized: as it is, and in common encodings.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Shorter values could be any word and are not masked.
const VALUE_BYTES_MIN: usize = 4;
/// The same for single lines of a secret with several lines.
const LINE_BYTES_MIN: usize = 8;
/// The same for the base64 characters that depend on the value alone and not on its neighbours.
const BASE64_CHARS_MIN: usize = 7;

/// Larger values are recognized as they are and in JSON only, to save memory.
const ENCODED_BYTES_MAX: usize = 1 << 10;
/// What one run may log. Larger values are not masked, since they cannot be logged.
pub(super) const VALUE_BYTES_MAX: usize = 64 * 1024;

/// Characters that `encodeURIComponent` escapes.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// The forms of a value; none if it is too short.
pub(super) fn forms(value: &str) -> Vec<String> {
    // A line break at the end of a file rarely ends up in a header or an URL.
    let value = value.trim();
    if value.len() < VALUE_BYTES_MIN {
        return Vec::new();
    }
    let json = serde_json::Value::from(value).to_string();
    let mut forms = vec![
        value.to_owned(),
        // Escaped as in a JSON string, without the quotes.
        json[1..json.len() - 1].to_owned(),
    ];
    if value.contains('\n') {
        forms.extend(value.lines().map(str::trim).filter(|line| line.len() >= LINE_BYTES_MIN).map(str::to_owned));
    }
    if value.len() <= ENCODED_BYTES_MAX {
        forms.push(utf8_percent_encode(value, COMPONENT).to_string());
        forms.push(url::form_urlencoded::byte_serialize(value.as_bytes()).collect());
        forms.extend([hex(value, false), hex(value, true)]);
        forms.extend((0..3).flat_map(|before| in_base64(value, before)));
    }
    forms.sort_unstable();
    forms.dedup();
    forms
}

fn hex(value: &str, is_upper: bool) -> String {
    value.bytes().fold(String::with_capacity(value.len() * 2), |mut hex, byte| {
        // Writing to a `String` cannot fail.
        let _ = if is_upper { write!(hex, "{byte:02X}") } else { write!(hex, "{byte:02x}") };
        hex
    })
}

/// The characters that depend on the value alone if `before` bytes precede it, in both alphabets.
fn in_base64(value: &str, before: usize) -> Vec<String> {
    let mut bytes = vec![0; before];
    bytes.extend_from_slice(value.as_bytes());
    // Each character encodes six bits.
    let (start, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    [BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD]
        .into_iter()
        .map(|alphabet| alphabet.encode(&bytes)[start..end].to_owned())
        .filter(|form| form.len() >= BASE64_CHARS_MIN)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_values_have_no_forms() {
        assert!(forms("").is_empty() && forms(" abc\n").is_empty());
        // Too short for base64, whose rest could be a part of any word.
        assert_eq!(forms("abcd"), ["61626364", "abcd"]);
        assert!(forms("abcdef").contains(&"YWJjZGVm".to_owned()));
    }

    #[test]
    fn no_form_is_shorter_than_the_mask() {
        for value in ["abcd", "a\nb\nc", "ä\"", "    x   y    ", "\u{1}\u{2}\u{3}\u{4}"] {
            assert!(forms(value).iter().all(|form| form.len() >= 4), "{value:?}");
        }
    }
}
