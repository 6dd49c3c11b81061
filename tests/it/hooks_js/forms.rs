//! Ways to write a handler, its possible results, and what is rejected when it is bound.

use serde_json::{Value, json};

use super::server;
use crate::support::{Client, Server};
use crate::workbench::{create, failure_of, open_model};

#[test]
fn every_form_of_export() {
    let (_server, api) = server("");
    for source in [
        "export function preCreate({ after }) { return { ...after, ran: true }; }",
        "export async function preCreate({ after }) { return { ...after, ran: true }; }",
        "export const preCreate = ({ after }) => ({ ...after, ran: true });",
        "export let preCreate = async ({ after }) => ({ ...after, ran: true });",
        "export var other = 1, preCreate = function ({ after }) { return { ...after, ran: true }; };",
        "export const { preCreate } = { preCreate: ({ after }) => ({ ...after, ran: true }) };",
        "const mine = ({ after }) => ({ ...after, ran: true });\nexport { mine as preCreate };",
        "const mine = ({ after }) => ({ ...after, ran: true });\nexport { mine as default };",
        "export default ({ after }) => ({ ...after, ran: true })",
        "export default function ({ after }) { return { ...after, ran: true }; }",
        "export default async function named({ after }) { return { ...after, ran: true }; }",
        "export default async ({ after }) => { await null; return { ...after, ran: true }; };",
        "const mine = async ({ after }) => ({ ...after, ran: true });\nexport default mine;",
        "export default (context) => Promise.resolve({ ...context.after, ran: true });",
        "export default ({ after }) => ({ then(done) { done({ ...after, ran: true }); } });",
        // The export named after the phase takes precedence over the default export.
        "export default () => { throw new Error('default'); };\nexport const preCreate = ({ after }) => ({ ...after, ran: true });",
        "export function postCreate() { throw new Error('post'); }\nexport function preUpdate() { throw new Error('update'); }\n\
         export function preCreate({ after }) { return { ...after, ran: true }; }",
        "// a comment at the end\nexport default ({ after }) => ({ ...after, ran: true }) // without a line break",
        "#!/usr/bin/env node\nexport default ({ after }) => ({ ...after, ran: true });",
        "\u{feff}export default ({ after }) => ({ ...after, ran: true });",
        "export default ({ after }) => ({ ...after, ran: true });\r\n",
        "const ran = true;\nfunction helper(after) { return { ...after, ran }; }\nexport const preCreate = ({ after }) => helper(after);",
        "export const preCreate = function* () {} && (({ after }) => ({ ...after, ran: true }));",
    ] {
        runs(&api, "text/javascript", source);
    }
}

/// The source is accepted, and its handler amends the data as the handlers of all these tests do.
#[track_caller]
pub(super) fn runs(api: &Client, media_type: &str, source: &str) {
    let answer = api.request("PUT", "/models/js/hooks/preCreate").body(media_type, source).send();
    assert_eq!(answer.status, 200, "{source}\n{}", answer.text());
    let answer = create(api, "js", &json!({"n": 1}));
    assert_eq!(answer.status, 201, "{source}\n{}", answer.text());
    assert_eq!(answer.json()["data"], json!({"n": 1, "ran": true}), "{source}");
}

#[test]
fn one_file_for_several_phases() {
    let (_server, api) = server("");
    let source = "const say = (phase) => ({ log }) => log.info(`ran ${phase}`);\n\
        export const preCreate = say('preCreate');\nexport const preUpdate = say('preUpdate');\nexport const preDelete = say('preDelete');";
    for phase in ["preCreate", "preUpdate", "preDelete"] {
        api.put_javascript("js", phase, source).expect(200);
    }
    api.post("/models/js/instances", &json!({"id": "a", "data": {}})).expect(201);
    api.put("/models/js/instances/a", &json!({"data": {"n": 1}})).expect(200);
    api.delete("/models/js/instances/a").expect(204);
    for phase in ["preCreate", "preUpdate", "preDelete"] {
        assert_eq!(crate::workbench::log_of(&api, "js", phase, "a"), [format!("ran {phase}")]);
    }
    // A phase for which the source has no handler.
    let problem = api.put_javascript("js", "postCreate", source).expect_problem(422, "invalid");
    let detail = problem["detail"].as_str().expect("a text");
    assert!(detail.contains("exports no handler for `postCreate`"), "{detail}");
}

