//! `/models/{model}/hooks`: the hooks of a model, their logs and statistics.

use std::collections::BTreeMap;

use futures::StreamExt;
use hyper::StatusCode;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use serde::Serialize;
use snaphook_driver::Position;

use super::body::{self, RequestBody};
use super::prefer::Prefer;
use super::problem::{Problem, Result};
use super::query::{Query, shorten};
use super::reply::{Reply, Response};
use super::request::Call;
use super::{accept, identify, list, sse};
use crate::catalog::{HookOrigin, Part, SourceLanguage, WEBHOOK, Webhook};
use crate::config::Phase;
use crate::engine::command::{BindingCode, BindingInput, Defined, HookInfo};
use crate::engine::input;

const JAVASCRIPT: &str = "text/javascript";
const TYPESCRIPT: &str = "application/typescript";
const WASM: &str = "application/wasm";
const COMPONENT: &str = "component";
/// How many bindings of one body are read; the limit of a chain is checked with its model.
const BINDINGS_READ_MAX: usize = 1000;
/// The engine for JavaScript if the client names none.
const ENGINE_DEFAULT: &str = "quickjs";

/// `GET /models/{model}/hooks`
pub(super) async fn all(call: &Call) -> Result<Response> {
    let model = call.model()?;
    call.no_query()?;
    let found = call.engine().definitions.get(model)?;
    call.engine().definitions.look_at_hooks(&found).await;
    let phases: BTreeMap<Phase, Vec<HookInfo>> =
        Phase::ALL.into_iter().map(|phase| (phase, call.engine().definitions.hook_infos(&found, phase))).collect();
    Reply::ok().serialize(&phases)
}

/// `GET /models/{model}/hooks/{phase}/log`
pub(super) async fn log(call: &Call) -> Result<Response> {
    let (model, phase) = (call.model()?, call.phase()?);
    call.no_query()?;
    if accept::prefers(call.headers().get_all(ACCEPT), &[sse::MEDIA_TYPE]).is_some() {
        let lines = call.engine().deliveries.follow_hook_log(model, phase)?;
        let frames = identify::while_known(call, lines)?.map(|line| {
            sse::frame(None, "log", |out| {
                // Writing texts and a time to memory cannot fail.
                let _ = serde_json::to_writer(out, &line);
            })
        });
        return Ok(sse::respond(frames, call.app.stopping.clone()));
    }
    Reply::ok().serialize(&Items { items: call.engine().deliveries.hook_log(model, phase)? })
}

/// `GET /models/{model}/hooks/{phase}/stats`
pub(super) async fn stats(call: &Call) -> Result<Response> {
    let (model, phase) = (call.model()?, call.phase()?);
    call.no_query()?;
    Reply::ok().serialize(&Items { items: call.engine().deliveries.hook_stats(model, phase)? })
}

/// `GET /hooks/runs`: every run of every hook from now on, as server-sent events; between them each native library that is
/// loaded or cannot be (`library`), and how many events a client missed that did not keep up (`missed`).
pub(super) async fn runs(call: &Call) -> Result<Response> {
    call.no_query()?;
    let frames = identify::while_known(call, call.engine().deliveries.follow_hooks())?.map(|told| {
        sse::frame(None, told.name(), |out| {
            // Writing texts and numbers to memory cannot fail.
            let _ = serde_json::to_writer(out, &told);
        })
    });
    Ok(sse::respond(frames, call.app.stopping.clone()))
}

/// `GET /models/{model}/hooks/{phase}/history`: what was bound, newest first.
pub(super) async fn history(call: &Call) -> Result<Response> {
    let (model, phase) = (call.model()?, call.phase()?);
    let mut query = call.query()?;
    let before = query.number("before", 1, Position::MAX)?;
    let limit = list::limit(&mut query)?;
    query.finish()?;
    Reply::ok().serialize(&call.engine().definitions.hook_history(model, phase, before, limit).await?)
}

/// `GET /models/{model}/hooks/{phase}/source`: the code of one hook, as it is or was.
pub(super) async fn source(call: &Call) -> Result<Response> {
    let (model, phase) = (call.model()?, call.phase()?);
    let mut query = call.query()?;
    let (hook, artifact) = (query.text("hook")?, query.text("artifact")?);
    query.finish()?;
    let definitions = &call.engine().definitions;
    let (record, bytes) = definitions.hook_source(model, phase, hook.as_deref(), artifact.as_deref()).await?;
    call.hold(bytes.len())?;
    let media_type = match record.language {
        _ if record.engine == COMPONENT => WASM,
        Some(SourceLanguage::TypeScript) => TYPESCRIPT,
        Some(SourceLanguage::JavaScript) | None => JAVASCRIPT,
    };
    Ok(Reply::ok().fixed(CONTENT_TYPE, media_type).bytes(bytes))
}

/// `POST /hooks/check/{phase}`: checks whether a chain could be bound to any model; stores nothing.
pub(super) async fn check(call: &Call, body: RequestBody) -> Result<Response> {
    let phase = call.phase()?;
    let chain = chain_of(call, call.query()?, body).await?;
    Reply::ok().serialize(&call.engine().definitions.check_hooks(phase, chain).await?)
}

