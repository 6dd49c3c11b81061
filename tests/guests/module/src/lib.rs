//! A sandboxed server module with every hook. The header `x-do` chooses what it does: correct, odd or hostile.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};

wit_bindgen::generate!({
    path: ["../../../wit/since_v0_1_0", "../../../wit/module/since_v0_1_0"],
    inline: "
        package test:module;
        world module {
            include snaphook:module/imports@0.1.0;
            export snaphook:module/before-request@0.1.0;
            export snaphook:module/request@0.1.0;
            export snaphook:module/request-error@0.1.0;
            export snaphook:module/response@0.1.0;
            export snaphook:module/bodies@0.1.0;
        }
    ",
    world: "test:module/module",
    generate_all,
});

use exports::snaphook::module::{before_request, bodies, request, request_error, response};
use snaphook::hook::types::AccessError;
use snaphook::hook::{http, log, process, read, secret, write};
use snaphook::module::types::{Decision, Header, HeaderChange, Request, RequestChange, Response, ResponseChange};
use snaphook::module::{config, note};

struct Module;

export!(Module);

/// Calls in this sandbox.
static CALLS: AtomicU32 = AtomicU32::new(0);

fn task(request: &Request) -> &str {
    let header = request.headers.iter().find(|header| header.name == "x-do");
    header.and_then(|header| std::str::from_utf8(&header.value).ok()).unwrap_or_default()
}

fn header(name: &str, value: impl Into<Vec<u8>>) -> Header {
    Header { name: name.to_owned(), value: value.into() }
}

fn nothing() -> RequestChange {
    RequestChange { method: None, uri: None, headers: Vec::new(), body: None }
}

fn headers(headers: Vec<HeaderChange>) -> RequestChange {
    RequestChange { headers, ..nothing() }
}

fn marked() -> RequestChange {
    headers(vec![HeaderChange::Add(header("x-marks", config::settings()))])
}

