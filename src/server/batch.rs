//! `POST /batch`: several changes of instances, atomically.

use hyper::StatusCode;
use snaphook_driver::{Instance, Position};

use super::body::{self, RequestBody};
use super::prefer::Prefer;
use super::problem::{Problem, Result};
use super::reply::{Reply, Response};
use super::request::Call;
use super::{id, identify, json, list, precondition, readable};
use crate::engine::batch_input::{self, NewOperation};
use crate::engine::command::{Batched, DryRun, Operation, Precondition};
use crate::hooks::context::FieldError;

/// `POST /batch`
pub(super) async fn batch(call: &Call, body: RequestBody) -> Result<Response> {
    let prefer = Prefer::of(call.headers());
    let mut query = call.query()?;
    let options = call.write_options(&mut query, &prefer, true)?;
    query.finish()?;
    if options.precondition != Precondition::None {
        return Err(Problem::bad_request(
            "a batch has no `If-Match` or `If-None-Match`; each of its operations may have an `if_match`",
        ));
    }
    let bytes = body::json(call, body).await?;
    let operations = batch_input::batch(&bytes)?;
    let operations: Vec<Operation> = operations
        .into_iter()
        .enumerate()
        .map(|(index, operation)| checked(call, index, operation))
        .collect::<Result<_>>()?;
    let written = call.engine().writes.batch(operations, &options, &call.origin()).await;
    match written.map_err(|error| readable::problem(call, error))? {
        Batched::Done { .. } if prefer.minimal => Ok(prefer.applied(Reply::new(StatusCode::NO_CONTENT)).empty()),
        Batched::Done { results, position } => {
            let data: usize = results.iter().flatten().map(|instance| instance.data.len()).sum();
            if data > list::COUNTED_LATE_BYTES {
                call.hold(2 * data)?;
            }
            Ok(prefer.applied(Reply::ok()).json(text(&results, position)))
        }
        Batched::DryRun(operations) => {
            #[derive(serde::Serialize)]
            struct DryRunBody {
                operations: Vec<DryRun>,
            }
            let operations = operations.into_iter().map(|dry_run| readable::dry_run(call, dry_run)).collect();
            Reply::ok().serialize(&DryRunBody { operations })
        }
    }
}

/// Checks what the path and the headers of a single write contain.
fn checked(call: &Call, index: usize, operation: NewOperation) -> Result<Operation> {
    let NewOperation { model, change, if_match } = operation;
    id::model(&model).map_err(|problem| at(index, "model", problem))?;
    identify::check_model(call, &model).map_err(|problem| at(index, "model", problem))?;
    let precondition = match if_match {
        Some(text) => {
            precondition::of_operation(&text, call.app.log).map_err(|problem| at(index, "if_match", problem))?
        }
        None => Precondition::None,
    };
    Ok(Operation { model, change, precondition })
}

fn at(index: usize, member: &str, problem: Problem) -> Problem {
    let pointer = format!("/operations/{index}/{member}");
    Problem { errors: vec![FieldError { pointer, message: problem.detail.clone() }], ..problem }
}

fn text(results: &[Option<Instance>], position: Position) -> Vec<u8> {
    let mut out = b"{\"results\":[".to_vec();
    for (index, result) in results.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match result {
            Some(instance) => json::write_instance(&mut out, instance),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.extend_from_slice(b"],\"position\":");
    json::write_u64(&mut out, position);
    out.push(b'}');
    out
}
