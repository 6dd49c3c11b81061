//! Reads the JSON of a client or a hook member by member: every error has a pointer, the value found and what is expected.
//!
//! Values stay text until they are needed, so nesting of any depth is skipped without recursion. serde_json parses the
//! text, but its messages, which name types of this program, never reach a client.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use snaphook_driver::json;

use super::definition_error::escape;
use super::field_error::FieldError;

/// How many members of one object are kept: more than any object of the API has.
const MEMBERS_MAX: usize = 32;
/// The same where the length of the text is the only limit.
const ANY: usize = usize::MAX;
/// How many characters of a name or a word a message quotes.
const QUOTED_CHARS_MAX: usize = 80;

type Result<T, E = FieldError> = std::result::Result<T, E>;

/// One JSON value and its position in the body.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    pointer: String,
    text: &'a str,
    /// Whether the text is known to be JSON, as a part of a larger one that was read.
    is_json: bool,
}

/// The members of an object; taking one removes it.
#[derive(Debug)]
pub struct Members<'a> {
    pointer: String,
    members: Vec<(Cow<'a, str>, &'a str)>,
}

impl<'a> Part<'a> {
    /// A whole body, which need not be JSON.
    pub fn whole(text: &'a str) -> Part<'a> {
        Part { pointer: String::new(), text, is_json: false }
    }

    /// An object with no other members than `known`.
    pub fn members(&self, known: &[&str]) -> Result<Members<'a>> {
        if self.first() != b'{' {
            return Err(self.not("an object"));
        }
        let Object::<MEMBERS_MAX> { members, more } = json::typed(self.text).map_err(|_| self.broken())?;
        let pointer = |name: &str| format!("{}/{}", self.pointer, escape(name));
        for (row, (name, _)) in members.iter().enumerate() {
            if !known.contains(&&**name) {
                let expected = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
                let message = format!("is unknown, expected {}", either(&expected));
                return Err(FieldError { pointer: pointer(&shown(name)), message });
            }
            if members[..row].iter().any(|(other, _)| other == name) {
                return Err(FieldError { pointer: pointer(name), message: "appears twice".to_owned() });
            }
        }
        if more {
            return Err(self.fault(format!("has more than {MEMBERS_MAX} members")));
        }
        let members = members.into_iter().map(|(name, value)| (name, value.get())).collect();
        Ok(Members { pointer: self.pointer.clone(), members })
    }

