//! Commands: programs that read the context as JSON from standard input and write their verdict to standard output.
//! Javy builds them from JavaScript, and compilers for WASI from other languages.
//!
//! The verdict is `{"accept":true}`, `{"amend":{…}}` or `{"reject":"message","fields":{"/pointer":"message"}}`; in post
//! phases it may be empty. Standard error is the hook's log.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use snaphook_driver::{Json, time};
use wasmtime::component::{Component, ComponentExportIndex, Instance, TypedFunc};
use wasmtime::{AsContextMut, Store};
use wasmtime_wasi::I32Exit;

use super::wasi_http::Extra;
use crate::catalog::Part;
use crate::config::Phase;
use crate::hooks::context::{Context, Failure, FailureCause, FieldError, Outcome, Rejection};
use crate::hooks::engines::handback::look;
use crate::hooks::engines::wasm::{SandboxState, gave_up};

/// `wasi:cli/run` of any 0.2 is the same function.
const INTERFACE: &str = "wasi:cli/run@0.2.";
const PATCH_MAX: u32 = 20;

/// The type of `run`.
type Run = TypedFunc<(), (Result<(), ()>,)>;

/// Its `run`, if it is a command.
pub(super) fn handler(component: &Component) -> Option<ComponentExportIndex> {
    let exports = |patch| component.get_export_index(None, format!("{INTERFACE}{patch}"));
    component.get_export_index(Some(&(0..=PATCH_MAX).find_map(exports)?), "run")
}

/// Checks the handler's type.
pub(super) fn check(
    store: impl AsContextMut<Data = SandboxState<Extra>>,
    instance: &Instance,
    handler: &ComponentExportIndex,
) -> wasmtime::Result<()> {
    let _: Run = instance.get_typed_func(store, handler)?;
    Ok(())
}

/// Its standard input: the context's members have the same names as in JavaScript. Data is passed exactly as it was
/// stored.
pub(super) fn input(context: &Context) -> Bytes {
    let event = context.event.as_ref().map(|event| json!({ "position": event.position, "id": event.id }));
    let rest = json!({
        "phase": context.phase,
        "model": { "id": context.model, "version": context.model_version },
        "id": context.instance,
        "actor": context.actor.as_deref(),
        "requestId": context.request_id,
        "time": time::format(context.time),
        "attempt": context.attempt,
        "event": event,
    });
    let mut text = rest.to_string();
    text.pop();
    for (name, json) in [("before", &context.before), ("after", &context.after)] {
        let data = json.as_ref().map_or("null", |json| json.as_str());
        text.extend([",\"", name, "\":", data]);
    }
    text.push('}');
    text.into()
}

/// Runs it to its end. An error means that it was stopped from outside: by a limit or a trap.
pub(super) async fn call(
    store: &mut Store<SandboxState<Extra>>,
    instance: &Instance,
    handler: &ComponentExportIndex,
    phase: Phase,
) -> wasmtime::Result<Outcome> {
    let run: Run = instance.get_typed_func(&mut *store, handler)?;
    let ended = match run.call_async(&mut *store, ()).await {
        Ok((Ok(()),)) => Ok(0),
        Ok((Err(()),)) => Ok(1),
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(code)) => Ok(*code),
            None => Err(error),
        },
    };
    match ended {
        Ok(0) => {
            let written = store.data().take_answer();
            let read = look(written.len(), move || read(&written, phase)).await;
            Ok(read.unwrap_or_else(Outcome::Failed))
        }
        // The exit code is lost in the conversion from WASI preview 1 to 0.2.
        Ok(_) => Ok(Outcome::Failed(gave_up("the command ended with an exit code that is not 0", store.data()))),
        Err(error) => Err(error),
    }
}

/// The output of a command.
struct CommandOutput<'a> {
    accept: Option<Value>,
    amend: Option<&'a str>,
    reject: Option<String>,
    fields: Option<Value>,
}

