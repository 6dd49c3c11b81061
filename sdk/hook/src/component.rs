//! The host of a component: the imports of the WIT package. Each is called directly, so that a hook imports only what
//! it uses.

wit_bindgen::generate!({
    path: "../../wit/since_v0_1_0",
    inline: "
        package snaphook:sdk;
        world hook {
            use snaphook:hook/types@0.1.0.{context, verdict, rejection};
            import snaphook:hook/log@0.1.0;
            import snaphook:hook/read@0.1.0;
            import snaphook:hook/write@0.1.0;
            import snaphook:hook/http@0.1.0;
            import snaphook:hook/process@0.1.0;
            import snaphook:hook/secret@0.1.0;
            export check: func(ctx: context) -> result<verdict, rejection>;
            export react: func(ctx: context) -> result<_, string>;
        }
    ",
    world: "snaphook:sdk/hook",
    pub_export_macro: true,
    export_macro_name: "export_component",
    default_bindings_module: "snaphook_hook::__private",
    generate_all,
});

/// The world of a hook for pre phases only. Its imports are those of the world above.
pub mod pre {
    wit_bindgen::generate!({
        path: "../../wit/since_v0_1_0",
        inline: "
            package snaphook:sdk-pre;
            world pre {
                use snaphook:hook/types@0.1.0.{context, verdict, rejection};
                export check: func(ctx: context) -> result<verdict, rejection>;
            }
        ",
        world: "snaphook:sdk-pre/pre",
        with: { "snaphook:hook/types@0.1.0": super::snaphook::hook::types },
        pub_export_macro: true,
        export_macro_name: "export_component_pre",
        default_bindings_module: "snaphook_hook::__private::pre",
    });
}

/// The same for post phases.
pub mod post {
    wit_bindgen::generate!({
        path: "../../wit/since_v0_1_0",
        inline: "
            package snaphook:sdk-post;
            world post {
                use snaphook:hook/types@0.1.0.{context};
                export react: func(ctx: context) -> result<_, string>;
            }
        ",
        world: "snaphook:sdk-post/post",
        with: { "snaphook:hook/types@0.1.0": super::snaphook::hook::types },
        pub_export_macro: true,
        export_macro_name: "export_component_post",
        default_bindings_module: "snaphook_hook::__private::post",
    });
}

use self::snaphook::hook::types;
use self::snaphook::hook::{http, log as log_import, process, read, secret, write};
use crate::actor::Actor;
use crate::change::{Event, Phase, Raw};
use crate::exchange::{AccessError, Command, Output, RawInstance, Redirect, Request, Response};

impl From<types::AccessError> for AccessError {
    fn from(error: types::AccessError) -> Self {
        AccessError { code: error.code, message: error.message }
    }
}

impl From<types::Instance> for RawInstance {
    fn from(instance: types::Instance) -> Self {
        let types::Instance { id, model, model_version, revision, position, created_at, updated_at, data } = instance;
        RawInstance { id, model, model_version, revision, position, created_at, updated_at, data }
    }
}

pub(crate) fn log(level: u32, message: &str) {
    let level = match level {
        0 => log_import::Level::Debug,
        1 => log_import::Level::Info,
        2 => log_import::Level::Warn,
        _ => log_import::Level::Error,
    };
    log_import::write(level, message);
}

pub(crate) fn read_get(model: &str, id: &str) -> Result<Option<RawInstance>, AccessError> {
    Ok(read::get(model, id)?.map(RawInstance::from))
}

pub(crate) fn read_query(model: &str, query: &str) -> Result<(Vec<RawInstance>, Option<String>), AccessError> {
    let page = read::query(model, query)?;
    Ok((page.items.into_iter().map(RawInstance::from).collect(), page.next))
}

pub(crate) fn read_event(position: u64) -> Result<Option<String>, AccessError> {
    Ok(read::event(position)?)
}

pub(crate) fn write_create(model: &str, id: Option<&str>, data: &str) -> Result<RawInstance, AccessError> {
    Ok(write::create(model, id, data, None)?.into())
}

pub(crate) fn write_update(
    model: &str,
    id: &str,
    data: &str,
    expected: Option<u64>,
) -> Result<RawInstance, AccessError> {
    Ok(write::update(model, id, data, expected)?.into())
}

pub(crate) fn write_delete(model: &str, id: &str, expected: Option<u64>) -> Result<RawInstance, AccessError> {
    Ok(write::delete(model, id, expected)?.into())
}

