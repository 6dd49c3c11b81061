//! Parses bodies of writes strictly: UTF-8, one JSON value and nothing after it, no unknown or duplicate members.
//!
//! Values inside stay text: nesting of any depth is skipped without recursion. `data` is checked by
//! [`crate::catalog::document`].

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use snaphook_driver::{Json, json};

use super::error::{Error, Result};
use crate::catalog::document::type_name;
use crate::catalog::rules::RulesInput;

/// A new instance in a request: `{id?, data}`.
#[derive(Clone, Debug, PartialEq)]
pub struct NewInstance {
    pub id: Option<String>,
    pub data: Json,
}

/// Reads the body of `POST …/instances`.
pub fn new_instance(bytes: &[u8]) -> Result<NewInstance> {
    named_instance("body", bytes)
}

/// Reads one line of an import, which has the same form.
pub(super) fn line(bytes: &[u8]) -> Result<NewInstance> {
    named_instance("line", bytes)
}

fn named_instance(what: &str, bytes: &[u8]) -> Result<NewInstance> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body<'a> {
        #[serde(default, deserialize_with = "present")]
        id: Option<String>,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let body: Body<'_> = parse(what, bytes)?;
    Ok(NewInstance { id: body.id, data: Json::trusted(body.data.get()) })
}

/// An optional member that must not be null.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// Reads the body of `PUT …/instances/{id}`: `{data}`.
pub fn replacement(bytes: &[u8]) -> Result<Json> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let body: Body<'_> = body(bytes)?;
    Ok(Json::trusted(body.data.get()))
}

/// `renames` of a model's change: `{"old": "new"}`.
#[derive(Debug, Default, Deserialize)]
pub struct Renames(json::Tree);

impl Renames {
    /// Old and new names, in their order.
    pub fn pairs(self) -> Result<Vec<(String, String)>> {
        let members = match self.0.0 {
            Value::Null => return Ok(Vec::new()),
            Value::Object(members) => members,
            other => {
                let found = type_name(&other);
                return Err(Error::bad_request(format!(
                    "`renames` is {found}, expected an object of old and new names"
                )));
            }
        };
        let pairs = members.into_iter().map(|(old, new)| match new {
            Value::String(new) => Ok((old, new)),
            other => Err(Error::bad_request(format!("`renames` has `{other}` for `{old}`, expected the new name"))),
        });
        pairs.collect()
    }
}

/// `rules` of a model: absent, null, or an object that is checked with its schema.
#[derive(Debug, Default)]
pub struct NewRules(RulesInput);

impl NewRules {
    pub fn into_input(self) -> RulesInput {
        self.0
    }
}

impl<'de> Deserialize<'de> for NewRules {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<NewRules, D::Error> {
        let json::Tree(rules) = json::Tree::deserialize(deserializer)?;
        Ok(NewRules(match rules {
            Value::Null => RulesInput::Remove,
            rules => RulesInput::Set(Json::from_value(&rules)),
        }))
    }
}

/// Reads one JSON value of any type and keeps its text.
pub fn value(bytes: &[u8]) -> Result<Json> {
    let raw: &RawValue = body(bytes)?;
    Ok(Json::trusted(raw.get()))
}

/// Reads one JSON value into `T`, which should reject unknown members.
pub fn body<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    parse("body", bytes)
}

fn parse<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T> {
    let text = json::utf8(bytes).map_err(|error| match error.fault() {
        json::Fault::ByteOrderMark => Error::bad_request(format!("the {what} begins with {}", error.fault())),
        fault => Error::bad_request(format!("the {what} is {fault}")),
    })?;
    if text.trim_ascii().is_empty() {
        return Err(Error::bad_request(format!("the {what} is empty, expected JSON")));
    }
    json::typed(text).map_err(|error| {
        let fault = if error.is_data() { "does not fit" } else { "is not JSON" };
        Error::bad_request(format!("the {what} {fault}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(body: &[u8], expected: &str) {
        let error = new_instance(body).expect_err("must be refused");
        assert_eq!(error.kind, super::super::ErrorKind::BadRequest);
        assert!(error.detail.contains(expected), "{} lacks {expected}", error.detail);
    }

    #[test]
    fn takes_data_as_text() {
        let text = br#" {"data": {"n": 12345678901234567890.123456789,  "s":"\u00e9"} , "id":"a"} "#;
        let new = new_instance(text).expect("valid");
        assert_eq!(new.id.as_deref(), Some("a"));
        assert_eq!(&*new.data, r#"{"n": 12345678901234567890.123456789,  "s":"\u00e9"}"#);
        assert_eq!(new_instance(br#"{"data":1}"#).expect("valid").id, None);
        assert_eq!(&*replacement(br#"{"data":[1e400]}"#).expect("valid"), "[1e400]");
    }

    #[test]
    fn refuses_what_does_not_fit() {
        refused(b"", "is empty");
        refused(b" \n", "is empty");
        refused(br#"{"data":1} x"#, "trailing");
        refused(br#"{"data":1,}"#, "trailing comma");
        refused(br#"{"data":1,"data":2}"#, "duplicate field `data`");
        refused(br#"{"data":1,"foo":2}"#, "unknown field `foo`");
        refused(br#"{"id":"a"}"#, "missing field `data`");
        refused(br#"{"id":5,"data":{}}"#, "expected a string");
        refused(br#"{"id":null,"data":{}}"#, "expected a string");
        refused("\u{feff}{\"data\":{}}".as_bytes(), "byte order mark");
        refused(br"[1]", "does not fit");
        refused(b"{\"data\":\"\xff\"}", "offset 9");
        refused(b"{\"data\":\"a\nb\"}", "control character");
        refused(br#"{"data":01}"#, "not JSON");
        refused(br#"{"data":NaN}"#, "not JSON");
        refused("[".repeat(1_000_000).as_bytes(), "the body");
        refused(r#"{"data":"#.repeat(1_000_000).as_bytes(), "not JSON");
    }

    #[test]
    fn any_depth_passes_without_recursion() {
        let text = format!(r#"{{"data":{}{}}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert!(new_instance(text.as_bytes()).is_ok());
    }
}
