//! Host calls of JavaScript: passes the text of a call to the session and returns the text of its answer.
//!
//! The same for every engine that runs JavaScript. An answer is `+` and the value as JSON text, or `-` and `{code,
//! message}`. An exceeded limit has no answer, but ends the run.

use std::borrow::Cow;

use serde_json::{Value, json};
use snaphook_driver::PAYLOAD_BYTES_MAX;

use super::digits::Digits;
use crate::catalog::{FieldError, Part};
use crate::hooks::access::{AccessCode, AccessError};
use crate::hooks::context::{Failure, LogLevel};
use crate::hooks::engines::arguments::{ANY, REDIRECTS, milliseconds, pairs};
use crate::hooks::session::{HostError, HttpRequest, ProcessCommand, Session};

/// A host call without bytes, such as `read.get`. The numbers in its result are recorded in `digits`.
pub(in crate::hooks::engines) async fn ask(
    session: &Session,
    digits: &mut Digits,
    operation: &str,
    arguments: &str,
) -> Result<String, Failure> {
    let result = perform(session, digits, operation, arguments).await;
    if let Ok(text) = &result {
        digits.note(text, session.memory())?;
    }
    answer(result)
}

/// `fetch`: the answer, and the body.
pub(in crate::hooks::engines) async fn send(
    session: &Session,
    request: &str,
    body: Vec<u8>,
) -> Result<(String, Vec<u8>), Failure> {
    let sent = match request_of(request, body) {
        Ok(request) => session.http_send(request).await,
        Err(fault) => session.count_call().and(Err(unfit("fetch(url, init)", &fault).into())),
    };
    Ok(match sent {
        Ok(response) => {
            let head = json!({
                "status": response.status,
                "url": response.url,
                "redirected": response.redirected,
                "headers": response.headers,
            });
            (answer(Ok(head.to_string()))?, response.body)
        }
        Err(error) => (answer(Err(error))?, Vec::new()),
    })
}

/// `run`: the answer, and the program's two outputs.
pub(in crate::hooks::engines) async fn execute(
    session: &Session,
    command: &str,
    stdin: Vec<u8>,
) -> Result<(String, Vec<u8>, Vec<u8>), Failure> {
    let ran = match command_of(command, stdin) {
        Ok(command) => session.process_run(command).await,
        Err(fault) => {
            let error = unfit("run(program, args, { stdin, env, timeout })", &fault);
            session.count_call().and(Err(error.into()))
        }
    };
    Ok(match ran {
        Ok(output) => (answer(Ok(output.code.to_string()))?, output.stdout, output.stderr),
        Err(error) => (answer(Err(error))?, Vec::new(), Vec::new()),
    })
}

/// The log level for the number in the runner's scripts.
pub(in crate::hooks::engines) const fn log_level(level: u8) -> LogLevel {
    match level {
        0 => LogLevel::Debug,
        1 => LogLevel::Info,
        2 => LogLevel::Warn,
        _ => LogLevel::Error,
    }
}

async fn perform(session: &Session, digits: &Digits, operation: &str, arguments: &str) -> Result<String, HostError> {
    let null = || "null".to_owned();
    match operation {
        "read.get" => {
            let (model, id) = arguments_of("read.get(model, id)", arguments, ["model", "id"], |[model, id]| {
                Ok((model.string()?, id.string()?))
            })?;
            Ok(session.read_get(&model, &id).await?.unwrap_or_else(null))
        }
        "read.query" => {
            let (model, query) =
                arguments_of("read.query(model, query)", arguments, ["model", "query"], |[model, query]| {
                    Ok((model.string()?, query.raw()?))
                })?;
            session.read_query(&model, query).await
        }
        "read.event" => {
            let position =
                arguments_of("read.event(position)", arguments, ["position"], |[position]| position.large_number())?;
            Ok(session.read_event(position).await?.unwrap_or_else(null))
        }
        "write.create" => {
            let shape = "write.create(model, data, { id })";
            let (model, data, id) = arguments_of(shape, arguments, ["model", "data", "id"], |[model, data, id]| {
                Ok((model.string()?, data.raw()?, id.set().map(|id| id.string()).transpose()?))
            })?;
            session.write_create(&model, id.as_deref(), &with_digits(digits, data)).await
        }
        "write.update" => {
            let shape = "write.update(model, id, data, { expected })";
            let names = ["model", "id", "data", "expected"];
            let (model, id, data, expected) = arguments_of(shape, arguments, names, |[model, id, data, expected]| {
                Ok((model.string()?, id.string()?, data.raw()?, position(expected)?))
            })?;
            session.write_update(&model, &id, &with_digits(digits, data), expected).await
        }
        "write.delete" => {
            let shape = "write.delete(model, id, { expected })";
            let (model, id, expected) =
                arguments_of(shape, arguments, ["model", "id", "expected"], |[model, id, expected]| {
                    Ok((model.string()?, id.string()?, position(expected)?))
                })?;
            session.write_delete(&model, &id, expected).await
        }
        "secret.get" => {
            let name = arguments_of("secret(name)", arguments, ["name"], |[name]| name.string())?;
            Ok(Value::from(session.secret_get(&name).await?).to_string())
        }
        _ => Err(AccessError::new(AccessCode::Invalid, format!("there is no `{operation}`")).into()),
    }
}

