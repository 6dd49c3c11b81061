//! One call and its outcome: contract, capabilities, what of the web is there. Part of the tests of each engine that runs
//! JavaScript, which say what `case` is. Hostile code is in hostile_tests.rs.

use serde_json::json;

use super::case;
use crate::config::{Isolation, Phase};
use crate::hooks::context::{FailureCause, Outcome};
use crate::hooks::engines::testing::Called;

pub(super) async fn pre(source: &str, after: &'static str) -> Called {
    let mut case = case(Phase::PreCreate);
    case.after = Some(after);
    case.run(source.as_bytes()).await
}

/// The value of an expression inside an async handler, as JSON text.
async fn value(expression: &str) -> String {
    let source = format!("export async function preCreate(context) {{ return {{ v: {expression} }}; }}");
    let called = pre(&source, "{}").await;
    called.amended().strip_prefix("{\"v\":").and_then(|rest| rest.strip_suffix('}')).unwrap().to_owned()
}

#[track_caller]
fn check_message(called: &Called, cause: FailureCause, message: &str) {
    let failure = called.failure();
    assert_eq!((failure.cause, failure.message.as_str()), (cause, message));
}

#[tokio::test(flavor = "multi_thread")]
async fn accepts_amends_and_rejects() {
    let source = "export function preCreate({ after, model, id, phase, attempt }) {
        if (after.accept) return;
        if (after.same) return { ...after };
        if (after.reject) throw new Reject('no', { '/a': 'bad', b: 'worse' });
        return { ...after, seen: [model.id, model.version, id, phase, attempt] };
    }";
    assert_eq!(pre(source, r#"{"accept":true}"#).await.report.outcome, Outcome::Accept);
    assert_eq!(pre(source, r#"{"same":1.0}"#).await.report.outcome, Outcome::Accept);
    let amended = pre(source, r#"{"z":1,"a":2}"#).await;
    assert_eq!(amended.amended(), r#"{"z":1,"a":2,"seen":["item",1,"i-1","preCreate",1]}"#);
    match pre(source, r#"{"reject":1}"#).await.report.outcome {
        Outcome::Reject(rejection) => {
            assert_eq!(rejection.message, "no");
            let fields: Vec<_> = rejection.fields.iter().map(|f| (f.pointer.as_str(), f.message.as_str())).collect();
            assert_eq!(fields, [("/a", "bad"), ("/b", "worse")]);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_context_has_its_documented_shape() {
    let keys = "export default (context) => { throw new Reject(JSON.stringify(context)) }";
    let mut case = case(Phase::PreUpdate);
    case.before = Some(r#"{"a":1}"#);
    case.actor = Some("ci");
    let Outcome::Reject(rejection) = case.run(keys.as_bytes()).await.report.outcome else { panic!() };
    let context: serde_json::Value = snaphook_driver::json::parse(&rejection.message).unwrap();
    let expected = json!({
        "phase": "preUpdate", "model": { "id": "item", "version": 1 }, "id": "i-1",
        "actor": { "id": "ci", "kind": "token" }, "requestId": "r-1",
        "time": "1970-01-01T00:00:00.000Z", "attempt": 1, "event": null, "before": { "a": 1 }, "after": {},
        "read": {}, "write": {}, "log": {},
    });
    assert_eq!(context, expected);
    let source = "export const preDelete = (c) => { throw new Reject([typeof c.before, typeof c.after, typeof c.fetch, typeof c.run,
        typeof c.secret, typeof c.write.create, typeof c.read.query].join()) }";
    let mut case = self::case(Phase::PreDelete);
    (case.before, case.after) = (Some("{}"), None);
    let Outcome::Reject(rejection) = case.run(source.as_bytes()).await.report.outcome else { panic!() };
    assert_eq!(rejection.message, "object,undefined,function,function,function,function,function");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_module_serves_several_phases() {
    let source = b"export const preCreate = () => { throw new Reject('named') }
        export default () => { throw new Reject('default') }";
    for (phase, expected) in [(Phase::PreCreate, "named"), (Phase::PreUpdate, "default")] {
        let Outcome::Reject(rejection) = case(phase).run(source).await.report.outcome else { panic!() };
        assert_eq!(rejection.message, expected);
    }
    let called = pre("export const preCreate = 5", "{}").await;
    assert!(called.failure().message.contains("the export preCreate is no function"), "{}", called.failure().message);
}

/// Where a source may say so in its own words, and where code that it makes while it runs may: no name leads anywhere, not
/// even one by which an engine knows parts of itself.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_imported() {
    for (line, source) in [
        (1, "import host from 'snaphook:runner/host';\nexport default () => {}"),
        (1, "import 'snaphook:runner/host';\nexport default () => {}"),
        (2, "export default () => {};\nimport * as host from 'snaphook:runner/host'"),
        (2, "export default () => {};\nimport { log } from 'qjs:std'"),
        (1, "import data from './a.json' with { type: 'json' }; export default () => {}"),
        (2, "export default () => {};\nexport * from 'os'"),
        (2, "export default () => {};\nexport * as all from 'os'"),
        (2, "export default () => {};\nexport { log } from 'snaphook:runner/host'"),
        (1, "export { default } from './handler.js'"),
        (2, "export default async () => {\n  await import('snaphook:runner/host') }"),
        (2, "export default async ({ after }) => {\n  await import(after.name) }"),
        (3, "type T = 1;\nexport default (t: T) => {};\nexport * from 'os'"),
        (3, "type T = 1;\nexport default (t: T) => {};\nimport 'os'"),
    ] {
        let error = case(Phase::PreCreate).prepare(source.as_bytes()).await.err().unwrap();
        assert!(error.message.contains("cannot be imported; `snaphook hook build`"), "{source}: {error:?}");
        assert!((error.line, error.column.is_some()) == (Some(line), true), "{source}: {error:?}");
    }
    let source = "
        const names = ['snaphook:runner/host', 'snaphook:runner/host@0.0.0', 'snaphook:runner', 'snaphook:hook/read', 'host',
            'runner', 'main', 'componentize-qjs:shim.js', 'componentize-qjs:user.js', 'local:init/module-loader', 'input',
            '<input>', 'eval', 'eval_script', '<eval>', 'wit', 'wasi:clocks/monotonic-clock',
            'std', 'os', 'bjson', 'qjs:std', 'qjs:os', 'node:fs', 'fs', 'lodash', './a.js', '/etc/passwd', 'file:///etc/passwd',
            'data:text/javascript,export default 1', 'blob:x', 'http://localhost/a.js', ''];
        const Async = (async () => {}).constructor, Generator = (function* () {}).constructor;
        const text = (name) => `import(${JSON.stringify(name)})`;
        const ways = {
            eval: (name) => eval(text(name)),
            indirect: (name) => (0, eval)(text(name)),
            module: (name) => eval(`import(${JSON.stringify(name)}, { with: { type: 'json' } })`),
            function: (name) => new Function('name', 'return import(name)')(name),
            async: (name) => new Async('name', 'return await import(name)')(name),
            generator: (name) => new Generator('name', 'yield import(name)')(name).next().value,
            nested: (name) => eval(`(() => eval(${JSON.stringify(text(name))}))()`),
            timer: (name) => new Promise((done) => setTimeout(() => done(eval(text(name))), 0)),
        };
        const wrong = [];
        const attempt = async (when) => {
            for (const way in ways) for (const name of names) {
                try {
                    wrong.push(`${when} ${way} ${name}: ${Reflect.ownKeys(await ways[way](name)).map(String)}`);
                } catch (error) {
                    if (!(error instanceof Error) || !/import|module|not supported/i.test(error.message)) wrong.push(`${way} ${name}: ${error}`);
                }
            }
        };
        export default async function () {
            await attempt('called');
            for (const code of ['import a from \"os\"', 'export * from \"os\"', 'import.meta.url']) {
                try { (0, eval)(code); wrong.push(code); } catch (error) { if (!(error instanceof SyntaxError)) wrong.push(`${error}`); }
            }
            return { wrong };
        }";
    assert_eq!(pre(source, "{}").await.amended(), r#"{"wrong":[]}"#);
}

/// What the language has, what is documented, and nothing of what runs it.
#[tokio::test(flavor = "multi_thread")]
async fn globals_are_the_languages_and_the_documented_ones() {
    const KNOWN: &str = "Object Function Error EvalError RangeError ReferenceError SyntaxError TypeError URIError AggregateError
        SuppressedError InternalError Array Boolean Number BigInt String Symbol Date RegExp Map Set WeakMap WeakSet WeakRef
        FinalizationRegistry Promise Proxy Reflect Math JSON Atomics Iterator DisposableStack AsyncDisposableStack
        ArrayBuffer SharedArrayBuffer DataView Int8Array Uint8Array Uint8ClampedArray Int16Array Uint16Array Int32Array Uint32Array
        BigInt64Array BigUint64Array Float16Array Float32Array Float64Array Intl Temporal
        eval parseInt parseFloat isNaN isFinite decodeURI decodeURIComponent encodeURI encodeURIComponent escape unescape
        Infinity NaN undefined globalThis
        console TextEncoder TextDecoder URL URLSearchParams Headers Request Response AbortController AbortSignal
        Event EventTarget DOMException structuredClone crypto Crypto SubtleCrypto queueMicrotask performance
        setTimeout clearTimeout setInterval clearInterval setImmediate clearImmediate atob btoa fetch print Reject";
    let source = format!(
        "const known = new Set(`{KNOWN}`.split(/\\s+/));
         const own = () => Reflect.ownKeys(globalThis).filter((name) => !known.has(name) && name !== Symbol.toStringTag).map(String);
         const early = own();
         export default function () {{
             const caller = (() => {{ try {{ return String(Object.keys(this ?? {{}})) }} catch (error) {{ return '' }} }})();
             return {{ names: own(), early, caller }};
         }}"
    );
    let called = pre(&source, "{}").await;
    let found: serde_json::Value = snaphook_driver::json::parse(called.amended()).unwrap();
    let names = |member: &str| {
        let names = found[member].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!((names("names"), names("early")), (Vec::new(), Vec::new()), "{found}");
    assert_eq!(found["caller"], "", "{found}");
}

/// One of the engines does not have them by itself.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_engine_lacks_is_added_where_it_is_cheap() {
    let sums =
        "[[0.1, 0.2, 0.3], [9007199254740992, 1, 1e-300], [5e-324, 5e-324], [1e20, 1, -1e20]].map(Math.sumPrecise)";
    assert_eq!(value(sums).await, "[0.6,9007199254740994,1e-323,1]");
    let special = "[Math.sumPrecise([1e308, 1e308, -1e308]) === 1e308, Object.is(Math.sumPrecise([]), -0),
        Math.sumPrecise([1e308, 1e308]) === Infinity, Number.isNaN(Math.sumPrecise([Infinity, -Infinity]))]";
    assert_eq!(value(special).await, "[true,true,true,true]");
    let refused = "[[1, '2'], [1n]].map((items) => { try { return Math.sumPrecise(items) } catch (error) { return error.name } })";
    assert_eq!(value(refused).await, r#"["TypeError","TypeError"]"#);
    assert_eq!(value("[...Iterator.concat([1], new Set([2]), new Map())]").await, "[1,2]");
    let maps = "[new Map([[1, 2]]).getOrInsert(1, 3), new Map().getOrInsertComputed(4, (key) => key + 1)]";
    assert_eq!(value(maps).await, "[2,5]");
}

#[tokio::test(flavor = "multi_thread")]
async fn async_handlers_timers_and_thenables() {
    assert_eq!(value("await new Promise(r => setTimeout(() => r(1), 20))").await, "1");
    assert_eq!(value("await Promise.all([1, Promise.resolve(2), { then(f) { f(3) } }])").await, "[1,2,3]");
    let order = "await (async () => { const seen = []; const at = (ms, x) => new Promise(r => setTimeout(() => { seen.push(x); r() }, ms));
        const stop = setInterval(() => seen.push('i'), 4); clearInterval(stop);
        await Promise.all([at(30, 'c'), at(1, 'a'), at(15, 'b')]); return seen; })()";
    assert_eq!(value(order).await, r#"["a","b","c"]"#);
    let ticks = "await new Promise(r => { let n = 0; const id = setInterval(() => { if (++n === 3) { clearInterval(id); r(n) } }, 2) })";
    assert_eq!(value(ticks).await, "3");
    let called = pre("export default () => ({ then(resolve) { resolve({ ok: 1 }) } })", "{}").await;
    assert_eq!(called.amended(), r#"{"ok":1}"#);
    let called = pre("export default async () => { throw new Reject('later') }", "{}").await;
    assert!(matches!(called.report.outcome, Outcome::Reject(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_handler_leaves_is_done_before_the_call_ends() {
    let body = "setTimeout((word) => { log.info(word); setTimeout(() => log.info('third'), 1); }, 100, 'second');
        queueMicrotask(() => log.info('first'));
        let n = 0; const ticks = setInterval(() => { if (++n === 2) { clearInterval(ticks); log.info('ticked') } }, 150);
        (async () => { await null; setImmediate(() => log.info('at once')) })();
        AbortSignal.timeout(1e8).addEventListener('abort', () => log.info('nobody waits for a signal'));
        const answer = { a: 1 }; setTimeout(() => { answer.a = 2 }, 1);";
    for (start, end) in [
        ("({ log }) => {", "return answer; }"),
        ("async ({ log }) => {", "return answer; }"),
        ("async ({ log }) => {", "await new Promise((r) => setTimeout(r, 1)); answer.a = 1; return answer; }"),
        ("({ log }) => {", "throw new Reject('no'); }"),
    ] {
        let called = pre(&format!("export default {start} {body} {end}"), "{}").await;
        match &called.report.outcome {
            Outcome::Reject(rejection) if end.contains("Reject") => assert_eq!(rejection.message, "no"),
            _ => assert_eq!(called.amended(), r#"{"a":1}"#, "the answer stands"),
        }
        assert_eq!(called.lines(), ["first", "at once", "second", "third", "ticked"], "{start} {end}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_callback_throws_fails_the_call() {
    for (body, message) in [
        ("setTimeout(() => { throw new Error('late') }, 1);\n return { a: 1 }", "Error: late (line 2, column"),
        (
            "setTimeout(() => { throw new Error('late') }, 1);\n return new Promise(() => {})",
            "Error: late (line 2, column",
        ),
        ("setTimeout(() => { throw 'a text' }, 1); setTimeout(() => { throw 2 }, 2); return { a: 1 }", "a text"),
        ("queueMicrotask(() => { throw new Error('soon') });\n return { a: 1 }", "Error: soon (line 2, column"),
        ("setTimeout(() => { throw new Error('late') }, 1); throw new Error('mine')", "Error: mine"),
    ] {
        for is_async in ["", "async "] {
            let called = pre(&format!("export default {is_async}() => {{\n {body} }}"), "{}").await;
            let failure = called.failure();
            assert_eq!(failure.cause, FailureCause::Exception);
            assert!(failure.message.contains(message), "{body}: {}", failure.message);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_keep_their_digits() {
    let data = r#"{"big":9007199254740993,"exact":12345678901234567890.123456789,"one":1.0,"huge":1e+400,"list":[{"n":9007199254740993.5}],"x":1}"#;
    let called = pre("export default ({ after }) => ({ ...after, x: after.x + 1, copy: after.big })", data).await;
    let expected = data.replace("\"x\":1}", "\"x\":2,\"copy\":9007199254740993}");
    // Two texts become 9007199254740992 for JavaScript, so the copy cannot be told apart.
    let expected = expected.replace("\"copy\":9007199254740993", "\"copy\":9007199254740992");
    assert_eq!(called.amended().replace("\"copy\":9007199254740993", "\"copy\":9007199254740992"), expected);
    assert_eq!(pre("export default ({ after }) => after", data).await.report.outcome, Outcome::Accept);
    let called =
        pre("export default ({ after }) => ({ ...after, big: after.big + 2 })", r#"{"big":9007199254740993}"#).await;
    assert_eq!(called.amended(), r#"{"big":9007199254740994}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_async_answer_is_awaited_whatever_became_of_then() {
    let source = "export default async () => { delete Promise.prototype.then; await 1; return { a: 1 } }";
    assert_eq!(pre(source, "{}").await.amended(), r#"{"a":1}"#);
    let source = "export default async () => { delete Promise.prototype.then; throw new Reject('no') }";
    assert!(matches!(pre(source, "{}").await.report.outcome, Outcome::Reject(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_refused_before_its_data_is_looked_at() {
    let source = "export async function postCreate({ write, log }) {
        try { await write.create('other', { a: '\\ud800' }) } catch (error) { log.info(error.code) }
    }";
    let called = case(Phase::PostCreate).run(source.as_bytes()).await;
    assert!(called.lines().contains(&"denied".to_owned()), "{:?}", called.lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_data_keeps_its_digits_too() {
    let data = format!("{{\"big\":[{}9007199254740993.10],\"x\":1}}", "1.0,".repeat(50_000));
    let (source, data) = ("export default ({ after }) => ({ ...after, x: 2 })", Box::leak(data.into_boxed_str()));
    assert_eq!(pre(source, data).await.amended(), data.replace("\"x\":1", "\"x\":2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_returns_must_be_data() {
    let cases = [
        ("5", "returned a number, expected the new data (an object), or nothing to accept the change as it is"),
        ("'x'", "returned a string, expected the new data (an object), or nothing to accept the change as it is"),
        ("true", "returned a boolean, expected the new data (an object), or nothing to accept the change as it is"),
    ];
    for (expression, message) in cases {
        let called = pre(&format!("export default () => ({expression})"), "{}").await;
        check_message(&called, FailureCause::Amend, message);
    }
    for (expression, message) in [
        ("(() => { const a = {}; a.a = a; return a })()", "circular"),
        ("({ a: 1n })", "a BigInt at /a"),
        ("({ a: [{ b: new Map() }] })", "a Map at /a/0/b"),
        ("new Reject('no')", "write `throw new Reject(…)`"),
        ("globalThis", "globalThis"),
        ("({ toJSON() { throw new TypeError('mine') } })", "TypeError: mine"),
        ("({ a: '\\ud800' })", "cannot be stored"),
    ] {
        let called = pre(&format!("export default () => {expression}"), "{}").await;
        assert_eq!(called.failure().cause, FailureCause::Amend, "{expression}: {:?}", called.failure());
        assert!(called.failure().message.contains(message), "{}", called.failure().message);
    }
    for expression in ["undefined", "null", "{}"] {
        let called = pre(&format!("export default () => ({expression})"), "{}").await;
        assert_eq!(called.report.outcome, Outcome::Accept, "{expression}");
    }
    let mut deletes = case(Phase::PreDelete);
    (deletes.before, deletes.after) = (Some("{}"), None);
    let called = deletes.run(b"export default () => ({ a: 1 })").await;
    check_message(&called, FailureCause::Amend, "returned data, but in `preDelete` there is no data that could change");
    // What a post hook returns is not looked at.
    assert_eq!(case(Phase::PostCreate).run(b"export default () => 5").await.report.outcome, Outcome::Accept);
}

#[tokio::test(flavor = "multi_thread")]
async fn exceptions_have_the_authors_line_and_column() {
    let cases = [
        ("export function preCreate() {\n  const x = null;\n  return x.y;\n}", "TypeError", "(line 3, column 1"),
        (
            "export async function preCreate() {\n  await null;\n  throw new Error('late');\n}",
            "Error: late",
            "(line 3, column",
        ),
        ("throw new RangeError('top')\nexport default 1", "RangeError: top", "(line 1, column"),
        (
            "type T = {\n  a: string\n}\nexport default (t: T): void => {\n  undefinedName();\n}",
            "ReferenceError",
            "(line 5, column 3)",
        ),
        (
            "const f = (a) => {\n   throw new Error('in');\n};\nexport default () => f(1);",
            "Error: in",
            "(line 2, column",
        ),
    ];
    for (source, message, place) in cases {
        let called = pre(source, "{}").await;
        let failure = called.failure();
        assert_eq!(failure.cause, FailureCause::Exception);
        assert!(failure.message.contains(message) && failure.message.contains(place), "{source}\n{}", failure.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_work_awaited_or_not() {
    let source = "export async function postCreate({ read, write, secret, log, event }) {
        const plain = read.get('item', '1');
        const awaited = await read.get('item', '1');
        log.info(plain.data.n === awaited.data.n, read.get('item', 'none'), (await read.query('item', {})).items.length);
        const made = await write.create('note', { of: plain.data.big }, { id: 'n1' });
        write.update('note', 'n1', { ...made.data, more: true }, { expected: made.position });
        log.info(write.delete('note', 'n1').data, event.position);
        log.info(secret('key'), await secret('key'));
    }";
    let mut case = case(Phase::PostCreate);
    case.bench = case.bench.with_instance("item", "1", r#"{"n":7,"big":9007199254740993}"#).with_secret("key", b"hush");
    case.grants = "read = ['item', 'note']\nwrite = ['note']\nsecret = ['key']";
    let called = case.run(source.as_bytes()).await;
    assert_eq!(called.report.outcome, Outcome::Accept);
    // The number that JavaScript cannot hold went from the read to the write unchanged.
    let expected = ["true null 1", r#"{"of": 9007199254740992, "more": true} 7"#, "*** ***"];
    assert_eq!(called.lines(), expected);
    assert_eq!(case.bench.access.authors().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_errors_with_code_and_message() {
    let source = "export default async ({ read, write, fetch, run, secret, log }) => {
        for (const attempt of [() => read.get('item', '1'), () => write.create('item', {}), () => secret('s'),
            () => run('/bin/true'), () => fetch('http://127.0.0.1/')]) {
            try { await attempt(); } catch (error) { log.info(error instanceof Error, error.code, error.name) }
        }
        try { fetch('http://localhost/').status } catch (error) { log.info('not awaited', error.code) }
        await fetch('http://[::1]/').catch((error) => log.info('caught', error.code));
        const attempts = [() => read.get(), () => read.event(-1), () => write.update('a', 'b', {}, { expected: 'c' }),
            () => run(), () => run('/bin/true', ['a', 1]), () => run('/bin/true', [], { env: { A: 1 } }),
            () => run('/bin/true', [], { timeout: 1.5 }), () => fetch('http://localhost/', { redirect: 'no' })];
        for (const attempt of attempts) {
            try { await attempt(); } catch (error) { log.info(error.code, error.message) }
        }
    }";
    let called = case(Phase::PostCreate).run(source.as_bytes()).await;
    assert_eq!(called.report.outcome, Outcome::Accept);
    let lines: Vec<_> = called.log.iter().filter(|line| line.level == crate::hooks::context::LogLevel::Info).collect();
    let lines: Vec<_> = lines.iter().map(|line| line.message.as_str()).collect();
    assert_eq!(lines[..5], ["true denied AccessError"; 5], "{lines:?}");
    assert_eq!(lines[5..7], ["not awaited denied", "caught denied"]);
    let run = "`run(program, args, { stdin, env, timeout })`";
    let expected = [
        "`read.get(model, id)`: `model` is null, expected a string".to_owned(),
        "`read.event(position)`: `position` is a number, expected a whole number from 0".to_owned(),
        "`write.update(model, id, data, { expected })`: `expected` is a string, expected a whole number from 0"
            .to_owned(),
        format!("{run}: `program` is missing, expected a string"),
        format!("{run}: `args/1` is a number, expected a string"),
        format!("{run}: `env/A` is a number, expected a string"),
        format!("{run}: `timeout` is a number, expected a whole number from 0"),
        "`fetch(url, init)`: `redirect` is `no`, expected `follow`, `manual` or `error`".to_owned(),
    ];
    assert_eq!(lines[7..], expected.map(|expected| format!("invalid the call does not fit {expected}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn fetch_sends_and_answers() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"{\"a\":1}") {
                let mut buffer = [0; 4096];
                let count = stream.read(&mut buffer).await.unwrap();
                request.extend_from_slice(&buffer[..count]);
            }
            let body = "{\"ok\":\"\u{e4}\"}";
            let head = format!(
                "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\nx-a: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all((head + body).as_bytes()).await.unwrap();
            seen.push(String::from_utf8(request).unwrap());
        }
        seen
    });
    let source = format!(
        "export async function postCreate({{ fetch, log }}) {{
            const url = new URL('/p?q=1', 'http://127.0.0.1:{port}');
            const options = {{ method: 'post', headers: {{ 'X-B': 'b' }}, body: JSON.stringify({{ a: 1 }}), signal: AbortSignal.timeout(5000) }};
            const response = await fetch(url, options);
            log.info(response.status, response.ok, response.headers.get('X-A'), (await response.json()).ok, response.bodyUsed);
            const direct = fetch(new Request(url, options));
            log.info(direct.status, direct.url, await direct.text());
        }}"
    );
    let mut case = case(Phase::PostCreate);
    let grant = format!("http = ['POST http://127.0.0.1:{port}/*']");
    case.grants = Box::leak(grant.into_boxed_str());
    let called = case.run(source.as_bytes()).await;
    let url = format!("http://127.0.0.1:{port}/p?q=1");
    assert_eq!(called.report.outcome, Outcome::Accept, "{:?}", called.lines());
    assert_eq!(called.lines(), ["201 true 1 \u{e4} true".to_owned(), format!("201 {url} {{\"ok\":\"\u{e4}\"}}")]);
    for request in server.await.unwrap() {
        let lower = request.to_ascii_lowercase();
        assert!(
            lower.starts_with("post /p?q=1 ") && lower.contains("x-b: b") && lower.contains("text/plain"),
            "{request}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_web_as_far_as_a_server_needs() {
    let cases = [
        ("new TextDecoder().decode(new TextEncoder().encode('h\u{e4}\u{1f600}'))", "\"h\u{e4}\u{1f600}\""),
        ("[atob('aGk='), btoa('hi'), atob(btoa('\\x00\\xff'))].join()", "\"hi,aGk=,\\u0000\u{ff}\""),
        ("new URL('../b?x=1#y', 'https://u:p@Example.com:8443/a/c').href", "\"https://u:p@example.com:8443/b?x=1#y\""),
        (
            "(() => { const u = new URL('http://a/?b=1'); u.searchParams.append('c', 'd e'); u.port = '81'; return u.href })()",
            "\"http://a:81/?b=1&c=d+e\"",
        ),
        ("[URL.canParse('nope'), URL.canParse('http://x')]", "[false,true]"),
        ("[...new URLSearchParams('a=1&b=%C3%A4+c&a=2')]", "[[\"a\",\"1\"],[\"b\",\"\u{e4} c\"],[\"a\",\"2\"]]"),
        ("structuredClone({ d: new Date(0), m: new Map([[1, 2]]), a: [1, { b: 2 }] }).a", "[1,{\"b\":2}]"),
        (
            "(() => { const a = { b: {} }; a.b.a = a; const c = structuredClone(a); return c.b.a === c && c !== a })()",
            "true",
        ),
        ("/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(crypto.randomUUID())", "true"),
        ("crypto.getRandomValues(new Uint8Array(8)).length", "8"),
        (
            "[...new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode('abc')))].slice(0, 3)",
            "[186,120,22]",
        ),
        ("[...new Uint8Array(await crypto.subtle.digest({ name: 'sha-1' }, new Uint8Array(0)))].length", "20"),
        ("new Headers({ A: '1', b: ' 2 ' }).get('a') + [...new Headers([['x', '1'], ['x', '2']])]", "\"1x,1, 2\""),
        ("await new Response('{\"a\":[1]}').json()", "{\"a\":[1]}"),
        (
            "[Response.json({}).headers.get('content-type'), new Response('', { status: 404 }).ok]",
            "[\"application/json\",false]",
        ),
        ("AbortSignal.abort().aborted", "true"),
        ("await fetch('http://x/', { signal: AbortSignal.abort() }).catch((e) => e.name)", "\"AbortError\""),
        ("Math.abs(Date.now() - new Date()) < 1000 && Math.random() !== Math.random()", "true"),
        ("new Date(0).toISOString()", "\"1970-01-01T00:00:00.000Z\""),
        ("await new Promise((r) => queueMicrotask(() => r(1)))", "1"),
        (
            "[typeof require, typeof process, typeof wit, typeof globalThis]",
            "[\"undefined\",\"undefined\",\"undefined\",\"object\"]",
        ),
        (
            "(() => { try { structuredClone(() => 1) } catch (e) { return [e.name, e.code, e instanceof DOMException] } })()",
            "[\"DataCloneError\",25,true]",
        ),
    ];
    for (expression, expected) in cases {
        assert_eq!(value(expression).await, expected, "{expression}");
    }
    let mut draws = std::collections::HashSet::new();
    for _ in 0..5 {
        draws.insert(value("Math.random()").await);
    }
    assert_eq!(draws.len(), 5, "each sandbox draws its own numbers");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_console() {
    let source = "export default ({ log }) => {
        log.debug('a', 1, null, undefined, true, 10n, Symbol('s'));
        log.info({ b: [1, { c: 'd' }], f() {} }, [new Date(0)]);
        console.warn(new TypeError('bad').message, '\\ud800');
        console.error(Object.create(null), { get x() { throw 1 } });
        const circle = {}; circle.me = circle; console.log(circle);
    }";
    let called = pre(source, "{}").await;
    assert_eq!(called.report.outcome, Outcome::Accept);
    assert_eq!(
        called.lines(),
        [
            "a 1 null undefined true 10n Symbol(s)",
            r#"{"b": [1, {"c": "d"}], "f": [function f]} [1970-01-01T00:00:00.000Z]"#,
            "bad \u{fffd}",
            "{} a value that cannot be read",
            r#"{"me": [circular]}"#,
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_sandbox_forgets_and_a_reused_one_does_not() {
    let source = b"let calls = 0; globalThis.shared ??= 0;
        export default async ({ after }) => { if (after.fail) for (;;); return { calls: ++calls, shared: ++globalThis.shared } }";
    let mut case = case(Phase::PreCreate);
    let hook = case.prepare(source).await.unwrap();
    for _ in 0..2 {
        assert_eq!(case.call(&*hook).await.amended(), r#"{"calls":1,"shared":1}"#);
    }
    case.settings.isolation = Isolation::Reuse;
    assert_eq!(case.call(&*hook).await.amended(), r#"{"calls":1,"shared":1}"#);
    assert_eq!(case.call(&*hook).await.amended(), r#"{"calls":2,"shared":2}"#);
    // Another hook with the same source has sandboxes of its own.
    let other = case.prepare(source).await.unwrap();
    assert_eq!(case.call(&*other).await.amended(), r#"{"calls":1,"shared":1}"#);
    // One that was ended is dropped.
    case.after = Some(r#"{"fail":true}"#);
    case.settings.limits.timeout = std::time::Duration::from_millis(50);
    assert_eq!(case.call(&*hook).await.failure().cause, FailureCause::Timeout);
    case.after = Some("{}");
    assert_eq!(case.call(&*hook).await.amended(), r#"{"calls":1,"shared":1}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_lost_is_said_once() {
    let lost = "`after` was changed and not returned";
    for (body, is_lost) in [
        ("after.n = 2", true),
        ("after.list.push(1)", true),
        ("after.n = 2; return after", false),
        ("after.n = 1", false),
        ("if (after.n === 2) after.n = 3", false),
    ] {
        for keyword in ["", "async "] {
            let mut case = case(Phase::PreCreate);
            case.after = Some(r#"{"n":1,"list":[]}"#);
            let source = format!("export default {keyword}({{ after }}) => {{ {body} }}");
            let hook = case.prepare(source.as_bytes()).await.unwrap();
            for call in 0..3 {
                let called = case.call(&*hook).await;
                let is_said = called.log.iter().any(|line| line.message.contains(lost));
                assert_eq!(is_said, is_lost && call == 0, "{source} {call}: {:?}", called.log);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_that_nobody_handles_fails_the_call() {
    let failing = [
        "Promise.reject(new Error('lost'));",
        "(async () => { throw new Error('lost') })();",
        "(async () => { await null; throw new Error('lost') })();",
        "(async () => { await new Promise((r) => setTimeout(r, 2)); throw new Error('lost') })();",
        "new Promise(() => { throw new Error('lost') });",
        "Promise.resolve().then(() => { throw new Error('lost') }).finally(() => {});",
        "Promise.reject(new Error('lost')); Promise.reject(new Error('another'));",
        "fetch('http://10.0.0.1/').catch(() => { throw new Error('lost') });",
    ];
    for body in failing {
        for (start, end) in [("() => {", "return { a: 1 } }"), ("async () => {", "await 1; return { a: 1 } }")] {
            for phase in [Phase::PreCreate, Phase::PostCreate] {
                let called = case(phase).run(format!("export default {start}\n {body}\n {end}").as_bytes()).await;
                let failure = called.failure();
                assert_eq!(failure.cause, FailureCause::Exception);
                assert!(
                    failure.message.starts_with("threw Error: lost (line 2, column"),
                    "{body}: {}",
                    failure.message
                );
            }
        }
    }
    // Told at the end of the stack, where there is no room for who is told.
    for body in ["const f = async () => { f() }; f();", "const f = async () => { await f() }; f(); f(); f();"] {
        let called = pre(&format!("export default () => {{ {body} return {{ a: 1 }} }}"), "{}").await;
        // QuickJS has no end of its own for this kind of recursion.
        let cause = called.failure().cause;
        assert!(matches!(cause, FailureCause::Exception | FailureCause::Stack), "{body}: {cause:?}");
    }
    let top = "const lost = (async () => { throw new Error('top') })();\nexport default () => {}";
    assert!(pre(top, "{}").await.failure().message.starts_with("threw Error: top (line 1, column"));
    let denied = pre("export default () => { fetch('http://10.0.0.1/') }", "{}").await;
    assert!(denied.failure().message.contains("AccessError"), "{}", denied.failure().message);
    // A promise that the handler waits for in vain says why.
    let never =
        pre("export default () => { Promise.reject(new Error('why')); return new Promise(() => {}) }", "{}").await;
    assert!(never.failure().message.starts_with("threw Error: why"), "{}", never.failure().message);
    // What the handler itself throws comes first.
    let own = pre("export default () => { Promise.reject(1); throw new Reject('no') }", "{}").await;
    assert!(matches!(own.report.outcome, Outcome::Reject(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_that_gets_its_handler_later_is_none() {
    for body in [
        "const p = Promise.reject(new Error('x')); p.catch(() => {});",
        "const p = Promise.reject(new Error('x')); Promise.resolve().then(() => p.catch(() => {}));",
        "const p = Promise.reject(new Error('x')); setTimeout(() => p.catch(() => {}), 2);",
        "try { await Promise.reject(new Error('x')) } catch {}",
        "const p = (async () => { throw 1 })(), q = (async () => { throw 2 })(); await null; await Promise.allSettled([q, p]);",
        "await Promise.race([1, Promise.reject(2)]).catch(() => {});",
        "try { fetch('http://10.0.0.1/').status } catch {}",
        "for (let i = 0; i < 1000; i++) { try { await (async () => { throw i })() } catch {} }",
    ] {
        let called = pre(&format!("export default async () => {{ {body} return {{ a: 1 }} }}"), "{}").await;
        assert_eq!(called.amended(), r#"{"a":1}"#, "{body}");
    }
}

/// However many there are: to look for each among all of them would take minutes.
#[tokio::test(flavor = "multi_thread")]
async fn many_rejections_that_get_their_handlers_later_are_none() {
    let source = "export default async () => {
        const lost = Array.from({ length: 50_000 }, (_, i) => Promise.reject(i));
        const settled = await Promise.allSettled(lost);
        const again = Array.from({ length: 50_000 }, (_, i) => Promise.reject(i));
        for (const promise of again.reverse()) promise.catch(() => {});
        return { n: settled.length + again.length } }";
    let mut case = case(Phase::PreCreate);
    case.after = Some("{}");
    case.settings.limits.timeout = std::time::Duration::from_secs(20);
    assert_eq!(case.run(source.as_bytes()).await.amended(), r#"{"n":100000}"#);
}

/// A sandbox that serves again has forgotten what was rejected in its last call.
#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_does_not_reach_the_next_call() {
    let source =
        "export default ({ after }) => { if (after.bad) Promise.reject(new Error('first')); return { ok: 1 } }";
    let mut case = case(Phase::PreCreate);
    case.settings.isolation = Isolation::Reuse;
    let hook = case.prepare(source.as_bytes()).await.unwrap();
    for _ in 0..2 {
        case.after = Some(r#"{"bad":true}"#);
        assert!(case.call(&*hook).await.failure().message.contains("first"));
        case.after = Some("{}");
        assert_eq!(case.call(&*hook).await.amended(), r#"{"ok":1}"#);
    }
}
