//! Calls the functions of the descriptor as a server does, with a driver that panics and waits.
#![expect(unsafe_code, reason = "plays the server, which reads what the plugin passes")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use snaphook_driver::wire::{Method, decode, decode_error};
use snaphook_driver::{Capabilities, ErrorKind, OpenContext, OpenFuture, Result, Sealed, SecureStore};
use snaphook_driver_abi::OK;

use super::*;

const LONG: Duration = Duration::from_secs(20);

type Answers = HashMap<u64, Vec<Result<Vec<u8>>>>;

/// The answers to each call, by call number.
static ANSWERS: Mutex<Option<Answers>> = Mutex::new(None);
static ANSWERED: Condvar = Condvar::new();

extern "C" fn complete(call: u64, status: u32, response: Bytes) {
    // SAFETY: the plugin keeps its bytes valid until this function returns.
    let bytes = unsafe { copy(response) };
    let answer = if status == OK { Ok(bytes) } else { Err(decode_error(&bytes)) };
    ANSWERS.lock().unwrap().get_or_insert_default().entry(call).or_default().push(answer);
    ANSWERED.notify_all();
}

fn completion() -> Completion {
    static CALLS: AtomicU64 = AtomicU64::new(1);
    Completion { call: CALLS.fetch_add(1, Ordering::Relaxed), complete }
}

/// The only answer to a call.
fn answer(call: u64) -> Result<Vec<u8>> {
    let is_missing = |answers: &mut Option<Answers>| !answers.as_ref().is_some_and(|all| all.contains_key(&call));
    let (mut answers, wait) = ANSWERED.wait_timeout_while(ANSWERS.lock().unwrap(), LONG, is_missing).unwrap();
    assert!(!wait.timed_out(), "call {call} is not answered");
    let answers = answers.as_mut().unwrap().get_mut(&call).unwrap();
    assert_eq!(answers.len(), 1, "call {call} is answered once");
    std::mem::replace(&mut answers[0], Ok(Vec::new()))
}

struct Odd;

#[async_trait]
impl SecureStore for Odd {
    fn capabilities(&self) -> Capabilities {
        Capabilities::LEAST
    }

    async fn health(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    async fn get(&self, name: &str) -> Result<Option<Sealed>> {
        match name {
            "at-once" => panic!("it is {name}"),
            "later" => {
                tokio::task::yield_now().await;
                panic!("{}", "it is later");
            }
            "never" => std::future::pending().await,
            _ => Ok(None),
        }
    }

    async fn put(&self, _: &str, _: &[u8], _: Option<u64>) -> Result<u64> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(7)
    }

    async fn delete(&self, _: &str) -> Result<bool> {
        std::panic::panic_any(7)
    }

    async fn list(&self, _: &str) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

static DRIVER: Driver = Driver {
    name: "odd",
    settings: &[],
    connection: &[],
    secure: Some(|context: OpenContext| -> OpenFuture<dyn SecureStore> {
        Box::pin(async move {
            assert!(context.settings.is_empty(), "it takes no settings");
            Ok(Arc::new(Odd) as _)
        })
    }),
    event: None,
    model: None,
    error: None,
};

fn descriptor() -> &'static Descriptor {
    // SAFETY: the descriptor is never freed.
    unsafe { &*export("odd", "1", std::slice::from_ref(&DRIVER)) }
}

fn start(function: impl Fn(&'static Descriptor, Bytes, Completion), request: &[u8]) -> u64 {
    let completion = completion();
    // A copy that is freed when the function has returned.
    let request = request.to_vec();
    function(descriptor(), Bytes { ptr: request.as_ptr(), len: request.len() }, completion);
    completion.call
}

fn opened(settings: &str) -> Result<u64> {
    let store = proto::Store::Secure.into();
    let request = proto::OpenRequest { store, settings_json: settings.to_owned(), ..Default::default() };
    let call = start(|plugin, request, completion| plugin.open.unwrap()(request, completion), &request.encode_to_vec());
    answer(call).map(|response| decode::<proto::OpenResponse>(&response).unwrap().handle)
}

fn call(handle: u64, method: u32, request: &[u8]) -> u64 {
    start(|plugin, request, completion| plugin.call.unwrap()(handle, method, request, completion), request)
}

fn get(handle: u64, name: &str) -> u64 {
    let request = proto::SecureGetRequest { name: name.to_owned() };
    call(handle, Method::SecureGet.number(), &request.encode_to_vec())
}

#[track_caller]
fn assert_fails(result: Result<impl Sized>, kind: ErrorKind, message: &str) {
    let error = result.err().unwrap();
    assert!(error.kind() == kind && error.to_string().contains(message), "{error}");
}

#[test]
fn panics_are_errors() {
    assert_fails(opened(r#"{"a": 1}"#), ErrorKind::Unexpected, "the driver panicked: it takes no settings");
    let handle = opened("{}").unwrap();
    assert_fails(answer(get(handle, "at-once")), ErrorKind::Unexpected, "the driver panicked: it is at-once");
    assert_fails(answer(get(handle, "later")), ErrorKind::Unexpected, "the driver panicked: it is later");
    let request = proto::SecureDeleteRequest { name: "a".into() };
    let delete = call(handle, Method::SecureDelete.number(), &request.encode_to_vec());
    assert_fails(answer(delete), ErrorKind::Uncertain, "the driver panicked: without a message");
    answer(get(handle, "fine")).unwrap();
}

#[test]
fn calls_that_wait_end_in_the_runtime() {
    let handle = opened("{}").unwrap();
    let request = proto::SecurePutRequest { name: "a".into(), ..Default::default() };
    let response = answer(call(handle, Method::SecurePut.number(), &request.encode_to_vec())).unwrap();
    assert_eq!(decode::<proto::SecurePutResponse>(&response).unwrap().version, 7);
}

#[test]
fn cancelled_calls_are_answered() {
    let handle = opened("{}").unwrap();
    let waiting = get(handle, "never");
    let cancel = descriptor().cancel.unwrap();
    cancel(waiting);
    assert_fails(answer(waiting), ErrorKind::Unexpected, "the call was cancelled");
    cancel(waiting);
    cancel(u64::MAX);
}

#[test]
fn what_does_not_exist_is_refused() {
    let handle = opened("{}").unwrap();
    assert_fails(answer(call(handle, 0, &[])), ErrorKind::Invalid, "there is no method 0");
    assert_fails(answer(get(u64::MAX, "a")), ErrorKind::Invalid, "there is no open store");
    let garbage = call(handle, Method::SecureGet.number(), &[0xff]);
    assert_fails(answer(garbage), ErrorKind::Invalid, "the request cannot be read");
    assert_fails(opened("[]"), ErrorKind::Invalid, "the settings are not an object");
    assert_fails(opened("{"), ErrorKind::Invalid, "the settings are not valid JSON");
    answer(call(handle, Method::SecureClose.number(), &[])).unwrap();
    assert_fails(answer(get(handle, "a")), ErrorKind::Invalid, "there is no open store");
}
