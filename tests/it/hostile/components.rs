//! Components that cannot work are rejected when bound; those that misbehave fail when run.

use serde_json::json;

use super::Arena;
use super::guest::{check, component, foreign, package, react};
use crate::support::{Response, ServerOptions};
use crate::workbench::{create, grant};

fn put(arena: &Arena, model: &str, phase: &str, code: &[u8]) -> Response {
    let path = format!("/models/{model}/hooks/{phase}?name=guest");
    arena.api.request("PUT", &path).body("application/wasm", code).send()
}

/// The component is rejected with this reason, and nothing is bound.
#[track_caller]
fn refused(arena: &Arena, model: &str, phase: &str, code: &[u8], says: &str) {
    let problem = put(arena, model, phase, code).expect_problem(422, "invalid");
    let detail = problem["detail"].as_str().expect("a text");
    assert!(detail.starts_with("hook `guest` cannot be bound: "), "{detail}");
    assert!(detail.contains(says), "expected `{says}` in: {detail}");
    assert_eq!(problem["errors"][0]["pointer"], "/chain/0", "{problem}");
    assert_eq!(arena.api.get(&format!("/models/{model}/hooks/{phase}")).expect(200).json(), json!([]));
}

#[test]
fn files_that_are_no_component() {
    let options = ServerOptions { server: "max-body = '128 MiB'".to_owned(), ..ServerOptions::default() };
    let arena = Arena::with(options);
    let model = arena.victim();
    let good = component("pre-hook", "", &check(""));
    refused(&arena, &model, "preCreate", &good[..good.len() - 1], "not a valid component");
    refused(&arena, &model, "preCreate", &good[..8], "");
    // The same bytes each time: a Lehmer generator.
    let mut state = 1_u64;
    let mut random = |count: usize| -> Vec<u8> {
        let mut next = || {
            state = state * 48_271 % 0x7fff_ffff;
            (state >> 8) as u8
        };
        (0..count).map(|_| next()).collect()
    };
    arena.bystander.stays_calm("random", || {
        for share in [1, 2, 5, 9] {
            refused(&arena, &model, "preCreate", &good[..good.len() * share / 10], "not a valid component");
        }
        for _ in 0..20 {
            refused(&arena, &model, "preCreate", &random(4096), "not WebAssembly");
            let headed = [&good[..8], &random(4096)].concat();
            refused(&arena, &model, "preCreate", &headed, "not a valid component");
            // A valid component with a few bytes replaced.
            let mut garbled = good.clone();
            let at = usize::from(u16::from_le_bytes(random(2).try_into().expect("two bytes"))) % (good.len() - 72);
            garbled[8 + at..8 + at + 64].copy_from_slice(&random(64));
            let answer = put(&arena, &model, "preCreate", &garbled);
            assert!(answer.status == 422 || answer.status == 200, "{}", answer.text());
            arena.api.delete(&format!("/models/{model}/hooks/preCreate")).expect(204);
        }
    });
    for (code, says) in [
        (&b""[..], "not WebAssembly"),
        (b"\0asm", "version that this server does not know"),
        (b"\0asm\x01\0\0\0", "core WebAssembly module"),
        (b"\0asm\x02\0\0\0", "version that this server does not know"),
        (b"\0asm\x0e\0\x01\0", "version that this server does not know"),
        (b"(component)", "not WebAssembly"),
        (b"export function preCreate() {}", "not WebAssembly"),
        (b"\x7fELF\x02\x01\x01", "not WebAssembly"),
    ] {
        refused(&arena, &model, "preCreate", code, says);
    }
    let module = wat::parse_str("(module (memory 1) (func (export \"_start\")))").expect("a module");
    refused(&arena, &model, "preCreate", &module, "core WebAssembly module");

    // 100 MB: only zeros, and zeros after a valid header.
    arena.bystander.stays_calm("large", || {
        refused(&arena, &model, "preCreate", &vec![0; 100_000_000], "at most 32 MiB");
        let mut large = good.clone();
        large.resize(100_000_000, 0);
        refused(&arena, &model, "preCreate", &large, "at most 32 MiB");
    });
    arena.works_again(&model);
}

#[test]
fn a_body_over_the_limit() {
    let arena = Arena::new();
    let model = arena.victim();
    // A component may be larger than `max-body`, up to its own limit.
    refused(&arena, &model, "preCreate", &vec![0; 9 << 20], "not WebAssembly");
    put(&arena, &model, "preCreate", &vec![0; (32 << 20) + 1]).expect_problem(413, "too-large");
    let source = arena.api.request("PUT", &format!("/models/{model}/hooks/preCreate"));
    source.body("text/javascript", vec![b' '; 9 << 20]).send().expect_problem(413, "too-large");
    arena.works_again(&model);
}

