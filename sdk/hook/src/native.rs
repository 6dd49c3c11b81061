//! A native library: the C ABI on one side, the trait on the other.
#![expect(unsafe_code, reason = "the C ABI: pointers and lengths from the server, a table of its functions")]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
pub use snaphook_hook_abi::Descriptor;
use snaphook_hook_abi::{
    ABI_VERSION, ANSWER_ACCEPT, ANSWER_AMEND, ANSWER_FAIL, ANSWER_REJECT, Buffer, Bytes, Context, Host as Table,
    PHASE_POST_CREATE, PHASE_POST_DELETE, PHASE_POST_UPDATE, PHASE_PRE_CREATE, PHASE_PRE_DELETE, PHASE_PRE_UPDATE,
    STATUS_ERROR, STATUS_NONE, STATUS_OK, Text,
};

use crate::change::{Event, Phase, Raw};
use crate::exchange::{AccessError, Command, Instance, Output, RawInstance, Redirect, Request, Response};
use crate::host::{self, Host};
use crate::{Actor, Error, Hook, Reject, Verdict};

/// The descriptor of a library with one hook and its existing functions: the server binds it only to their phases.
pub fn descriptor<H: Hook>(name: &'static str, has_check: bool, has_react: bool) -> *const Descriptor {
    // Called once per load of the library, which is never unloaded.
    Box::leak(Box::new(Descriptor {
        abi_version: ABI_VERSION,
        struct_size: size_of::<Descriptor>() as u32,
        name: text(name),
        check: has_check.then_some(check::<H>),
        react: has_react.then_some(react::<H>),
    }))
}

extern "C-unwind" fn check<H: Hook>(call: u64, context: *const Context, host: *const Table) {
    serve(call, context, host, |change| match crate::run::check::<H>(change) {
        Ok(Verdict::Accept) => (ANSWER_ACCEPT, String::new()),
        Ok(Verdict::Amend(data)) => (ANSWER_AMEND, data),
        Err(Error::Reject(reject)) => (ANSWER_REJECT, refusal(&reject)),
        Err(Error::Fail(message)) => (ANSWER_FAIL, message),
    });
}

extern "C-unwind" fn react<H: Hook>(call: u64, context: *const Context, host: *const Table) {
    serve(call, context, host, |change| match crate::run::react::<H>(change) {
        Ok(()) => (ANSWER_ACCEPT, String::new()),
        Err(message) => (ANSWER_FAIL, message),
    });
}

/// Performs one run; a panic fails it.
fn serve(call: u64, context: *const Context, host: *const Table, run: impl FnOnce(Raw) -> (u32, String)) {
    // SAFETY: the server passes both, and they stay valid until this function returns.
    let (context, table) = unsafe { (&*context, &*host) };
    let server: Rc<dyn Host> = Rc::new(Server { call, table: *table });
    let ran = catch_unwind(AssertUnwindSafe(|| {
        host::with(server, || match change(context) {
            Ok(change) => run(change),
            Err(message) => (ANSWER_FAIL, message),
        })
    }));
    let (kind, payload) = ran.unwrap_or_else(|panic| (ANSWER_FAIL, format!("the hook panicked: {}", said(&*panic))));
    (table.answer)(call, kind, bytes(payload.as_bytes()));
}