#[derive(Serialize)]
struct Items<T> {
    items: Vec<T>,
}

/// `GET /models/{model}/hooks/{phase}`
pub(super) async fn get(call: &Call) -> Result<Response> {
    let (model, phase) = (call.model()?, call.phase()?);
    call.no_query()?;
    // TypeScript is stored as it was sent; JavaScript is valid TypeScript too.
    let code_types = [WASM, JAVASCRIPT, "application/javascript", TYPESCRIPT];
    if let Some(asked) = accept::prefers(call.headers().get_all(ACCEPT), &code_types) {
        let (record, bytes) = call.engine().definitions.hook_artifact(model, phase).await?;
        let is_component = record.engine == COMPONENT;
        if (asked == WASM) != is_component || record.engine == WEBHOOK {
            let (name, engine) = (&record.name, &record.engine);
            return Err(Problem::not_found(format!("the hook `{name}` is code for `{engine}`, not `{asked}`")));
        }
        call.hold(bytes.len())?;
        return Ok(Reply::ok().fixed(CONTENT_TYPE, asked).bytes(bytes));
    }
    let found = call.engine().definitions.get(model)?;
    call.engine().definitions.look_at_hooks(&found).await;
    Reply::ok().serialize(&call.engine().definitions.hook_infos(&found, phase))
}

/// `PUT /models/{model}/hooks/{phase}`
pub(super) async fn put(call: &Call, body: RequestBody) -> Result<Response> {
    let (model, phase) = (call.model()?, call.phase()?);
    let mut query = call.query()?;
    let options = call.write_options(&mut query, &Prefer::of(call.headers()), false)?;
    let origin = origin(&mut query)?;
    let mut chain = chain_of(call, query, body).await?;
    chain.iter_mut().for_each(|binding| binding.origin = origin);
    match call.engine().definitions.put_hooks(model, phase, chain, &options, &call.origin()).await? {
        Defined::Done(bound) => Reply::ok().serialize(&bound),
        Defined::DryRun(answer) => Reply::ok().serialize(&answer),
    }
}

/// `origin=files` means that `snaphook apply` binds the hook, and removes it when its file is removed.
fn origin(query: &mut Query<'_>) -> Result<HookOrigin> {
    let Some(name) = query.take("origin")? else { return Ok(HookOrigin::Rest) };
    HookOrigin::from_name(&name)
        .ok_or_else(|| Problem::bad_request(format!("`origin` is `{}`, expected `files` or `rest`", shorten(&name))))
}

/// The chain in a request: either code or JSON.
async fn chain_of(call: &Call, mut query: Query<'_>, body: RequestBody) -> Result<Vec<BindingInput>> {
    let single = |name, engine, bytes, language| {
        let code = BindingCode::Inline(bytes);
        vec![BindingInput { name, engine, code, shadow: false, as_actor: false, language, origin: HookOrigin::Rest }]
    };
    match body::media_type(call.headers())?.as_deref() {
        None | Some(body::JSON) => {
            query.finish()?;
            chain(&body::json(call, body).await?)
        }
        Some(WASM) => {
            let name = query.text("name")?;
            let engine = query.text("engine")?.unwrap_or_else(|| COMPONENT.to_owned());
            query.finish()?;
            Ok(single(name, engine, body::read_component(call, body).await?.into(), None))
        }
        Some(source @ (JAVASCRIPT | "application/javascript" | TYPESCRIPT | "text/typescript")) => {
            let name = query.text("name")?;
            let engine = query.text("engine")?.unwrap_or_else(|| ENGINE_DEFAULT.to_owned());
            query.finish()?;
            let is_typescript = matches!(source, TYPESCRIPT | "text/typescript");
            let language = if is_typescript { SourceLanguage::TypeScript } else { SourceLanguage::JavaScript };
            Ok(single(name, engine, body::read(call, body).await?.into(), Some(language)))
        }
        Some(other) => {
            let expected = format!("{JAVASCRIPT}, {TYPESCRIPT}, {WASM} or {}", body::JSON);
            Err(body::unsupported(other, &expected))
        }
    }
}

/// `{"chain": [Binding]}`
fn chain(bytes: &[u8]) -> Result<Vec<BindingInput>> {
    let chain = input::body(bytes)?.members(&["chain"])?.need("chain", "a list of bindings")?;
    chain.items::<BINDINGS_READ_MAX>("a list of bindings")?.iter().map(binding).collect()
}

