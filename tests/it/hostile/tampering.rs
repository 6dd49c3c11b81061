//! A hook that modifies the language's built-ins affects only its own call.

use serde_json::{Value, json};

use super::Arena;
use crate::support::{Response, ServerOptions};
use crate::workbench::{create, grant};

/// The changes that one call makes to the sandbox.
const TAMPERINGS: &[(&str, &str)] = &[
    ("stringify", "JSON.stringify = () => '{\"forged\":true}';"),
    ("parse", "JSON.parse = () => ({ forged: true });"),
    ("json", "globalThis.JSON = { parse: () => ({ forged: true }), stringify: () => '{\"forged\":true}' };"),
    ("object-keys", "Object.keys = () => ['forged']; Object.defineProperty = () => {}; Object.freeze = (x) => x;"),
    (
        "object-prototype",
        "Object.prototype.forged = true; Object.prototype.accept = true; Object.prototype.default = () => ({ forged: true });",
    ),
    (
        "object-setter",
        "Object.defineProperty(Object.prototype, 'message', { set() { throw 1; }, get() { return 'forged'; }, configurable: true });",
    ),
    ("object-to-string", "Object.prototype.toString = () => '[object Error]'; Object.prototype.valueOf = () => 1;"),
    ("has-own", "Object.prototype.hasOwnProperty = () => true;"),
    ("promise-then", "Promise.prototype.then = function () { return this; };"),
    ("promise-then-throws", "Promise.prototype.then = () => { throw new Error('forged'); };"),
    ("promise-species", "Object.defineProperty(Promise, Symbol.species, { value: function Evil() { throw 1; } });"),
    (
        "promise-constructor",
        "Promise.prototype.constructor = function Evil() { throw 1; }; Promise.resolve = () => ({});",
    ),
    ("promise", "globalThis.Promise = class { then() {} static resolve() {} };"),
    ("array-iterator", "Array.prototype[Symbol.iterator] = function* () { yield 'forged'; };"),
    (
        "array-iterator-next",
        "Object.getPrototypeOf([][Symbol.iterator]()).next = () => ({ done: false, value: 'forged' });",
    ),
    (
        "array-methods",
        "for (const name of ['push', 'map', 'filter', 'join', 'slice', 'forEach', 'concat']) Array.prototype[name] = () => 'forged';",
    ),
    (
        "array-index",
        "Object.defineProperty(Array.prototype, '0', { set() {}, get() { return 'forged'; }, configurable: true });",
    ),
    ("array-is-array", "Array.isArray = () => true; globalThis.Array = null;"),
    (
        "string-methods",
        "for (const name of Object.getOwnPropertyNames(String.prototype)) { try { String.prototype[name] = () => 'a0'; } catch {} }",
    ),
    ("string", "globalThis.String = () => 'forged'; globalThis.Number = globalThis.Boolean = () => 1;"),
    (
        "map",
        "Map.prototype.get = Map.prototype.set = Map.prototype.has = () => 'forged'; globalThis.Map = globalThis.Set = globalThis.WeakMap = null;",
    ),
    (
        "reflect",
        "for (const name of Object.getOwnPropertyNames(Reflect)) Reflect[name] = () => 'forged'; globalThis.Reflect = null;",
    ),
    (
        "function-call",
        "Function.prototype.call = Function.prototype.apply = Function.prototype.bind = () => () => 'forged';",
    ),
    (
        "function",
        "Function.prototype.toString = () => 'forged'; globalThis.Function = null; globalThis.eval = () => () => ({ default: () => {} });",
    ),
    ("symbols", "Symbol.prototype.toString = () => 'forged'; globalThis.Symbol = null;"),
    (
        "errors",
        "Error.prototype.name = 'Forged'; Error.captureStackTrace = null; Error.prepareStackTrace = () => 'forged'; Error.stackTraceLimit = 0; globalThis.Error = globalThis.TypeError = null;",
    ),
    ("reject", "globalThis.Reject = class { }; "),
    (
        "reject-prototype",
        "Reject.prototype.name = 'Forged'; Object.setPrototypeOf(Reject, null); delete Reject.prototype.constructor;",
    ),
    (
        "typed-arrays",
        "Uint8Array.prototype.slice = () => 'forged'; globalThis.Uint8Array = globalThis.ArrayBuffer = null;",
    ),
    ("dates", "Date.now = () => 0; globalThis.Date = null; Math.max = Math.min = Math.floor = () => NaN;"),
    ("timers", "globalThis.setTimeout = globalThis.clearTimeout = globalThis.queueMicrotask = () => 'forged';"),
    ("log", "log.info = log.error = () => { throw 1; }; console.log = null; globalThis.console = null;"),
    (
        "capabilities",
        "read.get = async () => ({ forged: true }); globalThis.fetch = () => 'forged'; context.read = context.log = null;",
    ),
    (
        "context",
        "for (const name of Object.keys(context)) context[name] = 'forged'; Object.defineProperty(context, 'phase', { get() { throw 1; } });",
    ),
    (
        "frozen",
        "Object.freeze(Object.prototype); Object.freeze(Array.prototype); Object.freeze(Promise.prototype); Object.freeze(globalThis);",
    ),
    ("sealed", "Object.preventExtensions(globalThis); Object.seal(Function.prototype);"),
    (
        "prototypes",
        "Object.setPrototypeOf(Array.prototype, null); Object.setPrototypeOf(Function.prototype, null); Object.setPrototypeOf(Error.prototype, null);",
    ),
    (
        "namespace",
        "for (const name of ['__cqjs', 'wit', 'imports', 'exports', 'run', 'settle', 'handlers']) { try { globalThis[name] = () => 'a0'; } catch {} try { delete globalThis[name]; } catch {} }",
    ),
    (
        "namespace-deep",
        "const seen = globalThis.__cqjs; if (seen) for (const name of Reflect.ownKeys(seen)) { try { seen[name] = () => 'a0'; } catch {} try { for (const inner of Reflect.ownKeys(seen[name])) seen[name][inner] = () => 'a0'; } catch {} }",
    ),
    (
        "everything",
        "for (const name of Object.getOwnPropertyNames(globalThis)) { try { globalThis[name] = undefined; } catch {} try { delete globalThis[name]; } catch {} }",
    ),
    (
        "methods",
        "for (const holder of [Object, Array, String, Promise, JSON, Math, Reflect, Number, Symbol, Error]) { const proto = holder.prototype; \
      for (const target of [holder, proto]) { if (!target) continue; for (const name of Reflect.ownKeys(target)) { try { if (typeof target[name] === 'function') target[name] = () => 'forged'; } catch {} } } }",
    ),
    ("own-source", "state.count = 100; globalThis.leak = 'forged'; preCreate.leak = 'forged';"),
];