impl before_request::Guest for Module {
    fn handle(request: Request) -> Result<(Decision, RequestChange), u16> {
        CALLS.fetch_add(1, Ordering::Relaxed);
        let change = match task(&request) {
            "refuse" => return Err(403),
            "refuse-200" => return Err(200),
            "trap" => panic!("hunter2 is for the log"),
            "loop" => loop {
                black_box(());
            },
            "memory" => {
                let mut kept = Vec::new();
                loop {
                    kept.push(black_box(vec![1_u8; 1 << 20]));
                }
            }
            "stack" => {
                deeper(0);
                nothing()
            }
            "calls" => loop {
                let _ = read::get("order", "a");
            },
            "flood" => loop {
                log::write(log::Level::Info, &"x".repeat(1000));
            },
            "log" => {
                log::write(log::Level::Info, "first\nERROR second");
                nothing()
            }
            "note" => {
                note::set(format!("{} {}", request.method, request.uri).as_bytes());
                nothing()
            }
            "note-large" => {
                note::set(&[b'x'; 4097]);
                nothing()
            }
            "capabilities" => {
                note::set(capabilities(&request).as_bytes());
                nothing()
            }
            "seen" => {
                let text = format!(
                    "{} {} {} {} {}",
                    request.protocol,
                    request.host,
                    request.secure,
                    request.peer,
                    request.body.as_ref().map_or(-1, |body| body.len() as i64),
                );
                note::set(text.as_bytes());
                nothing()
            }
            "rewrite" => RequestChange { uri: Some("/healthz?x".to_owned()), ..nothing() },
            "replace" => RequestChange {
                method: Some("POST".to_owned()),
                uri: Some("/models".to_owned()),
                headers: vec![HeaderChange::Set(header("content-type", "application/json"))],
                body: Some(br#"{"id":"made","schema":{"type":"object"}}"#.to_vec()),
            },
            "many" => headers((0..100_000).map(|_| HeaderChange::Add(header("x-many", "1"))).collect()),
            "long" => headers(vec![HeaderChange::Set(header("x-long", vec![b'x'; 1 << 20]))]),
            "split" => headers(vec![HeaderChange::Set(header("x-a", "1\r\nx-b: 2"))]),
            "frame" => headers(vec![HeaderChange::Set(header("content-length", "1"))]),
            "method" => RequestChange { method: Some("A B".to_owned()), ..nothing() },
            "uri" => RequestChange { uri: Some("http://evil.example/".to_owned()), ..nothing() },
            "large" => RequestChange { body: Some(vec![b'x'; 9 << 20]), ..nothing() },
            "mark" => marked(),
            "mark-ok" => return Ok((Decision::Ok, marked())),
            _ => nothing(),
        };
        Ok((Decision::Declined, change))
    }
}

impl request::Guest for Module {
    fn handle(request: Request) -> Result<Option<Response>, u16> {
        let answer = |status, body: &[u8]| {
            let headers = vec![header("content-type", "text/plain"), header("x-two", "1"), header("x-two", "2")];
            Ok(Some(Response { status, headers, body: Some(body.to_vec()) }))
        };
        match task(&request) {
            "answer" => answer(418, b"tea"),
            "answer-body" => answer(200, &request.body.unwrap_or_default()),
            "answer-103" => answer(103, b""),
            "mark" | "mark-ok" => {
                let marks = request.headers.iter().filter(|header| header.name == "x-marks");
                let marks: Vec<&[u8]> = marks.map(|header| &*header.value).collect();
                answer(200, &marks.join(&b" "[..]))
            }
            "fail" => Err(451),
            _ => Ok(None),
        }
    }
}

impl request_error::Guest for Module {
    fn handle(request: Request, response: Response) -> Result<Option<ResponseChange>, u16> {
        match task(&request) {
            "error-trap" => panic!("in the error"),
            "page" => Ok(Some(ResponseChange {
                status: Some(410),
                headers: vec![HeaderChange::Set(header("content-type", "text/plain"))],
                body: Some(format!("was {}", response.status).into_bytes()),
            })),
            _ => Ok(None),
        }
    }
}

impl response::Guest for Module {
    fn handle(request: Request, response: Response) -> Result<(Decision, ResponseChange), u16> {
        let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        let mut headers = vec![
            HeaderChange::Set(header("x-calls", calls.to_string())),
            HeaderChange::Add(header("x-modules", config::settings())),
        ];
        let note = note::get();
        if !note.is_empty() {
            headers.push(HeaderChange::Set(header("x-note", note)));
        }
        let body = match task(&request) {
            "response-trap" => panic!("in the response"),
            "response-500" => return Err(503),
            "shout" => response.body.map(|body| body.to_ascii_uppercase()),
            _ => None,
        };
        Ok((Decision::Declined, ResponseChange { status: None, headers, body }))
    }
}

impl bodies::Guest for Module {
    fn whole() -> bodies::WholeBodies {
        bodies::WholeBodies::REQUEST | bodies::WholeBodies::RESPONSE
    }
}

#[allow(unconditional_recursion)]
fn deeper(depth: u64) -> u64 {
    let kept = black_box([depth; 64]);
    deeper(depth + 1) + black_box(kept)[0]
}

fn capabilities(request: &Request) -> String {
    fn said<T>(result: Result<T, AccessError>) -> String {
        result.map_or_else(|error| error.code, |_| "fine".to_owned())
    }
    let url = request.headers.iter().find(|header| header.name == "x-url");
    let url = url.map(|header| String::from_utf8_lossy(&header.value).into_owned()).unwrap_or_default();
    let asked = http::Request {
        method: "GET".to_owned(),
        url,
        headers: Vec::new(),
        body: Vec::new(),
        timeout_ms: None,
        redirect: http::Redirect::Follow,
    };
    let command = process::Command {
        program: "/usr/bin/echo".to_owned(),
        args: vec!["hello".to_owned()],
        env: Vec::new(),
        stdin: Vec::new(),
        timeout_ms: None,
    };
    [
        said(read::get("order", "a")),
        said(write::create("order", Some("made"), r#"{"name":"x"}"#, None)),
        said(http::send(&asked)),
        said(process::run(&command)),
        said(secret::get("key")),
    ]
    .join(" ")
}
