//! Reads a JSON text in one pass. A [`Build`] determines what is built from its values.
//!
//! The grammar is that of RFC 8259, applied strictly: no byte order mark, no lone surrogates, no duplicate names in an
//! object. Recursion is bounded by the depth limit, and everything else is linear in the text.

use std::borrow::Cow;

use super::error::{Fault, JsonError};

/// Maximum nesting of lists and objects in any text that becomes a tree. The limit for data is lower, see the server's
/// catalog; wrappers around data add a few levels.
pub const DEPTH_MAX: usize = 256;

/// Digits of an exponent without leading zeros: comparisons, unique keys and the validator use 64-bit arithmetic.
const EXPONENT_DIGITS_MAX: usize = 15;

/// Limits for one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nesting of lists and objects, at most [`DEPTH_MAX`].
    pub depth: usize,
    /// Values of any kind, lists and objects included.
    pub values: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { depth: DEPTH_MAX, values: usize::MAX }
    }
}

/// Counts for one text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Values of any kind, lists and objects included.
    pub values: usize,
    /// Members of all objects.
    pub members: usize,
    /// Whether there is a line break between values.
    pub lines: bool,
}

/// Builds something from the values of a text, in their order.
pub trait Build {
    type Value;
    type List: Default;
    type Object: Default;