    /// An object with any members. A name that is there twice is not an error; [`Members::take`] takes the first.
    pub fn any_members(&self) -> Result<Members<'a>> {
        if !self.is_object() {
            return Err(self.not("an object"));
        }
        let Object::<ANY> { members, .. } = json::typed(self.text).map_err(|_| self.broken())?;
        let members = members.into_iter().map(|(name, value)| (name, value.get())).collect();
        Ok(Members { pointer: self.pointer.clone(), members })
    }

    /// An array with one item for each of `names`. Errors about an item have its name as the pointer.
    pub fn named_items<const COUNT: usize>(&self, names: [&str; COUNT]) -> Result<[Part<'a>; COUNT]> {
        let mut items = self.items::<COUNT>("an array")?;
        for (item, name) in items.iter_mut().zip(names) {
            name.clone_into(&mut item.pointer);
        }
        items.try_into().map_err(|items: Vec<_>| self.fault(format!("has {} items, expected {COUNT}", items.len())))
    }

    /// An array of at most `MAX` items. Further items are skipped, which bounds the memory.
    pub fn items<const MAX: usize>(&self, expected: &str) -> Result<Vec<Part<'a>>> {
        if self.first() != b'[' {
            return Err(self.not(expected));
        }
        let Items::<MAX> { items, more } = json::typed(self.text).map_err(|_| self.broken())?;
        if more {
            return Err(self.fault(format!("has more than {MAX} items")));
        }
        let item = |(row, value): (usize, &'a RawValue)| Part {
            pointer: format!("{}/{row}", self.pointer),
            text: value.get(),
            is_json: true,
        };
        Ok(items.into_iter().enumerate().map(item).collect())
    }

    /// An array of strings.
    pub fn names<const MAX: usize>(&self) -> Result<Vec<String>> {
        self.items::<MAX>("a list of strings")?.iter().map(Part::string).collect()
    }

    /// A string.
    pub fn string(&self) -> Result<String> {
        if self.first() != b'"' {
            return Err(self.not("a string"));
        }
        json::unquote(self.text.trim_ascii()).map(Cow::into_owned).ok_or_else(|| self.broken())
    }

    /// One of a few words.
    pub fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T> {
        let expected = || either(&words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>());
        if self.first() != b'"' {
            return Err(self.not(&expected()));
        }
        let found = self.string()?;
        let known = words.iter().find(|(word, _)| *word == found).map(|(_, value)| *value);
        known.ok_or_else(|| self.fault(format!("is `{}`, expected {}", shown(&found), expected())))
    }

    /// A whole number of at most 32 bits.
    pub fn number(&self) -> Result<u32> {
        self.text.trim_ascii().parse().map_err(|_| self.not("a whole number"))
    }

    /// A whole number from 0 of at most 64 bits.
    pub fn large_number(&self) -> Result<u64> {
        self.text.trim_ascii().parse().map_err(|_| self.not("a whole number from 0"))
    }

    /// Any value, as a tree.
    pub fn tree(&self) -> Result<Value> {
        json::parse(self.text).map_err(|_| self.broken())
    }

    /// Any value, as the text that it is.
    pub fn raw(&self) -> Result<&'a str> {
        if self.is_json {
            return Ok(self.text);
        }
        json::typed::<&RawValue>(self.text).map(RawValue::get).map_err(|_| self.broken())
    }

    /// The value, if it is not null.
    pub fn set(self) -> Option<Part<'a>> {
        (!self.is_null()).then_some(self)
    }

    pub fn is_null(&self) -> bool {
        self.first() == b'n'
    }

    pub fn is_object(&self) -> bool {
        self.first() == b'{'
    }

    /// An error about this value.
    pub fn fault(&self, message: impl Into<String>) -> FieldError {
        FieldError { pointer: self.pointer.clone(), message: message.into() }
    }

    /// An error about a member of this value.
    pub fn member_fault(&self, name: &str, message: impl Into<String>) -> FieldError {
        FieldError { pointer: format!("{}/{}", self.pointer, escape(name)), message: message.into() }
    }

    /// The error for a value other than the expected one.
    pub fn not(&self, expected: &str) -> FieldError {
        if let Err(error) = json::check(self.text) {
            return self.fault(self.not_json(&error));
        }
        let found = match self.first() {
            b'{' => "an object",
            b'[' => "an array",
            b'"' => "a string",
            b't' | b'f' => "a boolean",
            b'n' => "null",
            _ => "a number",
        };
        self.fault(format!("is {found}, expected {expected}"))
    }

    fn broken(&self) -> FieldError {
        self.fault(match json::check(self.text) {
            Err(error) => self.not_json(&error),
            // The two parsers disagree, which should never happen.
            Ok(()) => "cannot be read as JSON".to_owned(),
        })
    }

    fn not_json(&self, error: &json::JsonError) -> String {
        match self.pointer.is_empty() {
            true => format!("is not JSON: {error}"),
            // Lines are those of the body, not of a part of it.
            false => format!("is not JSON: {}", error.fault()),
        }
    }

    fn first(&self) -> u8 {
        self.text.trim_ascii_start().bytes().next().unwrap_or(b' ')
    }
}

