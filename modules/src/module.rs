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

/// The decision of a hook.
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
    /// Hooks for connections.
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

/// The exchange and the result of a hook. The exchange is missing if the hook did not return.
pub type Called<T> = (Option<Box<Exchange>>, Result<T, Fault>);

/// A module's code.
pub trait Runner: Send + Sync {
    fn wants(&self) -> Wants;

    /// Creates the state of a request.
    fn open<'a>(
        &'a self,
        connection: Option<&'a ConnectionState>,
        exchange: Box<Exchange>,
        guard: &'a Arc<Guard>,
    ) -> BoxFuture<'a, Called<Box<dyn Handler>>>;

    /// Creates the state of a new connection; `None` if the module has no hooks for connections.
    fn connect<'a>(
        &'a self,
        origin: &'a Origin,
        guard: &'a Arc<Guard>,
    ) -> BoxFuture<'a, Result<Option<Box<dyn ConnectionHandler>>, Fault>>;

    /// Passes changed settings to the module.
    fn configure<'a>(
        &'a self,
        settings: &'a serde_json::Map<String, serde_json::Value>,
    ) -> BoxFuture<'a, Result<(), String>>;

    /// Whether a request or a connection is open in the module, or one of its functions runs.
    fn is_in_use(&self) -> bool;

    /// Ends the module, which must no longer be in use. The error says why that failed.
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

    /// Filters a chunk of a body, as the module requested. `is_last`: this is the last chunk, which may be empty.
    fn filter<'a>(
        &'a mut self,
        side: Side,
        bytes: Bytes,
        is_last: bool,
        guard: &'a Arc<Guard>,
    ) -> BoxFuture<'a, Result<Filtered, Fault>>;
}

/// The state of a connection in one module. Only the module's runner knows its type.
pub struct ConnectionState(pub Arc<dyn Any + Send + Sync>);

/// The output of a hook for connections.
#[derive(Debug, Default)]
pub struct ConnectionFiltered {
    /// Whether the bytes below replace the input; otherwise the input is passed on unchanged.
    pub is_replaced: bool,
    pub to_server: Bytes,
    pub to_peer: Bytes,
}

/// The hooks of one module for one connection. Dropped when the connection has ended, which notifies the module.
pub trait ConnectionHandler: Send {
    fn state(&self) -> ConnectionState;
    fn start<'a>(&'a mut self, guard: &'a Arc<Guard>) -> BoxFuture<'a, Result<ConnectionFiltered, Fault>>;
    /// `to`: the direction of the bytes.
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

    /// Whether requests skip the module: it is optional and deactivated.
    pub(crate) fn is_skipped(&self) -> bool {
        self.standing.is_optional && self.standing.health.is_deactivated()
    }

    /// Whether the module prevents requests from being served: it is deactivated and not optional.
    pub fn is_missing(&self) -> bool {
        !self.standing.is_optional && self.standing.health.is_deactivated()
    }
}