#[test]
fn worlds_that_do_not_fit() {
    let arena = Arena::new();
    let model = arena.victim();
    let pre = component("pre-hook", "", &check(""));
    let post = component("post-hook", "", &react(""));
    refused(&arena, &model, "postCreate", &pre, "exports no handler for `postCreate`");
    refused(&arena, &model, "preDelete", &post, "exports no handler for `preDelete`");
    let empty = wat::parse_str("(component)").expect("a component");
    refused(&arena, &model, "preCreate", &empty, "it exports nothing");

    let narrow = package().replace("use types.{context, verdict, rejection};", "");
    let other = narrow
        .replace("export check: func(ctx: context) -> result<verdict, rejection>", "export check: func(ctx: string)");
    let code = foreign(&other, "pre-hook", "", "(func (export \"check\") (param i32 i32))");
    refused(&arena, &model, "preCreate", &code, "`check` has another type");

    for (interface, import) in [
        (
            "http",
            r#"(import "snaphook:hook/http@0.1.0" "send" (func $f (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32)))"#,
        ),
        (
            "process",
            r#"(import "snaphook:hook/process@0.1.0" "run" (func $f (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32)))"#,
        ),
        ("write", r#"(import "snaphook:hook/write@0.1.0" "delete" (func $f (param i32 i32 i32 i32 i32 i64 i32)))"#),
    ] {
        let wider = package().replace(
            "use types.{context, verdict, rejection};",
            &format!("use types.{{context, verdict, rejection}};\n  import {interface};"),
        );
        let code = foreign(&wider, "pre-hook", import, &check(""));
        let says = format!("imports `snaphook:hook/{interface}@0.1.0`, which `preCreate` never has");
        refused(&arena, &model, "preCreate", &code, &says);
    }

    let newer = package().replace("@0.1.0", "@0.2.0");
    let import = r#"(import "snaphook:hook/log@0.2.0" "write" (func $log (param i32 i32 i32)))"#;
    let code = foreign(&newer, "pre-hook", import, &check(""));
    refused(&arena, &model, "preCreate", &code, "uses `snaphook:hook@0.2.0`, this server supports 0.1.0");

    let odd = package()
        + "interface disk { wipe: func(); }\nworld odd { include pre-hook; import disk; import clock: func(); }";
    let imports = r#"(import "snaphook:hook/disk@0.1.0" "wipe" (func $wipe)) (import "$root" "clock" (func $clock))"#;
    refused(&arena, &model, "preCreate", &foreign(&odd, "odd", imports, &check("")), "which no hook has");
    for (world, import) in [
        ("package wasi:http@0.2.0;", "outgoing-handler"),
        ("package evil:host@1.0.0;", "shell"),
        ("package wasi:cli@0.3.0;", "run"),
    ] {
        let name = world.trim_start_matches("package ").trim_end_matches(';');
        let (package, version) = name.split_once('@').expect("a version");
        let text = format!(
            r#"(component (import "{package}/{import}@{version}" (instance (export "f" (func)))) (core module $m (func (export "check"))) )"#
        );
        let code = wat::parse_str(&text).expect("a component");
        let problem = put(&arena, &model, "preCreate", &code).expect_problem(422, "invalid");
        assert!(problem["detail"].as_str().expect("a text").contains("cannot be bound"), "{problem}");
    }
}

/// Code that runs when a component is only tested is limited too.
#[test]
fn components_that_misbehave_when_they_are_started() {
    let arena = Arena::new();
    let model = arena.victim();
    for (functions, says) in [
        ("(func $start (loop $again (br $again))) (start $start)", "the limit `timeout` is 2 s"),
        ("(func $start (unreachable)) (start $start)", "unreachable"),
        ("(func $start (call $start)) (start $start)", "stack"),
        (
            "(func $start (loop $again (br_if $again (i32.ne (memory.grow (i32.const 256)) (i32.const -1)))) (unreachable)) (start $start)",
            "the limit `memory` is 256 MiB",
        ),
    ] {
        let code = component("pre-hook", "", &format!("{functions} {}", check("")));
        arena.bystander.stays_calm(says, || refused(&arena, &model, "preCreate", &code, says));
    }
    // A host call before the handler is called does not bypass the grants.
    let import = r#"(import "snaphook:hook/secret@0.1.0" "get" (func $get (param i32 i32 i32)))"#;
    let start = "(func $start (call $get (i32.const 0) (i32.const 1) (i32.const 4096))) (start $start)";
    let answer = put(&arena, &model, "preCreate", &component("pre-hook", import, &format!("{start} {}", check(""))));
    assert_eq!(answer.status, 422, "{}", answer.text());
    arena.works_again(&model);
}

/// Large code takes long to compile; others do not wait for it.
#[test]
fn a_component_that_takes_long_to_compile() {
    let arena = Arena::new();
    let model = arena.victim();
    let body = "(local.set 0 (i32.mul (i32.add (local.get 0) (i32.load (local.get 0))) (i32.const 3)))".repeat(200);
    let functions: String =
        (0..400).map(|n| format!("(func $f{n} (param i32) (result i32) {body} (local.get 0))")).collect();
    let code = component("pre-hook", "", &format!("{functions} {}", check("")));
    arena.bystander.stays_calm("compile", || {
        put(&arena, &model, "preCreate", &code).expect(200);
    });
    create(&arena.api, &model, &json!({})).expect(201);
}

#[test]
fn components_that_misbehave_when_they_run() {
    let tables = grant("*", "*", "read = ['calm']\namend = true\ntimeout = '300 ms'");
    let arena = Arena::with(ServerOptions { tables, ..ServerOptions::default() });
    let log = r#"(import "snaphook:hook/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#;
    let get = r#"(import "snaphook:hook/read@0.1.0" "get" (func $get (param i32 i32 i32 i32 i32)))"#;
    let cases: &[(&str, &str, String, &str, &str)] = &[
        ("loop", "", check("(loop $again (br $again))"), "timeout", "the limit `timeout` is 300 ms"),
        (
            "memory",
            "",
            check("(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)"),
            "memory",
            "the limit `memory` is 64 MiB",
        ),
        (
            "stack",
            "",
            format!("(func $deep (call $deep)) {}", check("(call $deep)")),
            "stack",
            "used up its stack of 1 MiB",
        ),
        ("trap", "", check("(unreachable)"), "trap", "unreachable"),
        ("divide", "", check("(drop (i32.div_u (i32.const 1) (i32.const 0)))"), "trap", "divide by zero"),
        ("bounds", "", check("(drop (i32.load (i32.const -4)))"), "trap", "out of bounds"),
        ("pointer", "", check("(return (i32.const -8))"), "trap", ""),
        ("unaligned", "", check("(return (i32.const 1025))"), "trap", ""),
        ("case", "", check("(i32.store8 (i32.const 1024) (i32.const 9))"), "trap", ""),
        ("length", "", check("(return (call $amend (i32.const 2048) (i32.const -1)))"), "trap", ""),
        (
            "utf8",
            "",
            format!(
                "(data (i32.const 2048) \"\\ff\\fe\") {}",
                check("(return (call $amend (i32.const 2048) (i32.const 2)))")
            ),
            "trap",
            "utf-8",
        ),
        (
            "large",
            "",
            check(
                "(drop (memory.grow (i32.const 320))) (return (call $amend (i32.const 1048576) (i32.const 20000000)))",
            ),
            "output",
            "16 MiB",
        ),
        (
            "no-json",
            "",
            format!(
                "(data (i32.const 2048) \"{{]\") {}",
                check("(return (call $amend (i32.const 2048) (i32.const 2)))")
            ),
            "amend",
            "not valid JSON",
        ),
        (
            "flood",
            log,
            check("(loop $again (call $log (i32.const 1) (i32.const 0) (i32.const 10)) (br $again))"),
            "output",
            "the limit is 1000 lines",
        ),
        ("log-bounds", log, check("(call $log (i32.const 1) (i32.const 0) (i32.const 0x7fffffff))"), "trap", ""),
        (
            "calls",
            get,
            check(
                "(loop $again (call $get (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 4096)) (br $again))",
            ),
            "host-calls",
            "the hook made 10001 host calls in one run, the limit is 10000",
        ),
    ];
    for (name, imports, functions, cause, says) in cases {
        let model = arena.victim();
        put(&arena, &model, "preCreate", &component("pre-hook", imports, functions)).expect(200);
        arena.bystander.stays_calm(name, || {
            for answer in arena.calls(&model) {
                let problem = answer.expect_problem(502, "hook-failed");
                let detail = problem["detail"].as_str().expect("a text").to_lowercase();
                // These calls have a short timeout, which many of them may reach first.
                let timed_out = *cause == "host-calls" && detail.contains("failed (timeout)");
                assert!(detail.contains(&format!("failed ({cause})")) || timed_out, "{name}: {detail}");
                assert!(detail.contains(&says.to_lowercase()) || timed_out, "{name}: expected `{says}` in: {detail}");
            }
        });
        arena.is_empty(&model);
        arena.works_again(&model);
    }
}
