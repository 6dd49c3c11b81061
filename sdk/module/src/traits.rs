//! The traits that a module implements.

use crate::answer::{Answer, Filtered};
use crate::config::{Config, ConnectionInfo};
use crate::exchange::{Exchange, Output};
use crate::hooks::{Flags, Hooks};
use crate::host::Host;

/// A module. It is called from many threads concurrently.
pub trait Module: Send + Sync + Sized + 'static {
    /// The state of a connection; `()` for modules without connection hooks.
    type Connection: ConnectionHandler;
    /// The state of a request.
    type Request: RequestHandler;
    /// The hooks that this module has; others are never called.
    const HOOKS: Hooks;
    /// How the server calls the hooks.
    const FLAGS: Flags = Flags::NONE;

    /// Starts the module. On an error the server does not start, or continues without the module if it is optional; after
    /// a reload, it keeps the previous modules.
    fn activate(host: Host, config: &Config<'_>) -> Result<Self, String>;

    /// Called after `activate`, where an error has the same effect as in `activate`, and after each reload of the
    /// configuration. After a reload, an error means that the previous configuration stays in use.
    fn config_change(&self, _config: &Config<'_>) -> Result<(), String> {
        Ok(())
    }

    /// Called before the module is dropped, after its last request and connection have ended, if it was active.
    fn deactivate(&self) {}

    /// Creates the state of a connection. Called only if the module has connection hooks.
    fn connection(&self, _info: &ConnectionInfo<'_>) -> Option<Self::Connection> {
        None
    }

    /// Creates the state of a request.
    fn request(&self, connection: Option<&Self::Connection>, exchange: &mut Exchange<'_>) -> Self::Request;
}

/// The state of a connection. Its hooks never overlap, but [`Module::request`] may run beside them.
pub trait ConnectionHandler: Send + Sync + 'static {
    /// The connection begins. `Filtered::Failed` ends it.
    fn start(&self, _output: &mut Output<'_>) -> Filtered {
        Filtered::Unchanged
    }

    /// The connection ended.
    fn end(&self) {}

    /// Bytes from the socket.
    fn read(&self, _bytes: &[u8], _is_last: bool, _output: &mut Output<'_>) -> Filtered {
        Filtered::Unchanged
    }

    /// Bytes for the socket.
    fn write(&self, _bytes: &[u8], _is_last: bool, _output: &mut Output<'_>) -> Filtered {
        Filtered::Unchanged
    }
}

impl ConnectionHandler for () {}

/// The state of a request, dropped when its response has ended. Its hooks never overlap.
pub trait RequestHandler: Send + 'static {
    /// May change the request.
    fn before_request(&mut self, _exchange: &mut Exchange<'_>) -> Answer {
        Answer::Declined
    }

    /// May create the response.
    fn request(&mut self, _exchange: &mut Exchange<'_>) -> Answer {
        Answer::Declined
    }

    /// May change the response to an error.
    fn request_error(&mut self, _exchange: &mut Exchange<'_>, _status: u16) -> Answer {
        Answer::Declined
    }

    /// May change the response.
    fn response(&mut self, _exchange: &mut Exchange<'_>) -> Answer {
        Answer::Declined
    }

    /// A chunk of the request body, after [`Exchange::filter_body`].
    fn request_body(&mut self, _bytes: &[u8], _is_last: bool, _output: &mut Output<'_>) -> Filtered {
        Filtered::Unchanged
    }

    /// A chunk of the response body, after [`Exchange::filter_body`].
    fn response_body(&mut self, _bytes: &[u8], _is_last: bool, _output: &mut Output<'_>) -> Filtered {
        Filtered::Unchanged
    }
}
