//! Parses bodies of writes strictly: UTF-8, one JSON value and nothing after it, no unknown or duplicate members.
//!
//! Values inside stay text: nesting of any depth is skipped without recursion. `data` is checked by
//! [`crate::catalog::document`].

use serde_json::Value;
use snaphook_driver::{Json, json};

use super::error::{Error, Result};
use crate::catalog::document::type_name;
use crate::catalog::rules::RulesInput;
use crate::catalog::{FieldError, Members, ModelInput, Part, UniqueList};

/// Lists of `indexes`, and names in one, that are read; how many a model may have is checked with its schema.
const LISTS_READ_MAX: usize = 1000;

/// A new instance in a request: `{id?, data}`.
#[derive(Clone, Debug, PartialEq)]
pub struct NewInstance {
    pub id: Option<String>,
    pub data: Json,
}

/// Reads the body of `POST …/instances`.
pub fn new_instance(bytes: &[u8]) -> Result<NewInstance> {
    named_instance(body(bytes)?).map_err(Error::from)
}

/// Reads one line of an import, which has the same form.
pub(super) fn line(bytes: &[u8]) -> Result<NewInstance> {
    named_instance(part("line", bytes)?).map_err(|fault| misfit("line", fault))
}

fn named_instance(part: Part<'_>) -> Result<NewInstance, FieldError> {
    let mut members = part.members(&["id", "data"])?;
    let id = members.take("id").map(|id| id.string()).transpose()?;
    let data = members.need("data", "the instance's data")?;
    Ok(NewInstance { id, data: Json::trusted(data.raw()?) })
}

/// Reads the body of `PUT …/instances/{id}`: `{data}`.
pub fn replacement(bytes: &[u8]) -> Result<Json> {
    let mut members = body(bytes)?.members(&["data"])?;
    let data = members.need("data", "the instance's data")?;
    Ok(Json::trusted(data.raw()?))
}

/// Reads the body of `POST /models`: the model's id and its definition.
pub fn new_model(bytes: &[u8]) -> Result<(String, ModelInput)> {
    let body = body(bytes)?;
    let mut members = body.members(&["id", "schema", "indexes", "unique", "rules"])?;
    let id = members.need("id", "the model's id")?.string()?;
    Ok((id, definition(&mut members)?))
}

/// Reads the body of `PUT /models/{model}`: the next version of a model. A model's file has the same members.
pub fn model_version(bytes: &[u8]) -> Result<ModelInput> {
    let body = body(bytes)?;
    let mut members = body.members(&["schema", "indexes", "unique", "renames", "rules"])?;
    Ok(definition(&mut members)?)
}

fn definition(members: &mut Members<'_>) -> Result<ModelInput, FieldError> {
    let schema = members.need("schema", "a JSON Schema of type object")?;
    let schema = Some(Json::trusted(schema.raw()?));
    let indexes = match members.take("indexes") {
        None => Vec::new(),
        Some(lists) => {
            let lists = lists.items::<LISTS_READ_MAX>("a list of lists of property names")?;
            lists.iter().map(index).collect::<Result<_, _>>()?
        }
    };
    let unique = members.take("unique").map(|lists| UniqueList::read_all(&lists)).transpose()?.unwrap_or_default();
    let renames = members.set("renames").map(|renames| pairs(&renames)).transpose()?.unwrap_or_default();
    let rules = match members.take("rules") {
        None => RulesInput::Keep,
        Some(rules) if rules.is_null() => RulesInput::Remove,
        Some(rules) => RulesInput::Set(Json::from_value(&rules.tree()?)),
    };
    Ok(ModelInput { schema, indexes, unique, renames, rules })
}

fn index(list: &Part<'_>) -> Result<Vec<String>, FieldError> {
    list.names::<LISTS_READ_MAX>().map_err(|fault| match list.string() {
        Ok(name) if name.len() <= 100 => {
            let name = Value::from(name);
            list.not(&format!("a list of property names: write `[{name}]` for an index on one property"))
        }
        _ => fault,
    })
}