/// Tampers if the data says so, then ends in the way that the data names. `state` and `leak` reveal leftovers of an
/// earlier call.
fn source(tampering: &str) -> String {
    format!(
        "const state = {{ count: 0 }};\n\
         export async function preCreate(context) {{\n\
         const {{ after, read, secret, log }} = context;\n\
         state.count++;\n\
         if (after.tamper) {{ {tampering} }}\n\
         if (after.way === 'accept') return;\n\
         if (after.way === 'throw') throw new TypeError('real');\n\
         if (after.way === 'reject') throw new Reject('really', {{ '/way': 'not this one' }});\n\
         const found = await read.get('calm', 'a');\n\
         log.info('seen', [found.data.n, state.count]);\n\
         return {{ way: after.way, n: found.data.n, count: state.count, leak: globalThis.leak ?? preCreate.leak ?? null, list: [...'ab'] }};\n\
         }}"
    )
}

fn call(arena: &Arena, model: &str, way: &str, tamper: bool) -> Response {
    create(&arena.api, model, &json!({"way": way, "tamper": tamper}))
}

/// Calls without tampering behave as if there had never been any.
#[track_caller]
fn is_itself(arena: &Arena, model: &str, why: &str) {
    let made = call(arena, model, "amend", false).expect(201).json();
    assert_eq!(made["data"], json!({"way": "amend", "n": 1, "count": 1, "leak": null, "list": ["a", "b"]}), "{why}");
    let made = call(arena, model, "accept", false).expect(201).json();
    assert_eq!(made["data"], json!({"way": "accept", "tamper": false}), "{why}");
    let problem = call(arena, model, "throw", false).expect_problem(502, "hook-failed");
    assert!(
        problem["detail"].as_str().expect("a text").contains("threw TypeError: real (line 7, "),
        "{why}: {problem}"
    );
    let problem = call(arena, model, "reject", false).expect_problem(422, "rejected");
    assert_eq!(problem["detail"], "really", "{why}");
    assert_eq!(problem["errors"], json!([{"pointer": "/data/way", "message": "not this one"}]), "{why}");
}

/// A call that tampers ends with one of the ordinary results.
#[track_caller]
fn ends_somehow(answer: Response, why: &str) -> Value {
    match answer.status {
        201 => answer.json(),
        422 => answer.expect_problem(422, "rejected"),
        502 => answer.expect_problem(502, "hook-failed"),
        other => panic!("{why}: {other} {}", answer.text()),
    }
}

fn arena(more: &str) -> Arena {
    let tables = grant("*", "*", "amend = true\nread = ['calm']");
    Arena::with(ServerOptions { tables, hooks: more.to_owned(), ..ServerOptions::default() })
}

#[test]
fn the_next_call_and_other_hooks_see_nothing_of_it() {
    let arena = arena("");
    let other = arena.victim();
    arena.bind(&other, "other", &source("")).expect(200);
    arena.bystander.stays_calm("tampering", || {
        for (name, tampering) in TAMPERINGS {
            let model = arena.victim();
            arena.bind(&model, name, &source(tampering)).expect(200);
            is_itself(&arena, &model, name);
            for way in ["amend", "accept", "throw", "reject"] {
                ends_somehow(call(&arena, &model, way, true), name);
            }
            is_itself(&arena, &model, name);
        }
        is_itself(&arena, &other, "another hook");
    });
}

