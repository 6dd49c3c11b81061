//! read, write, run, secret: with and without `await`, and their error codes.

use serde_json::{Value, json};

use super::server;
use crate::support::{Client, eventually};
use crate::workbench::{caught, create_and_wait, failure_of, open_model, post_value, pre_value};

#[track_caller]
fn customers(api: &Client) {
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name"]});
    api.post("/models", &json!({"id": "customer", "schema": schema, "unique": [["name"]]})).expect(201);
    for (id, name, age) in [("ada", "Ada", 36), ("bob", "Bob", 20), ("cid", "Cid", 50)] {
        api.post("/models/customer/instances", &json!({"id": id, "data": {"name": name, "age": age}})).expect(201);
    }
}

/// Returns the `{name, code}` of what an expression throws in a post hook.
#[track_caller]
fn code_of(api: &Client, expression: &str) -> Value {
    let caught = post_value(api, "js", &caught(expression));
    assert_eq!(caught["name"], "AccessError", "{expression}: {caught}");
    assert!(caught["message"].as_str().is_some_and(|message| !message.is_empty()), "{expression}: {caught}");
    caught["code"].clone()
}

#[test]
fn read() {
    let (_server, api) = server("read = ['customer', 'gone']");
    customers(&api);
    let stored = api.get("/models/customer/instances/ada").expect(200).json();
    for get in ["await read.get('customer', 'ada')", "read.get('customer', 'ada')"] {
        assert_eq!(pre_value(&api, "js", &format!("return {get};")), stored, "{get}");
    }
    assert_eq!(pre_value(&api, "js", "return await read.get('customer', 'nobody');"), Value::Null);
    assert_eq!(pre_value(&api, "js", "return read.get('customer', 'nobody') === null;"), json!(true));

    let ids = "const { items, next } = await read.query('customer', QUERY); return [items.map((one) => one.id), next === null];";
    for (query, expected) in [
        ("{ sort: 'name' }", json!([["ada", "bob", "cid"], true])),
        ("{ sort: '-age', limit: 2 }", json!([["cid", "ada"], false])),
        ("{ filter: { age: { gt: 30 } }, sort: 'age' }", json!([["ada", "cid"], true])),
        ("{ filter: { name: { in: ['Ada', 'Bob'] }, age: { lt: 30, gte: 20 } } }", json!([["bob"], true])),
        ("{ filter: { name: { like: 'A%' } } }", json!([["ada"], true])),
        ("{ filter: { age: { exists: false } } }", json!([[], true])),
    ] {
        assert_eq!(pre_value(&api, "js", &ids.replace("QUERY", query)), expected, "{query}");
    }
    assert_eq!(pre_value(&api, "js", "return (await read.query('customer')).items.length;"), json!(3));
    let pages = "let cursor, seen = []; do { const page = read.query('customer', { sort: 'name', limit: 1, cursor }); \
                 seen.push(...page.items.map((one) => one.id)); cursor = page.next ?? undefined; } while (cursor); return seen;";
    assert_eq!(pre_value(&api, "js", pages), json!(["ada", "bob", "cid"]));
    let event = pre_value(&api, "js", &format!("return await read.event({});", stored["position"]));
    assert_eq!((&event["type"], &event["instance"]), (&json!("instance.created"), &json!("ada")), "{event}");

    for expression in [
        "read.query('customer', { filter: { nothing: { eq: 1 } } })",
        "read.query('customer', { filter: { age: { about: 1 } } })",
        "read.query('customer', { sort: 7 })",
        "read.query('customer', { limit: 0 })",
        "read.query('customer', { unknown: 1 })",
        "read.get('customer')",
        "read.get('customer', {})",
        "read.event('x')",
        "read.event(-1)",
    ] {
        assert_eq!(code_of(&api, expression), "invalid", "{expression}");
    }
    assert_eq!(code_of(&api, "read.query('gone', {})"), "not-found");
    assert_eq!(code_of(&api, "read.get('js', 'x')"), "denied");
    assert_eq!(code_of(&api, "read.query('js', {})"), "denied");
}

