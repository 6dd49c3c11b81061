//! Problem documents: the response for a problem.

use hyper::StatusCode;
use hyper::header::{ALLOW, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;

use super::problem::{Problem, ProblemType};
use super::reply::{Reply, Response};
use crate::hooks::context::FieldError;

/// `Retry-After` in seconds for a full queue, or a model that is catching up.
const RETRY_AFTER_SECONDS: &str = "1";

/// The document. Its type is the same wherever the API is mounted.
pub(super) fn response(problem: &Problem, request_id: &HeaderValue) -> Response {
    #[derive(Serialize)]
    struct ProblemDocument<'a> {
        r#type: String,
        title: &'a str,
        status: u16,
        detail: &'a str,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        errors: &'a [FieldError],
        #[serde(skip_serializing_if = "Option::is_none")]
        hook: Option<&'a str>,
        request_id: &'a str,
    }
    let (suffix, title, status) = problem.kind.describe();
    let document = ProblemDocument {
        r#type: match problem.kind {
            ProblemType::Internal => "about:blank".to_owned(),
            _ => format!("/problems/{suffix}"),
        },
        title,
        status: status.as_u16(),
        detail: &problem.detail,
        errors: &problem.errors,
        hook: problem.hook.as_deref(),
        request_id: request_id.to_str().unwrap_or_default(),
    };
    // Strings and numbers only: writing them cannot fail.
    let mut response = Reply::new(status).bytes(serde_json::to_vec(&document).unwrap_or_default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    // Names of methods are always valid header values.
    if let Some(allow) = problem.allow.as_deref().and_then(|allow| HeaderValue::from_str(allow).ok()) {
        headers.insert(ALLOW, allow);
    }
    if let Some(range) = &problem.content_range {
        headers.insert(CONTENT_RANGE, HeaderValue::clone(range));
    }
    if let Some(wait) = problem.retry_after {
        // Rounded up to seconds, so that a retry is not too early.
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
    }
    if problem.kind == ProblemType::Unauthorized {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if matches!(problem.kind, ProblemType::Overloaded | ProblemType::Unavailable) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    response
}

/// The document for an error of which only the status is known, such as one of a module.
pub(super) fn of_status(status: StatusCode, detail: &str, request_id: &HeaderValue) -> Response {
    let document = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": detail,
        "request_id": request_id.to_str().unwrap_or_default(),
    });
    let mut response = Reply::new(status).bytes(document.to_string());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Error, ErrorKind};
    use http_body_util::BodyExt;

    async fn document(problem: Problem) -> (Response, serde_json::Value) {
        let mut response = response(&problem, &HeaderValue::from_static("id-1"));
        let body = std::mem::take(response.body_mut()).collect().await.expect("a body").to_bytes();
        (response, snaphook_driver::json::parse_bytes(&body).expect("JSON"))
    }

    #[tokio::test]
    async fn a_document_has_what_applies() {
        let error = Error::new(ErrorKind::Rejected, "no")
            .with_errors(vec![FieldError { pointer: "/data/a".into(), message: "bad".into() }])
            .with_hook("check");
        let (response, body) = document(error.into()).await;
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(
            body,
            serde_json::json!({
                "type": "/problems/rejected", "title": "Rejected by a hook", "status": 422, "detail": "no",
                "errors": [{"pointer": "/data/a", "message": "bad"}], "hook": "check", "request_id": "id-1",
            })
        );
    }

    #[tokio::test]
    async fn headers_that_tell_what_to_do() {
        let (response, body) = document(Problem::new(ProblemType::Overloaded, "full")).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()[RETRY_AFTER]),
            (503, &HeaderValue::from_static("1"))
        );
        assert_eq!(body["type"], "/problems/overloaded");
        let (response, body) = document(Problem::method_not_allowed("GET".to_owned())).await;
        assert_eq!((response.status().as_u16(), &response.headers()[ALLOW]), (405, &HeaderValue::from_static("GET")));
        assert_eq!((&body["type"], &body["status"]), (&"/problems/method-not-allowed".into(), &405.into()));
    }
}
