//! Arguments and results of host calls.

use std::time::Duration;

use super::access::AccessError;
use super::context::Failure;

/// The error of a host call.
#[derive(Clone, Debug)]
pub enum HostError {
    /// The guest receives the error and may continue.
    Access(AccessError),
    /// A limit of the call is exceeded: the engine stops the guest with this failure.
    Fatal(Failure),
}

impl From<Failure> for HostError {
    fn from(failure: Failure) -> Self {
        HostError::Fatal(failure)
    }
}

impl From<AccessError> for HostError {
    fn from(error: AccessError) -> Self {
        HostError::Access(error)
    }
}

/// An HTTP request of a hook. Only header values may contain `{{secret:name}}`.
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
    /// The URL after redirects.
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
