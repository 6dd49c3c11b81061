//! The server's interface to a module of any kind: its hooks, and how they are called. A new kind of module implements
//! [`Runner`] and [`Handler`].

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::exchange::{Exchange, Origin, Side};
use crate::fault::Fault;
use crate::health::Standing;
use crate::library::RequestHook;
use crate::task::Guard;

/// What a hook decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next module is called.
    Declined,
    /// No later module is called for this hook.
    Ok,
    /// An error with this status, 400 to 599.
    Status(u16),
}

/// The result of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filtered {
    Unchanged,
    Replaced(Bytes),
}

/// The hooks of a module and their options.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wants {
    pub before_request: bool,
    pub request: bool,
    pub request_error: bool,
    pub response: bool,
    /// Hooks of connections.
    pub connections: bool,
    /// `before_request` and `request` see the whole request body.
    pub whole_request: bool,
    /// `response` sees the whole response body.
    pub whole_response: bool,
}

impl Wants {
    /// Whether the module has hooks for requests.
    pub fn requests(self) -> bool {
        self.before_request || self.request || self.request_error || self.response
    }

    pub fn hook(self, hook: RequestHook) -> bool {
        match hook {
            RequestHook::BeforeRequest => self.before_request,
            RequestHook::Request => self.request,
            RequestHook::RequestError(_) => self.request_error,
            RequestHook::Response => self.response,
        }
    }
}

/// The exchange and the result of a hook. Without an exchange, the hook never returned.
pub type Called<T> = (Option<Box<Exchange>>, Result<T, Fault>);

/// A module's code.
pub trait Runner: Send + Sync {
    fn wants(&self) -> Wants;

    /// Makes the state of a request.
    fn open<'a>(
        &'a self,
        connection: Option<&'a ConnectionState>,
        exchange: Box<Exchange>,
        guard: &'a Arc<Guard>,
    ) -> BoxFuture<'a, Called<Box<dyn Handler>>>;

    /// Makes the state of a connection and begins it; `None`: the module has no hooks of connections.
    fn connect<'a>(
        &'a self,
        origin: &'a Origin,
        guard: &'a Arc<Guard>,
    ) -> BoxFuture<'a, Result<Option<Box<dyn ConnectionHandler>>, Fault>>;

    /// Its settings, again.
    fn configure<'a>(
        &'a self,
        settings: &'a serde_json::Map<String, serde_json::Value>,
    ) -> BoxFuture<'a, Result<(), String>>;

    /// Whether a request or a connection is open in it, or one of its functions runs.
    fn is_in_use(&self) -> bool;

    /// Ends it when it is no longer in use. The error says why it could not be ended.
    fn retire(&self) -> BoxFuture<'_, Result<(), String>>;
}

/// The state of one request. Dropped when the request has ended.
pub trait Handler: Send {
    fn call<'a>(
        &'a mut self,
        hook: RequestHook,
        exchange: Box<Exchange>,
        guard: &'a Arc<Guard>,
    ) -> BoxFuture<'a, Called<Verdict>>;

    /// A piece of a body that the module asked for. `is_last`: nothing follows; it may be empty.
    fn filter<'a>(
        &'a mut self,
        side: Side,
        bytes: Bytes,
        is_last: bool,
        guard: &'a Arc<Guard>,
    ) -> BoxFuture<'a, Result<Filtered, Fault>>;
}

/// What one module keeps of a connection. Only its runner knows what it is.
pub struct ConnectionState(pub Arc<dyn Any + Send + Sync>);

/// What a hook of a connection gave out.
#[derive(Debug, Default)]
pub struct ConnectionFiltered {
    /// What follows takes the place of the bytes; otherwise they go on as they are.
    pub is_replaced: bool,
    pub to_server: Bytes,
    pub to_peer: Bytes,
}

/// The hooks of one module for one connection. Dropped when it has ended, which the module is told then.
pub trait ConnectionHandler: Send {
    fn state(&self) -> ConnectionState;
    fn start<'a>(&'a mut self, guard: &'a Arc<Guard>) -> BoxFuture<'a, Result<ConnectionFiltered, Fault>>;
    /// `to`: where the bytes go.
    fn filter<'a>(
        &'a mut self,
        to: Side,
        bytes: Bytes,
        is_last: bool,
        guard: &'a Arc<Guard>,
    ) -> BoxFuture<'a, Result<ConnectionFiltered, Fault>>;
}

/// One module of the configuration.
pub struct Module {
    pub standing: Arc<Standing>,
    pub runner: Arc<dyn Runner>,
    pub wants: Wants,
}

impl Module {
    pub fn new(standing: Arc<Standing>, runner: Arc<dyn Runner>) -> Module {
        Module { standing, wants: runner.wants(), runner }
    }

    /// Whether it is passed over: optional, and deactivated.
    pub(crate) fn is_skipped(&self) -> bool {
        self.standing.is_optional && self.standing.health.is_deactivated()
    }

    /// Whether requests cannot be served because of it.
    pub fn is_missing(&self) -> bool {
        !self.standing.is_optional && self.standing.health.is_deactivated()
    }
}
