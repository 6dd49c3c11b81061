//! Odd values: thrown, returned, and in place of values that the server reads.

use serde_json::{Value, json};

use super::Arena;
use crate::support::ServerOptions;
use crate::workbench::{create, grant};

/// Runs each source once; the detail of its failure must contain the text.
#[track_caller]
fn each_fails(arena: &Arena, cause: &str, cases: &[(&str, &str)]) {
    let model = arena.victim();
    let mut others = Vec::new();
    arena.bystander.stays_calm("odd values", || {
        for (statement, says) in cases {
            for head in ["export function preCreate({ after })", "export async function preCreate({ after })"] {
                arena.bind(&model, "odd", &format!("{head} {{ {statement} }}")).expect(200);
                let answer = create(&arena.api, &model, &json!({"n": 1}));
                let text = answer.text();
                let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
                if answer.status != 502 || !detail.contains(&format!("failed ({cause})")) || !detail.contains(says) {
                    others.push(format!("{head} {statement}\n  expected {cause} with `{says}`: {text}"));
                }
            }
        }
    });
    assert!(others.is_empty(), "{}", others.join("\n"));
    arena.is_empty(&model);
    arena.works_again(&model);
}

fn arena() -> Arena {
    let tables = grant("*", "*", "amend = true");
    Arena::with(ServerOptions { tables, ..ServerOptions::default() })
}