impl<'a> CommandOutput<'a> {
    fn read(text: &'a str) -> Result<CommandOutput<'a>, FieldError> {
        let mut members = Part::whole(text).members(&["accept", "amend", "reject", "fields"])?;
        Ok(CommandOutput {
            accept: members.set("accept").map(|part| part.tree()).transpose()?,
            amend: members.set("amend").map(|part| part.raw()).transpose()?,
            reject: members.set("reject").map(|part| part.string()).transpose()?,
            fields: members.set("fields").map(|part| part.tree()).transpose()?,
        })
    }
}

const EXPECTED: &str =
    r#"expected `{"accept":true}`, `{"amend":{…}}` or `{"reject":"message","fields":{"/pointer":"message"}}`"#;

fn read(written: &[u8], phase: Phase) -> Outcome {
    let wrong = |what: &str| {
        let message = format!("{what}; {EXPECTED}");
        Outcome::Failed(Failure { cause: FailureCause::Exception, message, limit: None })
    };
    if written.trim_ascii().is_empty() {
        return match phase.is_pre() {
            true => wrong("the command wrote nothing to its standard output"),
            false => Outcome::Accept,
        };
    }
    let read = match snaphook_driver::json::utf8(written) {
        Ok(text) => CommandOutput::read(text).map_err(|FieldError { pointer, message }| match pointer.is_empty() {
            true => format!("it {message}"),
            false => format!("`{pointer}` {message}"),
        }),
        Err(error) => Err(format!("it is {error}")),
    };
    let answer = match read {
        Ok(answer) => answer,
        Err(fault) => {
            let start = String::from_utf8_lossy(&written[..written.len().min(60)]);
            let start = start.trim();
            return wrong(&format!(
                "the command wrote `{start}` to its standard output, which is not a verdict ({fault})"
            ));
        }
    };
    match answer {
        CommandOutput { accept: Some(Value::Bool(true)), amend: None, reject: None, fields: None } => Outcome::Accept,
        CommandOutput { accept: None, amend: Some(data), reject: None, fields: None } => {
            Outcome::Amend(Json::trusted(data))
        }
        CommandOutput { accept: None, amend: None, reject: Some(message), fields } => {
            let fields = match fields {
                None => Map::new(),
                Some(Value::Object(fields)) => fields,
                Some(_) => return wrong("the command's answer has `fields` that are not an object"),
            };
            let fields = fields.into_iter().map(|(pointer, message)| FieldError {
                pointer: if pointer.is_empty() || pointer.starts_with('/') { pointer } else { format!("/{pointer}") },
                message: message.as_str().map_or_else(|| message.to_string(), str::to_owned),
            });
            Outcome::Reject(Rejection { message, fields: fields.collect() })
        }
        _ => wrong("the command's answer is not exactly one verdict"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(written: &str, phase: Phase) -> String {
        match read(written.as_bytes(), phase) {
            Outcome::Failed(failure) => failure.message,
            other => panic!("{written}: {other:?}"),
        }
    }

    #[test]
    fn answers_are_read_as_they_are_documented() {
        for (written, phase) in [
            (r#"{"accept":true}"#, Phase::PreCreate),
            (" {\"accept\": true}\n", Phase::PostCreate),
            ("", Phase::PostUpdate),
            ("\n", Phase::PostUpdate),
        ] {
            assert_eq!(read(written.as_bytes(), phase), Outcome::Accept, "{written}");
        }
        let amended = read(br#"{"amend": {"n": 9007199254740993.10} }"#, Phase::PreCreate);
        assert_eq!(amended, Outcome::Amend(Json::trusted(r#"{"n": 9007199254740993.10}"#)));
        let Outcome::Reject(rejection) =
            read(br#"{"reject":"no","fields":{"/b":"worse","a":"bad","/c":7}}"#, Phase::PreUpdate)
        else {
            panic!("not refused");
        };
        let fields: Vec<_> = rejection.fields.iter().map(|f| (f.pointer.as_str(), f.message.as_str())).collect();
        assert_eq!((rejection.message.as_str(), fields), ("no", vec![("/b", "worse"), ("/a", "bad"), ("/c", "7")]));
    }

    #[test]
    fn other_answers_fail_with_what_was_expected() {
        for (written, part) in [
            ("", "wrote nothing"),
            ("hello", "wrote `hello`"),
            (r#"{"accept":true} {"accept":true}"#, "trailing"),
            (r#"{"accept":false}"#, "not exactly one verdict"),
            (r#"{"accept":true,"reject":"no"}"#, "not exactly one verdict"),
            (r#"{"accept":true,"fields":{}}"#, "not exactly one verdict"),
            ("{}", "not exactly one verdict"),
            (r#"{"allow":true}"#, "`/allow` is unknown, expected `accept`"),
            (r#"{"reject":5}"#, "`/reject` is a number, expected a string"),
            ("\u{fffd}", "not a verdict"),
        ] {
            let message = failure(written, Phase::PreCreate);
            assert!(message.contains(part) && message.contains("expected `{\"accept\":true}`"), "{written}: {message}");
        }
    }
}
