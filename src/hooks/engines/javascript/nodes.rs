//! JSON text as a flat list of its values, with a hash of each value as JavaScript sees it.
//!
//! A tree of serde_json takes up to 70 bytes for a value of two bytes; this takes 24, with at most [`NODES_MAX`]
//! values.

use snaphook_driver::json;

use super::numbers::{infinite, value_of};
use crate::hooks::engines::handback::Printer;
use crate::memory;

/// Maximum number of values; a text with more is not read.
pub(super) const NODES_MAX: usize = 1_000_000;

/// Maximum nesting of lists and objects; stored data has at most 128.
const DEPTH_MAX: usize = 256;

/// Memory per value during a comparison: its node, and its entry in the maps of its list or object.
const NODE_WORK_BYTES: usize = 96;

/// Memory needed to compare a text.
pub(super) fn nodes_bytes(text: &str) -> usize {
    let values = memory::values(text.as_bytes());
    (values.all + values.named).min(NODES_MAX) * NODE_WORK_BYTES
}

/// Values in document order, each after its parents; a member's name comes before its value.
pub(super) struct Nodes<'a> {
    text: &'a str,
    nodes: Vec<Node>,
}

struct Node {
    start: u32,
    end: u32,
    /// Index of the first node outside of this one.
    next: u32,
    shape: Shape,
    print: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Number,
    Object,
    List,
    Other,
}

/// The kind of a node's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// With the bits of its value in JavaScript.
    Number(u64),
    Object,
    List,
    Other,
}

impl<'a> Nodes<'a> {
    /// Reads valid JSON. `marker`: the marker for an infinite number. `None`: too large or too deep.
    pub(super) fn read(text: &'a str, marker: &str) -> Option<Self> {
        u32::try_from(text.len()).ok()?;
        let mut reader = Reader { text, at: 0, marker, nodes: Vec::new(), printer: Printer::get() };
        reader.value(0)?;
        Some(Nodes { text, nodes: reader.nodes })
    }

    pub(super) fn text(&self, index: usize) -> &'a str {
        let (start, end) = self.range(index);
        &self.text[start..end]
    }

    pub(super) fn range(&self, index: usize) -> (usize, usize) {
        (self.nodes[index].start as usize, self.nodes[index].end as usize)
    }

    /// A hash that is the same for values that JavaScript cannot distinguish.
    pub(super) fn print(&self, index: usize) -> u64 {
        self.nodes[index].print
    }

    pub(super) fn kind(&self, index: usize) -> Kind {
        match self.nodes[index].shape {
            Shape::Number => {
                // A number written as a marker is infinite.
                let text = self.text(index);
                let value = match text.strip_prefix('"') {
                    Some(word) if word.ends_with("-\"") => f64::NEG_INFINITY,
                    Some(_) => f64::INFINITY,
                    None => value_of(text),
                };
                Kind::Number(value.to_bits())
            }
            Shape::Object => Kind::Object,
            Shape::List => Kind::List,
            Shape::Other => Kind::Other,
        }
    }

    /// The items of a list.
    pub(super) fn items(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        let end = self.nodes[index].next as usize;
        let mut at = index + 1;
        std::iter::from_fn(move || {
            let item = (at < end).then_some(at)?;
            at = self.nodes[item].next as usize;
            Some(item)
        })
    }

    /// The members of an object: the decoded name, and the value.
    pub(super) fn members(&self, index: usize) -> impl Iterator<Item = (u64, usize)> + '_ {
        let mut parts = self.items(index);
        std::iter::from_fn(move || {
            let name = parts.next()?;
            Some((self.nodes[name].print, parts.next()?))
        })
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    marker: &'a str,
    nodes: Vec<Node>,
    printer: &'static Printer,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Option<u64> {
        if self.nodes.len() >= NODES_MAX || depth > DEPTH_MAX {
            return None;
        }
        let first = self.peek()?;
        let (start, index) = (self.at, self.nodes.len());
        self.nodes.push(Node { start: start as u32, end: 0, next: 0, shape: Shape::Other, print: 0 });
        let (shape, print) = match first {
            b'{' => (Shape::Object, self.object(depth)?),
            b'[' => (Shape::List, self.list(depth)?),
            b'"' => {
                self.at = end_of_text(self.text.as_bytes(), self.at);
                let quoted = self.text.get(start..self.at)?;
                match infinite(quoted, self.marker) {
                    Some(value) => (Shape::Number, self.printer.number(value.to_bits())),
                    None => (Shape::Other, self.printer.text(&json::unquote(quoted)?)),
                }
            }
            b'-' | b'0'..=b'9' => {
                self.at = end_of_number(self.text.as_bytes(), self.at);
                (Shape::Number, self.printer.number(value_of(&self.text[start..self.at]).to_bits()))
            }
            _ => {
                let rest = &self.text[start..];
                let word = ["null", "true", "false"].into_iter().find(|word| rest.starts_with(word))?;
                self.at += word.len();
                (Shape::Other, self.printer.word(word))
            }
        };
        let next = self.nodes.len() as u32;
        let node = &mut self.nodes[index];
        (node.end, node.next, node.shape, node.print) = (self.at as u32, next, shape, print);
        Some(print)
    }

    fn list(&mut self, depth: usize) -> Option<u64> {
        let mut all = 0;
        self.at += 1;
        while self.peek()? != b']' {
            let item = self.value(depth + 1)?;
            all = self.printer.item(all, item);
            if self.peek()? == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
        Some(self.printer.list(all))
    }

    fn object(&mut self, depth: usize) -> Option<u64> {
        let mut all: u64 = 0;
        self.at += 1;
        while self.peek()? != b'}' {
            let name = self.name()?;
            if self.peek()? != b':' {
                return None;
            }
            self.at += 1;
            let value = self.value(depth + 1)?;
            all = all.wrapping_add(self.printer.member(name, value));
            if self.peek()? == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
        Some(self.printer.object(all))
    }

    fn name(&mut self) -> Option<u64> {
        let start = self.at;
        if self.nodes.len() >= NODES_MAX || self.text.as_bytes()[start] != b'"' {
            return None;
        }
        self.at = end_of_text(self.text.as_bytes(), start);
        let print = self.printer.text(&json::unquote(self.text.get(start..self.at)?)?);
        let next = self.nodes.len() as u32 + 1;
        self.nodes.push(Node { start: start as u32, end: self.at as u32, next, shape: Shape::Other, print });
        Some(print)
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at)?.is_ascii_whitespace() {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }
}

/// A token of JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Number,
    /// With its quotes; names of members too.
    Text,
}

/// All numbers and texts with their positions.
pub(super) fn tokens(json: &str) -> impl Iterator<Item = (Token, usize, usize)> {
    let bytes = json.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(byte) = bytes.get(at) {
            let start = at;
            match byte {
                b'"' => {
                    at = end_of_text(bytes, at);
                    return Some((Token::Text, start, at));
                }
                b'-' | b'0'..=b'9' => {
                    at = end_of_number(bytes, at);
                    return Some((Token::Number, start, at));
                }
                _ => at += 1,
            }
        }
        None
    })
}

fn end_of_number(bytes: &[u8], start: usize) -> usize {
    let length = bytes[start..].iter().position(|byte| !matches!(byte, b'-' | b'+' | b'.' | b'0'..=b'9' | b'e' | b'E'));
    length.map_or(bytes.len(), |length| start + length)
}

fn end_of_text(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}