impl<'a> Members<'a> {
    /// A member, if present.
    pub fn take(&mut self, name: &str) -> Option<Part<'a>> {
        let row = self.members.iter().position(|(known, _)| known == name)?;
        let (_, text) = self.members.swap_remove(row);
        Some(Part { pointer: self.pointer_of(name), text, is_json: true })
    }

    /// A member, if present and not null.
    pub fn set(&mut self, name: &str) -> Option<Part<'a>> {
        self.take(name).filter(|part| !part.is_null())
    }

    /// A required member.
    pub fn need(&mut self, name: &str, expected: &str) -> Result<Part<'a>> {
        let missing =
            FieldError { pointer: self.pointer_of(name), message: format!("is missing, expected {expected}") };
        self.take(name).ok_or(missing)
    }

    /// All members, in their order.
    pub fn all(self) -> Vec<(String, Part<'a>)> {
        let pointer = self.pointer;
        let part = |(name, text): (Cow<'a, str>, &'a str)| {
            let part = Part { pointer: format!("{pointer}/{}", escape(&name)), text, is_json: true };
            (name.into_owned(), part)
        };
        self.members.into_iter().map(part).collect()
    }

    fn pointer_of(&self, name: &str) -> String {
        format!("{}/{}", self.pointer, escape(name))
    }
}

/// `a`, `a or b`, `a, b or c`.
fn either(words: &[String]) -> String {
    match words {
        [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        words => words.concat(),
    }
}

fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// The first members of an object.
#[derive(Debug)]
struct Object<'a, const MAX: usize> {
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
    more: bool,
}

/// A name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a, const MAX: usize> Deserialize<'de> for Object<'a, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First<const MAX: usize>;
        impl<'de, const MAX: usize> Visitor<'de> for First<MAX> {
            type Value = Object<'de, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut object = Object { members: Vec::new(), more: false };
                while object.members.len() < MAX {
                    let Some((Name(name), value)) = map.next_entry()? else { return Ok(object) };
                    object.members.push((name, value));
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    object.more = true;
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(First::<MAX>)
    }
}

/// The first items of an array.
#[derive(Debug)]
struct Items<'a, const MAX: usize> {
    items: Vec<&'a RawValue>,
    more: bool,
}

