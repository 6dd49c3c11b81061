//! One request on its way through a handler: its head, its id, what it shares with the others.

use std::sync::Arc;

use axum::extract::RawPathParams;
use hyper::header::{AsHeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use snaphook_driver::{Actor, Position};
use snaphook_identity::Caller;

use super::app::App;
use super::peer::RequestMemory;
use super::place::Place;
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

/// The methods that some route has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Post,
    Put,
    Patch,
    Delete,
    Other,
}

/// What a handler gets, besides the body.
pub(super) struct Call {
    pub(super) app: Arc<App>,
    pub(super) head: Parts,
    /// What the path names; `None` where it could not be read.
    pub(super) params: Option<RawPathParams>,
    /// Who calls; `None` where nobody was asked.
    pub(super) caller: Option<Arc<Caller>>,
    pub(super) request_id: HeaderValue,
    /// What the request holds in memory; its response takes it over.
    pub(super) memory: RequestMemory,
}

impl Call {
    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.app.engine
    }

    /// Holds so many bytes until the response is sent, or refuses the request.
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

    /// What stands for `{name}` in the path; empty if the route has no such place.
    pub(super) fn param(&self, name: &str) -> &str {
        let mut params = self.params.iter().flatten();
        params.find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// `{model}`, an id that a model may have.
    pub(super) fn model(&self) -> Result<&str> {
        let model = self.param("model");
        id::model(model)?;
        Ok(model)
    }

    /// `{id}`, an id that an instance may have.
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

    /// A header that may stand once and is text.
    pub(super) fn header(&self, name: impl AsHeaderName + Copy + std::fmt::Display) -> Result<Option<&str>> {
        let mut values = self.head.headers.get_all(name).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Problem::bad_request(format!("the header `{name}` is there twice, expected one")));
        }
        let text = value.to_str();
        text.map(Some).map_err(|_| Problem::bad_request(format!("the header `{name}` is not visible ASCII")))
    }

    pub(super) fn query(&self) -> Result<Query<'_>> {
        let mut query = Query::parse(self.head.uri.query().unwrap_or_default())?;
        if self.verb() == Verb::Get {
            // It was waited for before.
            query.take(MIN_POSITION)?;
        }
        Ok(query)
    }

    /// The position of a place in this server's log; 410 if the log does not have it.
    pub(super) async fn find(&self, place: &Place) -> Result<Position> {
        Ok(self.engine().history.find_position(place.log.as_deref(), place.position).await?)
    }

    /// The same for a place in a parameter that may be absent.
    pub(super) async fn position(&self, query: &mut Query<'_>, name: &str) -> Result<Option<Position>> {
        match query.take(name)? {
            Some(text) => self.find(&Place::parse(name, &text)?).await.map(Some),
            None => Ok(None),
        }
    }

    /// For requests that take no parameter.
    pub(super) fn no_query(&self) -> Result<()> {
        self.query()?.finish()
    }

    /// Who acts, as events have it.
    pub(super) fn actor(&self) -> Arc<Actor> {
        match &self.caller {
            Some(caller) => Arc::clone(&caller.actor),
            None => Arc::new(Actor::anonymous()),
        }
    }

    /// Whether rules are asked, and of whom they speak.
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

    /// Preconditions, `dry-run` and `Prefer` of a write. The key is only taken where `idempotent` says so.
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

    /// A path of the API as a client sees it.
    pub(super) fn location(&self, path: &[&str]) -> String {
        let mut location = self.app.mount_path.clone();
        for part in path {
            location.push('/');
            location.push_str(part);
        }
        location
    }
}