#[test]
fn thrown() {
    each_fails(
        &arena(),
        "exception",
        &[
            ("throw undefined;", "threw undefined, which is not an Error"),
            ("throw null;", "threw null, which is not an Error"),
            ("throw 42;", "threw 42, which is not an Error"),
            ("throw NaN;", "threw NaN, which is not an Error"),
            ("throw -1e300;", "threw -1e+300, which is not an Error"),
            ("throw 10n;", "threw 10n, which is not an Error"),
            ("throw true;", "threw true, which is not an Error"),
            ("throw '';", "which is not an Error"),
            ("throw 'text';", "threw text, which is not an Error"),
            ("throw Symbol('s');", "threw Symbol(s), which is not an Error"),
            ("throw function named() {};", "threw [function named], which is not an Error"),
            ("throw [1, 'a', null];", r#"threw [1, "a", null], which is not an Error"#),
            ("throw { a: { b: 1 } };", r#"threw {"a": {"b": 1}}, which is not an Error"#),
            ("throw new Date(0);", "threw 1970-01-01T00:00:00.000Z, which is not an Error"),
            ("throw Object.create(null);", "threw {}, which is not an Error"),
            ("throw new Map([[1, 2]]);", "which is not an Error"),
            ("throw Promise.resolve(1);", "which is not an Error"),
            ("const o = {}; o.o = o; throw o;", "[circular]"),
            ("const a = []; a.push(a, a); throw a;", "[circular]"),
            ("throw { get message() { throw 1; } };", "a value that cannot be read"),
            ("throw { get a() { throw new Error('inner'); } };", "a value that cannot be read"),
            ("throw new Proxy({}, new Proxy({}, { get() { throw 1; } }));", "which is not an Error"),
            ("throw new Proxy(new Error('x'), { get() { throw 1; } });", "threw "),
            ("const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); throw proxy;", "which is not an Error"),
            ("throw { message: 'like an error' };", "threw Error: like an error"),
            ("throw Object.assign(new Error('x'), { name: { a: 1 } });", "threw Error: x"),
            ("const e = new Error('x'); e.message = 7; throw e;", "threw Error"),
            ("const e = new Error('x'); e.stack = '<input>:99999999999999999999:1'; throw e;", "threw Error: x"),
            (
                "const e = new Error('x'); Object.defineProperty(e, 'stack', { get() { throw 1; } }); throw e;",
                "threw Error: x",
            ),
            ("throw new Error('y'.repeat(1e6));", "yyyy…"),
            ("throw new Error('lone \\ud800 surrogate');", "threw "),
            ("throw new AggregateError([1, 2], 'many');", "threw AggregateError: many"),
            ("throw new DOMException('m', 'AbortError');", "threw AbortError: m"),
            ("class Mine extends TypeError { name = 'Mine'; } throw new Mine('m');", "threw Mine: m"),
            ("after.missing.property;", "threw TypeError: "),
            ("null();", "threw TypeError: "),
            ("undefinedName;", "threw ReferenceError: "),
            ("return Promise.reject(undefined);", "threw undefined, which is not an Error"),
            ("return { then(_, reject) { reject(null); } };", "threw null, which is not an Error"),
            ("return { get then() { throw 5; } };", "threw 5, which is not an Error"),
            // An imitation of `Reject` is an ordinary failure.
            ("throw { __proto__: Reject.prototype, message: 'forged' };", "forged"),
            ("throw Reject;", "which is not an Error"),
        ],
    );
}

#[test]
fn a_long_message_is_cut() {
    let arena = arena();
    let model = arena.victim();
    arena.bind(&model, "long", "export function preCreate() { throw new Error('y'.repeat(1e6)); }").expect(200);
    let problem = create(&arena.api, &model, &json!({})).expect_problem(502, "hook-failed");
    assert!(problem["detail"].as_str().expect("a text").len() < 5000);
}

#[test]
fn returned() {
    each_fails(
        &arena(),
        "amend",
        &[
            ("return 42;", "returned a number, expected the new data (an object)"),
            ("return '';", "returned a string, expected the new data"),
            ("return false;", "returned a boolean, expected the new data"),
            ("return 1n;", "returned a bigint, expected the new data"),
            ("return Symbol();", "returned a symbol, expected the new data"),
            ("return () => {};", "returned a function, expected the new data"),
            ("return [1];", "data is an array, expected an object"),
            ("return { n: 1n };", "returned data with a BigInt at /n: make it a number or a text"),
            ("return { n: [0, NaN] };", "returned data with the number NaN at /n/1, which JSON cannot hold"),
            ("return { n: -Infinity };", "returned data with the number -Infinity at /n, which JSON cannot hold"),
            ("return { f() {} };", "returned data with a function at /f, which JSON cannot hold"),
            ("return { s: Symbol() };", "returned data with a symbol at /s, which JSON cannot hold"),
            ("return { m: new Map([[1, 2]]) };", "returned data with a Map at /m, which JSON cannot hold"),
            ("return { 'a/b~': [NaN] };", "returned data with the number NaN at /a~1b~0/0, which"),
            ("return new Map();", "returned a Map, expected the new data (an object)"),
            ("return new Set();", "returned a Set, expected the new data"),
            ("return (function* () {})();", "returned a Generator, expected the new data"),
            ("return new (class Order { a = 1; })();", "returned an Order, expected the new data"),
            ("return Object.create({ inherited: 1 });", "returned an object with a prototype, expected the new data"),
            ("return new Uint8Array(2);", "returned a Uint8Array, expected the new data"),
            ("return { r: /x/ };", "returned data with a RegExp at /r, which JSON cannot hold"),
            ("return new Reject('no');", "returned a Reject: write `throw new Reject(…)`"),
            ("return new TypeError('no');", "returned a TypeError: write `throw`"),
            ("return { e: new Error('no') };", "returned data with an Error at /e: write `throw`"),
            ("return { p: Promise.resolve(1) };", "returned data with a promise at /p: write `await`"),
            ("return { p: (async () => 1)() };", "returned data with a promise at /p: write `await`"),
            ("return globalThis;", "returned globalThis, expected the new data"),
            ("return arguments[0];", "returned the context of the call: return the new data, such as `{ ...after }`"),
            ("return { c: arguments[0] };", "returned data with the context of the call at /c: return the new data"),
            ("const o = {}; o.o = o; return o;", "is not valid JSON"),
            ("return { toJSON() { throw new Error('inner'); } };", "is not valid JSON: Error: inner"),
            ("return { toJSON() { return undefined; } };", "nothing that JSON can hold"),
            ("return { get a() { throw 3; } };", "is not valid JSON: 3, which is not an Error"),
            ("return new Proxy({}, { ownKeys() { throw null; } });", "is not valid JSON"),
            ("return { text: 'lone \\ud800 surrogate' };", "cannot be stored"),
        ],
    );
}

/// Odd values that have a meaning in JSON.
#[test]
fn returned_and_stored() {
    let arena = arena();
    let model = arena.victim();
    for (value, expected) in [
        ("{ a: undefined }", json!({})),
        ("{ a: -0 }", json!({"a": 0})),
        ("{ a: new Date(0) }", json!({"a": "1970-01-01T00:00:00.000Z"})),
        ("{ ['__proto__']: 1, constructor: 2, toString: 3 }", json!({"__proto__": 1, "constructor": 2, "toString": 3})),
        ("{ a: [undefined, , 1] }", json!({"a": [null, null, 1]})),
        ("Object.assign(Object.create(null), { a: 1 })", json!({"a": 1})),
        ("{ toJSON() { return { made: 1 }; } }", json!({"made": 1})),
        ("new (class { #b = 2; toJSON() { return { b: this.#b }; } })()", json!({"b": 2})),
        ("{ a: '\\u0000\\u2028\\ud83d\\ude00' }", json!({"a": "\0\u{2028}😀"})),
        ("{ '': 1, 'a b': 2, '/~': 3 }", json!({"": 1, "a b": 2, "/~": 3})),
    ] {
        arena.bind(&model, "odd", &format!("export const preCreate = () => ({value});")).expect(200);
        let made = create(&arena.api, &model, &json!({"n": 1})).expect(201).json();
        assert_eq!(made["data"], expected, "{value}");
        let id = made["id"].as_str().expect("a text");
        let stored = arena.api.get(&format!("/models/{model}/instances/{id}")).expect(200).json();
        assert_eq!(stored["data"], expected, "{value}");
    }
    // A property that names a prototype is ordinary data.
    arena
        .bind(
            &model,
            "reads",
            "export const preCreate = ({ after }) => ({ polluted: String({}.polluted), seen: after.seen });",
        )
        .expect(200);
    let body = r#"{"data":{"__proto__":{"polluted":"yes","seen":"inherited"},"constructor":{"prototype":{"polluted":"yes"}}}}"#;
    let request = arena.api.request("POST", &format!("/models/{model}/instances"));
    let made = request.body("application/json", body).send().expect(201).json();
    assert_eq!(made["data"], json!({"polluted": "undefined"}));
}

#[test]
fn odd_refusals() {
    let arena = arena();
    let model = arena.victim();
    for (thrown, message, errors) in [
        ("new Reject('no')", "no", Value::Null),
        ("new Reject()", "rejected", Value::Null),
        ("new Reject(undefined, null)", "rejected", Value::Null),
        ("new Reject({ code: 7, of: ['a'] })", r#"{"code": 7, "of": ["a"]}"#, Value::Null),
        ("new Reject(404)", "404", Value::Null),
        ("Object.defineProperty(new Reject('x'), 'message', { get() { throw 1; } })", "rejected", Value::Null),
        ("Object.assign(new Reject('x'), { message: 7 })", "rejected", Value::Null),
        ("new (class extends Reject {})('sub')", "sub", Value::Null),
        (
            "new Reject('x', { a: 7, '/b': null })",
            "x",
            json!([
                {"pointer": "/data/a", "message": "7"}, {"pointer": "/data/b", "message": "null"},
            ]),
        ),
        (
            "new Reject('x', { '/o': { get a() { throw 1; } } })",
            "x",
            json!([
                {"pointer": "/data/o", "message": "a value that cannot be read"},
            ]),
        ),
        ("new Reject('x', ['first'])", "x", json!([{"pointer": "/data/0", "message": "first"}])),
        ("new Reject('x', 'text')", "x", Value::Null),
    ] {
        arena.bind(&model, "odd", &format!("export function preCreate() {{ throw {thrown}; }}")).expect(200);
        let problem = create(&arena.api, &model, &json!({"n": 1})).expect_problem(422, "rejected");
        assert_eq!(problem["detail"], message, "{thrown}");
        assert_eq!(problem["errors"], errors, "{thrown}");
        assert_eq!(problem["hook"], "odd", "{thrown}");
    }
    arena.is_empty(&model);
}