/// `{"old": "new"}`, in the order in which they stand.
fn pairs(renames: &Part<'_>) -> Result<Vec<(String, String)>, FieldError> {
    const EXPECTED: &str = "an object of old and new names";
    let Value::Object(members) = renames.tree()? else { return Err(renames.not(EXPECTED)) };
    let pairs = members.into_iter().map(|(old, new)| match new {
        Value::String(new) => Ok((old, new)),
        other => Err(renames.member_fault(&old, format!("is {}, expected the new name", type_name(&other)))),
    });
    pairs.collect()
}

/// Reads any one JSON value and keeps its text.
pub fn value(bytes: &[u8]) -> Result<Json> {
    Ok(Json::trusted(body(bytes)?.raw()?))
}

/// A body that is text. Whether it is JSON shows when it is read.
pub fn body(bytes: &[u8]) -> Result<Part<'_>> {
    part("body", bytes)
}

fn part<'a>(what: &str, bytes: &'a [u8]) -> Result<Part<'a>> {
    let text = json::utf8(bytes).map_err(|error| match error.fault() {
        json::Fault::ByteOrderMark => Error::bad_request(format!("the {what} begins with {}", error.fault())),
        fault => Error::bad_request(format!("the {what} is {fault}")),
    })?;
    if text.trim_ascii().is_empty() {
        return Err(Error::bad_request(format!("the {what} is empty, expected JSON")));
    }
    Ok(Part::whole(text))
}

fn misfit(what: &str, fault: FieldError) -> Error {
    let FieldError { pointer, message } = &fault;
    match pointer.is_empty() {
        true => Error::bad_request(format!("the {what} {message}")),
        false => Error::bad_request(format!("the {what} does not fit: `{pointer}` {message}")).with_errors(vec![fault]),
    }
}

/// Of a body.
impl From<FieldError> for Error {
    fn from(fault: FieldError) -> Self {
        misfit("body", fault)
    }
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
        refused(br#"{"data":1,"data":2}"#, "`/data` appears twice");
        refused(br#"{"data":1,"foo":2}"#, "`/foo` is unknown, expected `id` or `data`");
        refused(br#"{"id":"a"}"#, "`/data` is missing, expected the instance's data");
        refused(br#"{"id":5,"data":{}}"#, "expected a string");
        refused(br#"{"id":null,"data":{}}"#, "expected a string");
        refused("\u{feff}{\"data\":{}}".as_bytes(), "byte order mark");
        refused(br"[1]", "the body is an array, expected an object");
        refused(br#"["a", {}]"#, "is an array");
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

    #[test]
    fn definitions_are_answered_with_the_form_that_works() {
        for (members, expected) in [
            (
                r#""schema":{},"unique":["email"]"#,
                r#"`/unique/0` is a string, expected a list of property names: write `"unique": [["email"]]`"#,
            ),
            (
                r#""schema":{},"indexes":["email"]"#,
                r#"`/indexes/0` is a string, expected a list of property names: write `["email"]`"#,
            ),
            (r#""schema":{},"indexes":{}"#, "`/indexes` is an object, expected a list of lists of property names"),
            (r#""schema":{},"renames":{"a/b":5}"#, "`/renames/a~1b` is a number, expected the new name"),
            (r#""schema":{},"renames":[]"#, "`/renames` is an array, expected an object of old and new names"),
            (r#""schema":{},"rules":{"read":{},"read":{}}"#, "`/rules` is not JSON: property `read` appears twice"),
            (r#""indexes":[]"#, "`/schema` is missing, expected a JSON Schema of type object"),
        ] {
            let error = model_version(format!("{{{members}}}").as_bytes()).expect_err("must be refused");
            assert!(error.detail.contains(expected), "{members}: {}", error.detail);
        }
        let text = br#"{"schema":{},"renames":null,"rules":null,"unique":[{"properties":["a"],"collation":"nocase"}]}"#;
        let input = model_version(text).expect("valid");
        assert!(input.renames.is_empty() && matches!(input.rules, RulesInput::Remove), "{input:?}");
        assert_eq!(input.unique[0].list.properties, ["a"]);
        assert!(matches!(model_version(br#"{"schema":{}}"#).expect("valid").rules, RulesInput::Keep));
    }
}