fn binding(part: &Part<'_>) -> Result<BindingInput> {
    const MEMBERS: [&str; 10] =
        ["name", "engine", "source", "artifact", "library", "language", "url", "secret", "mode", "as"];
    let mut members = part.members(&MEMBERS)?;
    let engine = members.need("engine", "the name of an engine")?.string()?;
    let mut text = |name: &str| members.set(name).map(|part| part.string()).transpose();
    let name = text("name")?;
    let is_webhook = engine == WEBHOOK;
    let code = match (text("source")?, text("artifact")?, text("library")?, text("url")?, text("secret")?) {
        (Some(source), None, None, None, None) => BindingCode::Inline(source.into_bytes()),
        (None, Some(artifact), None, None, None) => BindingCode::Artifact(artifact),
        (None, None, Some(library), None, None) => BindingCode::Library(library),
        (None, None, None, Some(url), Some(secret)) if is_webhook => {
            BindingCode::Inline(Webhook { url, secret }.code())
        }
        _ => {
            let expected = match is_webhook {
                true => "must have `url` and `secret`, and neither `source` nor `library`",
                false => {
                    "must have one of `source`, `artifact` and `library`; `url` and `secret` are for engine `webhook`"
                }
            };
            return Err(part.fault(expected).into());
        }
    };
    let languages = [("javascript", SourceLanguage::JavaScript), ("typescript", SourceLanguage::TypeScript)];
    let language = members.set("language").map(|word| word.word(&languages)).transpose()?;
    let shadow = members.take("mode").map(|word| word.word(&[("enforce", false), ("shadow", true)])).transpose()?;
    let as_actor = members.set("as").map(|word| word.word(&[("actor", true)])).transpose()?;
    Ok(BindingInput {
        name,
        engine,
        code,
        shadow: shadow.unwrap_or_default(),
        as_actor: as_actor.unwrap_or_default(),
        language,
        origin: HookOrigin::Rest,
    })
}

/// `DELETE /models/{model}/hooks/{phase}`
pub(super) async fn delete(call: &Call) -> Result<Response> {
    let (model, phase) = (call.model()?, call.phase()?);
    let mut query = call.query()?;
    let options = call.write_options(&mut query, &Prefer::of(call.headers()), false)?;
    query.finish()?;
    match call.engine().definitions.delete_hooks(model, phase, &options, &call.origin()).await? {
        Defined::Done(()) => Ok(Reply::new(StatusCode::NO_CONTENT).empty()),
        Defined::DryRun(answer) => Reply::ok().serialize(&answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains() {
        let text = r#"{"chain":[{"engine":"quickjs","source":"x","name":"n","mode":"shadow"},
            {"engine":"component","artifact":"sha256:00","as":"actor"},{"engine":"native","library":"a.so","mode":"enforce"},
            {"engine":"webhook","url":"https://a.example/","secret":"s"}]}"#;
        let chain = chain(text.as_bytes()).expect("valid");
        assert_eq!(chain.iter().map(|binding| binding.shadow).collect::<Vec<_>>(), [true, false, false, false]);
        assert_eq!(chain.iter().map(|binding| binding.as_actor).collect::<Vec<_>>(), [false, true, false, false]);
        assert!(matches!(&chain[0].code, BindingCode::Inline(bytes) if bytes == b"x"));
        assert!(matches!(&chain[1].code, BindingCode::Artifact(artifact) if artifact == "sha256:00"));
        assert!(matches!(&chain[2].code, BindingCode::Library(library) if library == "a.so"));
        let text = br#"{"url":"https://a.example/","secret":"s"}"#;
        assert!(matches!(&chain[3].code, BindingCode::Inline(code) if code == text));
    }

    #[test]
    fn refuses_chains_that_say_too_much_or_too_little() {
        for (text, expected) in [
            (r#"{"chain":[{"engine":"quickjs"}]}"#, "`/chain/0` must have one of"),
            (r#"{"chain":[{"engine":"quickjs","source":"","artifact":""}]}"#, "`/chain/0` must have one of"),
            (r#"{"chain":[{"engine":"webhook","url":"https://a.example/"}]}"#, "must have `url` and `secret`"),
            (r#"{"chain":[{"engine":"webhook","secret":"s"}]}"#, "must have `url` and `secret`"),
            (r#"{"chain":[{"engine":"webhook","url":"","secret":"","source":""}]}"#, "must have `url` and `secret`"),
            (r#"{"chain":[{"engine":"quickjs","url":"","secret":""}]}"#, "are for engine `webhook`"),
            (r#"{"chain":[{"source":""}]}"#, "`/chain/0/engine` is missing, expected the name of an engine"),
            (
                r#"{"chain":[{"engine":"q","source":"","mode":"on"}]}"#,
                "`/chain/0/mode` is `on`, expected `enforce` or `shadow`",
            ),
            (r#"{"chain":[{"engine":"q","source":"","as":"admin"}]}"#, "`/chain/0/as` is `admin`, expected `actor`"),
            (r#"{"chain":[{"engine":"q","sauce":""}]}"#, "`/chain/0/sauce` is unknown, expected"),
            (r#"{}"#, "`/chain` is missing, expected a list of bindings"),
            (r#"[]"#, "the body is an array, expected an object"),
        ] {
            let problem = chain(text.as_bytes()).expect_err("must be refused");
            assert!(problem.detail().contains(expected), "{text}: {}", problem.detail());
        }
    }
}
