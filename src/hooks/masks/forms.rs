//! The forms in which a secret is looked for: as it is, and as programs commonly write it.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// A shorter value could be any word: it is not looked for.
const VALUE_BYTES_MIN: usize = 4;
/// The same for one line of a secret that has several.
const LINE_BYTES_MIN: usize = 8;
/// The same for what is left of a value in base64 without the characters that what stands around it decides too.
const BASE64_CHARS_MIN: usize = 7;

/// A larger value is looked for as it is and in JSON: all other forms would be more than its worth.
const ENCODED_BYTES_MAX: usize = 1 << 10;
/// All that a run may log: a larger one has no room there.
pub(super) const VALUE_BYTES_MAX: usize = 64 * 1024;

/// What `encodeURIComponent` leaves as it is.
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
    // A file's last line break is in hardly anything that is made of it.
    let value = value.trim();
    if value.len() < VALUE_BYTES_MIN {
        return Vec::new();
    }
    let json = serde_json::Value::from(value).to_string();
    let mut forms = vec![
        value.to_owned(),
        // As in a string of JSON, which most languages write alike; without its quotes.
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
        // A `String` takes whatever is written.
        let _ = if is_upper { write!(hex, "{byte:02X}") } else { write!(hex, "{byte:02x}") };
        hex
    })
}

/// The characters that the value alone decides where so many bytes stand before it, in both alphabets.
fn in_base64(value: &str, before: usize) -> Vec<String> {
    let mut bytes = vec![0; before];
    bytes.extend_from_slice(value.as_bytes());
    // Each character has six bits.
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
