//! The host's side of runner/runner.wit: what JavaScript asks for, brought to the session.

use std::borrow::Cow;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use snaphook_driver::PAYLOAD_BYTES_MAX;
use url::{Url, quirks};
use wasmtime::component::{FutureReader, Linker};
use wasmtime::{Result, StoreContextMut};

use super::digits::Digits;
use crate::hooks::access::{AccessCode, AccessError};
use crate::hooks::context::LogLevel;
use crate::hooks::engines::wasm::{State, capability, fatal};
use crate::hooks::session::{HttpRequest, ProcessCommand, Redirect};

/// Most random bytes that one call gives; the runner asks for no more.
const RANDOM_BYTES_MAX: u32 = 64 << 10;

/// What a JavaScript sandbox keeps beside what every sandbox keeps.
#[derive(Default)]
pub(super) struct Extra {
    /// The numbers that JavaScript changed in what it was given in this call.
    pub(super) digits: Digits,
    /// Whether the runner has the hook's source.
    pub(super) loaded: bool,
}

type Store<'a> = StoreContextMut<'a, State<Extra>>;

pub(super) fn link(linker: &mut Linker<State<Extra>>) -> Result<()> {
    let mut host = linker.instance("snaphook:runner/host")?;
    host.func_wrap("log", |store: Store<'_>, (level, message): (u8, String)| {
        let level = match level {
            0 => LogLevel::Debug,
            1 => LogLevel::Info,
            2 => LogLevel::Warn,
            _ => LogLevel::Error,
        };
        store.data().write_log(level, message)
    })?;
    host.func_wrap_async("ask", |mut store: Store<'_>, (operation, arguments): (String, String)| {
        Box::new(async move { Ok((ask(&mut store, &operation, &arguments).await?,)) })
    })?;
    host.func_wrap_async("send", |mut store: Store<'_>, (request, body): (String, Vec<u8>)| {
        Box::new(async move { Ok((send(&mut store, &request, body).await?,)) })
    })?;
    host.func_wrap_async("execute", |mut store: Store<'_>, (command, stdin): (String, Vec<u8>)| {
        Box::new(async move { Ok((execute(&mut store, &command, stdin).await?,)) })
    })?;
    host.func_wrap("url", |_: Store<'_>, (arguments,): (String,)| Ok((url(&arguments).unwrap_or_default(),)))?;
    host.func_wrap("digest", |_: Store<'_>, (algorithm, data): (String, Vec<u8>)| Ok((digest(&algorithm, &data),)))?;
    host.func_wrap("random", |_: Store<'_>, (count,): (u32,)| Ok((random(count.min(RANDOM_BYTES_MAX))?,)))?;
    host.func_wrap("encode", |_: Store<'_>, (text,): (String,)| Ok((text.into_bytes(),)))?;
    host.func_wrap("decode", |_: Store<'_>, (data, fatal): (Vec<u8>, bool)| {
        Ok((match String::from_utf8(data) {
            Ok(text) => Some(text),
            Err(_) if fatal => None,
            Err(error) => Some(String::from_utf8_lossy(error.as_bytes()).into_owned()),
        },))
    })?;
    host.func_wrap("wait", |mut store: Store<'_>, (milliseconds,): (u32,)| {
        let session = store.data().session_for_sleep()?;
        let wait = async move {
            let slept = session.sleep(Duration::from_millis(milliseconds.into())).await;
            slept.map(|()| 0_u32).map_err(fatal)
        };
        Ok((FutureReader::new(&mut store, wait)?,))
    })?;
    Ok(())
}

/// `+` and the value, `-` and the error.
fn answer(result: Result<Option<String>, AccessError>) -> String {
    match result {
        Ok(value) => format!("+{}", value.unwrap_or_default()),
        Err(error) => format!("-{}", json!({ "code": error.code.as_str(), "message": error.message })),
    }
}

async fn ask(store: &mut Store<'_>, operation: &str, arguments: &str) -> Result<String> {
    let result = match operation {
        "read.get" => match arguments_of::<(String, String)>("read.get(model, id)", arguments) {
            Ok((model, id)) => {
                let found = capability(store.data(), async |session| session.read_get(&model, &id).await).await?;
                found.map(|found| Some(found.unwrap_or_else(|| "null".into())))
            }
            Err(error) => Err(error),
        },
        "read.query" => match arguments_of::<(String, &RawValue)>("read.query(model, query)", arguments) {
            Ok((model, query)) => {
                capability(store.data(), async |session| session.read_query(&model, query.get()).await).await?.map(Some)
            }
            Err(error) => Err(error),
        },
        "read.event" => match arguments_of::<(u64,)>("read.event(position)", arguments) {
            Ok((position,)) => {
                let found = capability(store.data(), async |session| session.read_event(position).await).await?;
                found.map(|found| Some(found.unwrap_or_else(|| "null".into())))
            }
            Err(error) => Err(error),
        },
        "write.create" => {
            match arguments_of::<(String, &RawValue, Option<String>)>("write.create(model, data, { id })", arguments) {
                Ok((model, data, id)) => {
                    let data = with_digits(store, data.get());
                    capability(store.data(), async |session| session.write_create(&model, id.as_deref(), &data).await)
                        .await?
                        .map(Some)
                }
                Err(error) => Err(error),
            }
        }
        "write.update" => {
            let shape = "write.update(model, id, data, { expected })";
            match arguments_of::<(String, String, &RawValue, Option<u64>)>(shape, arguments) {
                Ok((model, id, data, expected)) => {
                    let data = with_digits(store, data.get());
                    capability(store.data(), async |session| session.write_update(&model, &id, &data, expected).await)
                        .await?
                        .map(Some)
                }
                Err(error) => Err(error),
            }
        }
        "write.delete" => {
            match arguments_of::<(String, String, Option<u64>)>("write.delete(model, id, { expected })", arguments) {
                Ok((model, id, expected)) => {
                    capability(store.data(), async |session| session.write_delete(&model, &id, expected).await)
                        .await?
                        .map(Some)
                }
                Err(error) => Err(error),
            }
        }
        "secret.get" => match arguments_of::<(String,)>("secret(name)", arguments) {
            Ok((name,)) => {
                let value = capability(store.data(), async |session| session.secret_get(&name).await).await?;
                value.map(|value| Some(Value::from(value).to_string()))
            }
            Err(error) => Err(error),
        },
        _ => Err(AccessError::new(AccessCode::Invalid, format!("there is no `{operation}`"))),
    };
    if let Ok(Some(text)) = &result {
        store.data_mut().extra.digits.note(text);
    }
    Ok(answer(result))
}

/// Data that a hook writes may hold numbers that it read. What is too large is left for the session to refuse.
fn with_digits<'a>(store: &Store<'_>, data: &'a str) -> Cow<'a, str> {
    let digits = &store.data().extra.digits;
    match digits.is_plain() || data.len() > PAYLOAD_BYTES_MAX {
        true => Cow::Borrowed(data),
        false => Cow::Owned(digits.restore_moved(data, "").0),
    }
}

fn arguments_of<'a, T: Deserialize<'a>>(shape: &str, arguments: &'a str) -> Result<T, AccessError> {
    serde_json::from_str(arguments)
        .map_err(|error| AccessError::new(AccessCode::Invalid, format!("the call does not fit `{shape}`: {error}")))
}

async fn send(store: &mut Store<'_>, request: &str, body: Vec<u8>) -> Result<(String, Vec<u8>)> {
    #[derive(Deserialize)]
    struct Head {
        method: String,
        url: String,
        headers: Vec<(String, String)>,
        redirect: String,
        timeout: Option<u64>,
    }
    let head: Head = match arguments_of("fetch(url, init)", request) {
        Ok(head) => head,
        Err(error) => return Ok((answer(Err(error)), Vec::new())),
    };
    let redirect = match head.redirect.as_str() {
        "follow" => Redirect::Follow,
        "manual" => Redirect::Manual,
        "error" => Redirect::Error,
        other => {
            let message = format!("`redirect` is `{other}`, expected `follow`, `manual` or `error`");
            return Ok((answer(Err(AccessError::new(AccessCode::Invalid, message))), Vec::new()));
        }
    };
    let request = HttpRequest {
        method: head.method,
        url: head.url,
        headers: head.headers,
        body,
        timeout: head.timeout.map(Duration::from_millis),
        redirect,
    };
    Ok(match capability(store.data(), async |session| session.http_send(request).await).await? {
        Ok(response) => {
            let head = json!({
                "status": response.status,
                "url": response.url,
                "redirected": response.redirected,
                "headers": response.headers,
            });
            (answer(Ok(Some(head.to_string()))), response.body)
        }
        Err(error) => (answer(Err(error)), Vec::new()),
    })
}

async fn execute(store: &mut Store<'_>, command: &str, stdin: Vec<u8>) -> Result<(String, Vec<u8>, Vec<u8>)> {
    #[derive(Deserialize)]
    struct Command {
        program: String,
        args: Vec<String>,
        env: std::collections::BTreeMap<String, String>,
        /// Milliseconds.
        timeout: Option<u64>,
    }
    let command: Command = match arguments_of("run(program, args, { stdin, env, timeout })", command) {
        Ok(command) => command,
        Err(error) => return Ok((answer(Err(error)), Vec::new(), Vec::new())),
    };
    let command = ProcessCommand {
        program: command.program,
        args: command.args,
        stdin,
        env: command.env.into_iter().collect(),
        timeout: command.timeout.map(Duration::from_millis),
    };
    Ok(match capability(store.data(), async |session| session.process_run(command).await).await? {
        Ok(output) => (answer(Ok(Some(output.code.to_string()))), output.stdout, output.stderr),
        Err(error) => (answer(Err(error)), Vec::new(), Vec::new()),
    })
}

/// `["parse", url, base]`, or the name of a part with the URL and the part's new value. `None`: there is no such URL.
fn url(arguments: &str) -> Option<String> {
    let (operation, text, argument): (String, String, Option<String>) = serde_json::from_str(arguments).ok()?;
    let mut url = match (operation.as_str(), &argument) {
        ("parse", Some(base)) => Url::parse(base).ok()?.join(&text).ok()?,
        ("parse", None) => Url::parse(&text).ok()?,
        ("href", Some(value)) => Url::parse(value).ok()?,
        _ => Url::parse(&text).ok()?,
    };
    // The web's setters ignore what does not fit.
    let value = argument.unwrap_or_default();
    match operation.as_str() {
        "protocol" => drop(quirks::set_protocol(&mut url, &value)),
        "username" => drop(quirks::set_username(&mut url, &value)),
        "password" => drop(quirks::set_password(&mut url, &value)),
        "host" => drop(quirks::set_host(&mut url, &value)),
        "hostname" => drop(quirks::set_hostname(&mut url, &value)),
        "port" => drop(quirks::set_port(&mut url, &value)),
        "pathname" => quirks::set_pathname(&mut url, &value),
        "search" => quirks::set_search(&mut url, &value),
        "hash" => quirks::set_hash(&mut url, &value),
        _ => {}
    }
    let parts = json!({
        "href": quirks::href(&url),
        "origin": quirks::origin(&url),
        "protocol": quirks::protocol(&url),
        "username": quirks::username(&url),
        "password": quirks::password(&url),
        "host": quirks::host(&url),
        "hostname": quirks::hostname(&url),
        "port": quirks::port(&url),
        "pathname": quirks::pathname(&url),
        "search": quirks::search(&url),
        "hash": quirks::hash(&url),
    });
    Some(parts.to_string())
}

/// Empty: there is no such algorithm.
fn digest(algorithm: &str, data: &[u8]) -> Vec<u8> {
    use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512};
    let algorithm = match algorithm {
        "SHA-1" => &SHA1_FOR_LEGACY_USE_ONLY,
        "SHA-256" => &SHA256,
        "SHA-384" => &SHA384,
        "SHA-512" => &SHA512,
        _ => return Vec::new(),
    };
    ring::digest::digest(algorithm, data).as_ref().to_vec()
}

fn random(count: u32) -> Result<Vec<u8>> {
    let mut bytes = vec![0; count as usize];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| wasmtime::format_err!("the system gives no random numbers"))?;
    Ok(bytes)
}
