//! What a guest may name: places and lengths that are not there, calls that were never started.

use super::*;
use crate::config::Phase;
use crate::hooks::engines::limits::CHECK_LIMITS;
use crate::hooks::engines::quickjs::guest::Code;
use crate::hooks::engines::wasm::{Sandbox, runtime};
use crate::hooks::testing::Bench;

/// A module that takes the runner's place and does one thing.
fn module(body: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module
            (import "snaphook" "log" (func $log (param i32 i32 i32)))
            (import "snaphook" "random" (func $random (param i32 i32)))
            (import "snaphook" "compute" (func $compute (param i32 i32 i32 i32 i32)))
            (import "snaphook" "ask" (func $ask (param i32 i32)))
            (import "snaphook" "start" (func $start (param i32 i32 i32 i32 i32) (result i32)))
            (import "snaphook" "wait" (func $wait (param i32 f64) (result i32)))
            (import "snaphook" "cancel" (func $cancel (param i32)))
            (import "snaphook" "part" (func $part (param i32) (result i32)))
            (import "snaphook" "take" (func $take (param i32 i32)))
            (memory (export "memory") 1)
            (func (export "input") (result i32) i32.const 0)
            (func (export "alloc") (param i32) (result i32) i32.const 0)
            (func (export "run") (param i32 i32 i32 i32) (result i64) {body}))"#
    ))
    .unwrap()
}

/// How a call of it ends.
async fn end(body: &str) -> String {
    let runtime = runtime().unwrap();
    let module = wasmtime::Module::new(&runtime.engine, module(body)).unwrap();
    let code = Code::new(runtime, &module).unwrap();
    let mut sandbox = Sandbox::new(runtime, Extra::default()).await.unwrap_or_else(|failure| panic!("{failure:?}"));
    let session = Bench::new().session("item", Phase::PreCreate, "h", "");
    sandbox.begin(Some(session), &CHECK_LIMITS);
    let guest = Guest::new(&code, &mut sandbox.store).await.unwrap();
    let ended: Result<u64> = guest.call(&mut sandbox.store, "run", (0_u32, 0_u32, 0_u32, 0_u32)).await;
    match sandbox.end(ended) {
        Ok(out) => format!("{out}"),
        Err(failure) => failure.message,
    }
}

#[tokio::test]
async fn places_outside_of_the_memory_end_the_guest() {
    const OUTSIDE: &str = "it named an address outside of its memory";
    let computed = "(call $compute (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))";
    let digest = "(i32.store (i32.const 0) (i32.const 0x2d414853)) (i32.store8 (i32.const 4) (i32.const 0x31))
        (call $compute (i32.const 1) (i32.const 0) (i32.const 5) (i32.const 0) (i32.const 0))";
    let cases = [
        ("(call $log (i32.const 1) (i32.const 65530) (i32.const 10))".to_owned(), OUTSIDE),
        ("(call $log (i32.const 9) (i32.const -1) (i32.const 1))".to_owned(), OUTSIDE),
        (
            "(call $log (i32.const 1) (i32.const -1) (i32.const -1))".to_owned(),
            "handed to the server at once is too long",
        ),
        ("(call $random (i32.const 65535) (i32.const 2))".to_owned(), OUTSIDE),
        ("(call $random (i32.const 0) (i32.const -1))".to_owned(), "random bytes at once"),
        ("(call $ask (i32.const 65536) (i32.const 1))".to_owned(), OUTSIDE),
        ("(call $ask (i32.const 0) (i32.const 0x7fffffff))".to_owned(), "too long"),
        (
            "(drop (call $start (i32.const 0) (i32.const 0) (i32.const 2) (i32.const 65536) (i32.const 1)))".to_owned(),
            OUTSIDE,
        ),
        (
            "(drop (call $start (i32.const 0) (i32.const 0) (i32.const 0xffffff) (i32.const 0) (i32.const 0xffffff)))"
                .to_owned(),
            "too long",
        ),
        (
            "(drop (call $start (i32.const 7) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))".to_owned(),
            "no host call 7",
        ),
        (
            "(call $compute (i32.const 7) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))".to_owned(),
            "no computation 7",
        ),
        ("(drop (call $wait (i32.const 0) (f64.const -1)))".to_owned(), "a call that is not under way"),
        ("(drop (call $wait (i32.const 5) (f64.const nan)))".to_owned(), "a call that is not under way"),
        (format!("{digest} (call $take (i32.const 1) (i32.const 65530))"), OUTSIDE),
        (format!("{digest} (call $take (i32.const 1) (i32.const -1))"), OUTSIDE),
        (format!("{digest} (call $take (i32.const -1) (i32.const 0)) (call $cancel (i32.const -1))"), "7"),
        (format!("{computed} (call $take (i32.const 0) (i32.const 65536))"), "7"),
    ];
    for (body, expected) in cases {
        let ended = end(&format!("{body} i64.const 7")).await;
        assert!(ended.contains(expected), "{body}: {ended}");
    }
}

#[tokio::test]
async fn waiting_for_a_timer_alone_ends_with_it() {
    assert_eq!(end("(i64.extend_i32_u (call $wait (i32.const 0) (f64.const 0)))").await, "0");
    // Part -1 is none.
    assert_eq!(end("(i64.extend_i32_s (call $part (i32.const 4)))").await, "18446744073709551615");
}
