//! Text as PostgreSQL stores it, without NUL.
//!
//! U+0000 becomes U+0001 U+0001, and U+0001 becomes U+0001 U+0002. All other text is unchanged, and both the byte order
//! of texts and their prefixes are preserved.

use std::borrow::Cow;

use snaphook_driver::StreamRef;

/// Represents an empty id of an instance, because the empty text represents the definition of a model.
const EMPTY: &str = "\u{1}";

pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte <= 1) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace('\u{1}', "\u{1}\u{2}").replace('\0', "\u{1}\u{1}"))
}

pub(crate) fn unescape(text: String) -> String {
    if !text.contains('\u{1}') {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\u{1}' if characters.next() == Some('\u{1}') => plain.push('\0'),
            other => plain.push(other),
        }
    }
    plain
}

/// The column `instance` for a stream.
pub(crate) fn instance<'a>(stream: StreamRef<'a>) -> Cow<'a, str> {
    stream.instance.map_or(Cow::Borrowed(""), instance_id)
}

/// The same for an instance's id.
pub(crate) fn instance_id(id: &str) -> Cow<'_, str> {
    if id.is_empty() { Cow::Borrowed(EMPTY) } else { escape(id) }
}

/// Decodes a column `instance`.
pub(crate) fn instance_of(column: String) -> Option<String> {
    match column.as_str() {
        "" => None,
        EMPTY => Some(String::new()),
        _ => Some(unescape(column)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_in_their_order() {
        let mut texts =
            vec!["", "\0", "\0\0", "\0\u{1}", "\0a", "\u{1}", "\u{1}\0", "\u{1}\u{1}", "\u{1}\u{2}", "\u{2}", "a"];
        texts.extend(["a\0", "a\0b", "a\u{1}", "ab", "ü\0", "🎈"]);
        texts.sort_unstable();
        let escaped: Vec<String> = texts.iter().map(|text| escape(text).into_owned()).collect();
        assert!(escaped.is_sorted() && !escaped.iter().any(|text| text.contains('\0')), "{escaped:?}");
        for (text, escaped) in texts.iter().zip(&escaped) {
            assert_eq!(unescape(escaped.clone()), *text);
            for prefix in &texts {
                assert_eq!(escaped.starts_with(&*escape(prefix)), text.starts_with(prefix), "{text:?} {prefix:?}");
            }
            let stream = StreamRef { model: "m", instance: Some(text) };
            assert_eq!(instance_of(instance(stream).into_owned()).as_deref(), Some(*text));
        }
        assert_eq!(instance_of(instance(StreamRef { model: "m", instance: None }).into_owned()), None);
    }
}