    fn null(&mut self) -> Self::Value;
    fn boolean(&mut self, value: bool) -> Self::Value;
    /// A number as it appears in the text.
    fn number(&mut self, text: &str) -> Self::Value;
    /// The content of a string, without quotes and escapes.
    fn string(&mut self, text: Cow<'_, str>) -> Self::Value;
    fn item(&mut self, list: &mut Self::List, item: Self::Value);
    fn list(&mut self, list: Self::List) -> Self::Value;
    /// Returns `false` if the object already has that name.
    fn member(&mut self, object: &mut Self::Object, name: Cow<'_, str>, value: Self::Value) -> bool;
    fn object(&mut self, object: Self::Object) -> Self::Value;
}

/// Reads one text; only whitespace may follow the value.
pub fn read<B: Build>(text: &str, limits: Limits, build: &mut B) -> Result<(B::Value, Shape), JsonError> {
    let limits = Limits { depth: limits.depth.min(DEPTH_MAX), ..limits };
    let mut reader = Reader::new(text, limits);
    let read = reader.document(build);
    read.map(|value| (value, reader.shape)).map_err(|fault| JsonError::at(text, reader.at, fault).below(&reader.path))
}

/// The text of one quoted string; `None` if it is invalid.
pub(super) fn unquote(quoted: &str) -> Option<Cow<'_, str>> {
    let mut reader = Reader::new(quoted, Limits::default());
    if reader.peek() != Some(b'"') {
        return None;
    }
    let text = reader.string().ok()?;
    (reader.at == quoted.len()).then_some(text)
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    /// Offset of the next byte or, once there is a fault, of the fault.
    at: usize,
    limits: Limits,
    shape: Shape,
    /// The names and indexes that lead to the fault, if there is one, the last one first.
    path: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, limits: Limits) -> Reader<'a> {
        Reader { text, bytes: text.as_bytes(), at: 0, limits, shape: Shape::default(), path: Vec::new() }
    }

    fn document<B: Build>(&mut self, build: &mut B) -> Result<B::Value, Fault> {
        if self.text.starts_with('\u{feff}') {
            return Err(Fault::ByteOrderMark);
        }
        self.spaces();
        let value = self.value(build, 0)?;
        self.spaces();
        if self.at < self.bytes.len() { Err(Fault::Trailing) } else { Ok(value) }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn spaces(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' => {}
                b'\n' | b'\r' => self.shape.lines = true,
                _ => return,
            }
            self.at += 1;
        }
    }

    /// `depth`: how many lists and objects are open.
    fn value<B: Build>(&mut self, build: &mut B, depth: usize) -> Result<B::Value, Fault> {
        self.shape.values += 1;
        if self.shape.values > self.limits.values {
            return Err(Fault::TooManyValues { max: self.limits.values });
        }
        match self.peek() {
            Some(b'"') => self.string().map(|text| build.string(text)),
            Some(b'{') => self.object(build, depth + 1),
            Some(b'[') => self.list(build, depth + 1),
            Some(b'-' | b'0'..=b'9') => self.number().map(|text| build.number(text)),
            Some(b'n') => self.word("null").map(|()| build.null()),
            Some(b't') => self.word("true").map(|()| build.boolean(true)),
            Some(b'f') => self.word("false").map(|()| build.boolean(false)),
            Some(_) => Err(Fault::Expected("a value")),
            None => Err(Fault::End),
        }
    }

    /// Skips the opening bracket of a list or object. Returns whether the closing one follows immediately.
    fn open(&mut self, depth: usize, close: u8) -> Result<bool, Fault> {
        if depth > self.limits.depth {
            return Err(Fault::TooDeep { max: self.limits.depth });
        }
        self.at += 1;
        self.spaces();
        Ok(self.close(close))
    }

    /// Skips the closing bracket of a list or object, if it is next.
    fn close(&mut self, close: u8) -> bool {
        let closes = self.peek() == Some(close);
        self.at += usize::from(closes);
        closes
    }

    /// Skips a comma. Returns whether another part follows.
    fn goes_on(&mut self, close: u8, expected: &'static str) -> Result<bool, Fault> {
        self.spaces();
        if self.close(close) {
            return Ok(false);
        }
        match self.peek() {
            Some(b',') => self.at += 1,
            Some(_) => return Err(Fault::Expected(expected)),
            None => return Err(Fault::End),
        }
        self.spaces();
        if self.peek() == Some(close) { Err(Fault::TrailingComma) } else { Ok(true) }
    }

    fn list<B: Build>(&mut self, build: &mut B, depth: usize) -> Result<B::Value, Fault> {
        let mut list = B::List::default();
        let mut goes_on = !self.open(depth, b']')?;
        let mut index = 0_usize;
        while goes_on {
            let item = self.value(build, depth).map_err(|fault| self.below(index.to_string(), fault))?;
            build.item(&mut list, item);
            index += 1;
            goes_on = self.goes_on(b']', "`,` or `]`")?;
        }
        Ok(build.list(list))
    }

    fn object<B: Build>(&mut self, build: &mut B, depth: usize) -> Result<B::Value, Fault> {
        let mut object = B::Object::default();
        let mut goes_on = !self.open(depth, b'}')?;
        while goes_on {
            let start = self.at;
            let name = match self.peek() {
                Some(b'"') => self.string()?,
                Some(_) => return Err(Fault::Expected("a name in quotes")),
                None => return Err(Fault::End),
            };
            self.spaces();
            match self.peek() {
                Some(b':') => self.at += 1,
                Some(_) => return Err(Fault::Expected("`:`")),
                None => return Err(Fault::End),
            }
            self.spaces();
            let value = match self.value(build, depth) {
                Ok(value) => value,
                Err(fault) => return Err(self.below(name.into_owned(), fault)),
            };
            self.shape.members += 1;
            if !build.member(&mut object, name, value) {
                self.at = start;
                let name = self.string()?.into_owned();
                self.at = start;
                return Err(self.below(name.clone(), Fault::Twice { name }));
            }
            goes_on = self.goes_on(b'}', "`,` or `}`")?;
        }
        Ok(build.object(object))
    }

    /// Records that a fault is in the item or member with this index or name.
    #[cold]
    fn below(&mut self, step: String, fault: Fault) -> Fault {
        self.path.push(step);
        fault
    }

    fn word(&mut self, word: &'static str) -> Result<(), Fault> {
        let rest = &self.bytes[self.at..];
        if rest.starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        if word.as_bytes().starts_with(rest) { Err(Fault::End) } else { Err(Fault::Expected("a value")) }
    }

    /// Skips digits and returns their number.
    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    /// Skips digits; there must be at least one.
    fn some_digits(&mut self) -> Result<(), Fault> {
        match (self.digits(), self.peek()) {
            (0, None) => Err(Fault::End),
            (0, Some(_)) => Err(Fault::BadNumber),
            _ => Ok(()),
        }
    }

    fn number(&mut self) -> Result<&'a str, Fault> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
            if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                return Err(Fault::BadNumber);
            }
        } else {
            self.some_digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            let exponent = self.at;
            self.some_digits()?;
            let zeros = self.bytes[exponent..self.at].iter().take_while(|byte| **byte == b'0').count();
            if self.at - exponent - zeros > EXPONENT_DIGITS_MAX {
                self.at = start;
                return Err(Fault::LargeExponent { digits_max: EXPONENT_DIGITS_MAX });
            }
        }
        Ok(&self.text[start..self.at])
    }

    /// Called at the opening quote.
    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        self.at += 1;
        let start = self.at;
        self.plain();
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(&self.text[start..self.at - 1]));
        }
        let mut text = String::new();
        let mut start = start;
        loop {
            match self.peek() {
                Some(b'"') => {
                    text.push_str(&self.text[start..self.at]);
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                Some(b'\\') => {
                    text.push_str(&self.text[start..self.at]);
                    text.push(self.escape()?);
                    start = self.at;
                }
                Some(byte) => return Err(Fault::ControlCharacter(byte)),
                None => return Err(Fault::End),
            }
            self.plain();
        }
    }

    /// Skips to the next quote, backslash or control character, or to the end.
    fn plain(&mut self) {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const HIGHS: u64 = 0x8080_8080_8080_8080;
        // Eight bytes at once: the lowest set high bit belongs to the first byte that ends the run.
        while let Some(chunk) = self.bytes[self.at..].first_chunk::<8>() {
            let word = u64::from_le_bytes(*chunk);
            let zero = |word: u64| word.wrapping_sub(ONES) & !word;
            let control = word.wrapping_sub(ONES * 0x20) & !word;
            let stops = (zero(word ^ (ONES * b'"' as u64)) | zero(word ^ (ONES * b'\\' as u64)) | control) & HIGHS;
            if stops != 0 {
                self.at += stops.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
        while self.peek().is_some_and(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
            self.at += 1;
        }
    }

    /// Called at a backslash.
    fn escape(&mut self) -> Result<char, Fault> {
        let start = self.at;
        let Some(escaped) = self.bytes.get(start + 1) else {
            self.at = self.bytes.len();
            return Err(Fault::End);
        };
        self.at += 2;
        Ok(match escaped {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.unit(start)?;
                let code = match unit {
                    0xd800..=0xdbff if self.bytes[self.at..].starts_with(b"\\u") => {
                        self.at += 2;
                        match self.unit(start)? {
                            low @ 0xdc00..=0xdfff => 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00),
                            _ => unit,
                        }
                    }
                    _ => unit,
                };
                // Only lone surrogates are invalid here.
                char::from_u32(code).ok_or_else(|| {
                    self.at = start;
                    Fault::LoneSurrogate
                })?
            }
            _ => {
                self.at = start;
                return Err(Fault::BadEscape);
            }
        })
    }

    /// Reads four hexadecimal digits. `start` is the offset of the escape.
    fn unit(&mut self, start: usize) -> Result<u32, Fault> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = match self.peek() {
                None => return Err(Fault::End),
                Some(byte) => char::from(byte).to_digit(16),
            };
            let Some(digit) = digit else {
                self.at = start;
                return Err(Fault::BadEscape);
            };
            unit = unit << 4 | digit;
            self.at += 1;
        }
        Ok(unit)
    }
}
