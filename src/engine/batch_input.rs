//! The body of `POST /batch`, parsed as strictly as those of single writes ([`super::input`]). Each error has its
//! pointer.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use snaphook_driver::{Json, json};

use super::command::Change;
use super::error::{Error, Result};
use super::input;
use crate::catalog::FieldError;

/// Operations of one batch.
pub const OPERATIONS_MAX: usize = 100;

/// An operation in a request.
#[derive(Clone, Debug)]
pub struct NewOperation {
    pub model: String,
    pub change: Change,
    /// An entity tag with its quotes.
    pub if_match: Option<String>,
}

/// Reads the body: `{operations: [{op, model, id?, data?, if_match?}]}`.
pub fn batch(bytes: &[u8]) -> Result<Vec<NewOperation>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body<'a> {
        #[serde(borrow)]
        operations: Operations<'a>,
    }
    let Body { operations } = input::body(bytes)?;
    if operations.count == 0 || operations.count > OPERATIONS_MAX {
        let found = if operations.count == 0 { "none".to_owned() } else { format!("more than {OPERATIONS_MAX}") };
        let message = format!("a batch has 1 to {OPERATIONS_MAX} operations, this one has {found}");
        return Err(wrong("/operations".to_owned(), message));
    }
    operations.first.iter().enumerate().map(|(index, operation)| read(index, operation.get())).collect()
}

fn read(index: usize, text: &str) -> Result<NewOperation> {
    let at = |name: &str| format!("/operations/{index}{}{}", if name.is_empty() { "" } else { "/" }, escape(name));
    let Members(members) =
        json::typed(text).map_err(|error| wrong(at(""), format!("an operation does not fit: {error}")))?;
    let (mut op, mut model, mut id, mut data, mut if_match) = (None, None, None, None, None);
    for (name, value) in members {
        let text = || {
            let text = json::typed::<String>(value.get());
            text.map_err(|_| wrong(at(&name), format!("`{name}` is not a string")))
        };
        match &*name {
            "op" => op = Some(text()?),
            "model" => model = Some(text()?),
            "id" => id = Some(text()?),
            "if_match" => if_match = Some(text()?),
            "data" => data = Some(Json::trusted(value.get())),
            _ => {
                let shown: String = name.chars().take(80).collect();
                let message =
                    format!("unknown member `{shown}`, an operation has `op`, `model`, `id`, `data`, `if_match`");
                return Err(wrong(at(&shown), message));
            }
        }
    }
    let missing = |name: &str| wrong(at(name), format!("`{name}` is missing"));
    let op = op.ok_or_else(|| missing("op"))?;
    let model = model.ok_or_else(|| missing("model"))?;
    let change = match &*op {
        "create" => {
            if if_match.is_some() {
                return Err(wrong(at("if_match"), "an instance that is to be created has no entity tag".to_owned()));
            }
            Change::Create { id, data: data.ok_or_else(|| missing("data"))? }
        }
        "update" => Change::Replace {
            id: id.ok_or_else(|| missing("id"))?,
            data: data.ok_or_else(|| missing("data"))?,
            create: false,
        },
        "patch" => Change::Patch { id: id.ok_or_else(|| missing("id"))?, patch: data.ok_or_else(|| missing("data"))? },
        "delete" => {
            if data.is_some() {
                return Err(wrong(at("data"), "a deletion has no data".to_owned()));
            }
            Change::Delete { id: id.ok_or_else(|| missing("id"))? }
        }
        other => {
            let shown: String = other.chars().take(40).collect();
            let message = format!("`op` is `{shown}`, expected create, update, patch or delete");
            return Err(wrong(at("op"), message));
        }
    };
    Ok(NewOperation { model, change, if_match })
}

fn wrong(pointer: String, message: String) -> Error {
    Error::bad_request(message.clone()).with_errors(vec![FieldError { pointer, message }])
}

fn escape(name: &str) -> Cow<'_, str> {
    match name.contains(['~', '/']) {
        true => name.replace('~', "~0").replace('/', "~1").into(),
        false => name.into(),
    }
}

/// The first elements of an array, as many as a batch may have, and the number of elements, counted up to one more.
#[derive(Debug)]
struct Operations<'a> {
    first: Vec<&'a RawValue>,
    count: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Operations<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First;
        impl<'de> Visitor<'de> for First {
            type Value = Operations<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of operations")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
                let mut operations = Operations { first: Vec::new(), count: 0 };
                while operations.count < OPERATIONS_MAX
                    && let Some(operation) = sequence.next_element::<&RawValue>()?
                {
                    operations.first.push(operation);
                    operations.count += 1;
                }
                // Excess operations are skipped, so that the rest of the body is still parsed.
                if operations.count == OPERATIONS_MAX {
                    while sequence.next_element::<serde::de::IgnoredAny>()?.is_some() {
                        operations.count = OPERATIONS_MAX + 1;
                    }
                }
                Ok(operations)
            }
        }
        deserializer.deserialize_seq(First)
    }
}