fn request_of(request: &str, body: Vec<u8>) -> Result<HttpRequest, FieldError> {
    let mut members = Part::whole(request).members(&["method", "url", "headers", "redirect", "timeout"])?;
    Ok(HttpRequest {
        method: members.need("method", "a string")?.string()?,
        url: members.need("url", "a string")?.string()?,
        headers: pairs(&members.need("headers", "a list of pairs")?)?,
        body,
        timeout: members.set("timeout").map(|time| milliseconds(&time)).transpose()?,
        redirect: members.need("redirect", "a string")?.word(REDIRECTS)?,
    })
}

fn command_of(command: &str, stdin: Vec<u8>) -> Result<ProcessCommand, FieldError> {
    let mut members = Part::whole(command).members(&["program", "args", "env", "timeout"])?;
    Ok(ProcessCommand {
        program: members.need("program", "a string")?.string()?,
        args: members.need("args", "a list of strings")?.names::<ANY>()?,
        stdin,
        env: {
            let variables = members.need("env", "an object")?.any_members()?.all();
            let variable = |(name, value): (String, Part<'_>)| Ok((name, value.string()?));
            variables.into_iter().map(variable).collect::<Result<_, FieldError>>()?
        },
        timeout: members.set("timeout").map(|time| milliseconds(&time)).transpose()?,
    })
}

/// A position, if it is not null.
fn position(position: Part<'_>) -> Result<Option<u64>, FieldError> {
    position.set().map(|position| position.large_number()).transpose()
}

fn answer(result: Result<String, HostError>) -> Result<String, Failure> {
    match result {
        Ok(mut value) => {
            value.insert(0, '+');
            Ok(value)
        }
        Err(HostError::Access(error)) => {
            Ok(format!("-{}", json!({ "code": error.code.as_str(), "message": error.message })))
        }
        Err(HostError::Fatal(failure)) => Err(failure),
    }
}

/// Data that a hook writes may contain numbers that it read. Data that is too large is left for the session to reject.
fn with_digits<'a>(digits: &Digits, data: &'a str) -> Cow<'a, str> {
    match digits.is_plain() || data.len() > PAYLOAD_BYTES_MAX {
        true => Cow::Borrowed(data),
        false => Cow::Owned(digits.restore_moved(data, "").0),
    }
}

/// Reads the arguments of a call, an array with one item for each of `names`.
fn arguments_of<'a, T, const COUNT: usize>(
    shape: &str,
    arguments: &'a str,
    names: [&str; COUNT],
    read: impl FnOnce([Part<'a>; COUNT]) -> Result<T, FieldError>,
) -> Result<T, AccessError> {
    Part::whole(arguments).named_items(names).and_then(read).map_err(|fault| unfit(shape, &fault))
}

/// The error for arguments that do not fit a call of this shape.
fn unfit(shape: &str, fault: &FieldError) -> AccessError {
    let FieldError { pointer, message } = fault;
    let message = match pointer.strip_prefix('/').unwrap_or(pointer.as_str()) {
        "" => format!("the call does not fit `{shape}`: it {message}"),
        argument => format!("the call does not fit `{shape}`: `{argument}` {message}"),
    };
    AccessError::new(AccessCode::Invalid, message)
}
