//! Hostile JSON: a generator that knows the value that it has written, and a parser that shares no code with ours.
//!
//! [`Tree`] is deliberately not serde_json's `Value`, whose readers give some names a special meaning.

use std::fmt;

use json_event_parser::{JsonEvent, SliceJsonParser};

/// A JSON value as it is written: members in order, numbers as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    Null,
    Boolean(bool),
    Number(String),
    String(String),
    List(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// Names that some component might mistake for its own.
pub const HOSTILE_NAMES: [&str; 28] = [
    "$serde_json::private::RawValue",
    "$serde_json::private::Number",
    "$__toml_private_datetime",
    "$__toml_private_Datetime",
    "__proto__",
    "constructor",
    "toString",
    "toJSON",
    "then",
    "hasOwnProperty",
    "length",
    "",
    " ",
    "0",
    "-1",
    "1e3",
    "a.b",
    "a/b~c",
    "$ref",
    "$",
    "\"",
    "\\",
    "\n",
    "\u{0}",
    "\u{feff}",
    "\u{2028}",
    "é😀",
    "id",
];

/// Texts that some component might interpret as more than text.
const HOSTILE_TEXTS: [&str; 14] = [
    "",
    "12",
    "{\"a\":1}",
    "[1,2",
    "null",
    "\u{0}",
    "a\u{0}b",
    "\u{7f}\u{80}\u{ffff}\u{10ffff}",
    "\u{d7ff}\u{e000}",
    "\u{2028}\u{2029}",
    "\r\n",
    "</script>",
    "\"\\\"",
    "\u{feff}",
];

/// Numbers at the limits of types, engines and stores.
const HOSTILE_NUMBERS: [&str; 30] = [
    "0",
    "-0",
    "-0.0",
    "0e0",
    "1",
    "1.0",
    "1e0",
    "10e-1",
    "1E+2",
    "0.1",
    "1e400",
    "-1e400",
    "1e-400",
    "1e999999999",
    "-1e-999999999",
    "1e999999999999999",
    "1e-0000000000000000000000007",
    "9007199254740991",
    "9007199254740992",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "12345678901234567890.123456789",
    "1.7976931348623157e308",
    "5e-324",
    "2.2250738585072011e-308",
];

/// Generates values and texts. The same seed generates the same sequence.
#[derive(Clone, Debug)]
pub struct Generator(u64);

impl Generator {
    pub fn new(seed: u64) -> Generator {
        Generator(seed)
    }

    /// SplitMix64.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `bound` - 1.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.draw() % bound.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    /// An object without duplicate names.
    pub fn object(&mut self, depth: usize) -> Tree {
        let mut members: Vec<(String, Tree)> = Vec::new();
        for _ in 0..self.below(5) {
            let name = self.name();
            if members.iter().all(|(other, _)| *other != name) {
                let value = self.value(depth.saturating_sub(1));
                members.push((name, value));
            }
        }
        // As the only member, which is how serde_json represents its own values.
        if self.one_in(6) {
            let name = HOSTILE_NAMES[self.below(2)].to_owned();
            let text = HOSTILE_TEXTS[self.below(HOSTILE_TEXTS.len())].to_owned();
            return Tree::Object(vec![(name, Tree::String(text))]);
        }
        Tree::Object(members)
    }

    /// Any value, nested at most `depth` levels deep.
    pub fn value(&mut self, depth: usize) -> Tree {
        match self.below(if depth > 0 { 9 } else { 6 }) {
            0 => Tree::Null,
            1 => Tree::Boolean(self.one_in(2)),
            2 | 3 => Tree::Number(self.number()),
            4 | 5 => Tree::String(self.text()),
            6 => Tree::List((0..self.below(4)).map(|_| self.value(depth - 1)).collect()),
            _ => self.object(depth),
        }
    }

    pub fn name(&mut self) -> String {
        match self.below(3) {
            0 => HOSTILE_NAMES[self.below(HOSTILE_NAMES.len())].to_owned(),
            1 => char::from(b'a' + self.below(6) as u8).to_string(),
            _ => self.text(),
        }
    }

    pub fn text(&mut self) -> String {
        if self.one_in(3) {
            return HOSTILE_TEXTS[self.below(HOSTILE_TEXTS.len())].to_owned();
        }
        let length = self.below(20);
        (0..length).map(|_| self.char()).collect()
    }

    fn char(&mut self) -> char {
        let code = match self.below(6) {
            0 => self.below(0x20),
            1 => self.below(0x800),
            2 => self.below(0x11_0000),
            3 => usize::from([b'"', b'\\', b'/', b'{'][self.below(4)]),
            _ => 0x20 + self.below(0x5f),
        };
        char::from_u32(code as u32).unwrap_or('x')
    }

    pub fn number(&mut self) -> String {
        if self.one_in(2) {
            return HOSTILE_NUMBERS[self.below(HOSTILE_NUMBERS.len())].to_owned();
        }
        let mut text = if self.one_in(3) { "-".to_owned() } else { String::new() };
        let most = if self.one_in(4) { 40 } else { 6 };
        match self.below(most) {
            0 => self.digits(&mut text, 1),
            // The first digit must not be zero.
            more => {
                text.push(char::from(b'1' + self.below(9) as u8));
                self.digits(&mut text, more);
            }
        }
        if self.one_in(3) {
            text.push('.');
            let digits = 1 + self.below(12);
            self.digits(&mut text, digits);
        }
        if self.one_in(4) {
            text.push_str(["e", "E", "e+", "e-"][self.below(4)]);
            text.push_str(&self.below(400).to_string());
        }
        text
    }

    fn digits(&mut self, text: &mut String, count: usize) {
        for _ in 0..count {
            text.push(char::from(b'0' + self.below(10) as u8));
        }
    }

    /// Writes a value in one of many possible forms: with spaces, escapes, and line breaks if `lines` is set.
    pub fn write(&mut self, tree: &Tree, lines: bool) -> String {
        let mut text = String::new();
        self.space(&mut text, lines);
        self.write_value(tree, lines, &mut text);
        self.space(&mut text, lines);
        text
    }

    fn write_value(&mut self, tree: &Tree, lines: bool, out: &mut String) {
        match tree {
            Tree::Null => out.push_str("null"),
            Tree::Boolean(value) => out.push_str(if *value { "true" } else { "false" }),
            Tree::Number(text) => out.push_str(text),
            Tree::String(text) => self.write_text(text, out),
            Tree::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    self.space(out, lines);
                    self.write_value(item, lines, out);
                    self.space(out, lines);
                }
                out.push(']');
            }
            Tree::Object(members) => {
                out.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    self.space(out, lines);
                    self.write_text(name, out);
                    self.space(out, lines);
                    out.push(':');
                    self.space(out, lines);
                    self.write_value(value, lines, out);
                    self.space(out, lines);
                }
                out.push('}');
            }
        }
    }

    fn space(&mut self, out: &mut String, lines: bool) {
        if self.one_in(6) {
            let spaces = [" ", "\t", "  ", "\n", "\r\n"];
            out.push_str(spaces[self.below(if lines { 5 } else { 3 })]);
        }
    }

    fn write_text(&mut self, text: &str, out: &mut String) {
        out.push('"');
        let escaped = self.one_in(3);
        for char in text.chars() {
            let short = match char {
                '"' => Some("\\\""),
                '\\' => Some("\\\\"),
                '/' if self.one_in(2) => Some("\\/"),
                '\n' => Some("\\n"),
                '\r' => Some("\\r"),
                '\t' => Some("\\t"),
                '\u{8}' => Some("\\b"),
                '\u{c}' => Some("\\f"),
                _ => None,
            };
            match short {
                Some(short) if !self.one_in(4) => out.push_str(short),
                None if char >= ' ' && !(escaped && self.one_in(3)) => out.push(char),
                _ => {
                    for unit in char.encode_utf16(&mut [0; 2]) {
                        let digits = format!("{unit:04x}");
                        out.push_str("\\u");
                        out.push_str(&if self.one_in(2) { digits.to_uppercase() } else { digits });
                    }
                }
            }
        }
        out.push('"');
    }

    /// Damages a text in a few places. The result may still be JSON.
    pub fn damage(&mut self, text: &str) -> Vec<u8> {
        const PARTS: [&[u8]; 24] = [
            b"\"",
            b"\\",
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b"0",
            b"-",
            b".",
            b"e",
            b"NaN",
            b"\\ud800",
            b"\\u",
            b"\xff",
            b"\0",
            b"\n",
            b"\xef\xbb\xbf",
            b"nul",
            b"1e99999999999999999999",
            b"/**/",
            b"'",
            b"\"a\":1,\"a\":1",
        ];
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..1 + self.below(3) {
            let at = self.below(bytes.len() + 1);
            match self.below(4) {
                0 => bytes.truncate(at),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 if at < bytes.len() => bytes[at] = self.draw() as u8,
                _ => drop(bytes.splice(at..at, PARTS[self.below(PARTS.len())].iter().copied())),
            }
        }
        bytes
    }
}