impl<'de: 'a, 'a, const MAX: usize> Deserialize<'de> for Items<'a, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First<const MAX: usize>;
        impl<'de, const MAX: usize> Visitor<'de> for First<MAX> {
            type Value = Items<'de, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
                let mut found = Items { items: Vec::new(), more: false };
                while found.items.len() < MAX {
                    let Some(item) = sequence.next_element()? else { return Ok(found) };
                    found.items.push(item);
                }
                while sequence.next_element::<IgnoredAny>()?.is_some() {
                    found.more = true;
                }
                Ok(found)
            }
        }
        deserializer.deserialize_seq(First::<MAX>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<T: fmt::Debug>(result: Result<T>) -> String {
        let error = result.unwrap_err();
        format!("{}: {}", error.pointer, error.message)
    }

    #[test]
    fn members_are_taken_by_name() {
        let body = Part::whole(r#" {"a": "\u00e9\n", "b": [1, {"c": null}], "n": 7, "d": null} "#);
        let mut members = body.members(&["a", "b", "n", "d", "e"]).unwrap();
        assert_eq!(members.need("a", "").unwrap().string().unwrap(), "é\n");
        let items = members.take("b").unwrap().items::<2>("a list").unwrap();
        assert_eq!((items[0].raw().unwrap(), items[1].raw().unwrap()), ("1", r#"{"c": null}"#));
        assert_eq!(items[1].members(&["c"]).unwrap().take("c").unwrap().pointer, "/b/1/c");
        assert_eq!(members.take("n").unwrap().tree().unwrap(), 7);
        assert!(members.set("d").is_none() && members.take("e").is_none() && members.take("a").is_none());
    }

    #[test]
    fn each_fault_says_where_and_what_is_expected() {
        let members = |text: &'static str| Part::whole(text).members(&["a", "b/c"]);
        for (text, expected) in [
            ("[1]", ": is an array, expected an object"),
            ("\"x\"", ": is a string, expected an object"),
            ("5", ": is a number, expected an object"),
            ("null", ": is null, expected an object"),
            ("true", ": is a boolean, expected an object"),
            ("nil", ": is not JSON: expected a value at line 1 column 1"),
            ("[1", ": is not JSON: the text ends inside a value at line 1 column 3"),
            (r#"{"a":1"#, ": is not JSON: the text ends inside a value at line 1 column 7"),
            (r#"{"a":1} x"#, ": is not JSON: trailing characters after the value at line 1 column 9"),
            (r#"{"a":1,"x~/":2}"#, "/x~0~1: is unknown, expected `a` or `b/c`"),
            (r#"{"a":1,"a":2}"#, "/a: appears twice"),
            (r#"{"$serde_json::private::Number":"1"}"#, "/$serde_json::private::Number: is unknown, expected"),
        ] {
            let found = said(members(text));
            assert!(found.starts_with(expected), "{text}: {found}");
        }
        let a = |text: &'static str| members(text).unwrap().need("a", "a string").unwrap();
        assert_eq!(said(members("{}").unwrap().need("b/c", "a string")), "/b~1c: is missing, expected a string");
        assert_eq!(said(a(r#"{"a":5}"#).string()), "/a: is a number, expected a string");
        assert_eq!(
            said(a(r#"{"a":"\ud800"}"#).string()),
            "/a: is not JSON: an escape is half of a surrogate pair (\\ud800 to \\udfff), which is not valid Unicode"
        );
        assert_eq!(said(a(r#"{"a":[1,2,3]}"#).items::<2>("a list")), "/a: has more than 2 items");
        assert_eq!(said(a(r#"{"a":{}}"#).items::<2>("a list")), "/a: is an object, expected a list");
        assert_eq!(said(a(r#"{"a":["x",1]}"#).names::<9>()), "/a/1: is a number, expected a string");
        assert_eq!(said(a(r#"{"a":"z"}"#).word(&[("x", 1), ("y", 2)])), "/a: is `z`, expected `x` or `y`");
        assert_eq!(said(a(r#"{"a":1.5}"#).number()), "/a: is a number, expected a whole number");
        assert_eq!(
            said(a(r#"{"a":{"b":1,"b":2}}"#).tree()),
            "/a: is not JSON: property `b` appears twice in one object"
        );
    }

    #[test]
    fn arguments_have_names() {
        let items = |text: &'static str| Part::whole(text).named_items(["model", "position", "more"]);
        let [model, position, more] = items(r#"["m", 18446744073709551615, null]"#).unwrap();
        assert_eq!((model.string().unwrap().as_str(), position.large_number().unwrap()), ("m", u64::MAX));
        assert!(more.set().is_none() && model.set().is_some());
        let [model, position, more] = items(r#"[null, -1, {"a":[1]}]"#).unwrap();
        assert_eq!(said(model.string()), "model: is null, expected a string");
        assert_eq!(said(position.large_number()), "position: is a number, expected a whole number from 0");
        let mut members = more.any_members().unwrap();
        assert_eq!(said(members.take("a").unwrap().names::<9>()), "more/a/0: is a number, expected a string");
        assert_eq!(said(items("[1, 2]")), ": has 2 items, expected 3");
        assert_eq!(said(items("[1, 2, 3, 4]")), ": has more than 3 items");
        assert_eq!(said(items("{}")), ": is an object, expected an array");
        let all = Part::whole(r#"{"b":"1","a/c":2}"#).any_members().unwrap().all();
        assert_eq!((all[0].0.as_str(), all[0].1.string().unwrap().as_str()), ("b", "1"));
        assert_eq!(said(all[1].1.string()), "/a~1c: is a number, expected a string");
        assert_eq!(said(Part::whole("[]").any_members()), ": is an array, expected an object");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many: String = (0..10_000).map(|n| format!("\"m{n}\":1,")).collect();
        let text = format!("{{{many}\"a\":1}}");
        assert!(said(Part::whole(&text).members(&["a"])).contains("is unknown"));
        let text = format!("{{\"a\":{}{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert!(Part::whole(&text).members(&["a"]).is_ok());
        let text = r#"{"a":"#.repeat(1_000_000);
        assert!(said(Part::whole(&text).members(&["a"])).contains("is not JSON"));
        let name = "x".repeat(100_000);
        assert!(said(Part::whole(&format!("{{\"{name}\":1}}")).members(&["a"])).len() < 300);
    }
}
