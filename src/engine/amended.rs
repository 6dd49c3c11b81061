//! Whether data that a hook amended fits the model.

use snaphook_driver::Json;

use super::fit::{Fitting, Misfit, fit, try_fit};
use super::workers::Workers;
use crate::catalog::document::Document;
use crate::catalog::{Effort, Model, Schema, on_large_stack};
use crate::hooks::context::{Failure, FailureCause};
use crate::hooks::host::BoundHook;

/// Amended data is validated like a client's.
pub(super) async fn check_amended(
    workers: &Workers,
    model: &Model,
    data: &Json,
    hook: &BoundHook,
) -> Result<Document, Failure> {
    let document = read_amended(data, hook)?;
    fit(workers, &model.record.id, &model.schema, document, AMENDED).await.map_err(|misfit| unfit(misfit, hook))
}

/// The same on the caller's thread, which may block: only for commands that serve nobody else.
pub(super) fn check_amended_here(schema: &Schema, data: &Json, hook: &BoundHook) -> Result<Document, Failure> {
    let mut document = read_amended(data, hook)?;
    on_large_stack(|| try_fit(schema, &mut document, AMENDED, &Effort::whole(None, None)))
        .map_err(|misfit| unfit(misfit, hook))?;
    Ok(document)
}

const AMENDED: Fitting = Fitting { prefix: "", defaults: false };

fn read_amended(data: &Json, hook: &BoundHook) -> Result<Document, Failure> {
    Document::parse(data).map_err(|error| Failure {
        cause: FailureCause::Amend,
        message: format!("hook `{}` amended data that cannot be read: {error}", hook.label()),
        limit: None,
    })
}

fn unfit(misfit: Misfit, hook: &BoundHook) -> Failure {
    let (cause, message) = match misfit {
        Misfit::Errors(errors) => {
            let first =
                errors.first().map_or_else(String::new, |error| format!(": {} {}", error.pointer, error.message));
            (FailureCause::Amend, format!("amended data that does not fit the schema{first}"))
        }
        Misfit::TooLarge(message) | Misfit::TooComplex(message) => {
            (FailureCause::Amend, format!("amended data that is not accepted: {message}"))
        }
        Misfit::Unknown(error) => {
            (FailureCause::Overloaded, format!("amended data that could not be checked: {error}"))
        }
    };
    Failure { cause, message: format!("hook `{}` {message}", hook.label()), limit: None }
}
