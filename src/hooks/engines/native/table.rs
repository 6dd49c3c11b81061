//! The boundary from a library to the host: the table of functions that it may call, and the memory that it passes in.
//!
//! Each function finds its call, reads its arguments, and calls the session. Nothing here decides what is allowed.
#![expect(unsafe_code, reason = "reads and writes memory that a library points to")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde_json::json;
use snaphook_hook_abi::{
    ABI_VERSION, Buffer, Bytes, Host, LEVEL_DEBUG, LEVEL_ERROR, LEVEL_INFO, LEVEL_WARN, STATUS_ERROR, STATUS_MISUSE,
    STATUS_NONE, STATUS_OK, STATUS_OVER, Text,
};

use super::call::{Call, Refused};
use super::{blocking, registry};
use crate::catalog::{FieldError, Part};
use crate::hooks::access::{AccessCode, AccessError};
use crate::hooks::context::{Failure, FailureCause, LogLevel};
use crate::hooks::engines::arguments::{ANY, REDIRECTS, milliseconds, misfit, pairs};
use crate::hooks::session::{HostError, HttpRequest, ProcessCommand, Redirect, Session};

/// The only table, which all calls share.
pub(super) static HOST: Host = Host {
    abi_version: ABI_VERSION,
    struct_size: size_of::<Host>() as u32,
    answer,
    release,
    log,
    read_get,
    read_query,
    read_event,
    write_create,
    write_update,
    write_delete,
    http_send,
    process_run,
    secret_get,
};

type Status = Result<i32, Refused>;

extern "C" fn answer(call: u64, kind: u32, payload: Bytes) -> i32 {
    serve(call, |call| {
        call.answer(kind, bytes(call, &payload, "the payload of its answer")?)?;
        Ok(STATUS_OK)
    })
}

extern "C" fn release(call: u64, handle: u64) -> i32 {
    serve(call, |call| call.release(handle).map(|()| STATUS_OK))
}

extern "C" fn log(call: u64, level: u32, message: Text) -> i32 {
    serve(call, |call| {
        let level = match level {
            LEVEL_DEBUG => LogLevel::Debug,
            LEVEL_INFO => LogLevel::Info,
            LEVEL_WARN => LogLevel::Warn,
            LEVEL_ERROR => LogLevel::Error,
            other => {
                return Err(call.misuse(&format!("it logged with level {other}, which is none of `SNAPHOOK_LEVEL_…`")));
            }
        };
        let message = text(call, &message, "a log message")?;
        match call.session.log(level, message.to_owned()) {
            Ok(()) => Ok(STATUS_OK),
            Err(error) => Err(call.fatal(error)),
        }
    })
}

extern "C" fn read_get(call: u64, model: Text, id: Text, out: *mut Buffer) -> i32 {
    serve(call, |call| {
        let (model, id) = (text(call, &model, "`model`")?, text(call, &id, "`id`")?);
        let found = ask(call, async |session| session.read_get(model, id).await);
        give_maybe(call, out, found)
    })
}

extern "C" fn read_query(call: u64, model: Text, query: Text, out: *mut Buffer) -> i32 {
    serve(call, |call| {
        let (model, query) = (text(call, &model, "`model`")?, text(call, &query, "`query`")?);
        let found = ask(call, async |session| session.read_query(model, query).await);
        give_maybe(call, out, found.map(Some))
    })
}

extern "C" fn read_event(call: u64, position: u64, out: *mut Buffer) -> i32 {
    serve(call, |call| {
        let found = ask(call, async |session| session.read_event(position).await);
        give_maybe(call, out, found)
    })
}

extern "C" fn write_create(call: u64, model: Text, id: Text, data: Text, out: *mut Buffer) -> i32 {
    serve(call, |call| {
        let (model, data) = (text(call, &model, "`model`")?, text(call, &data, "`data`")?);
        let id = if id.ptr.is_null() { None } else { Some(text(call, &id, "`id`")?) };
        let written = ask(call, async |session| session.write_create(model, id, data).await);
        give_maybe(call, out, written.map(Some))
    })
}