pub(crate) fn http_send(request: &Request) -> Result<Response, AccessError> {
    let response = http::send(&http::Request {
        method: request.method.clone(),
        url: request.url.clone(),
        headers: request.headers.clone(),
        body: request.body.clone(),
        timeout_ms: request.timeout.map(|timeout| timeout.as_millis() as u64),
        redirect: match request.redirect {
            Redirect::Follow => http::Redirect::Follow,
            Redirect::Manual => http::Redirect::Manual,
            Redirect::Error => http::Redirect::Error,
        },
    })?;
    let http::Response { status, url, redirected, headers, body } = response;
    Ok(Response { status, url, redirected, headers, body })
}

pub(crate) fn process_run(command: &Command) -> Result<Output, AccessError> {
    let output = process::run(&process::Command {
        program: command.program.clone(),
        args: command.args.clone(),
        stdin: command.stdin.clone(),
        env: command.env.clone(),
        timeout_ms: command.timeout.map(|timeout| timeout.as_millis() as u64),
    })?;
    Ok(Output { code: output.code, stdout: output.stdout, stderr: output.stderr })
}

pub(crate) fn secret_get(name: &str) -> Result<String, AccessError> {
    Ok(secret::get(name)?)
}

/// Called before the first run: logs panics as errors, which the server adds to the failure, because not every WebAssembly target
/// has a standard error.
pub fn begin() {
    static BEGUN: std::sync::Once = std::sync::Once::new();
    BEGUN.call_once(|| std::panic::set_hook(Box::new(|panic| log(3, &panic.to_string()))));
}

/// The change, from the world's type.
pub fn change(context: Context) -> Raw {
    Raw {
        phase: match context.phase {
            types::Phase::PreCreate => Phase::PreCreate,
            types::Phase::PostCreate => Phase::PostCreate,
            types::Phase::PreUpdate => Phase::PreUpdate,
            types::Phase::PostUpdate => Phase::PostUpdate,
            types::Phase::PreDelete => Phase::PreDelete,
            types::Phase::PostDelete => Phase::PostDelete,
        },
        model: context.model.id,
        model_version: context.model.version,
        id: context.id,
        before: None,
        after: None,
        before_text: context.before,
        after_text: context.after,
        actor: context.actor.map(Actor::read),
        request_id: context.request_id,
        time: context.time,
        event: context.event.map(|event| Event { position: event.position, id: event.id }),
        attempt: context.attempt,
    }
}

/// The verdict, as the world's type. In this version of the world, a pre hook can only fail with a trap; the server adds the error
/// that the hook has logged before.
pub fn verdict(result: crate::Result<crate::Verdict>) -> Result<Verdict, Rejection> {
    match result {
        Ok(crate::Verdict::Accept) => Ok(Verdict::Accept),
        Ok(crate::Verdict::Amend(data)) => Ok(Verdict::Amend(data)),
        Err(crate::Error::Reject(reject)) => {
            let fields = reject.fields.into_iter();
            let fields = fields.map(|(pointer, message)| types::FieldError { pointer, message });
            Err(Rejection { message: reject.message, fields: fields.collect() })
        }
        Err(crate::Error::Fail(message)) => {
            log(3, &message);
            std::process::abort();
        }
    }
}

/// For a component: the exports of both worlds, or of one.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($hook:ty) => {
        const _: () = {
            struct Exported;
            impl $crate::__private::Guest for Exported {
                $crate::__export_function!(check $hook);
                $crate::__export_function!(react $hook);
            }
    $crate::__private::export_component!(Exported with_types_in $crate::__private);
        };
    };
    ($hook:ty: check) => {
        const _: () = {
            struct Exported;
            impl $crate::__private::pre::Guest for Exported {
                $crate::__export_function!(check $hook);
            }
    $crate::__private::pre::export_component_pre!(Exported with_types_in $crate::__private::pre);
        };
    };
    ($hook:ty: react) => {
        const _: () = {
            struct Exported;
            impl $crate::__private::post::Guest for Exported {
                $crate::__export_function!(react $hook);
            }
    $crate::__private::post::export_component_post!(Exported with_types_in $crate::__private::post);
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_function {
    (check $hook:ty) => {
        fn check(
            context: $crate::__private::Context,
        ) -> Result<$crate::__private::Verdict, $crate::__private::Rejection> {
            $crate::__private::begin();
            let result = $crate::__private::check::<$hook>($crate::__private::change(context));
            $crate::__private::verdict(result)
        }
    };
    (react $hook:ty) => {
        fn react(context: $crate::__private::Context) -> Result<(), String> {
            $crate::__private::begin();
            $crate::__private::react::<$hook>($crate::__private::change(context))
        }
    };
}
