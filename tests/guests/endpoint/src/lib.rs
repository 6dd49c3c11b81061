//! A custom endpoint whose last path segment chooses what it does: correct, odd or hostile.

use std::hint::black_box;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam, Scheme,
};
use wasip2::io::streams::StreamError;

wit_bindgen::generate!({
    path: "../../../wit/since_v0_1_0",
    inline: "
        package test:endpoint;
        world capabilities {
            import snaphook:hook/log@0.1.0;
            import snaphook:hook/read@0.1.0;
            import snaphook:hook/write@0.1.0;
            import snaphook:hook/http@0.1.0;
            import snaphook:hook/process@0.1.0;
            import snaphook:hook/secret@0.1.0;
        }
    ",
    world: "test:endpoint/capabilities",
    generate_all,
});

use snaphook::hook::types::AccessError;
use snaphook::hook::{http, log, process, read, secret, write};

struct Endpoint;

wasip2::http::proxy::export!(Endpoint);

impl Guest for Endpoint {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        match path.rsplit('/').next().unwrap_or_default() {
            "echo" => answer(out, 200, &[], &echo(&request, &target)),
            "upload" => {
                let (bytes, end) = read_all(&request);
                answer(out, 200, &[], format!("{} bytes, {end}", bytes.len()).as_bytes());
            }
            "back" => pass_back(&request, out),
            "status" => {
                let status = target.split('?').nth(1).and_then(|text| text.parse().ok()).unwrap_or(200);
                answer(out, status, &[], b"text");
            }
            "headers" => answer(
                out,
                200,
                &[
                    ("content-type", "text/plain"),
                    ("set-cookie", "a=1"),
                    ("set-cookie", "b=2"),
                    ("access-control-allow-origin", "*"),
                    ("snaphook-position", "999"),
                    ("x-request-id", "forged"),
                    ("te", "trailers"),
                ],
                b"x",
            ),
            "forbidden" => {
                let refused = ["connection", "transfer-encoding", "host", "upgrade"]
                    .iter()
                    .filter(|name| Fields::from_list(&[((**name).to_owned(), b"x".to_vec())]).is_err());
                answer(out, 200, &[], refused.count().to_string().as_bytes());
            }
            "bodyless" => {
                let response = OutgoingResponse::new(Fields::new());
                let _ = response.set_status_code(202);
                ResponseOutparam::set(out, Ok(response));
            }
            "trailers" => trailers(out),
            "short" => {
                let response = OutgoingResponse::new(fields(&[("content-length", "10")]));
                let body = response.body().unwrap();
                ResponseOutparam::set(out, Ok(response));
                let _ = body.write().unwrap().blocking_write_and_flush(b"12345");
            }
            "nothing" => drop(out),
            "leak" => std::mem::forget(out),
            "error" => ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some("hunter2".to_owned())))),
            "panic" => {
                log::write(log::Level::Error, "hunter2 is what the log says");
                panic!("hunter2");
            }
            "loop" => forever(),
            "memory" => {
                let mut kept = Vec::new();
                loop {
                    kept.push(black_box(vec![1_u8; 1 << 20]));
                }
            }
            "stack" => {
                black_box(deep(0));
            }
            "calls" => loop {
                let _ = read::get("order", "a");
            },
            "flood-log" => loop {
                log::write(log::Level::Info, &"x".repeat(1000));
            },
            "handles" => {
                let mut kept = Vec::new();
                loop {
                    kept.push(Fields::new());
                }
            }
            "forever" => pour(out, None),
            "pour" => pour(out, Some(64 << 20)),
            "hang" => {
                let response = OutgoingResponse::new(Fields::new());
                let body = response.body().unwrap();
                ResponseOutparam::set(out, Ok(response));
                let _ = body.write().unwrap().blocking_write_and_flush(b"begun\n");
                forever();
            }
            "sleep" => {
                let pollable = wasip2::clocks::monotonic_clock::subscribe_duration(3_600_000_000_000);
                pollable.block();
            }
            "late" => {
                // The log shows whether the run reached its end.
                answer(out, 200, &[], b"done");
                log::write(log::Level::Info, "came to its end");
            }
            "log" => {
                for (level, text) in [(log::Level::Info, "first\nINFO second"), (log::Level::Error, "third\x1b[31m")] {
                    log::write(level, text);
                }
                answer(out, 200, &[], b"logged");
            }
            "capabilities" => answer(out, 200, &[], capabilities(&target).as_bytes()),
            "fetch" => answer(out, 200, &[], fetch(&target).as_bytes()),
            _ => answer(out, 404, &[], b"no such task"),
        }
    }
}

