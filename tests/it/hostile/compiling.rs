//! Code that is too expensive to compile: each request soon gets a response that names the exceeded limit, while others
//! continue.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Arena;
use crate::support::{Response, Server, ServerOptions, eventually, guest};
use crate::workbench::open_model;

/// Each request gets its response within this time, including the time in the queue.
const ANSWER_MAX: Duration = Duration::from_secs(5);

fn module(functions: &str) -> Vec<u8> {
    wat::parse_str(format!("(module (memory (export \"memory\") 1) (func (export \"_start\")) {functions})"))
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Nested loops, each of which passes on every local: the compiler's state grows with their product.
fn loops(depth: usize, locals: usize) -> Vec<u8> {
    let mut body = format!("(local {})", "i32 ".repeat(locals));
    body.push_str(&"loop ".repeat(depth));
    for local in 0..locals {
        let _ = write!(body, "local.get {local} i32.const 1 i32.add local.set {local} ");
    }
    body.push_str(&"local.get 0 br_if 0 end ".repeat(depth));
    module(&format!("(func {body})"))
}

/// Values that are all live at the same time.
fn stack(values: usize) -> Vec<u8> {
    let loads = "i32.const 0 i32.load ".repeat(values);
    module(&format!("(func {loads} {} drop)", "i32.add ".repeat(values - 1)))
}

/// Branches that merge, each with different values.
fn branches(count: usize, locals: usize) -> Vec<u8> {
    let mut body = format!("(local {})", "i32 ".repeat(locals));
    for index in 0..count {
        let (a, b, c) = (index % locals, (index + 1) % locals, (index * 13) % locals);
        let _ = write!(body, "local.get {a} if local.get {b} i32.const 1 i32.add local.set {c} end ");
    }
    module(&format!("(func {body})"))
}

/// A jump table with this many targets.
fn jumps(count: usize) -> Vec<u8> {
    let targets: String = (0..count).map(|index| format!("{index} ")).collect();
    module(&format!("(func {} i32.const 0 br_table {targets} {})", "block ".repeat(count), "end ".repeat(count)))
}

fn functions(count: usize) -> Vec<u8> {
    module(&"(func (param i64 i64) (result i64) local.get 0 local.get 1 i64.mul local.get 0 i64.div_s)".repeat(count))
}

/// Nested types: a value of the last one would have 2^depth parts.
fn types(depth: usize) -> Vec<u8> {
    let mut text = "(component (type $t0 (tuple u8 u8))".to_owned();
    for level in 1..depth {
        let _ = write!(text, "(type $t{level} (tuple $t{} $t{}))", level - 1, level - 1);
    }
    text.push(')');
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

fn nested(depth: usize) -> Vec<u8> {
    let text = format!("(component {} {})", "(component ".repeat(depth), ")".repeat(depth));
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

fn locals(count: usize) -> Vec<u8> {
    module(&format!("(func (local {}))", "i64 ".repeat(count)))
}

/// Code that exceeds a limit of the compiler, one entry per kind.
fn corpus() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("loops", loops(1000, 10_000)),
        ("wide loops", loops(3000, 3000)),
        ("deep loops", loops(20_000, 500)),
        ("functions", functions(210_000)),
        ("nested components", nested(40)),
        ("locals", locals(30_000)),
    ]
}

/// The response, and how long it took. On a machine that is busy with other tests this may take several attempts.
fn answer(server: &Server, model: &str, code: &[u8]) -> (Response, Duration) {
    eventually("the compiler gets a core", || {
        let started = Instant::now();
        let answer = put(server, model, code);
        assert!(started.elapsed() < ANSWER_MAX, "{:?}: {}", started.elapsed(), answer.text());
        (answer.status != 503).then(|| (answer, started.elapsed()))
    })
}

fn put(server: &Server, model: &str, code: &[u8]) -> Response {
    let path = format!("/models/{model}/hooks/preCreate");
    server.client().request("PUT", &path).body("application/wasm", code).send()
}

#[test]
fn each_is_too_complex_and_says_of_what() {
    let server = Server::start();
    open_model(&server.client(), "victim");
    for (name, code) in corpus() {
        let (answer, took) = answer(&server, "victim", &code);
        let problem = answer.expect_problem(422, "too-complex");
        let detail = problem["detail"].as_str().expect("a text");
        eprintln!("{name}: {} bytes, {took:?}: {detail}", code.len());
        assert!(detail.contains("the limit for code of") || detail.contains("are possible"), "{name}: {detail}");
    }
    eventually("no process is left", || server.children().is_empty().then_some(()));
}

/// Odd code compiles within the budget or is rejected; both quickly.
#[test]
fn whatever_it_is_it_is_answered_soon() {
    let server = Server::start();
    open_model(&server.client(), "victim");
    for (name, code) in [
        ("stack", stack(40_000)),
        ("branches", branches(14_000, 2000)),
        ("few branches", branches(14_000, 50)),
        ("jumps", jumps(60_000)),
        ("types", types(19)),
        ("deep types", types(90)),
    ] {
        let (answer, took) = answer(&server, "victim", &code);
        eprintln!("{name}: {} bytes, {took:?}: {} {:.300}", code.len(), answer.status, answer.text());
        assert!([200, 422].contains(&answer.status), "{name}: {}", answer.text());
    }
}

#[test]
fn sixteen_at_once_leave_the_server_calm() {
    let arena = Arena::new();
    let model = arena.victim();
    let code = loops(1000, 10_000);
    arena.bystander.stays_calm("compiling", || {
        std::thread::scope(|scope| {
            let calls: Vec<_> = (0..16)
                .map(|_| {
                    scope.spawn(|| {
                        let started = Instant::now();
                        (put(&arena.server, &model, &code), started.elapsed())
                    })
                })
                .collect();
            for call in calls {
                let (answer, took) = call.join().expect("an answer");
                assert!(took < ANSWER_MAX, "{took:?}");
                match answer.status {
                    422 => drop(answer.expect_problem(422, "too-complex")),
                    _ => drop(answer.expect_problem(503, "overloaded")),
                }
            }
        });
    });
    eventually("no process is left", || arena.server.children().is_empty().then_some(()));
    arena.works_again(&model);
}

/// A compilation ends when its client disconnects.
#[test]
fn what_nobody_waits_for_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    // Compiled here, not read from the cache of an earlier run.
    let server =
        Server::start_with(ServerOptions { cache: Some(folder.path().to_owned()), ..ServerOptions::default() });
    open_model(&server.client(), "victim");
    // Large enough that its budget is not reached.
    let mut code = functions(150_000);
    let padding = vec![0; 3 << 20];
    code.push(0);
    let mut size = padding.len() + 1;
    while size >= 128 {
        code.push((size & 0x7f) as u8 | 0x80);
        size >>= 7;
    }
    code.push(size as u8);
    code.push(0);
    code.extend_from_slice(&padding);
    let mut stream = TcpStream::connect(server.address()).expect("the server listens");
    let head = format!(
        "PUT /models/victim/hooks/preCreate HTTP/1.1\r\nHost: {}\r\nContent-Type: application/wasm\r\nContent-Length: {}\r\n\r\n",
        server.address(),
        code.len()
    );
    stream.write_all(head.as_bytes()).expect("written");
    stream.write_all(&code).expect("written");
    let child = eventually("it is compiled", || server.children().first().copied());
    drop(stream);
    let left = Instant::now();
    eventually("it is compiled no longer", || (!server.children().contains(&child)).then_some(()));
    assert!(left.elapsed() < Duration::from_secs(3), "{:?}", left.elapsed());
}

/// A source that is nested too deeply for a parser; the tests of the parser processes cover the other kinds.
#[test]
fn sources_have_a_budget_too() {
    let server = Server::start();
    open_model(&server.client(), "victim");
    let source = format!("export default {}1", "!".repeat(900_000));
    let problem = server.client().put_javascript("victim", "preCreate", &source).expect_problem(422, "too-complex");
    assert!(problem["detail"].as_str().expect("a text").contains("parsing the source takes more than"), "{problem}");
}

/// The output of real compilers is accepted, including the largest.
#[test]
fn usual_hooks_are_compiled() {
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["check.wasm", "check_c.wasm", "javy_check.wasm", "check_python.wasm"] {
        let Some(code) = guest(file) else { continue };
        // Compiled here, not read from the cache.
        let options = ServerOptions {
            tables: format!("# {file}"),
            cache: Some(folder.path().join(file)),
            ..ServerOptions::default()
        };
        let server = Server::start_with(options);
        open_model(&server.client(), "victim");
        let started = Instant::now();
        put(&server, "victim", &code).expect(200);
        eprintln!("{file}: {} bytes, {:?}", code.len(), started.elapsed());
    }
}
