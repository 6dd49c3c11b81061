//! The capabilities, as functions. What no grant opens answers [`AccessError`] with the code `denied`.

use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::data;

/// A capability did not do what it was asked.
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
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for AccessError {}

/// One entity of a model, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Instance<T> {
    pub id: String,
    pub model: String,
    pub model_version: u64,
    pub revision: u64,
    /// Position of its last event; what `expected` is compared with.
    pub position: u64,
    pub created_at: String,
    pub updated_at: String,
    pub data: T,
}

/// An instance whose data is still text.
pub(crate) type RawInstance = Instance<String>;

impl RawInstance {
    fn typed<T: DeserializeOwned + 'static>(self) -> Result<Instance<T>, AccessError> {
        let data = data::read(&self.data).map_err(|error| {
            let what = format!("`{}/{}` does not fit the type that it is read into: {error}", self.model, self.id);
            AccessError::new("invalid", what)
        })?;
        let Instance { id, model, model_version, revision, position, created_at, updated_at, .. } = self;
        Ok(Instance { id, model, model_version, revision, position, created_at, updated_at, data })
    }
}

fn to_text(value: &(impl serde::Serialize + ?Sized)) -> Result<String, AccessError> {
    serde_json::to_string(value).map_err(|error| AccessError::new("invalid", error.to_string()))
}

/// Lines for the hook's own log.
pub mod log {
    use crate::host;

    pub fn debug(message: impl AsRef<str>) {
        host::log(0, message.as_ref());
    }

    pub fn info(message: impl AsRef<str>) {
        host::log(1, message.as_ref());
    }

    pub fn warn(message: impl AsRef<str>) {
        host::log(2, message.as_ref());
    }

    pub fn error(message: impl AsRef<str>) {
        host::log(3, message.as_ref());
    }
}

/// Reads what the grant `read` opens.
pub mod read {
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::{AccessError, Instance, to_text};
    use crate::host;

    /// `None` if there is no such instance.
    pub fn get<T: DeserializeOwned + 'static>(model: &str, id: &str) -> Result<Option<Instance<T>>, AccessError> {
        host::read_get(model, id)?.map(super::RawInstance::typed).transpose()
    }

    /// A page of a list.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Page<T> {
        pub items: Vec<Instance<T>>,
        /// Cursor of the next page.
        pub next: Option<String>,
    }

    /// `query` becomes JSON as in REST: `{"filter": {path: {op: value}}, "sort": "-a,b", "limit": 50, "cursor": "…"}`.
    pub fn query<T: DeserializeOwned + 'static>(model: &str, query: &impl Serialize) -> Result<Page<T>, AccessError> {
        let (items, next) = host::read_query(model, &to_text(query)?)?;
        Ok(Page { items: items.into_iter().map(super::RawInstance::typed).collect::<Result<_, _>>()?, next })
    }

    /// The event at a position as JSON text, as in REST.
    pub fn event(position: u64) -> Result<Option<String>, AccessError> {
        host::read_event(position)
    }
}

/// Writes what the grant `write` opens. Each write is a command like any other: validated, hooked, logged. Post hooks only.
pub mod write {
    use serde::Serialize;
    use serde_json::Value;

    use super::{AccessError, Instance, RawInstance, to_text};
    use crate::host;

    /// `id`: the server makes one if there is none.
    pub fn create(model: &str, id: Option<&str>, data: &impl Serialize) -> Result<Instance<Value>, AccessError> {
        host::write_create(model, id, &to_text(data)?).and_then(RawInstance::typed)
    }

    /// `expected`: the write fails with `conflict` if the last event of the instance is at another position.
    pub fn update(
        model: &str,
        id: &str,
        data: &impl Serialize,
        expected: Option<u64>,
    ) -> Result<Instance<Value>, AccessError> {
        host::write_update(model, id, &to_text(data)?, expected).and_then(RawInstance::typed)
    }

    /// Gives the instance as it was.
    pub fn delete(model: &str, id: &str, expected: Option<u64>) -> Result<Instance<Value>, AccessError> {
        host::write_delete(model, id, expected).and_then(RawInstance::typed)
    }
}

/// Requests to the addresses that the grant `http` opens. Post hooks only.
pub mod http {
    use std::time::Duration;

    use super::AccessError;
    use crate::host;

    /// What becomes of a redirect.
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
        /// A value may hold `{{secret:name}}`: the server puts the secret there, the hook never sees it.
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

        pub fn send(&self) -> Result<Response, AccessError> {
            host::http_send(self)
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
}

/// Programs that the grant `process` opens. There is no shell. Post hooks only.
pub mod process {
    use std::time::Duration;

    use super::AccessError;
    use crate::host;

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

        pub fn run(&self) -> Result<Output, AccessError> {
            host::process_run(self)
        }
    }

    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Output {
        /// Exit code; 128 + signal if a signal ended it.
        pub code: i32,
        pub stdout: Vec<u8>,
        pub stderr: Vec<u8>,
    }
}

/// Secrets that the grant `secret` opens.
pub mod secret {
    use super::AccessError;
    use crate::host;

    pub fn get(name: &str) -> Result<String, AccessError> {
        host::secret_get(name)
    }
}