/// `method target scheme authority`, then the headers, one per line.
fn echo(request: &IncomingRequest, target: &str) -> Vec<u8> {
    let scheme = match request.scheme() {
        Some(Scheme::Https) => "https",
        Some(Scheme::Http) => "http",
        _ => "none",
    };
    let authority = request.authority().unwrap_or_default();
    let method = match request.method() {
        Method::Other(method) => method,
        method => format!("{method:?}").trim_start_matches("Method::").to_uppercase(),
    };
    let mut text = format!("{method} {target} {scheme} {authority}\n").into_bytes();
    for (name, value) in request.headers().entries() {
        text.extend_from_slice(format!("{name}: {}\n", String::from_utf8_lossy(&value)).as_bytes());
    }
    text
}

fn read_all(request: &IncomingRequest) -> (Vec<u8>, &'static str) {
    let body = request.consume().unwrap();
    let stream = body.stream().unwrap();
    let mut bytes = Vec::new();
    let end = loop {
        match stream.blocking_read(64 << 10) {
            Ok(part) => bytes.extend(part),
            Err(StreamError::Closed) => break "whole",
            Err(StreamError::LastOperationFailed(_)) => break "broken off",
        }
    };
    drop(stream);
    IncomingBody::finish(body);
    (bytes, end)
}

/// Sends the request body back while it is still arriving.
fn pass_back(request: &IncomingRequest, out: ResponseOutparam) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    let incoming = request.consume().unwrap();
    let source = incoming.stream().unwrap();
    while let Ok(part) = source.blocking_read(4096) {
        if stream.blocking_write_and_flush(&part).is_err() {
            return;
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

fn pour(out: ResponseOutparam, bytes: Option<u64>) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    let piece = [b'x'; 4096];
    let mut written = 0;
    while bytes.is_none_or(|bytes| written < bytes) {
        if stream.blocking_write_and_flush(&piece).is_err() {
            return;
        }
        written += piece.len() as u64;
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

fn trailers(out: ResponseOutparam) {
    let response = OutgoingResponse::new(fields(&[("trailer", "x-sum")]));
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let _ = body.write().unwrap().blocking_write_and_flush(b"abc");
    let trailers = fields(&[("x-sum", "3"), ("snaphook-actor", "forged")]);
    let _ = OutgoingBody::finish(body, Some(trailers));
}

fn fields(list: &[(&str, &str)]) -> Fields {
    let list: Vec<_> = list.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    Fields::from_list(&list).unwrap()
}

fn answer(out: ResponseOutparam, status: u16, headers: &[(&str, &str)], text: &[u8]) {
    let response = OutgoingResponse::new(fields(headers));
    let _ = response.set_status_code(status);
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    for piece in text.chunks(4096) {
        let _ = stream.blocking_write_and_flush(piece);
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

/// Uses each capability once; the query is a URL for `http`.
fn capabilities(target: &str) -> String {
    let url = target.split_once('?').map_or("", |(_, url)| url);
    let said = |name: &str, result: Result<String, AccessError>| match result {
        Ok(text) => format!("{name}: {text}\n"),
        Err(error) => format!("{name}: {}\n", error.code),
    };
    let request = http::Request {
        method: "GET".to_owned(),
        url: url.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout_ms: None,
        redirect: http::Redirect::Follow,
    };
    let command = process::Command {
        program: "/usr/bin/echo".to_owned(),
        args: vec!["hello".to_owned()],
        stdin: Vec::new(),
        env: Vec::new(),
        timeout_ms: None,
    };
    [
        said("read", read::get("order", "a").map(|found| found.map_or("none".to_owned(), |found| found.data))),
        said("write", write::create("order", None, r#"{"name":"made"}"#, None).map(|made| made.revision.to_string())),
        said("http", http::send(&request).map(|answer| answer.status.to_string())),
        said("process", process::run(&command).map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())),
        said("secret", secret::get("key")),
    ]
    .concat()
}

/// The status of `http://AUTHORITY/`, by `wasi:http`; the query is the authority.
fn fetch(target: &str) -> String {
    let request = OutgoingRequest::new(Fields::new());
    let authority = target.split_once('?').map_or("", |(_, authority)| authority);
    let _ = request.set_scheme(Some(&Scheme::Http));
    let _ = request.set_authority(Some(authority));
    let _ = request.set_path_with_query(Some("/"));
    let answer = match outgoing_handler::handle(request, None) {
        Ok(answer) => answer,
        Err(code) => return format!("{code:?}"),
    };
    answer.subscribe().block();
    match answer.get() {
        Some(Ok(Ok(answer))) => answer.status().to_string(),
        Some(Ok(Err(code))) => format!("{code:?}"),
        _ => "nothing".to_owned(),
    }
}

fn forever() -> ! {
    let mut count = 0_u64;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

#[allow(unconditional_recursion)]
fn deep(level: u64) -> u64 {
    let filler = black_box([level; 64]);
    deep(level + 1) + black_box(filler)[0]
}
