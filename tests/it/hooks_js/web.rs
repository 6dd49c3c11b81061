//! The parts of the web platform and the language that a hook may use.

use serde_json::{Value, json};

use super::server;
use crate::support::Client;
use crate::workbench::{create, pre_value};

/// Checks the value of each expression.
#[track_caller]
fn each(api: &Client, cases: &[(&str, Value)]) {
    for (expression, expected) in cases {
        eprintln!("{expression}");
        assert_eq!(&pre_value(api, "js", &format!("return {expression};")), expected, "{expression}");
    }
}

#[test]
fn text_and_urls() {
    let (_server, api) = server("");
    each(
        &api,
        &[
            ("[...new TextEncoder().encode('aä€😀')]", json!([97, 195, 164, 226, 130, 172, 240, 159, 152, 128])),
            ("new TextDecoder().decode(new Uint8Array([0xef, 0xbb, 0xbf, 97, 255]))", json!("a\u{fffd}")),
            (
                "(() => { try { new TextDecoder('utf-8', { fatal: true }).decode(new Uint8Array([255])); } catch (e) { return e.name; } })()",
                json!("TypeError"),
            ),
            ("new TextEncoder().encodeInto('aä', new Uint8Array(2))", json!({"read": 1, "written": 1})),
            ("atob(btoa('hello ÿ'))", json!("hello ÿ")),
            ("(() => { try { btoa('€'); } catch (e) { return e.name; } })()", json!("InvalidCharacterError")),
            ("encodeURIComponent('a b/ä') + decodeURIComponent('%C3%A4')", json!("a%20b%2F%C3%A4ä")),
            (
                "(() => { const u = new URL('../x?a=1&b=2#h', 'https://User@Example.com:443/a/b/'); return [u.href, u.host, u.pathname, u.searchParams.get('b'), u.hash, u.origin]; })()",
                json!([
                    "https://User@example.com/a/x?a=1&b=2#h",
                    "example.com",
                    "/a/x",
                    "2",
                    "#h",
                    "https://example.com"
                ]),
            ),
            (
                "(() => { const u = new URL('http://a/'); u.searchParams.append('q', 'a b&c'); u.pathname = '/ä'; u.port = '81'; return `${u}`; })()",
                json!("http://a:81/%C3%A4?q=a+b%26c"),
            ),
            ("[URL.canParse('x'), URL.canParse('x:y'), URL.parse('http://[')]", json!([false, true, null])),
            ("[...new URLSearchParams('b=2&a=1&a=3')].sort().join('|')", json!("a,1|a,3|b,2")),
            ("(() => { try { new URL('no'); } catch (e) { return e instanceof TypeError; } })()", json!(true)),
            ("'ß'.toUpperCase() + 'İ'.toLowerCase().length + 'e\\u0301'.normalize('NFC').length", json!("SS21")),
            ("'a-b_c'.replaceAll(/[-_]/g, '+') + /(?<year>\\d{4})/u.exec('in 2026').groups.year", json!("a+b+c2026")),
        ],
    );
}

