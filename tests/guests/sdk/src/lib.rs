//! The suite's hook with `snaphook-hook`: one source, built as a component and as a native library. The id of the
//! context's `actor` chooses the task; the context's `id` is the task's parameter.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use snaphook_hook::http::Request;
use snaphook_hook::process::Command;
use snaphook_hook::{AccessError, Change, Error, Hook, RawValue, Reject, Result, Verdict, log, read, secret, write};

struct Suite;

snaphook_hook::export!(Suite);

/// Number of calls in this sandbox.
static CALLS: AtomicU32 = AtomicU32::new(0);

/// Any data, because the tasks use its text.
type Data = Box<RawValue>;

impl Hook for Suite {
    type Data = Data;

    fn check(change: &Change<Data>) -> Result<Verdict> {
        match task(change) {
            "amend" => Verdict::amend(&json!({"n": 1})),
            "reject" => Err(Reject::new("no").field("/a", "bad").into()),
            "same" => Verdict::amend(&change.after),
            "add" => change.amend()?.set("x", &1)?.verdict(),
            "flood" => Verdict::amend(&json!({"text": "x".repeat(20_000_000)})),
            "count" => {
                let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
                if calls == 3 {
                    forever();
                }
                Verdict::amend(&json!({"n": calls}))
            }
            _ => run(change).map(|()| Verdict::Accept),
        }
    }

    fn react(change: &Change<Data>) -> Result<()> {
        if task(change) == "fail" {
            return Err(Error::Fail("oops".into()));
        }
        run(change)
    }
}

fn task(change: &Change<Data>) -> &str {
    change.actor.as_ref().map_or("", |actor| &actor.id)
}

/// Runs the tasks that have the same result in every phase, if any.
fn run(change: &Change<Data>) -> Result<()> {
    match task(change) {
        "accept" => {}
        "crash" => panic!("crashed"),
        "tell" => tell(change),
        "log" => {
            log::debug("d");
            log::info("i");
            log::warn("w");
            log::error("e");
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
        // No limit can stop a library, so it stops by itself after more than any limit allows.
        "talk" => (0..2_000).for_each(|_| log::info("x")),
        "shout" => (0..100).for_each(|_| log::info("x".repeat(8000))),
        "ask" => (0..20_000).for_each(|_| {
            let _ = black_box(read::get::<Data>("a", "b"));
        }),
        task => match ask(task, &change.id) {
            Ok(line) => log::info(line),
            Err(error) => {
                log::info(&error.code);
                log::info(&error.message);
            }
        },
    }
    Ok(())
}

/// Runs the tasks that use a capability.
fn ask(task: &str, id: &str) -> Result<String, AccessError> {
    Ok(match task {
        "read-get" => read::get::<Data>("item", id)?.map_or("absent".into(), |found| found.data.get().to_owned()),
        "read-query" => {
            let page = read::query::<Data>("item", &json!({"limit": 1}))?;
            let ids: Vec<_> = page.items.into_iter().map(|item| item.id).collect();
            format!("{} {}", ids.join(","), page.next.unwrap_or_default())
        }
        "read-event" => {
            let found = read::event(id.parse().unwrap_or_default())?;
            if found.is_some() { "present".into() } else { "absent".into() }
        }
        "write-create" => data(write::create("note", Some(id), &json!({"a": 1}))?.data),
        "write-update" => data(write::update("note", id, &json!({"a": 2}), None)?.data),
        "write-delete" => data(write::delete("note", id, None)?.data),
        "http-send" => {
            let response = Request::new("POST", id).header("x-a", "1").body("hi").send()?;
            format!("{} {}", response.status, String::from_utf8_lossy(&response.body))
        }
        "process-run" => {
            let output = Command::new(id, &["-"]).stdin("in").run()?;
            format!("{} {}", output.code, String::from_utf8_lossy(&output.stdout))
        }
        "secret-get" => secret::get(id)?,
        other => format!("no task `{other}`"),
    })
}

fn data(data: Value) -> String {
    data.to_string()
}

fn tell(change: &Change<Data>) {
    let or_none = |text: &Option<String>| text.clone().unwrap_or("none".into());
    log::info(format!("{} {}@{} {}", change.phase, change.model, change.model_version, change.id));
    log::info(format!("{} {} {}", or_none(&change.request_id), change.time, change.attempt));
    log::info(format!("before {}", or_none(&change.before_text)));
    log::info(format!("after {}", or_none(&change.after_text)));
    let event = change.event.as_ref().map_or("none".into(), |event| format!("{} {}", event.position, event.id));
    log::info(format!("event {event}"));
}

fn forever() -> ! {
    loop {
        // A library sleeps, so that other tests can use the cores; a component cannot.
        #[cfg(not(target_arch = "wasm32"))]
        std::thread::sleep(std::time::Duration::from_secs(1));
        black_box(());
    }
}

/// The compiler cannot turn this into a loop, because it adds after the call.
fn deep(level: u64) -> u64 {
    black_box(level) + black_box(deep as fn(u64) -> u64)(level + 1)
}
