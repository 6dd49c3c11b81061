//! One request in a handler: its head, its id, and the shared state.

use std::sync::Arc;

use axum::extract::RawPathParams;
use hyper::header::{AsHeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use snaphook_driver::{Actor, Position};
use snaphook_identity::Caller;

use super::app::App;
use super::log_position::LogPosition;
use super::peer::RequestMemory;
use super::prefer::Prefer;
use super::problem::{Problem, Result};
use super::query::{DRY_RUN, MIN_POSITION, Query};
use super::{id, precondition};
use crate::catalog::rules::Right;
use crate::config::Phase;
use crate::engine::Engine;
use crate::engine::command::{Origin, WriteOptions};
use crate::telemetry::trace::scope::trace_of_event;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const IDEMPOTENCY_KEY_LENGTH_MAX: usize = 255;

/// The methods used by routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Post,
    Put,
    Patch,
    Delete,
    Other,
}

/// The input of a handler, besides the body.
pub(super) struct Call {
    pub(super) app: Arc<App>,
    pub(super) head: Parts,
    /// The parameters of the path; `None` if they could not be decoded.
    pub(super) params: Option<RawPathParams>,
    /// The caller; `None` if no identification was needed.
    pub(super) caller: Option<Arc<Caller>>,
    pub(super) request_id: HeaderValue,
    /// The request's memory; its response takes it over.
    pub(super) memory: RequestMemory,
}

impl Call {
    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.app.engine
    }

    /// Reserves this many bytes until the response is sent, or rejects the request.
    pub(super) fn hold(&self, bytes: usize) -> Result<()> {
        Ok(self.memory.grow(bytes)?)
    }

    pub(super) fn verb(&self) -> Verb {
        match self.head.method {
            // axum drops the body of a HEAD and keeps its length.
            Method::GET | Method::HEAD => Verb::Get,
            Method::POST => Verb::Post,
            Method::PUT => Verb::Put,
            Method::PATCH => Verb::Patch,
            Method::DELETE => Verb::Delete,
            _ => Verb::Other,
        }
    }

    /// The value of `{name}` in the path; empty if the route has no such parameter.
    pub(super) fn param(&self, name: &str) -> &str {
        let mut params = self.params.iter().flatten();
        params.find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// `{model}`, a valid model id.
    pub(super) fn model(&self) -> Result<&str> {
        let model = self.param("model");
        id::model(model)?;
        Ok(model)
    }

    /// `{id}`, a valid instance id.
    pub(super) fn instance(&self) -> Result<&str> {
        let instance = self.param("id");
        id::instance(instance)?;
        Ok(instance)
    }

    /// `{phase}`
    pub(super) fn phase(&self) -> Result<Phase> {
        id::phase(self.param("phase"))
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// A text header that may occur once.
    pub(super) fn header(&self, name: impl AsHeaderName + Copy + std::fmt::Display) -> Result<Option<&str>> {
        let mut values = self.head.headers.get_all(name).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Problem::bad_request(format!("the header `{name}` is set twice, expected one")));
        }
        let text = value.to_str();
        text.map(Some).map_err(|_| Problem::bad_request(format!("the header `{name}` is not visible ASCII")))
    }

    pub(super) fn query(&self) -> Result<Query<'_>> {
        let mut query = Query::parse(self.head.uri.query().unwrap_or_default())?;
        if self.verb() == Verb::Get {
            // It was handled before.
            query.take(MIN_POSITION)?;
        }
        Ok(query)
    }

    /// Checks a position in this server's log; 410 if the log does not have it.
    pub(super) async fn find(&self, place: &LogPosition) -> Result<Position> {
        Ok(self.engine().history.find_position(place.log.as_deref(), place.position).await?)
    }

    /// The same for a position in an optional parameter.
    pub(super) async fn position(&self, query: &mut Query<'_>, name: &str) -> Result<Option<Position>> {
        match query.take(name)? {
            Some(text) => self.find(&LogPosition::parse(name, &text)?).await.map(Some),
            None => Ok(None),
        }
    }

    /// For requests without parameters.
    pub(super) fn no_query(&self) -> Result<()> {
        self.query()?.finish()
    }

    /// The actor for events.
    pub(super) fn actor(&self) -> Arc<Actor> {
        match &self.caller {
            Some(caller) => Arc::clone(&caller.actor),
            None => Arc::new(Actor::anonymous()),
        }
    }

    /// Whether rules apply, and to which caller.
    pub(super) fn right(&self) -> Right {
        Right::of_caller(self.caller.as_deref())
    }

    pub(super) fn origin(&self) -> Origin {
        Origin {
            actor: Some(self.actor()),
            request_id: self.request_id.to_str().ok().map(str::to_owned),
            trace: trace_of_event(),
            cause: None,
            right: self.right(),
        }
    }

    /// Preconditions, `dry-run` and `Prefer` of a write. The idempotency key is accepted only with `idempotent`.
    pub(super) fn write_options(
        &self,
        query: &mut Query<'_>,
        prefer: &Prefer,
        idempotent: bool,
    ) -> Result<WriteOptions> {
        Ok(WriteOptions {
            precondition: precondition::of_write(&self.head.headers, self.app.log)?,
            idempotency_key: if idempotent { self.idempotency_key()? } else { None },
            dry_run: query.flag(DRY_RUN)?,
            wait: prefer.wait,
        })
    }

    fn idempotency_key(&self) -> Result<Option<String>> {
        let Some(key) = self.header(IDEMPOTENCY_KEY)? else { return Ok(None) };
        if key.is_empty() || key.len() > IDEMPOTENCY_KEY_LENGTH_MAX || !key.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(Problem::bad_request(format!(
                "`Idempotency-Key` has {} bytes, expected 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} visible ASCII characters \
                 without spaces",
                key.len()
            )));
        }
        Ok(Some(key.to_owned()))
    }

    /// A path of the API, for clients.
    pub(super) fn location(&self, path: &[&str]) -> String {
        let mut location = self.app.mount_path.clone();
        for part in path {
            location.push('/');
            location.push_str(part);
        }
        location
    }
}