/// Reads text with the independent parser, as strictly as ours: without duplicate names in an object.
pub fn reference(bytes: &[u8]) -> Result<Tree, String> {
    let mut parser = SliceJsonParser::new(bytes);
    let mut open: Vec<(Tree, Option<String>)> = Vec::new();
    let mut whole = None;
    let mut nested = 0;
    loop {
        let event = parser.parse_next().map_err(|error| error.to_string())?;
        let done = match event {
            JsonEvent::Null => Tree::Null,
            JsonEvent::Boolean(value) => Tree::Boolean(value),
            JsonEvent::Number(text) => Tree::Number(text.into_owned()),
            JsonEvent::String(text) => Tree::String(text.into_owned()),
            JsonEvent::StartArray | JsonEvent::StartObject => {
                nested += 1;
                let empty =
                    if event == JsonEvent::StartArray { Tree::List(Vec::new()) } else { Tree::Object(Vec::new()) };
                open.push((empty, None));
                continue;
            }
            JsonEvent::ObjectKey(name) => {
                let Some((Tree::Object(members), pending)) = open.last_mut() else {
                    return Err("a name outside of an object".to_owned());
                };
                if members.iter().any(|(other, _)| *other == name) {
                    return Err(format!("`{name}` twice"));
                }
                *pending = Some(name.into_owned());
                continue;
            }
            JsonEvent::EndArray | JsonEvent::EndObject => {
                nested -= 1;
                open.pop().ok_or("an end without a start")?.0
            }
            JsonEvent::Eof => return whole.ok_or_else(|| "nothing".to_owned()),
        };
        debug_assert!(open.len() == nested);
        match open.last_mut() {
            None => whole = Some(done),
            Some((Tree::List(items), _)) => items.push(done),
            Some((Tree::Object(members), pending)) => {
                members.push((pending.take().ok_or("a value without a name")?, done))
            }
            Some(_) => return Err("a value inside a scalar".to_owned()),
        }
    }
}