#[test]
fn clones_and_digests() {
    let (_server, api) = server("");
    each(
        &api,
        &[
            (
                "(() => { const a = { n: 1, list: [1, { d: new Date(0) }], map: new Map([[1, new Set([2])]]) }; a.self = a; const b = structuredClone(a); \
           return [b !== a, b.self === b, b.list[1].d instanceof Date, b.map.get(1).has(2)]; })()",
                json!([true, true, true, true]),
            ),
            ("(() => { try { structuredClone(() => {}); } catch (e) { return e.name; } })()", json!("DataCloneError")),
            (
                "(() => { const id = crypto.randomUUID(); return [/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(id), id !== crypto.randomUUID()]; })()",
                json!([true, true]),
            ),
            (
                "(() => { const a = crypto.getRandomValues(new Uint8Array(32)), b = crypto.getRandomValues(new Uint8Array(32)); return [a.length, a.join() !== b.join()]; })()",
                json!([32, true]),
            ),
            (
                "[...new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode('abc')))].map((b) => b.toString(16).padStart(2, '0')).join('')",
                json!("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            ),
            ("(await crypto.subtle.digest({ name: 'sha-512' }, new Uint8Array(0))).byteLength", json!(64)),
            ("await crypto.subtle.digest('MD5', new Uint8Array(0)).catch((e) => e.name)", json!("NotSupportedError")),
        ],
    );
    // Each sandbox generates different random numbers.
    let draw = || pre_value(&api, "js", "return [Math.random(), crypto.randomUUID()];");
    let (first, second) = (draw(), draw());
    assert!(first[0] != second[0] && first[1] != second[1], "{first} {second}");
    assert!(first[0].as_f64().is_some_and(|n| (0.0..1.0).contains(&n)));
}

#[test]
fn timers() {
    let (_server, api) = server("");
    each(
        &api,
        &[
            ("await new Promise((done) => setTimeout(done, 5, 'value'))", json!("value")),
            (
                "await new Promise((done) => { const seen = []; setTimeout(() => { seen.push(3); done(seen); }, 30); setTimeout(() => seen.push(2), 10); queueMicrotask(() => seen.push(1)); seen.push(0); })",
                json!([0, 1, 2, 3]),
            ),
            (
                "await new Promise((done) => { let n = 0; const t = setInterval(() => { if (++n === 3) { clearInterval(t); done(n); } }, 1); })",
                json!(3),
            ),
            (
                "await new Promise((done) => { const t = setTimeout(() => done('fired'), 5); clearTimeout(t); setTimeout(() => done('cleared'), 15); })",
                json!("cleared"),
            ),
            (
                "await (async () => { const start = Date.now(); await new Promise((done) => setTimeout(done, 50)); return Date.now() - start >= 45; })()",
                json!(true),
            ),
            (
                "await Promise.race([new Promise((done) => setTimeout(done, 100, 'slow')), new Promise((done) => setTimeout(done, 1, 'fast'))])",
                json!("fast"),
            ),
            (
                "await Promise.allSettled([1, Promise.reject(2)]).then((all) => all.map((one) => one.status))",
                json!(["fulfilled", "rejected"]),
            ),
            ("await Promise.any([Promise.reject(1), 2])", json!(2)),
        ],
    );
}

#[test]
fn signals_and_events() {
    let (_server, api) = server("");
    each(
        &api,
        &[
            (
                "(() => { const c = new AbortController(); let heard = 0; c.signal.addEventListener('abort', () => heard++); c.abort('why'); return [c.signal.aborted, c.signal.reason, heard]; })()",
                json!([true, "why", 1]),
            ),
            (
                "(() => { try { AbortSignal.abort().throwIfAborted(); } catch (e) { return e.name; } })()",
                json!("AbortError"),
            ),
            (
                "await new Promise((done) => { AbortSignal.timeout(5).onabort = (event) => done(event.target.reason.name); setTimeout(() => done('late'), 400); })",
                json!("TimeoutError"),
            ),
            (
                "(() => { const h = new Headers({ B: '2', a: '1' }); h.append('a', '3'); return [...h]; })()",
                json!([["a", "1, 3"], ["b", "2"]]),
            ),
            ("await Response.json({ a: 1 }, { status: 201 }).json()", json!({"a": 1})),
            (
                "(() => { try { new Response('', { status: 99 }); } catch (e) { return e.name; } })()",
                json!("RangeError"),
            ),
        ],
    );
}

/// Current JavaScript in strict mode, without access to anything outside.
#[test]
fn the_language_and_its_bounds() {
    let (_server, api) = server("");
    each(
        &api,
        &[
            ("(function () { return this === undefined; })()", json!(true)),
            ("(() => { try { undeclared = 1; } catch (e) { return e.name; } })()", json!("ReferenceError")),
            (
                "[1, 2, 3].at(-1) + Object.groupBy([1, 2], (n) => n % 2 ? 'odd' : 'even').odd[0] + [3, 1].toSorted()[0]",
                json!(5),
            ),
            ("(({ a, ...rest }) => rest)({ a: 1, b: 2 })", json!({"b": 2})),
            ("[..._()].length; function* _() { yield* [1, 2]; }", json!(2)),
            ("(class { static #n = 4; static n() { return this.#n ** 2; } }).n() ?? 0", json!(16)),
            ("typeof BigInt64Array + typeof WeakRef + typeof Intl", json!("functionfunctionundefined")),
            (
                "['process', 'require', 'module', 'Buffer', 'Deno', 'Bun', 'os', 'std', 'scriptArgs', 'XMLHttpRequest', 'WebSocket', 'Worker', 'wit', 'navigator', 'document', 'importScripts', 'WebAssembly'].filter((name) => typeof globalThis[name] !== 'undefined')",
                json!([]),
            ),
            ("(() => { try { return new Function('return 7')(); } catch (e) { return e.name; } })()", json!(7)),
            ("Math.abs(Date.now() - Date.parse(context.time)) < 60000", json!(true)),
            ("new Date(2026, 0, 1).getTimezoneOffset()", json!(0)),
            (
                "(1e21).toString() + (0.1 + 0.2) + Number.MAX_SAFE_INTEGER + parseInt('08')",
                json!("1e+210.3000000000000000490071992547409918"),
            ),
        ],
    );
    // No form of import can load a module.
    for source in ["eval(\"import('os')\")", "new Function(\"return import('std')\")()", "import.meta"] {
        let body = format!(
            "export default async () => {{ try {{ return {{ got: typeof (await {source}) }}; }} catch {{ return {{ got: 'refused' }}; }} }}"
        );
        if api.put_javascript("js", "preCreate", &body).status == 200 {
            let answer = create(&api, "js", &json!({}));
            assert!(answer.status == 502 || answer.json()["data"]["got"] == "refused", "{source}: {}", answer.text());
        }
    }
}