fn refusal(reject: &Reject) -> String {
    let fields = reject.fields.iter().map(|(pointer, message)| json!({"pointer": pointer, "message": message}));
    json!({"message": reject.message, "fields": fields.collect::<Vec<_>>()}).to_string()
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

fn change(context: &Context) -> Result<Raw, String> {
    let owned = |text: Text| string(text).unwrap_or_default();
    Ok(Raw {
        phase: match context.phase {
            PHASE_PRE_CREATE => Phase::PreCreate,
            PHASE_POST_CREATE => Phase::PostCreate,
            PHASE_PRE_UPDATE => Phase::PreUpdate,
            PHASE_POST_UPDATE => Phase::PostUpdate,
            PHASE_PRE_DELETE => Phase::PreDelete,
            PHASE_POST_DELETE => Phase::PostDelete,
            other => {
                return Err(format!(
                    "the server requested the phase {other}, which this library does not know; rebuild it with a newer \
                     snaphook-hook"
                ));
            }
        },
        model: owned(context.model),
        model_version: context.model_version,
        id: owned(context.id),
        before: None,
        after: None,
        before_text: string(context.before),
        after_text: string(context.after),
        actor: string(context.actor).map(Actor::read),
        request_id: string(context.request_id),
        time: owned(context.time),
        event: string(context.event_id).map(|id| Event { position: context.event_position, id }),
        attempt: context.attempt,
    })
}

const fn text(text: &str) -> Text {
    Text { ptr: text.as_ptr().cast(), len: text.len() }
}

const fn bytes(bytes: &[u8]) -> Bytes {
    Bytes { ptr: bytes.as_ptr(), len: bytes.len() }
}

const NONE: Text = Text { ptr: std::ptr::null(), len: 0 };

fn string(text: Text) -> Option<String> {
    if text.ptr.is_null() {
        return None;
    }
    // SAFETY: the server's texts have this length.
    let bytes = unsafe { std::slice::from_raw_parts(text.ptr.cast::<u8>(), text.len) };
    Some(String::from_utf8_lossy(bytes).into_owned())
}

/// The server, for one run.
struct Server {
    call: u64,
    table: Table,
}

/// The session's JSON of an instance.
#[derive(Deserialize)]
struct Stored<'a> {
    id: String,
    model: String,
    model_version: u64,
    revision: u64,
    position: u64,
    created_at: String,
    updated_at: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl From<Stored<'_>> for RawInstance {
    fn from(stored: Stored<'_>) -> Self {
        let Stored { id, model, model_version, revision, position, created_at, updated_at, data } = stored;
        Instance { id, model, model_version, revision, position, created_at, updated_at, data: data.get().to_owned() }
    }
}

fn unreadable(error: serde_json::Error) -> AccessError {
    AccessError::new("failed", format!("the server's response cannot be read: {error}"))
}

fn instance(answer: &[u8]) -> Result<RawInstance, AccessError> {
    serde_json::from_slice::<Stored<'_>>(answer).map(RawInstance::from).map_err(unreadable)
}

impl Server {
    const EMPTY: Buffer = Buffer { handle: 0, ptr: std::ptr::null(), len: 0 };

    /// Copies a buffer of the server and releases it.
    fn take(&self, buffer: Buffer) -> Vec<u8> {
        if buffer.handle == 0 {
            return Vec::new();
        }
        // SAFETY: the server returned the buffer, and it stays valid until it is released.
        let copy = unsafe { std::slice::from_raw_parts(buffer.ptr, buffer.len) }.to_vec();
        (self.table.release)(self.call, buffer.handle);
        copy
    }

    /// `None`: there is no such instance or event.
    fn taken(&self, status: i32, buffer: Buffer) -> Result<Option<Vec<u8>>, AccessError> {
        let answer = self.take(buffer);
        match status {
            STATUS_OK => Ok(Some(answer)),
            STATUS_NONE => Ok(None),
            STATUS_ERROR => Err(serde_json::from_slice(&answer).unwrap_or_else(unreadable)),
            // The run has failed, whatever the hook does now.
            _ => Err(AccessError::new("failed", "the run has already failed")),
        }
    }

    fn ask(&self, question: impl FnOnce(*mut Buffer) -> i32) -> Result<Option<Vec<u8>>, AccessError> {
        let mut out = Self::EMPTY;
        let status = question(&raw mut out);
        self.taken(status, out)
    }

    fn ask_instance(&self, question: impl FnOnce(*mut Buffer) -> i32) -> Result<RawInstance, AccessError> {
        instance(&self.ask(question)?.unwrap_or_default())
    }
}

fn pointer(expected: &Option<u64>) -> *const u64 {
    expected.as_ref().map_or(std::ptr::null(), std::ptr::from_ref)
}

impl Host for Server {
    fn log(&self, level: u32, message: &str) {
        (self.table.log)(self.call, level, text(message));
    }

    fn read_get(&self, model: &str, id: &str) -> Result<Option<RawInstance>, AccessError> {
        let found = self.ask(|out| (self.table.read_get)(self.call, text(model), text(id), out))?;
        found.as_deref().map(instance).transpose()
    }

