//! Case folding for `ilike`.
//!
//! Each character is mapped to one character: the lower case of its upper case, if Unicode maps both to a single
//! character. So `Σ`, `σ` and `ς` are equal, and so are `K` and the Kelvin sign. `ß`, whose upper case has two
//! characters, stays unchanged, and so does the dotless `ı`, which differs from `i`. Folding does not depend on the
//! language, and accents are significant.

use std::borrow::Cow;

/// One character without its case.
pub fn fold_char(char: char) -> char {
    if char.is_ascii() {
        return char.to_ascii_lowercase();
    }
    if char == 'ı' {
        return char;
    }
    let upper = single(char.to_uppercase()).unwrap_or(char);
    single(upper.to_lowercase()).unwrap_or(upper)
}

/// Text without its case; borrowed if it has none.
pub fn fold_case(text: &str) -> Cow<'_, str> {
    match text.char_indices().find(|(_, char)| fold_char(*char) != *char) {
        None => Cow::Borrowed(text),
        Some((at, _)) => {
            let mut folded = String::with_capacity(text.len());
            folded.push_str(&text[..at]);
            folded.extend(text[at..].chars().map(fold_char));
            Cow::Owned(folded)
        }
    }
}

fn single(mut chars: impl Iterator<Item = char>) -> Option<char> {
    chars.next().filter(|_| chars.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_differ_in_case_only() {
        for (text, expected) in [
            ("", ""),
            ("abc", "abc"),
            ("ABC xyz 5", "abc xyz 5"),
            ("ÄÖÜ", "äöü"),
            ("Straße", "straße"),
            ("STRAẞE", "straße"),
            ("ΟΔΟΣ", "οδοσ"),
            ("οδος", "οδοσ"),
            ("\u{212a}\u{212b}", "kå"),
            ("İIıi", "İiıi"),
            ("ǅ", "ǆ"),
            ("日本", "日本"),
            ("e\u{301}E\u{301}", "e\u{301}e\u{301}"),
        ] {
            assert_eq!(fold_case(text), expected, "{text}");
        }
        assert!(matches!(fold_case("straße"), Cow::Borrowed(_)));
    }

    #[test]
    fn folding_twice_is_folding_once() {
        for char in (0..=0x10_ffff).filter_map(char::from_u32) {
            let folded = fold_char(char);
            assert_eq!(fold_char(folded), folded, "{char:?}");
            let lower = single(char.to_lowercase()).unwrap_or(char);
            assert_eq!(fold_char(lower), folded, "{char:?} and its lower case {lower:?}");
        }
    }
}