#[test]
fn accepting_says_nothing() {
    let (_server, api) = server("");
    for value in ["", "return;", "return undefined;", "return null;"] {
        for head in ["export function preCreate()", "export async function preCreate()"] {
            api.put_javascript("js", "preCreate", &format!("{head} {{ {value} }}")).expect(200);
            assert_eq!(create(&api, "js", &json!({"n": 1})).expect(201).json()["data"], json!({"n": 1}));
        }
    }
    // A deletion has nothing to amend, and the return value of an update is the new data.
    api.delete("/models/js/hooks/preCreate").expect(204);
    api.post("/models/js/instances", &json!({"id": "a", "data": {"n": 1}})).expect(201);
    api.put_javascript(
        "js",
        "preUpdate",
        "export const preUpdate = ({ before, after }) => ({ ...after, was: before.n });",
    )
    .expect(200);
    let changed = api.patch("/models/js/instances/a", &json!({"n": 2})).expect(200).json();
    assert_eq!(changed["data"], json!({"n": 2, "was": 1}));
    api.put_javascript("js", "preDelete", "export const preDelete = ({ before }) => ({ ...before });").expect(200);
    let problem = api.delete("/models/js/instances/a").expect_problem(502, "hook-failed");
    assert!(problem["detail"].as_str().expect("a text").contains("there is no data that could change"), "{problem}");
    api.put_javascript("js", "preDelete", "export const preDelete = () => {};").expect(200);
    api.delete("/models/js/instances/a").expect(204);
}

#[test]
fn refusals_name_the_fields() {
    let (_server, api) = server("");
    let source = "export function preCreate({ after }) { throw new Reject('unknown customer', { '/customer': 'no such customer', '/lines/0/price': 'too high', '': 'all of it' }); }\n\
        export function preUpdate() { throw new Reject('closed'); }\nexport async function preDelete() { await null; throw new Reject('kept'); }";
    api.post("/models/js/instances", &json!({"id": "a", "data": {}})).expect(201);
    for phase in ["preCreate", "preUpdate", "preDelete"] {
        api.put_javascript("js", phase, source).expect(200);
    }
    let problem = create(&api, "js", &json!({})).expect_problem(422, "rejected");
    assert_eq!((&problem["detail"], &problem["hook"]), (&json!("unknown customer"), &json!("preCreate")));
    assert_eq!(
        problem["errors"],
        json!([
            {"pointer": "/data/customer", "message": "no such customer"},
            {"pointer": "/data/lines/0/price", "message": "too high"},
            {"pointer": "/data", "message": "all of it"},
        ])
    );
    let problem = api.put("/models/js/instances/a", &json!({"data": {}})).expect_problem(422, "rejected");
    assert_eq!((&problem["detail"], &problem["errors"]), (&json!("closed"), &Value::Null));
    let problem = api.delete("/models/js/instances/a").expect_problem(422, "rejected");
    assert_eq!(problem["detail"], "kept");
    api.get("/models/js/instances/a").expect(200);

    // A stored change cannot be rejected: there `Reject` is an ordinary failure.
    for phase in ["preCreate", "preUpdate", "preDelete"] {
        api.delete(&format!("/models/js/hooks/{phase}")).expect(204);
    }
    api.put_javascript("js", "postCreate", "export function postCreate() { throw new Reject('too late'); }")
        .expect(200);
    let id = crate::workbench::create_and_wait(&api, "js", &json!({}));
    let record = failure_of(&api, "js", &id);
    assert!(record["message"].as_str().expect("a text").contains("too late"), "{record}");
}

#[test]
fn amended_data_is_validated_again() {
    let (_server, api) = server("");
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false});
    api.post("/models", &json!({"id": "strict", "schema": schema})).expect(201);
    for (returned, says) in
        [("{ n: 'text' }", "/n"), ("{}", "n"), ("{ n: 1, extra: 1 }", "extra"), ("{ n: 1.5 }", "/n")]
    {
        api.put_javascript("strict", "preCreate", &format!("export default () => ({returned})")).expect(200);
        let problem = create(&api, "strict", &json!({"n": 1})).expect_problem(502, "hook-failed");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(
            detail.contains("amended data that does not fit the schema") && detail.contains(says),
            "{returned}: {detail}"
        );
    }
    api.put_javascript("strict", "preCreate", "export default ({ after }) => ({ n: after.n + 1 })").expect(200);
    assert_eq!(create(&api, "strict", &json!({"n": 1})).expect(201).json()["data"], json!({"n": 2}));
    // The client's data is validated before any hook runs.
    create(&api, "strict", &json!({"n": "x"})).expect_problem(422, "invalid");
}

#[test]
fn without_the_grant_nothing_is_amended() {
    let server = Server::start();
    let api = server.client();
    open_model(&api, "js");
    api.put_javascript("js", "preCreate", "export default ({ after }) => ({ ...after, n: 2 })").expect(200);
    let problem = create(&api, "js", &json!({"n": 1})).expect_problem(502, "hook-failed");
    let detail = problem["detail"].as_str().expect("a text");
    assert!(detail.contains("failed (amend)") && detail.ends_with("which no grant opens"), "{detail}");
    // Equal data is not a change, however it is built.
    for returned in ["after", "{ ...after }", "JSON.parse(JSON.stringify(after))"] {
        api.put_javascript("js", "preCreate", &format!("export default ({{ after }}) => ({returned})")).expect(200);
        create(&api, "js", &json!({"n": 1, "list": [1, {"a": null}]})).expect(201);
    }
}

