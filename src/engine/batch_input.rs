//! The body of `POST /batch`, parsed as strictly as those of single writes ([`super::input`]). Each error has its
//! pointer.

use snaphook_driver::Json;

use super::command::InstanceChange;
use super::error::{Error, Result};
use super::input;
use crate::catalog::{FieldError, Part};

/// Operations of one batch.
pub const OPERATIONS_MAX: usize = 100;

const MEMBERS: [&str; 5] = ["op", "model", "id", "data", "if_match"];

/// An operation in a request.
#[derive(Clone, Debug)]
pub struct NewOperation {
    pub model: String,
    pub change: InstanceChange,
    /// An entity tag with its quotes.
    pub if_match: Option<String>,
}

#[derive(Clone, Copy)]
enum Op {
    Create,
    Update,
    Patch,
    Delete,
}

/// Reads the body: `{operations: [{op, model, id?, data?, if_match?}]}`.
pub fn batch(bytes: &[u8]) -> Result<Vec<NewOperation>> {
    let expected = format!("a list of 1 to {OPERATIONS_MAX} operations");
    let list = input::body(bytes)?.members(&["operations"])?.need("operations", &expected)?;
    let operations = list.items::<OPERATIONS_MAX>(&expected)?;
    if operations.is_empty() {
        return Err(list.fault(format!("is empty, expected {expected}")).into());
    }
    operations.iter().map(|operation| read(operation).map_err(Error::from)).collect()
}

fn read(operation: &Part<'_>) -> Result<NewOperation, FieldError> {
    let mut members = operation.members(&MEMBERS)?;
    let ops = [("create", Op::Create), ("update", Op::Update), ("patch", Op::Patch), ("delete", Op::Delete)];
    let op = members.need("op", "`create`, `update`, `patch` or `delete`")?.word(&ops)?;
    let model = members.need("model", "the id of a model")?.string()?;
    let if_match = members.take("if_match");
    let data = members.take("data");
    let refused = match op {
        Op::Create => if_match.as_ref().map(|part| part.fault("is not allowed: a new instance has no entity tag")),
        Op::Delete => data.as_ref().map(|part| part.fault("is not allowed: a deletion has no data")),
        Op::Update | Op::Patch => None,
    };
    if let Some(fault) = refused {
        return Err(fault);
    }
    let id = match op {
        Op::Create => members.take("id"),
        Op::Update | Op::Patch | Op::Delete => Some(members.need("id", "the id of an instance")?),
    };
    let id = id.map(|id| id.string()).transpose()?;
    let data = match (op, data) {
        (Op::Delete, _) => None,
        (_, Some(data)) => Some(Json::trusted(data.raw()?)),
        (_, None) => return Err(operation.member_fault("data", "is missing, expected the instance's data")),
    };
    let change = match (op, id, data) {
        (Op::Create, id, Some(data)) => InstanceChange::Create { id, data },
        (Op::Update, Some(id), Some(data)) => InstanceChange::Replace { id, data, create: false },
        (Op::Patch, Some(id), Some(patch)) => InstanceChange::Patch { id, patch },
        (Op::Delete, Some(id), _) => InstanceChange::Delete { id },
        // What an operation needs was asked for above.
        _ => return Err(operation.fault("lacks a member")),
    };
    Ok(NewOperation { model, change, if_match: if_match.map(|tag| tag.string()).transpose()? })
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
        assert!(matches!(&all[0].change, InstanceChange::Create { id: None, data } if &**data == r#"{"n": 1.50}"#));
        assert_eq!(all[1].if_match.as_deref(), Some("\"x-1-1\""));
        assert!(matches!(&all[1].change, InstanceChange::Replace { id, create: false, .. } if id == "a"));
        assert!(
            matches!(&all[2].change, InstanceChange::Patch { id, patch } if id == "a" && &**patch == r#"{"n": null}"#)
        );
        assert!(matches!(&all[3].change, InstanceChange::Delete { id } if id == "b") && all[3].model == "n");
    }

    #[test]
    fn refuses_what_does_not_fit_and_says_where() {
        let one =
            |operation: &str| format!(r#"{{"operations": [{{"op":"delete","model":"m","id":"a"}}, {operation}]}}"#);
        refused("", "", "is empty");
        refused("[]", "", "is an array, expected an object");
        refused(r#"{"operations": {}}"#, "/operations", "is an object, expected a list of 1 to 100 operations");
        refused(r#"{"operations": [], "x": 1}"#, "/x", "is unknown, expected `operations`");
        refused(r#"{"operations": []}"#, "/operations", "is empty");
        let many = vec!["1"; OPERATIONS_MAX + 1].join(",");
        refused(&format!(r#"{{"operations": [{many}]}}"#), "/operations", "has more than 100 items");
        refused(&one("7"), "/operations/1", "is a number, expected an object");
        refused(
            &one(r#"{"op":"delete","model":"m","id":"a","a/b":1}"#),
            "/operations/1/a~1b",
            "is unknown, expected `op`, `model`",
        );
        refused(&one(r#"{"op":"delete","op":"delete"}"#), "/operations/1/op", "appears twice");
        refused(&one(r#"{"model":"m"}"#), "/operations/1/op", "is missing, expected `create`");
        refused(&one(r#"{"op":"delete","id":"a"}"#), "/operations/1/model", "is missing, expected the id of a model");
        refused(
            &one(r#"{"op":"upsert","model":"m"}"#),
            "/operations/1/op",
            "expected `create`, `update`, `patch` or `delete`",
        );
        refused(&one(r#"{"op":5,"model":"m"}"#), "/operations/1/op", "is a number, expected `create`");
        refused(&one(r#"{"op":"create","model":"m","id":null,"data":{}}"#), "/operations/1/id", "expected a string");
        refused(&one(r#"{"op":"create","model":"m"}"#), "/operations/1/data", "is missing");
        refused(&one(r#"{"op":"update","model":"m","data":{}}"#), "/operations/1/id", "is missing");
        refused(&one(r#"{"op":"patch","model":"m","id":"a"}"#), "/operations/1/data", "is missing");
        refused(&one(r#"{"op":"delete","model":"m","id":"a","data":{}}"#), "/operations/1/data", "has no data");
        refused(
            &one(r#"{"op":"create","model":"m","data":{},"if_match":"x"}"#),
            "/operations/1/if_match",
            "no entity tag",
        );
        let members: String = (0..20).map(|n| format!(r#""m{n}":1,"#)).collect();
        refused(&one(&format!("{{{members}\"op\":1}}")), "/operations/1/m0", "is unknown");
        refused(&r#"{"operations":["#.repeat(1_000_000), "", "not JSON");
    }
}