    fn read_query(&self, model: &str, query: &str) -> Result<(Vec<RawInstance>, Option<String>), AccessError> {
        #[derive(Deserialize)]
        struct QueryPage<'a> {
            #[serde(borrow)]
            items: Vec<Stored<'a>>,
            next: Option<String>,
        }
        let page =
            self.ask(|out| (self.table.read_query)(self.call, text(model), text(query), out))?.unwrap_or_default();
        let QueryPage { items, next } = serde_json::from_slice(&page).map_err(unreadable)?;
        Ok((items.into_iter().map(RawInstance::from).collect(), next))
    }

    fn read_event(&self, position: u64) -> Result<Option<String>, AccessError> {
        let found = self.ask(|out| (self.table.read_event)(self.call, position, out))?;
        Ok(found.map(|event| String::from_utf8_lossy(&event).into_owned()))
    }

    fn write_create(&self, model: &str, id: Option<&str>, data: &str) -> Result<RawInstance, AccessError> {
        let id = id.map_or(NONE, text);
        self.ask_instance(|out| (self.table.write_create)(self.call, text(model), id, text(data), out))
    }

    fn write_update(
        &self,
        model: &str,
        id: &str,
        data: &str,
        expected: Option<u64>,
    ) -> Result<RawInstance, AccessError> {
        let expected = pointer(&expected);
        self.ask_instance(|out| (self.table.write_update)(self.call, text(model), text(id), text(data), expected, out))
    }

    fn write_delete(&self, model: &str, id: &str, expected: Option<u64>) -> Result<RawInstance, AccessError> {
        let expected = pointer(&expected);
        self.ask_instance(|out| (self.table.write_delete)(self.call, text(model), text(id), expected, out))
    }

    fn http_send(&self, request: &Request) -> Result<Response, AccessError> {
        #[derive(Deserialize)]
        struct Head {
            status: u16,
            url: String,
            redirected: bool,
            headers: Vec<(String, String)>,
        }
        let redirect = match request.redirect {
            Redirect::Follow => "follow",
            Redirect::Manual => "manual",
            Redirect::Error => "error",
        };
        let described = json!({
            "method": request.method,
            "url": request.url,
            "headers": request.headers,
            "timeout_ms": request.timeout.map(|timeout| timeout.as_millis() as u64),
            "redirect": redirect,
        });
        let mut body = Self::EMPTY;
        let head = self.ask(|head| {
            let described = described.to_string();
            (self.table.http_send)(self.call, text(&described), bytes(&request.body), head, &raw mut body)
        });
        let body = self.take(body);
        let Head { status, url, redirected, headers } =
            serde_json::from_slice(&head?.unwrap_or_default()).map_err(unreadable)?;
        Ok(Response { status, url, redirected, headers, body })
    }

    fn process_run(&self, command: &Command) -> Result<Output, AccessError> {
        let described = json!({
            "program": command.program,
            "args": command.args,
            "env": command.env,
            "timeout_ms": command.timeout.map(|timeout| timeout.as_millis() as u64),
        });
        let (mut code, mut errors) = (0, Self::EMPTY);
        let output = self.ask(|output| {
            let (described, code) = (described.to_string(), &raw mut code);
            (self.table.process_run)(self.call, text(&described), bytes(&command.stdin), code, output, &raw mut errors)
        });
        let stderr = self.take(errors);
        Ok(Output { code, stdout: output?.unwrap_or_default(), stderr })
    }

    fn secret_get(&self, name: &str) -> Result<String, AccessError> {
        let value = self.ask(|out| (self.table.secret_get)(self.call, text(name), out))?;
        Ok(String::from_utf8_lossy(&value.unwrap_or_default()).into_owned())
    }
}

/// For a native library: exports the symbol that the server looks for.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($hook:ty) => {
        $crate::__export_native!($hook, true, true);
    };
    ($hook:ty: check) => {
        $crate::__export_native!($hook, true, false);
    };
    ($hook:ty: react) => {
        $crate::__export_native!($hook, false, true);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_native {
    ($hook:ty, $check:literal, $react:literal) => {
        /// The entry point for the server.
        #[unsafe(no_mangle)]
        pub extern "C" fn snaphook_hook() -> *const $crate::__private::Descriptor {
            $crate::__private::descriptor::<$hook>(env!("CARGO_PKG_NAME"), $check, $react)
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Checks;

    impl Hook for Checks {
        type Data = serde_json::Value;
    }

    #[test]
    fn a_function_that_is_not_there_is_not_offered() {
        for (check, react) in [(true, true), (true, false), (false, true)] {
            // SAFETY: a descriptor is never freed.
            let descriptor = unsafe { &*descriptor::<Checks>("checks", check, react) };
            assert_eq!((descriptor.check.is_some(), descriptor.react.is_some()), (check, react));
        }
    }
}
