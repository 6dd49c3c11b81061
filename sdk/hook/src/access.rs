//! The capabilities, as functions. What no grant opens answers [`AccessError`] with the code `denied`.

use crate::exchange::{AccessError, Instance, RawInstance};

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

    use super::{AccessError, Instance, RawInstance, to_text};
    use crate::host;

    /// `None` if there is no such instance.
    pub fn get<T: DeserializeOwned + 'static>(model: &str, id: &str) -> Result<Option<Instance<T>>, AccessError> {
        host::read_get(model, id)?.map(RawInstance::typed).transpose()
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
        Ok(Page { items: items.into_iter().map(RawInstance::typed).collect::<Result<_, _>>()?, next })
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
    use super::AccessError;
    use crate::host;

    pub use crate::exchange::{Redirect, Request, Response};

    impl Request {
        pub fn send(&self) -> Result<Response, AccessError> {
            host::http_send(self)
        }
    }
}

/// Programs that the grant `process` opens. There is no shell. Post hooks only.
pub mod process {
    use super::AccessError;
    use crate::host;

    pub use crate::exchange::{Command, Output};

    impl Command {
        pub fn run(&self) -> Result<Output, AccessError> {
            host::process_run(self)
        }
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
