//! `/tokens`: access tokens. A token is only shown once, when it is created.

use hyper::StatusCode;
use serde::Serialize;
use snaphook_driver::time;
use snaphook_identity::{Role, TokenError, TokenErrorKind, TokenInfo, TokenRequest};

use super::body::{self, RequestBody};
use super::problem::{Problem, ProblemType, Result};
use super::query::shorten;
use super::reply::{Reply, Response};
use super::request::Call;
use crate::engine::input;

/// How many models of a token are read; the actual limit is checked when it is created.
const MODELS_READ_MAX: usize = 10_000;

/// `GET /tokens`
pub(super) async fn list(call: &Call) -> Result<Response> {
    #[derive(Serialize)]
    struct TokenPage {
        items: Vec<TokenInfo>,
        next: Option<String>,
    }
    call.no_query()?;
    Reply::ok().serialize(&TokenPage { items: call.app.tokens.list().await?, next: None })
}

/// `POST /tokens`
pub(super) async fn create(call: &Call, body: RequestBody) -> Result<Response> {
    #[derive(Serialize)]
    struct Made<'a> {
        #[serde(flatten)]
        info: &'a TokenInfo,
        token: &'a str,
    }
    call.no_query()?;
    let bytes = body::json(call, body).await?;
    let mut members = input::body(&bytes)?.members(&["name", "role", "models", "expires_at"])?;
    let name = members.need("name", "a name for the token")?.string()?;
    let role = members.need("role", "`admin`, `writer` or `reader`")?;
    let models = members.set("models").map(|models| models.names::<MODELS_READ_MAX>()).transpose()?;
    let role = role.word(&[("admin", Role::Admin), ("writer", Role::Writer), ("reader", Role::Reader)])?;
    let expires_at = match members.set("expires_at") {
        None => None,
        Some(part) => {
            let text = part.string()?;
            let expected =
                || part.fault(format!("is `{}`, expected a time such as 2026-01-31T12:00:00.000Z", shorten(&text)));
            Some(time::parse(&text).ok_or_else(expected)?)
        }
    };
    let made = call.app.tokens.make(TokenRequest { name, role, models, expires_at }, time::now()).await?;
    tracing::info!("token `{}` with the role `{}` is created by {}", made.info.name, made.info.role, call.actor());
    Reply::new(StatusCode::CREATED)
        .location(&call.location(&["tokens", &made.info.name]))
        .serialize(&Made { info: &made.info, token: made.token.expose() })
}

/// `DELETE /tokens/{name}`
pub(super) async fn revoke(call: &Call) -> Result<Response> {
    call.no_query()?;
    let name = call.param("name");
    call.app.tokens.revoke(name).await?;
    tracing::info!("token `{}` is revoked by {}", shorten(name), call.actor());
    Ok(Reply::new(StatusCode::NO_CONTENT).empty())
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let kind = match error.kind() {
            TokenErrorKind::Exists => ProblemType::Exists,
            TokenErrorKind::NotFound => ProblemType::NotFound,
            TokenErrorKind::Invalid => ProblemType::BadRequest,
            TokenErrorKind::Store => ProblemType::Storage,
        };
        Problem::new(kind, error.to_string())
    }
}
