//! TypeScript: types are stripped but not checked; what cannot be stripped is rejected; locations refer to the author's
//! source.

use serde_json::json;

use super::forms::runs;
use super::server;
use crate::support::{Client, Response};
use crate::workbench::create;

fn put(api: &Client, source: &str) -> Response {
    api.request("PUT", "/models/js/hooks/preCreate").body("application/typescript", source).send()
}

#[test]
fn types_are_stripped() {
    let (_server, api) = server("");
    for source in [
        "export function preCreate({ after }: { after: { n: number } }): { n: number; ran: boolean } { return { ...after, ran: true }; }",
        "interface Data { n: number; list?: string[] }\ntype Made = Data & { ran: true };\n\
         export const preCreate = async ({ after }: { after: Data }): Promise<Made> => ({ ...after, ran: true as const });",
        "type Context<T> = { after: T };\nfunction add<T extends object>(x: T): T & { ran: boolean } { return { ...x, ran: true }; }\n\
         export default <T extends object>({ after }: Context<T>) => add<T>(after);",
        "import type { Hook } from './types';\nimport { type Other } from './types';\nexport type { Hook };\n\
         export default (({ after }) => ({ ...after, ran: true })) as Hook;",
        "enum Ran { No = 0, Yes = 1 }\nexport default ({ after }: any) => ({ ...after, ran: Ran.Yes === 1 && Ran[1] === 'Yes' });",
        "const enum Ran { Yes = 'yes' }\nexport default ({ after }: any) => ({ ...after, ran: Ran.Yes === 'yes' });",
        "class Maker { private made!: boolean; constructor(readonly ran: boolean, public extra?: number) {} }\n\
         export default ({ after }: any) => ({ ...after, ran: new Maker(true).ran });",
        "abstract class Base { abstract go(): boolean; }\nclass Real extends Base implements Iterable<number> { override go(): boolean { return true; } *[Symbol.iterator]() { yield 1; } }\n\
         export default ({ after }: any) => ({ ...after, ran: new Real().go() });",
        "declare const somewhere: string;\ndeclare module 'x' { }\ndeclare global { interface Window { a: 1 } }\n\
         export default function (this: void, { after }: any) { return { ...after, ran: (after.n as unknown as number)! === 1 }; }",
        "function over(x: string): string;\nfunction over(x: number): number;\nfunction over(x: any) { return x; }\n\
         export default ({ after }: any) => ({ ...after, ran: over(1) === 1 });",
        "namespace Tools { export const ran = true; }\nexport default ({ after }: any) => ({ ...after, ran: Tools.ran });",
        "const check = { ran: true } satisfies Record<string, boolean>;\nexport default ({ after }: { after: object }) => ({ ...after, ...check });",
        "let f = <T,>(x: T) => x;\nexport default ({ after }: any) => ({ ...after, ran: f<boolean>(true) });",
        // Plain JavaScript is TypeScript too.
        "export default ({ after }) => ({ ...after, ran: true });",
    ] {
        runs(&api, "application/typescript", source);
    }
}

#[test]
fn mistakes_are_refused_with_the_place() {
    let (_server, api) = server("");
    for (source, says) in [
        ("export function preCreate(a: number) {\n  const x: string = ;\n}", "(line 2, column 21)"),
        ("interface A {\n  b: \n}\nexport default (a: A) => a;", "line 3"),
        ("type T = ;\nexport default () => {};", "(line 1, column 10)"),
        ("@d class A {}\nexport default (a: number) => a", "decorators"),
        (
            "import x from './value';\nexport default (a: number) => x",
            "`./value` cannot be imported; `snaphook hook build`",
        ),
        ("import fs = require('fs');\nexport default (a: number) => fs", "line 1"),
        ("export = (a: number) => a;", ""),
        ("type A = 1;\nexport const other = 1;", "exports no handler for `preCreate`"),
    ] {
        let problem = put(&api, source).expect_problem(422, "invalid");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains(says), "{source}\nexpected `{says}` in: {detail}");
    }
}

#[test]
fn errors_lead_back_to_the_source() {
    let (_server, api) = server("");
    let source = "interface Data {\n  n: number;\n}\n\ntype Wide = Data | null;\n\nexport function preCreate({ after }: { after: Wide }): Wide {\n\
        \n   // A comment.\n   const n: number = after!.n;\n   if (n > 0)\n      throw new RangeError(`n is ${n}`);\n   return after;\n}\n";
    put(&api, source).expect(200);
    let problem = create(&api, "js", &json!({"n": 1})).expect_problem(502, "hook-failed");
    let detail = problem["detail"].as_str().expect("a text");
    assert!(detail.contains("threw RangeError: n is 1 (line 12, column "), "{detail}");
}

#[test]
fn the_source_comes_back_as_it_was() {
    let (_server, api) = server("");
    let source = "type A = 1;\nexport default (a: A) => {}; // ä";
    put(&api, source).expect(200);
    let request = api.request("GET", "/models/js/hooks/preCreate").header("Accept", "application/typescript");
    let answer = request.send().expect(200);
    assert_eq!(answer.text(), source);
    let hooks = api.get("/models/js/hooks/preCreate").expect(200).json();
    assert_eq!((&hooks[0]["engine"], &hooks[0]["size"]), (&json!("quickjs"), &json!(source.len())));
}

#[test]
fn the_media_type_says_what_it_is() {
    let (_server, api) = server("");
    let both = "export default ({ after }) => ({ ...after, n: [1, 2].reduce<number>((sum, n) => sum + n, 0) })";
    let bind = |media_type: &str, source: &str| {
        api.request("PUT", "/models/js/hooks/preCreate").body(media_type, source).send()
    };
    for media_type in ["application/typescript", "text/typescript"] {
        let bound = bind(media_type, both).expect(200).json();
        assert_eq!(bound[0]["language"], "typescript");
        let data = create(&api, "js", &json!({"n": 0})).expect(201).json()["data"].clone();
        assert_eq!(data["n"], 3, "{media_type}");
    }
    // The same code under another media type is another hook: in JavaScript it is a comparison.
    let bound = bind("text/javascript", both).expect(200).json();
    assert_eq!(bound[0]["language"], "javascript");
    create(&api, "js", &json!({"n": 0})).expect_problem(502, "hook-failed");
    let problem = bind("text/javascript", "export default (a: number) => a").expect_problem(422, "invalid");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("`application/typescript`")), "{problem}");
    // In a chain the language is optional, and detected if absent.
    for (language, expected) in [(json!("typescript"), json!("typescript")), (json!(null), json!(null))] {
        let chain = json!({"chain": [{"engine": "quickjs", "source": "export default (a: object) => {}", "language": language}]});
        let bound = api.put("/models/js/hooks/preCreate", &chain).expect(200).json();
        assert_eq!(bound[0]["language"], expected);
    }
}
