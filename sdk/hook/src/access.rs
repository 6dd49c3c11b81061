//! The capabilities, as functions. Without a grant they return an [`AccessError`] with the code `denied`.

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

/// Reads the models of the grant `read`.
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

/// Writes the models of the grant `write`. Each write is a command like any other: it is validated, runs hooks and is
/// logged. Post hooks only.
pub mod write {
    use serde::Serialize;
    use serde_json::Value;

    use super::{AccessError, Instance, RawInstance, to_text};
    use crate::host;

    /// `id`: without one, the server creates one.
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

    /// Returns the instance before the deletion.
    pub fn delete(model: &str, id: &str, expected: Option<u64>) -> Result<Instance<Value>, AccessError> {
        host::write_delete(model, id, expected).and_then(RawInstance::typed)
    }
}

/// Requests to the addresses of the grant `http`. Post hooks only.
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

/// Runs the programs of the grant `process`, without a shell. Post hooks only.
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

/// Reads the secrets of the grant `secret`.
pub mod secret {
    use super::AccessError;
    use crate::host;

    pub fn get(name: &str) -> Result<String, AccessError> {
        host::secret_get(name)
    }
}
