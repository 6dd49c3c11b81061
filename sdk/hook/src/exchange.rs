//! The requests and results that a hook and its host exchange.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::data;

/// The error of a host call.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AccessError {
    /// `denied`, `not-found`, `exists`, `conflict`, `invalid`, `rejected`, `timeout`, `too-large`, `failed`; more may come.
    pub code: String,
    pub message: String,
}

impl AccessError {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> AccessError {
        AccessError { code: code.to_owned(), message: message.into() }
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message.contains('\n') {
            // It ends with lines for the configuration, which users copy as they are.
            true => write!(f, "{}: {}", self.code, self.message),
            false => write!(f, "{} ({})", self.message, self.code),
        }
    }
}

impl std::error::Error for AccessError {}

/// An instance of a model, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Instance<T> {
    pub id: String,
    pub model: String,
    pub model_version: u64,
    pub revision: u64,
    /// Position of its last event, with which `expected` is compared.
    pub position: u64,
    pub created_at: String,
    pub updated_at: String,
    pub data: T,
}

/// An instance whose data is still text.
pub(crate) type RawInstance = Instance<String>;

impl RawInstance {
    pub(crate) fn typed<T: DeserializeOwned + 'static>(self) -> Result<Instance<T>, AccessError> {
        let data = data::read(&self.data).map_err(|error| {
            let what = format!("`{}/{}` does not fit the type that it is read into: {error}", self.model, self.id);
            AccessError::new("invalid", what)
        })?;
        let Instance { id, model, model_version, revision, position, created_at, updated_at, .. } = self;
        Ok(Instance { id, model, model_version, revision, position, created_at, updated_at, data })
    }
}

/// How redirects are handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Redirect {
    #[default]
    Follow,
    Manual,
    Error,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub url: String,
    /// A value may contain `{{secret:name}}`: the server inserts the secret, and the hook never sees it.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub timeout: Option<Duration>,
    pub redirect: Redirect,
}

impl Request {
    pub fn new(method: &str, url: &str) -> Request {
        Request {
            method: method.to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout: None,
            redirect: Redirect::Follow,
        }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = body.into();
        self
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// After redirects.
    pub url: String,
    pub redirected: bool,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Absolute path.
    pub program: String,
    pub args: Vec<String>,
    pub stdin: Vec<u8>,
    pub env: Vec<(String, String)>,
    pub timeout: Option<Duration>,
}

impl Command {
    pub fn new(program: &str, args: &[&str]) -> Command {
        Command {
            program: program.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            stdin: Vec::new(),
            env: Vec::new(),
            timeout: None,
        }
    }

    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Vec<u8>>) -> Command {
        self.stdin = stdin.into();
        self
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit code; 128 + signal if a signal ended the program.
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}
