//! Host calls of JavaScript: passes the text of a call to the session and returns the text of its answer.
//!
//! The same for every engine that runs JavaScript. An answer is `+` and the value as JSON text, or `-` and `{code,
//! message}`. An exceeded limit has no answer, but ends the run.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use snaphook_driver::PAYLOAD_BYTES_MAX;

use super::digits::Digits;
use crate::hooks::access::{AccessCode, AccessError};
use crate::hooks::context::{Failure, LogLevel};
use crate::hooks::session::{HostError, HttpRequest, ProcessCommand, Redirect, Session};

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
        Err(error) => session.count_call().and(Err(error.into())),
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
    #[derive(Deserialize)]
    struct ProcessRequest {
        program: String,
        args: Vec<String>,
        env: std::collections::BTreeMap<String, String>,
        /// Milliseconds.
        timeout: Option<u64>,
    }
    let ran = match arguments_of::<ProcessRequest>("run(program, args, { stdin, env, timeout })", command) {
        Ok(command) => {
            let command = ProcessCommand {
                program: command.program,
                args: command.args,
                stdin,
                env: command.env.into_iter().collect(),
                timeout: command.timeout.map(Duration::from_millis),
            };
            session.process_run(command).await
        }
        Err(error) => session.count_call().and(Err(error.into())),
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
            let (model, id): (String, String) = arguments_of("read.get(model, id)", arguments)?;
            Ok(session.read_get(&model, &id).await?.unwrap_or_else(null))
        }
        "read.query" => {
            let (model, query): (String, &RawValue) = arguments_of("read.query(model, query)", arguments)?;
            session.read_query(&model, query.get()).await
        }
        "read.event" => {
            let (position,): (u64,) = arguments_of("read.event(position)", arguments)?;
            Ok(session.read_event(position).await?.unwrap_or_else(null))
        }
        "write.create" => {
            let (model, data, id): (String, &RawValue, Option<String>) =
                arguments_of("write.create(model, data, { id })", arguments)?;
            session.write_create(&model, id.as_deref(), &with_digits(digits, data.get())).await
        }
        "write.update" => {
            let (model, id, data, expected): (String, String, &RawValue, Option<u64>) =
                arguments_of("write.update(model, id, data, { expected })", arguments)?;
            session.write_update(&model, &id, &with_digits(digits, data.get()), expected).await
        }
        "write.delete" => {
            let (model, id, expected): (String, String, Option<u64>) =
                arguments_of("write.delete(model, id, { expected })", arguments)?;
            session.write_delete(&model, &id, expected).await
        }
        "secret.get" => {
            let (name,): (String,) = arguments_of("secret(name)", arguments)?;
            Ok(Value::from(session.secret_get(&name).await?).to_string())
        }
        _ => Err(AccessError::new(AccessCode::Invalid, format!("there is no `{operation}`")).into()),
    }
}

fn request_of(request: &str, body: Vec<u8>) -> Result<HttpRequest, AccessError> {
    #[derive(Deserialize)]
    struct Head {
        method: String,
        url: String,
        headers: Vec<(String, String)>,
        redirect: String,
        /// Milliseconds.
        timeout: Option<u64>,
    }
    let head: Head = arguments_of("fetch(url, init)", request)?;
    let redirect = match head.redirect.as_str() {
        "follow" => Redirect::Follow,
        "manual" => Redirect::Manual,
        "error" => Redirect::Error,
        other => {
            let message = format!("`redirect` is `{other}`, expected `follow`, `manual` or `error`");
            return Err(AccessError::new(AccessCode::Invalid, message));
        }
    };
    Ok(HttpRequest {
        method: head.method,
        url: head.url,
        headers: head.headers,
        body,
        timeout: head.timeout.map(Duration::from_millis),
        redirect,
    })
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

fn arguments_of<'a, T: Deserialize<'a>>(shape: &str, arguments: &'a str) -> Result<T, AccessError> {
    snaphook_driver::json::typed(arguments)
        .map_err(|error| AccessError::new(AccessCode::Invalid, format!("the call does not fit `{shape}`: {error}")))
}