/// The runner uses only built-ins that it saved before the hook's code ran.
#[test]
fn the_runner_does_not_use_what_a_hook_may_change() {
    let arena = arena("");
    let model = arena.victim();
    for name in [
        "stringify",
        "parse",
        "json",
        "object-keys",
        "promise-then",
        "promise-then-throws",
        "promise-species",
        "promise-constructor",
        "promise",
        "array-iterator",
        "array-iterator-next",
        "array-methods",
        "array-is-array",
        "string-methods",
        "string",
        "map",
        "reflect",
        "function-call",
        "function",
        "symbols",
        "typed-arrays",
        "dates",
        "timers",
        "frozen",
        "sealed",
        "namespace",
        "namespace-deep",
        "has-own",
        "object-to-string",
        "reject",
    ] {
        let (_, tampering) = TAMPERINGS.iter().find(|(known, _)| *known == name).expect("a known name");
        let source = format!(
            "export async function preCreate(context) {{\n\
             const {{ after, read, log, secret }} = context; const Refusal = Reject; const state = {{}};\n\
             {tampering}\n\
             if (after.way === 'throw') throw new TypeError('real');\n\
             if (after.way === 'reject') throw new Refusal('really', {{ '/way': 'not this one' }});\n\
             log.info('tampered');\n\
             const found = await read.get('calm', 'a');\n\
             return {{ n: found.data.n, list: ['a', 'b'] }};\n}}"
        );
        arena.bind(&model, name, &source).expect(200);
        let made = call(&arena, &model, "amend", false).expect(201).json();
        assert_eq!(made["data"], json!({"n": 1, "list": ["a", "b"]}), "{name}");
        let problem = call(&arena, &model, "throw", false).expect_problem(502, "hook-failed");
        assert!(problem["detail"].as_str().expect("a text").contains("real"), "{name}: {problem}");
        let problem = call(&arena, &model, "reject", false).expect_problem(422, "rejected");
        assert_eq!(problem["detail"], "really", "{name}");
        assert_eq!(problem["errors"], json!([{"pointer": "/data/way", "message": "not this one"}]), "{name}");
    }
}

/// With `isolation = 'reuse'` a hook keeps its sandbox, including its modifications; other hooks have separate ones.
#[test]
fn a_sandbox_that_is_reused_is_still_one_hooks_own() {
    let arena = arena("isolation = 'reuse'");
    let plain = "export async function preCreate({ after, read }) { const found = await read.get('calm', 'a'); \
                 return { n: found.data.n, leak: globalThis.leak ?? null, list: [...'ab'].map((x) => x) }; }";
    let other = arena.victim();
    arena.bind(&other, "other", plain).expect(200);
    for (name, tampering) in TAMPERINGS {
        let model = arena.victim();
        arena.bind(&model, name, &source(tampering)).expect(200);
        for way in ["amend", "accept", "throw", "reject", "amend"] {
            ends_somehow(call(&arena, &model, way, true), name);
        }
        // The same code bound to another model is another hook.
        let twin = arena.victim();
        arena.bind(&twin, name, &source(tampering)).expect(200);
        is_itself_once(&arena, &twin, name);
        let made = create(&arena.api, &other, &json!({})).expect(201).json();
        assert_eq!(made["data"], json!({"n": 1, "leak": null, "list": ["a", "b"]}), "{name}");
    }
}

#[track_caller]
fn is_itself_once(arena: &Arena, model: &str, why: &str) {
    let made = call(arena, model, "amend", false).expect(201).json();
    assert_eq!(made["data"], json!({"way": "amend", "n": 1, "count": 1, "leak": null, "list": ["a", "b"]}), "{why}");
}

/// Tampering opens nothing: the server enforces the grants.
#[test]
fn no_capability_comes_of_it() {
    let arena = Arena::new();
    arena.api.request("PUT", "/secrets/token").body("text/plain", "hidden-value").send().expect(204);
    let model = arena.victim();
    for (name, tampering) in TAMPERINGS {
        let source = format!(
            "export async function preCreate(context) {{\n\
             const {{ after, read, write, secret, log, fetch, run }} = context; const state = {{}};\n\
             try {{ {tampering} }} catch {{}}\n\
             let got = '';\n\
             for (const ask of [() => read.get('calm', 'a'), () => secret('token'), () => write.create('calm', {{}}, {{ id: 'stolen' }}), \
               () => fetch('http://127.0.0.1:1/'), () => run('/bin/sh', [])]) {{\n\
               try {{ const found = await ask(); if (found !== undefined && found !== null && found !== 'forged') got += typeof found; }} catch {{}}\n\
             }}\n\
             return {{ amended: true }};\n}}"
        );
        arena.bind(&model, name, &source).expect(200);
        let answer = call(&arena, &model, "amend", false);
        // There is no grant to amend either.
        let problem = answer.expect_problem(502, "hook-failed");
        assert!(!problem.to_string().contains("hidden-value"), "{name}: {problem}");
    }
    arena.is_empty(&model);
    arena.api.get("/models/calm/instances/stolen").expect_problem(404, "not-found");
    assert!(!arena.server.log().iter().any(|line| line.contains("hidden-value")));
}