extern "C" fn write_update(
    call: u64,
    model: Text,
    id: Text,
    data: Text,
    expected: *const u64,
    out: *mut Buffer,
) -> i32 {
    serve(call, |call| {
        let (model, id) = (text(call, &model, "`model`")?, text(call, &id, "`id`")?);
        let (data, expected) = (text(call, &data, "`data`")?, position(expected));
        let written = ask(call, async |session| session.write_update(model, id, data, expected).await);
        give_maybe(call, out, written.map(Some))
    })
}

extern "C" fn write_delete(call: u64, model: Text, id: Text, expected: *const u64, out: *mut Buffer) -> i32 {
    serve(call, |call| {
        let (model, id) = (text(call, &model, "`model`")?, text(call, &id, "`id`")?);
        let expected = position(expected);
        let deleted = ask(call, async |session| session.write_delete(model, id, expected).await);
        give_maybe(call, out, deleted.map(Some))
    })
}

/// Reads the request of `http_send`.
pub(super) fn request_of(request: &str, body: Vec<u8>) -> Result<HttpRequest, FieldError> {
    let mut members = Part::whole(request).members(&["method", "url", "headers", "timeout_ms", "redirect"])?;
    let method = members.take("method").map(|method| method.string()).transpose()?;
    let redirect = members.take("redirect").map(|redirect| redirect.word(REDIRECTS)).transpose()?;
    Ok(HttpRequest {
        method: method.unwrap_or_else(|| "GET".to_owned()),
        url: members.need("url", "a string")?.string()?,
        headers: members.take("headers").map(|headers| pairs(&headers)).transpose()?.unwrap_or_default(),
        body,
        timeout: members.set("timeout_ms").map(|time| milliseconds(&time)).transpose()?,
        redirect: redirect.unwrap_or(Redirect::Follow),
    })
}

extern "C" fn http_send(call: u64, request: Text, body: Bytes, head: *mut Buffer, response_body: *mut Buffer) -> i32 {
    serve(call, |call| {
        let (request, body) = (text(call, &request, "`request`")?, bytes(call, &body, "`body`")?);
        let request = match request_of(request, body.to_vec()) {
            Ok(request) => request,
            Err(fault) => return give_error(call, head, invalid("the request", &fault)),
        };
        match granted(call, ask(call, async move |session| session.http_send(request).await))? {
            Ok(response) => {
                let answer = json!({
                    "status": response.status,
                    "url": response.url,
                    "redirected": response.redirected,
                    "headers": response.headers,
                });
                give(call, head, answer.to_string().into_bytes())?;
                give(call, response_body, response.body)?;
                Ok(STATUS_OK)
            }
            Err(error) => give_error(call, head, error),
        }
    })
}

/// Reads the command of `process_run`.
pub(super) fn command_of(command: &str, stdin: Vec<u8>) -> Result<ProcessCommand, FieldError> {
    let mut members = Part::whole(command).members(&["program", "args", "env", "timeout_ms"])?;
    Ok(ProcessCommand {
        program: members.need("program", "a string")?.string()?,
        args: members.take("args").map(|args| args.names::<ANY>()).transpose()?.unwrap_or_default(),
        stdin,
        env: members.take("env").map(|env| pairs(&env)).transpose()?.unwrap_or_default(),
        timeout: members.set("timeout_ms").map(|time| milliseconds(&time)).transpose()?,
    })
}

extern "C" fn process_run(
    call: u64,
    command: Text,
    input: Bytes,
    code: *mut i32,
    output: *mut Buffer,
    error_output: *mut Buffer,
) -> i32 {
    serve(call, |call| {
        let (command, input) = (text(call, &command, "`command`")?, bytes(call, &input, "`input`")?);
        let command = match command_of(command, input.to_vec()) {
            Ok(command) => command,
            Err(fault) => return give_error(call, output, invalid("the command", &fault)),
        };
        match granted(call, ask(call, async move |session| session.process_run(command).await))? {
            Ok(ended) => {
                if code.is_null() {
                    return Err(call.misuse("it passed null for `code`"));
                }
                // SAFETY: the header requires that the library passes a pointer to its own number.
                unsafe { code.write_unaligned(ended.code) };
                give(call, output, ended.stdout)?;
                give(call, error_output, ended.stderr)?;
                Ok(STATUS_OK)
            }
            Err(error) => give_error(call, output, error),
        }
    })
}

