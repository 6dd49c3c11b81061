//! `/errors`: post hook runs that failed permanently.

use hyper::StatusCode;
use serde::Serialize;
use snaphook_driver::{ErrorQuery, ErrorRecord};

use super::problem::{Problem, Result};
use super::query::{DRY_RUN, Query};
use super::reply::{Reply, Response};
use super::request::Call;
use super::{id, list};

/// `GET /errors`
pub(super) async fn list(call: &Call) -> Result<Response> {
    #[derive(Serialize)]
    struct ErrorPage {
        items: Vec<ErrorRecord>,
        /// The `after` of the next page, if this page is full.
        next: Option<String>,
    }
    let mut query = call.query()?;
    let mut wanted = selection(&mut query)?;
    wanted.after = query.text("after")?;
    wanted.after.as_deref().map(id::error).transpose()?;
    wanted.limit = list::limit(&mut query)?;
    query.finish()?;
    let mut page = call.engine().deliveries.errors(&wanted).await?;
    let last = page.records.last().filter(|_| page.full).map(|record| record.id.clone());
    let mut visibility = call.engine().history.visibility(&call.right());
    let mut shown = Vec::with_capacity(page.records.len());
    for record in page.records {
        if visibility.of_event(&record.event).await? {
            shown.push(record);
        }
    }
    page.records = shown;
    list::hold(call, page.records.iter().map(|record| record.event.data.as_ref().map_or(0, |data| data.len())))?;
    Reply::ok().serialize(&ErrorPage { items: page.records, next: last })
}

/// `GET /errors/{id}`
pub(super) async fn get(call: &Call) -> Result<Response> {
    let id = error_id(call)?;
    call.no_query()?;
    Reply::ok().serialize(&visible(call, id).await?)
}

/// `DELETE /errors/{id}`
pub(super) async fn delete(call: &Call) -> Result<Response> {
    let id = error_id(call)?;
    call.no_query()?;
    visible(call, id).await?;
    call.engine().deliveries.drop_error(id).await?;
    Ok(Reply::new(StatusCode::NO_CONTENT).empty())
}

/// A record whose event the rules do not hide.
async fn visible(call: &Call, id: &str) -> Result<ErrorRecord> {
    let record = call.engine().deliveries.error(id).await?;
    match call.engine().history.visibility(&call.right()).of_event(&record.event).await? {
        true => Ok(record),
        false => Err(Problem::not_found(format!("there is no error `{id}`"))),
    }
}

fn error_id(call: &Call) -> Result<&str> {
    let id = call.param("id");
    id::error(id)?;
    Ok(id)
}

#[derive(Serialize)]
struct Retried {
    /// Records that matched.
    matched: u64,
    /// Records whose hook succeeded now; they were removed.
    succeeded: u64,
}

#[derive(Serialize)]
struct Started {
    job: String,
}

/// `POST /errors/{id}/retry`
pub(super) async fn retry(call: &Call) -> Result<Response> {
    #[derive(Serialize)]
    struct One {
        #[serde(flatten)]
        retried: Retried,
        /// The new failure.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<ErrorRecord>,
    }
    let id = error_id(call)?;
    let mut query = call.query()?;
    let dry_run = query.flag(DRY_RUN)?;
    query.finish()?;
    visible(call, id).await?;
    if dry_run {
        return Reply::ok().serialize(&Retried { matched: 1, succeeded: 0 });
    }
    let succeeded = call.engine().deliveries.retry_error(id).await?;
    // Another request may have retried or dropped it meanwhile: then there is nothing to show.
    let error = if succeeded { None } else { call.engine().deliveries.error(id).await.ok() };
    Reply::ok().serialize(&One { retried: Retried { matched: 1, succeeded: u64::from(succeeded) }, error })
}

/// `POST /errors/retry`: a job, since it may take long and continues even if its client disconnects.
pub(super) async fn retry_all(call: &Call) -> Result<Response> {
    let mut query = call.query()?;
    let wanted = selection(&mut query)?;
    let dry_run = query.flag(DRY_RUN)?;
    query.finish()?;
    if dry_run {
        let matched = call.engine().deliveries.count_errors(&wanted).await?;
        return Reply::ok().serialize(&Retried { matched, succeeded: 0 });
    }
    let job = call.engine().deliveries.start_retry(&wanted).await?.id;
    let location = call.location(&["jobs", &job]);
    Reply::new(StatusCode::ACCEPTED).location(&location).serialize(&Started { job })
}

/// `model` and `hook`
fn selection(query: &mut Query<'_>) -> Result<ErrorQuery> {
    let (model, hook) = (query.text("model")?, query.text("hook")?);
    model.as_deref().map(id::model).transpose()?;
    Ok(ErrorQuery { model, hook, after: None, limit: list::LIMIT_DEFAULT })
}