#[test]
fn write() {
    let (_server, api) = server("write = ['customer', 'gone', 'picky']\nread = ['customer']");
    customers(&api);
    let created = post_value(
        &api,
        "js",
        "return await write.create('customer', { name: 'Dan', age: 9007199254740991 }, { id: 'dan' });",
    );
    assert_eq!(created, api.get("/models/customer/instances/dan").expect(200).json());
    let made = post_value(&api, "js", "return write.create('customer', { name: 'Eve' }).id;");
    api.get(&format!("/models/customer/instances/{}", made.as_str().expect("a text"))).expect(200);
    let updated =
        post_value(&api, "js", "return (await write.update('customer', 'dan', { name: 'Dan', age: 2 })).revision;");
    assert_eq!(updated, 2);
    let position = api.get("/models/customer/instances/dan").expect(200).json()["position"].clone();
    assert_eq!(
        code_of(&api, &format!("write.update('customer', 'dan', {{ name: 'x' }}, {{ expected: {position} - 1 }})")),
        "conflict"
    );
    let held = format!(
        "return write.update('customer', 'dan', {{ name: 'Dan', age: 3 }}, {{ expected: {position} }}).data.age;"
    );
    assert_eq!(post_value(&api, "js", &held), 3);
    assert_eq!(code_of(&api, "write.create('customer', { name: 'Ada' })"), "exists");
    assert_eq!(code_of(&api, "write.create('customer', { name: 'New' }, { id: 'ada' })"), "exists");
    assert_eq!(code_of(&api, "write.create('customer', { age: 1 })"), "invalid");
    assert_eq!(code_of(&api, "write.create('customer', { name: 'New' }, { id: 'not/an id' })"), "invalid");
    assert_eq!(code_of(&api, "write.create('customer')"), "invalid");
    assert_eq!(code_of(&api, "write.update('customer', 'nobody', { name: 'x' })"), "not-found");
    assert_eq!(code_of(&api, "write.delete('customer', 'nobody')"), "not-found");
    assert_eq!(code_of(&api, "write.create('gone', {})"), "not-found");
    assert_eq!(code_of(&api, "write.create('js', {})"), "denied");
    open_model(&api, "picky");
    api.put_javascript("picky", "preCreate", "export default () => { throw new Reject('never') }").expect(200);
    assert_eq!(code_of(&api, "write.create('picky', {})"), "rejected");
    api.put_javascript("picky", "preCreate", "export default () => { throw new Error('broken') }").expect(200);
    assert_eq!(code_of(&api, "write.create('picky', {})"), "failed");
    let deleted = post_value(&api, "js", "return (await write.delete('customer', 'dan')).data.name;");
    assert_eq!(deleted, "Dan");
    api.get("/models/customer/instances/dan").expect_problem(404, "not-found");
}

/// A hook whose writes trigger itself stops at the maximum chain length, and the message lists the chain.
#[test]
fn a_loop_of_hooks_is_spelled_out() {
    let (_server, api) = server("write = ['*']");
    open_model(&api, "audit");
    for (model, next) in [("js", "audit"), ("audit", "js")] {
        let source = format!(
            "export async function postCreate({{ after, write }}) {{ await write.create('{next}', {{ n: after.n + 1 }}); }}"
        );
        api.put_javascript(model, "postCreate", &source).expect(200);
    }
    api.post("/models/js/instances", &json!({"data": {"n": 0}})).expect(201);
    let record = eventually("the loop ends", || {
        let page = api.get("/errors").expect(200).json();
        page["items"].as_array().expect("a list").first().cloned()
    });
    assert_eq!((&record["cause"], &record["attempts"]), (&json!("depth"), &json!(1)), "{record}");
    let message = record["message"].as_str().expect("a text");
    assert!(message.contains("js.postCreate > audit.postCreate > js.postCreate"), "{message}");
    assert_eq!(record["event"]["cause"]["depth"], 8, "{record}");
    let count =
        |model: &str| api.get(&format!("/models/{model}/instances?count=true")).expect(200).json()["count"].clone();
    assert_eq!((count("js"), count("audit")), (json!(5), json!(4)));
}