/// The members of an object, without duplicates. There are only a few.
struct Members<'a>(Vec<(String, &'a RawValue)>);

/// More than an operation has.
const MEMBERS_MAX: usize = 16;

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with `op` and `model`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(String, &RawValue)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if members.len() == MEMBERS_MAX {
                        return Err(A::Error::custom(format_args!("it has more than {MEMBERS_MAX} members")));
                    }
                    if members.iter().any(|(known, _)| *known == name) {
                        let shown: String = name.chars().take(80).collect();
                        return Err(A::Error::custom(format_args!("`{shown}` is there twice")));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(body: &str, pointer: &str, expected: &str) {
        let error = batch(body.as_bytes()).expect_err("must be refused");
        assert_eq!(error.kind, super::super::ErrorKind::BadRequest);
        assert!(error.detail.contains(expected), "{} lacks {expected}", error.detail);
        assert_eq!(error.errors.first().map_or("", |row| row.pointer.as_str()), pointer, "{body}");
    }

    #[test]
    fn takes_the_four_operations() {
        let all = batch(
            br#"{"operations": [
                {"op": "create", "model": "m", "data": {"n": 1.50}},
                {"data": {}, "id": "a", "model": "m", "op": "update", "if_match": "\"x-1-1\""},
                {"op": "patch", "model": "m", "id": "a", "data": {"n": null}},
                {"op": "delete", "model": "n", "id": "b"}]}"#,
        )
        .expect("valid");
        assert_eq!(all.len(), 4);
        assert!(matches!(&all[0].change, Change::Create { id: None, data } if &**data == r#"{"n": 1.50}"#));
        assert_eq!(all[1].if_match.as_deref(), Some("\"x-1-1\""));
        assert!(matches!(&all[1].change, Change::Replace { id, create: false, .. } if id == "a"));
        assert!(matches!(&all[2].change, Change::Patch { id, patch } if id == "a" && &**patch == r#"{"n": null}"#));
        assert!(matches!(&all[3].change, Change::Delete { id } if id == "b") && all[3].model == "n");
    }

    #[test]
    fn refuses_what_does_not_fit_and_says_where() {
        let one =
            |operation: &str| format!(r#"{{"operations": [{{"op":"delete","model":"m","id":"a"}}, {operation}]}}"#);
        refused("", "", "is empty");
        refused("[]", "", "does not fit");
        refused(r#"{"operations": {}}"#, "", "an array of operations");
        refused(r#"{"operations": [], "x": 1}"#, "", "unknown field `x`");
        refused(r#"{"operations": []}"#, "/operations", "has none");
        let many = vec!["1"; OPERATIONS_MAX + 1].join(",");
        refused(&format!(r#"{{"operations": [{many}]}}"#), "/operations", "has more than 100");
        refused(&one("7"), "/operations/1", "an object");
        refused(&one(r#"{"op":"delete","model":"m","id":"a","a/b":1}"#), "/operations/1/a~1b", "unknown member `a/b`");
        refused(&one(r#"{"op":"delete","op":"delete"}"#), "/operations/1", "`op` is there twice");
        refused(&one(r#"{"model":"m"}"#), "/operations/1/op", "`op` is missing");
        refused(&one(r#"{"op":"delete","id":"a"}"#), "/operations/1/model", "`model` is missing");
        refused(&one(r#"{"op":"upsert","model":"m"}"#), "/operations/1/op", "expected create, update, patch or delete");
        refused(&one(r#"{"op":5,"model":"m"}"#), "/operations/1/op", "not a string");
        refused(&one(r#"{"op":"create","model":"m","id":null,"data":{}}"#), "/operations/1/id", "not a string");
        refused(&one(r#"{"op":"create","model":"m"}"#), "/operations/1/data", "`data` is missing");
        refused(&one(r#"{"op":"update","model":"m","data":{}}"#), "/operations/1/id", "`id` is missing");
        refused(&one(r#"{"op":"patch","model":"m","id":"a"}"#), "/operations/1/data", "`data` is missing");
        refused(&one(r#"{"op":"delete","model":"m","id":"a","data":{}}"#), "/operations/1/data", "has no data");
        refused(
            &one(r#"{"op":"create","model":"m","data":{},"if_match":"x"}"#),
            "/operations/1/if_match",
            "no entity tag",
        );
        let members: String = (0..20).map(|n| format!(r#""m{n}":1,"#)).collect();
        refused(&one(&format!("{{{members}\"op\":1}}")), "/operations/1", "more than 16 members");
        refused(&r#"{"operations":["#.repeat(1_000_000), "", "not JSON");
    }
}
