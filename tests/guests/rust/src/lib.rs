//! The suite's hook in Rust: one component for all tasks and phases. The id of the context's `actor` chooses the task; the
//! context's `id` is the task's parameter.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};

wit_bindgen::generate!({
    path: ["../../../wit/since_v0_1_0", "../wit"],
    world: "test:suite/suite",
    generate_all,
});

use snaphook::hook::log::{Level, write as log};
use snaphook::hook::types::{AccessError, FieldError, Phase};
use snaphook::hook::{http, process, read, secret, write};

struct Suite;

export!(Suite);

/// Number of calls in this sandbox.
static CALLS: AtomicU32 = AtomicU32::new(0);

impl Guest for Suite {
    fn check(ctx: Context) -> Result<Verdict, Rejection> {
        let after = || ctx.after.clone().unwrap_or_default();
        match task(&ctx) {
            "amend" => Ok(Verdict::Amend(r#"{"n":1}"#.into())),
            "reject" => {
                let field = FieldError { pointer: "/a".into(), message: "bad".into() };
                Err(Rejection { message: "no".into(), fields: vec![field] })
            }
            "same" => Ok(Verdict::Amend(after())),
            // The data is not empty.
            "add" => Ok(Verdict::Amend(after().replacen('{', r#"{"x":1,"#, 1))),
            "flood" => Ok(Verdict::Amend(format!(r#"{{"text":"{}"}}"#, "x".repeat(20_000_000)))),
            "count" => {
                let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
                if calls == 3 {
                    forever();
                }
                Ok(Verdict::Amend(format!(r#"{{"n":{calls}}}"#)))
            }
            _ => {
                run(&ctx);
                Ok(Verdict::Accept)
            }
        }
    }

    fn react(ctx: Context) -> Result<(), String> {
        if task(&ctx) == "fail" {
            return Err("oops".into());
        }
        run(&ctx);
        Ok(())
    }
}

fn task(ctx: &Context) -> &str {
    // `{"id":"WORD","kind":…}`; an older server sends only the word.
    let actor = ctx.actor.as_deref().unwrap_or_default();
    actor.strip_prefix(r#"{"id":""#).and_then(|rest| rest.split('"').next()).unwrap_or(actor)
}

/// Runs the tasks that have the same result in every phase, if any.
fn run(ctx: &Context) {
    match task(ctx) {
        "accept" => {}
        "crash" => panic!("crashed"),
        "tell" => tell(ctx),
        "log" => {
            let levels = [(Level::Debug, "d"), (Level::Info, "i"), (Level::Warn, "w"), (Level::Error, "e")];
            levels.into_iter().for_each(|(level, text)| log(level, text));
        }
        "loop" => forever(),
        "grow" => {
            let mut all = Vec::new();
            loop {
                all.push(black_box(vec![1_u8; 1 << 20]));
            }
        }
        "recurse" => {
            black_box(deep(0));
        }
        "talk" => loop {
            info("x");
        },
        "shout" => loop {
            info(&"x".repeat(8000));
        },
        "ask" => loop {
            let _ = black_box(read::get("a", "b"));
        },
        task => match ask(task, &ctx.id) {
            Ok(line) => info(&line),
            Err(error) => {
                info(&error.code);
                info(&error.message);
            }
        },
    }
}

/// Runs the tasks that use a capability.
fn ask(task: &str, id: &str) -> Result<String, AccessError> {
    Ok(match task {
        "read-get" => read::get("item", id)?.map_or("absent".into(), |found| found.data),
        "read-query" => {
            let page = read::query("item", r#"{"limit":1}"#)?;
            let ids: Vec<_> = page.items.into_iter().map(|item| item.id).collect();
            format!("{} {}", ids.join(","), page.next.unwrap_or_default())
        }
        "read-event" => {
            let found = read::event(id.parse().unwrap_or_default())?;
            if found.is_some() { "present".into() } else { "absent".into() }
        }
        "write-create" => write::create("note", Some(id), r#"{"a":1}"#, None)?.data,
        "write-update" => write::update("note", id, r#"{"a":2}"#, None)?.data,
        "write-delete" => write::delete("note", id, None)?.data,
        "http-send" => {
            let response = http::send(&http::Request {
                method: "POST".into(),
                url: id.into(),
                headers: vec![("x-a".into(), "1".into())],
                body: b"hi".to_vec(),
                timeout_ms: None,
                redirect: http::Redirect::Follow,
            })?;
            format!("{} {}", response.status, String::from_utf8_lossy(&response.body))
        }
        "process-run" => {
            let output = process::run(&process::Command {
                program: id.into(),
                args: vec!["-".into()],
                stdin: b"in".to_vec(),
                env: Vec::new(),
                timeout_ms: None,
            })?;
            format!("{} {}", output.code, String::from_utf8_lossy(&output.stdout))
        }
        "secret-get" => secret::get(id)?,
        other => format!("no task `{other}`"),
    })
}

fn tell(ctx: &Context) {
    let phase = match ctx.phase {
        Phase::PreCreate => "preCreate",
        Phase::PostCreate => "postCreate",
        Phase::PreUpdate => "preUpdate",
        Phase::PostUpdate => "postUpdate",
        Phase::PreDelete => "preDelete",
        Phase::PostDelete => "postDelete",
    };
    let or_none = |text: &Option<String>| text.clone().unwrap_or("none".into());
    info(&format!("{phase} {}@{} {}", ctx.model.id, ctx.model.version, ctx.id));
    info(&format!("{} {} {}", or_none(&ctx.request_id), ctx.time, ctx.attempt));
    info(&format!("before {}", or_none(&ctx.before)));
    info(&format!("after {}", or_none(&ctx.after)));
    let event = ctx.event.as_ref().map_or("none".into(), |event| format!("{} {}", event.position, event.id));
    info(&format!("event {event}"));
}

fn info(line: &str) {
    log(Level::Info, line);
}

fn forever() -> ! {
    loop {
        black_box(());
    }
}

/// The compiler cannot turn this into a loop, because it adds after the call.
fn deep(level: u64) -> u64 {
    black_box(level) + black_box(deep as fn(u64) -> u64)(level + 1)
}