#[test]
fn secret() {
    let (_server, api) = server("secret = ['mail-*']");
    api.request("PUT", "/secrets/mail-key").body("text/plain", "s3cret ä").send().expect(204);
    for get in ["await secret('mail-key')", "secret('mail-key')"] {
        assert_eq!(
            pre_value(&api, "js", &format!("const value = {get}; return value === 's3cret ä';")),
            json!(true),
            "{get}"
        );
    }
    assert_eq!(code_of(&api, "secret('mail-none')"), "not-found");
    assert_eq!(code_of(&api, "secret('other')"), "denied");
    assert_eq!(code_of(&api, "secret()"), "invalid");
}

#[cfg(target_os = "linux")]
#[test]
fn run() {
    let cat = std::fs::canonicalize("/bin/cat").expect("a program");
    let env = std::fs::canonicalize("/usr/bin/env").expect("a program");
    let (cat, env) = (cat.display(), env.display());
    let lines = format!(
        "process = [{{ program = '{cat}', args = [] }}, {{ program = '{cat}', args = ['missing'] }}, {{ program = '{env}', args = [], env = {{ LANG = 'C', TITLE = true }} }}]"
    );
    let mut tables = crate::workbench::grant("*", "postCreate", &lines);
    tables.push_str(&crate::workbench::grant("*", "*", "amend = true"));
    let server = crate::support::Server::start_with(crate::workbench::once(tables));
    let api = server.client();
    open_model(&api, "js");
    for call in [
        "await run(P, [], { stdin: 'text ä' })",
        "run(P, [], { stdin: 'text ä' })",
        "run(P, [], { stdin: new TextEncoder().encode('text ä') })",
    ] {
        let value = post_value(&api, "js", &format!("const P = '{cat}'; return {call};"));
        assert_eq!(value, json!({"code": 0, "stdout": "text ä", "stderr": ""}), "{call}");
    }
    assert_eq!(post_value(&api, "js", &format!("return run('{cat}').stdout;")), "");
    let failed = post_value(&api, "js", &format!("return run('{cat}', ['missing']);"));
    assert_eq!((&failed["code"], &failed["stdout"]), (&json!(1), &json!("")), "{failed}");
    assert!(failed["stderr"].as_str().expect("a text").contains("missing"), "{failed}");
    let value = post_value(
        &api,
        "js",
        &format!("return run('{env}', [], {{ env: {{ TITLE: 'a b' }} }}).stdout.trim().split('\\n').sort();"),
    );
    assert_eq!(value, json!(["LANG=C", "TITLE=a b"]));
    // Bytes that are not UTF-8 are decoded as well as possible.
    let value =
        post_value(&api, "js", &format!("return run('{cat}', [], {{ stdin: new Uint8Array([65, 255, 66]) }}).stdout;"));
    assert_eq!(value, "A\u{fffd}B");
    assert_eq!(code_of(&api, "run('/bin/false', [])"), "denied");
    assert_eq!(code_of(&api, &format!("run('{cat}', 7)")), "invalid");
}

/// An uncaught error of a capability fails the hook, and has a location.
#[test]
fn an_error_that_is_not_caught() {
    let (_server, api) = server("read = ['customer']");
    let source = "export async function postCreate({ read }) {\n  await null;\n  await read.query('customer', {});\n}";
    api.put_javascript("js", "postCreate", source).expect(200);
    let id = create_and_wait(&api, "js", &json!({}));
    let record = failure_of(&api, "js", &id);
    assert_eq!(
        (&record["cause"], &record["phase"], &record["hook"]),
        (&json!("exception"), &json!("postCreate"), &json!("postCreate"))
    );
    let message = record["message"].as_str().expect("a text");
    assert!(message.starts_with("threw AccessError: ") && message.contains("(line 3, column "), "{message}");
    // `finally`, `catch` and `Promise.all` work with it.
    let caught = "const done = []; try { await Promise.all([read.get('customer', 'x'), 1]); } catch (error) { done.push(error instanceof Error, error.code); } finally { done.push('finally'); } return done;";
    customers(&api);
    assert_eq!(post_value(&api, "js", &caught.replace("customer", "other")), json!([true, "denied", "finally"]));
}
