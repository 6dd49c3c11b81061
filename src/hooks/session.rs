//! One call's way to the host: every capability of every engine and WIT version ends here.
//!
//! Grants, call counts, deadlines and sizes are checked here and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use super::access::AccessError;
use super::context::{Asked, Failure, LogLevel, LogLine};

/// What a host call answers instead of a value.
#[derive(Clone, Debug)]
pub enum HostError {
    /// The guest gets it and may go on.
    Access(AccessError),
    /// A limit of the call is broken: the engine ends the guest with this failure.
    Fatal(Failure),
}

/// An HTTP request of a hook. Header values and body may hold `{{secret:name}}` in headers only.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub timeout: Option<Duration>,
    /// `follow` (default), `manual` or `error`, as in fetch.
    pub redirect: Redirect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirect {
    Follow,
    Manual,
    Error,
}

#[derive(Clone, Debug)]
pub struct HttpResponse {
    pub status: u16,
    /// After redirects.
    pub url: String,
    pub redirected: bool,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct ProcessCommand {
    pub program: String,
    pub args: Vec<String>,
    pub stdin: Vec<u8>,
    pub env: Vec<(String, String)>,
    pub timeout: Option<Duration>,
}

#[derive(Clone, Debug)]
pub struct ProcessOutput {
    /// Exit code; 128 + signal if a signal ended it.
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// One call's session.
pub struct Session {}

impl Session {
    /// The instance as JSON text; `None` if there is none.
    pub async fn read_get(&self, model: &str, id: &str) -> Result<Option<String>, HostError> {
        let _ = (model, id);
        unimplemented!()
    }
    /// `{items, next}` as JSON text; `query` as in [`super::access::Access::query`].
    pub async fn read_query(&self, model: &str, query: &str) -> Result<String, HostError> {
        let _ = (model, query);
        unimplemented!()
    }
    /// The event as JSON text. Needs read on the event's model.
    pub async fn read_event(&self, position: u64) -> Result<Option<String>, HostError> {
        let _ = position;
        unimplemented!()
    }
    /// `data` is JSON text; answers the instance as JSON text.
    pub async fn write_create(&self, model: &str, id: Option<&str>, data: &str) -> Result<String, HostError> {
        let _ = (model, id, data);
        unimplemented!()
    }
    pub async fn write_update(
        &self,
        model: &str,
        id: &str,
        data: &str,
        expected: Option<u64>,
    ) -> Result<String, HostError> {
        let _ = (model, id, data, expected);
        unimplemented!()
    }
    pub async fn write_delete(&self, model: &str, id: &str, expected: Option<u64>) -> Result<String, HostError> {
        let _ = (model, id, expected);
        unimplemented!()
    }
    pub async fn http_send(&self, request: HttpRequest) -> Result<HttpResponse, HostError> {
        let _ = request;
        unimplemented!()
    }
    pub async fn process_run(&self, command: ProcessCommand) -> Result<ProcessOutput, HostError> {
        let _ = command;
        unimplemented!()
    }
    pub async fn secret_get(&self, name: &str) -> Result<String, HostError> {
        let _ = name;
        unimplemented!()
    }
    /// Waits, for timers; counts as a host call but as guest time (wall clock limit goes on).
    pub async fn sleep(&self, duration: Duration) -> Result<(), HostError> {
        let _ = duration;
        unimplemented!()
    }
    /// Keeps a log line; `Fatal` when the call logs more than allowed.
    pub fn log(&self, level: LogLevel, message: String) -> Result<(), HostError> {
        let _ = (level, message);
        unimplemented!()
    }
    /// Time spent in capability calls so far: an engine adds it to its deadline.
    pub fn host_time(&self) -> Duration {
        unimplemented!()
    }
    /// Whether this call may amend; notes that it was asked.
    pub fn may_amend(&self) -> bool {
        unimplemented!()
    }
    /// What was logged and asked, taken out at the end of the call.
    pub fn finish(&self) -> (Vec<LogLine>, Vec<Asked>) {
        unimplemented!()
    }
}