#[track_caller]
fn not_bound(api: &Client, source: &str) -> String {
    let problem = api.put_javascript("js", "preCreate", source).expect_problem(422, "invalid");
    assert_eq!(problem["errors"][0]["pointer"], "/chain/0", "{problem}");
    problem["detail"].as_str().expect("a text").to_owned()
}

#[test]
fn what_cannot_work_is_not_bound() {
    let (_server, api) = server("");
    for (source, says) in [
        ("", "exports no handler for `preCreate`: it exports nothing"),
        ("function preCreate() {}", "it exports nothing"),
        ("export const postCreate = () => {}; export const x = 1;", "it exports "),
        ("export function preCreate() {\n  return 1 +;\n}", "(line 2, column 13)"),
        ("export function preCreate() {\n  let a; let a;\n}", "(line 2, column "),
        ("export function preCreate() {", "line 1"),
        ("\n\n  }", "(line 3, column 3)"),
        ("export default 'unfinished", "line 1"),
        ("export default () => { return /(/; }", "(line 1, column 32)"),
        ("export function preCreate() { with (a) {} }", "line 1"),
        ("import x from 'lodash';\nexport default () => x;", "`snaphook hook build`"),
        (
            "export default () => 1;\nimport { y } from './other.js';",
            "`./other.js` cannot be imported; `snaphook hook build` makes one file of several (line 2, column 1)",
        ),
        ("export default async () => (await import('./b.js')).x;", "`./b.js` cannot be imported"),
        ("export * from './all.js'; export default 1", "`./all.js` cannot be imported"),
        ("export { a } from 'a'; export default 1", "`a` cannot be imported"),
        ("const fs = require('fs');\nexport default () => fs;", "`fs` cannot be imported"),
        ("export default () => import.meta.url", "`import.meta`"),
        ("const x = await fetch('http://x');\nexport default () => x;", "`await` is used outside of every function"),
    ] {
        let detail = not_bound(&api, source);
        assert!(detail.contains(says), "{source}\nexpected `{says}` in: {detail}");
    }
    let request = api.request("PUT", "/models/js/hooks/preCreate");
    let problem =
        request.body("text/javascript", b"export default 1; // \xff".to_vec()).send().expect_problem(422, "invalid");
    assert!(problem["detail"].as_str().expect("a text").contains("not valid UTF-8"), "{problem}");
    let long = format!("export default () => {{}}; //{}", "x".repeat(1 << 20));
    assert!(not_bound(&api, &long).contains("at most 1048576"));
    assert!(
        not_bound(&api, &format!("export default {}1{}", "(".repeat(100_000), ")".repeat(100_000)))
            .contains("brackets")
    );
    assert_eq!(api.get("/models/js/hooks/preCreate").expect(200).json(), json!([]));
}

/// Errors have locations in the author's source.
#[test]
fn errors_have_the_authors_line_and_column() {
    let (_server, api) = server("");
    for (source, says) in [
        (
            "export function preCreate() {\n  const a = 1;\n  throw new TypeError('here');\n}",
            "threw TypeError: here (line 3, column ",
        ),
        (
            "export const preCreate = async () => {\n  await null;\n  await null;\n    throw new Error('late');\n}",
            "threw Error: late (line 4, column ",
        ),
        (
            "const deep = () => {\n\n  missing.property;\n};\nexport default function () {\n  deep();\n}",
            "threw ReferenceError: ",
        ),
        (
            "const deep = () => {\n\n  missing.property;\n};\nexport default function () {\n  deep();\n}",
            "(line 3, column ",
        ),
        ("export default ({ after }) => {\n  after.list.map((x) => x);\n}", "(line 2, column "),
        ("throw new Error('at load');\nexport default () => {};", "threw Error: at load (line 1, column "),
        ("\n\n\nconst x = null.y();\nexport default () => {};", "threw TypeError: "),
        ("export default () => {\n  JSON.parse('{');\n}", "threw SyntaxError: "),
        ("export default () => {\n  JSON.parse('{');\n}", "(line 2, column "),
        (
            "export default () => new Promise((_, no) => {\n  setTimeout(() => no(new RangeError('timer')), 1);\n})",
            "threw RangeError: timer (line 2, column ",
        ),
    ] {
        api.put_javascript("js", "preCreate", source).expect(200);
        let problem = create(&api, "js", &json!({})).expect_problem(502, "hook-failed");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains(says), "{source}\nexpected `{says}` in: {detail}");
        // The same in the hook's log.
        let log = api.get("/models/js/hooks/preCreate/log").expect(200).text();
        assert!(log.contains("failed (exception)"), "{log}");
    }
}

#[test]
fn a_new_source_runs_at_once() {
    let (_server, api) = server("");
    for n in 0..20 {
        api.put_javascript("js", "preCreate", &format!("export default ({{ after }}) => ({{ ...after, n: {n} }})"))
            .expect(200);
        assert_eq!(create(&api, "js", &json!({})).expect(201).json()["data"]["n"], n);
    }
    api.delete("/models/js/hooks/preCreate").expect(204);
    assert_eq!(create(&api, "js", &json!({})).expect(201).json()["data"], json!({}));
}