extern "C" fn secret_get(call: u64, name: Text, out: *mut Buffer) -> i32 {
    serve(call, |call| {
        let name = text(call, &name, "`name`")?;
        let value = ask(call, async |session| session.secret_get(name).await);
        give_maybe(call, out, value.map(Some))
    })
}

/// Finds the call and runs `work` for it; nothing unwinds into the library.
fn serve(id: u64, work: impl FnOnce(&Call) -> Status) -> i32 {
    let served = catch_unwind(AssertUnwindSafe(|| {
        let Some(call) = registry::find(id).filter(|call| !call.is_over()) else { return STATUS_OVER };
        match work(&call) {
            Ok(status) => status,
            Err(Refused::Over) => STATUS_OVER,
            Err(Refused::Misuse) => STATUS_MISUSE,
        }
    }));
    served.unwrap_or_else(|_| {
        if let Some(call) = registry::find(id) {
            let message = "a host function failed; see the server's log".to_owned();
            call.fatal(HostError::Fatal(Failure { cause: FailureCause::Internal, message, limit: None }));
        }
        STATUS_OVER
    })
}

/// Calls the session and blocks this thread.
fn ask<T>(call: &Call, question: impl AsyncFnOnce(Arc<Session>) -> Result<T, HostError>) -> Result<T, HostError> {
    blocking::wait(&call.runtime, question(Arc::clone(&call.session)))
}

/// An exceeded limit fails the call; other errors are returned to the library.
fn granted<T>(call: &Call, result: Result<T, HostError>) -> Result<Result<T, AccessError>, Refused> {
    // The call may have timed out while it waited; then nobody needs the result.
    if call.is_over() {
        return Err(Refused::Over);
    }
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(HostError::Access(error)) => Ok(Err(error)),
        Err(error) => Err(call.fatal(error)),
    }
}

/// The error for a malformed argument.
fn invalid(what: &str, fault: &FieldError) -> AccessError {
    AccessError::new(AccessCode::Invalid, misfit(what, fault))
}

fn give_maybe(call: &Call, out: *mut Buffer, result: Result<Option<String>, HostError>) -> Status {
    match granted(call, result)? {
        Ok(Some(text)) => give(call, out, text.into_bytes()).map(|()| STATUS_OK),
        Ok(None) => Ok(STATUS_NONE),
        Err(error) => give_error(call, out, error),
    }
}

fn give_error(call: &Call, out: *mut Buffer, error: AccessError) -> Status {
    let text = json!({ "code": error.code.as_str(), "message": error.message }).to_string();
    give(call, out, text.into_bytes()).map(|()| STATUS_ERROR)
}

fn give(call: &Call, out: *mut Buffer, bytes: Vec<u8>) -> Result<(), Refused> {
    if out.is_null() {
        return Err(call.misuse("it passed null for a buffer"));
    }
    let (handle, ptr, len) = call.keep(bytes)?;
    // SAFETY: the header requires that the library passes a pointer to its own buffer.
    unsafe { out.write_unaligned(Buffer { handle, ptr, len }) };
    Ok(())
}

fn position(expected: *const u64) -> Option<u64> {
    // SAFETY: the header requires null or a pointer to the library's own number.
    (!expected.is_null()).then(|| unsafe { expected.read_unaligned() })
}

fn text<'a>(call: &Call, text: &'a Text, what: &str) -> Result<&'a str, Refused> {
    let bytes = bytes(call, &Bytes { ptr: text.ptr.cast(), len: text.len }, what)?;
    let bytes: &'a [u8] = bytes;
    std::str::from_utf8(bytes)
        .map_err(|error| call.misuse(&format!("{what} is not UTF-8, from byte {} on", error.valid_up_to())))
}

/// The caller chooses the lifetime: the library keeps the bytes valid until the host function returns.
fn bytes<'a>(call: &Call, bytes: &Bytes, what: &str) -> Result<&'a [u8], Refused> {
    if bytes.len == 0 {
        return Ok(&[]);
    }
    if bytes.ptr.is_null() || bytes.len > isize::MAX as usize {
        return Err(call.misuse(&format!("it passed {} bytes at {:?} for {what}", bytes.len, bytes.ptr)));
    }
    // SAFETY: the header requires that this many bytes are valid until this function returns.
    Ok(unsafe { std::slice::from_raw_parts(bytes.ptr, bytes.len) })
}