impl Tree {
    /// Whether two trees are the same value: members in any order, and numbers by their digits, regardless of the
    /// spelling of the exponent (`1E+2` is `1e2`, but not `100`).
    pub fn is_same(&self, other: &Tree) -> bool {
        match (self, other) {
            (Tree::Number(left), Tree::Number(right)) => written(left) == written(right),
            (Tree::List(left), Tree::List(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.is_same(right))
            }
            (Tree::Object(left), Tree::Object(right)) => {
                left.len() == right.len()
                    && left.iter().all(|(name, value)| other.get(name).is_some_and(|found| value.is_same(found)))
            }
            _ => self == other,
        }
    }

    /// The member of that name.
    pub fn get(&self, name: &str) -> Option<&Tree> {
        match self {
            Tree::Object(members) => members.iter().find(|(other, _)| other == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The nesting depth of lists and objects.
    pub fn depth(&self) -> usize {
        match self {
            Tree::List(items) => 1 + items.iter().map(Tree::depth).max().unwrap_or(0),
            Tree::Object(members) => 1 + members.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// Converts a value of serde_json by walking it, without parsing any text.
    pub fn of(value: &serde_json::Value) -> Tree {
        match value {
            serde_json::Value::Null => Tree::Null,
            serde_json::Value::Bool(value) => Tree::Boolean(*value),
            serde_json::Value::Number(number) => Tree::Number(number.to_string()),
            serde_json::Value::String(text) => Tree::String(text.clone()),
            serde_json::Value::Array(items) => Tree::List(items.iter().map(Tree::of).collect()),
            serde_json::Value::Object(members) => {
                Tree::Object(members.iter().map(|(name, value)| (name.clone(), Tree::of(value))).collect())
            }
        }
    }
}

/// The text of a number, with a uniform spelling of its exponent.
fn written(text: &str) -> String {
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else { return text.to_owned() };
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", exponent.strip_prefix('+').unwrap_or(exponent)),
    };
    format!("{mantissa}e{sign}{digits}")
}

impl fmt::Display for Tree {
    /// As JSON, in its shortest form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn quoted(text: &str) -> String {
            serde_json::Value::from(text).to_string()
        }
        match self {
            Tree::Null => f.write_str("null"),
            Tree::Boolean(value) => write!(f, "{value}"),
            Tree::Number(text) => f.write_str(text),
            Tree::String(text) => f.write_str(&quoted(text)),
            Tree::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index > 0 { "," } else { "" })?;
                }
                f.write_str("]")
            }
            Tree::Object(members) => {
                f.write_str("{")?;
                for (index, (name, value)) in members.iter().enumerate() {
                    write!(f, "{}{}:{value}", if index > 0 { "," } else { "" }, quoted(name))?;
                }
                f.write_str("}")
            }
        }
    }
}
