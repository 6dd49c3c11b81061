//! Why a text is not valid JSON, and where.

use std::fmt;

/// Maximum number of characters quoted in a message.
const QUOTED_CHARS_MAX: usize = 100;
/// Maximum length of a pointer; a longer one ends at an enclosing value.
const POINTER_BYTES_MAX: usize = 500;

/// A fault and its location in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    fault: Fault,
    line: usize,
    column: usize,
    pointer: String,
}

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    NotUtf8 {
        offset: usize,
    },
    ByteOrderMark,
    /// The text ends inside a value.
    End,
    /// Text follows the value.
    Trailing,
    /// Something else was found in place of this.
    Expected(&'static str),
    /// A comma with nothing after it.
    TrailingComma,
    BadNumber,
    /// The exponent has more digits than stores and comparisons support.
    LargeExponent {
        digits_max: usize,
    },
    /// A control character inside a string.
    ControlCharacter(u8),
    BadEscape,
    /// `\ud800` to `\udfff` without its other half, which no Unicode text contains.
    LoneSurrogate,
    /// A duplicate name in one object.
    Twice {
        name: String,
    },
    TooDeep {
        max: usize,
    },
    TooManyValues {
        max: usize,
    },
}

impl JsonError {
    pub(super) fn at(text: &str, offset: usize, fault: Fault) -> JsonError {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        JsonError { fault, line, column: before.len() - start + 1, pointer: String::new() }
    }

    /// `path`: the names and indexes that lead to the fault, the last one first.
    pub(super) fn below(self, path: &[String]) -> JsonError {
        let mut pointer = String::new();
        for step in path.iter().rev() {
            let step = step.replace('~', "~0").replace('/', "~1");
            if pointer.len() + 1 + step.len() > POINTER_BYTES_MAX {
                break;
            }
            pointer.push('/');
            pointer.push_str(&step);
        }
        JsonError { pointer, ..self }
    }

    /// What is wrong.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// A JSON Pointer to the value with the fault, or to the innermost one around it that has a name or an index.
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// The line, from 1.
    pub fn line(&self) -> usize {
        self.line
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            // The fault itself contains the offset.
            Fault::NotUtf8 { .. } => write!(f, "{}", self.fault),
            fault => write!(f, "{fault} at line {} column {}", self.line, self.column),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NotUtf8 { offset } => write!(f, "not UTF-8: the byte at offset {offset} starts no character"),
            Fault::ByteOrderMark => f.write_str("a byte order mark (U+FEFF), which JSON must not begin with"),
            Fault::End => f.write_str("the text ends inside a value"),
            Fault::Trailing => f.write_str("trailing characters after the value"),
            Fault::Expected(what) => write!(f, "expected {what}"),
            Fault::TrailingComma => f.write_str("trailing comma"),
            Fault::BadNumber => f.write_str("invalid number"),
            Fault::LargeExponent { digits_max } => {
                write!(f, "the exponent of a number has more than {digits_max} digits")
            }
            Fault::ControlCharacter(byte) => {
                write!(f, "control character (\\u{byte:04x}) in a string, expected its escape")
            }
            Fault::BadEscape => f.write_str("invalid escape in a string"),
            Fault::LoneSurrogate => {
                f.write_str("an escape is half of a surrogate pair (\\ud800 to \\udfff), which is not valid Unicode")
            }
            Fault::Twice { name } => write!(f, "property `{}` appears twice in one object", shown(name)),
            Fault::TooDeep { max } => write!(f, "nested too deep, at most {max} levels are allowed"),
            Fault::TooManyValues { max } => write!(f, "more than {max} values"),
        }
    }
}

impl std::error::Error for JsonError {}

fn shown(name: &str) -> String {
    let mut shown: String = name.chars().take(QUOTED_CHARS_MAX).collect::<String>().escape_debug().to_string();
    if name.chars().nth(QUOTED_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}
