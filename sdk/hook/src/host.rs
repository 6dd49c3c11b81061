//! The host of the run on this thread: the server, or a mock. A component uses the imports instead.

use std::cell::RefCell;
use std::rc::Rc;

use crate::exchange::{AccessError, Command, Output, RawInstance, Request, Response};

/// The functions of a host.
pub(crate) trait Host {
    fn log(&self, level: u32, message: &str);
    fn read_get(&self, model: &str, id: &str) -> Result<Option<RawInstance>, AccessError>;
    fn read_query(&self, model: &str, query: &str) -> Result<(Vec<RawInstance>, Option<String>), AccessError>;
    fn read_event(&self, position: u64) -> Result<Option<String>, AccessError>;
    fn write_create(&self, model: &str, id: Option<&str>, data: &str) -> Result<RawInstance, AccessError>;
    fn write_update(
        &self,
        model: &str,
        id: &str,
        data: &str,
        expected: Option<u64>,
    ) -> Result<RawInstance, AccessError>;
    fn write_delete(&self, model: &str, id: &str, expected: Option<u64>) -> Result<RawInstance, AccessError>;
    fn http_send(&self, request: &Request) -> Result<Response, AccessError>;
    fn process_run(&self, command: &Command) -> Result<Output, AccessError>;
    fn secret_get(&self, name: &str) -> Result<String, AccessError>;
}

thread_local! {
    static HOST: RefCell<Option<Rc<dyn Host>>> = const { RefCell::new(None) };
}

/// Runs `work` with a host on this thread.
pub(crate) fn with<T>(host: Rc<dyn Host>, work: impl FnOnce() -> T) -> T {
    /// Restores the previous host, even if `work` panics.
    struct Back(Option<Rc<dyn Host>>);
    impl Drop for Back {
        fn drop(&mut self) {
            HOST.set(self.0.take());
        }
    }
    let _back = Back(HOST.replace(Some(host)));
    work()
}

fn ask<T>(question: impl FnOnce(&dyn Host) -> Result<T, AccessError>) -> Result<T, AccessError> {
    let host = HOST.with_borrow(Clone::clone);
    let host = host.ok_or_else(|| {
        AccessError::new(
            "failed",
            "no hook runs on this thread: host calls work only on the thread that called `check` or `react`",
        )
    })?;
    question(&*host)
}

pub(crate) fn log(level: u32, message: &str) {
    // Without a host there is no log.
    let _ = ask(|host| {
        host.log(level, message);
        Ok(())
    });
}

pub(crate) fn read_get(model: &str, id: &str) -> Result<Option<RawInstance>, AccessError> {
    ask(|host| host.read_get(model, id))
}

pub(crate) fn read_query(model: &str, query: &str) -> Result<(Vec<RawInstance>, Option<String>), AccessError> {
    ask(|host| host.read_query(model, query))
}

pub(crate) fn read_event(position: u64) -> Result<Option<String>, AccessError> {
    ask(|host| host.read_event(position))
}

pub(crate) fn write_create(model: &str, id: Option<&str>, data: &str) -> Result<RawInstance, AccessError> {
    ask(|host| host.write_create(model, id, data))
}

pub(crate) fn write_update(
    model: &str,
    id: &str,
    data: &str,
    expected: Option<u64>,
) -> Result<RawInstance, AccessError> {
    ask(|host| host.write_update(model, id, data, expected))
}

pub(crate) fn write_delete(model: &str, id: &str, expected: Option<u64>) -> Result<RawInstance, AccessError> {
    ask(|host| host.write_delete(model, id, expected))
}

pub(crate) fn http_send(request: &Request) -> Result<Response, AccessError> {
    ask(|host| host.http_send(request))
}

pub(crate) fn process_run(command: &Command) -> Result<Output, AccessError> {
    ask(|host| host.process_run(command))
}

pub(crate) fn secret_get(name: &str) -> Result<String, AccessError> {
    ask(|host| host.secret_get(name))
}
