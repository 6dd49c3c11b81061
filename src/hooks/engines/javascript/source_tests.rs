//! Cases of what becomes of an author's source: what is taken, what is refused, and where a message points.

use super::*;

fn refused(source: &str) -> PrepareError {
    compile(source.as_bytes(), Phase::PreCreate, None).map(|source| panic!("taken: {}", source.text)).unwrap_err()
}

fn body(source: &str) -> String {
    let text = compile(source.as_bytes(), Phase::PreCreate, None).unwrap().text;
    text.strip_prefix(HEAD).unwrap().split("\n;return ").next().unwrap().to_owned()
}

#[test]
fn exports_are_overwritten_in_place() {
    let cases = [
        ("export function preCreate() {}", "       function preCreate() {}"),
        ("export const a = 1, preCreate = () => a;", "       const a = 1, preCreate = () => a;"),
        ("export default async ({ after }) => {};", "var $default = async ({ after }) => {};"),
        ("export default function () {}\nfoo()", "var $default = function () {};\nfoo()"),
        ("export default function f() {}", "               function f() {}"),
        ("function a() {}\nexport {\n  a as preCreate\n};", "function a() {}\n        \n                \n  "),
        ("#!/usr/bin/x\nexport const a = 1, preCreate = a", "            \n       const a = 1, preCreate = a"),
        ("export  default\n  class {}", "var $default = \n  class {};"),
    ];
    for (source, expected) in cases {
        assert_eq!(body(source), expected, "{source}");
    }
}

#[test]
fn a_handler_must_be_there() {
    let error = refused("export function postCreate() {}\nexport const x = 1;");
    assert!(
        error.message.starts_with("the source exports no handler for `preCreate`: it exports "),
        "{}",
        error.message
    );
    assert!(error.message.contains("`postCreate`") && error.message.contains("`x`"), "{}", error.message);
    assert!(refused("function preCreate() {}").message.contains("it exports nothing"));
}

#[test]
fn other_files_are_refused_with_the_place() {
    let cases = [
        ("export default 1;\nimport a from 'lodash';", 2, 1, "`lodash` cannot be imported"),
        ("export default () => import('./b.js')", 1, 22, "`./b.js` cannot be imported"),
        ("export * from 'x'; export default 1", 1, 1, "`x` cannot be imported"),
        ("const y = require('fs');\nexport default 1", 1, 11, "`fs` cannot be imported"),
        ("export default import.meta.url", 1, 16, "no `import.meta`"),
        ("await 1; export default 1", 1, 1, "`await` is used outside of every function"),
    ];
    for (source, line, column, message) in cases {
        let error = refused(source);
        assert!(error.message.contains(message), "{source}: {}", error.message);
        assert_eq!((error.line, error.column), (Some(line), Some(column)), "{source}");
    }
    compile(b"function require(x) { return x } export default () => require(1)", Phase::PreCreate, None).unwrap();
}

#[test]
fn mistakes_have_line_and_column() {
    let error = refused("export function preCreate() {\n  return 1 +;\n}");
    assert_eq!((error.line, error.column), (Some(2), Some(13)), "{}", error.message);
    let error = refused("export function preCreate(a: number) {\n  const x: string = ;\n}");
    assert_eq!((error.line, error.column), (Some(2), Some(21)), "{}", error.message);
    assert_eq!(refused("export default 'ä' +").line, Some(1));
    for source in ["export default () => {\n  return /a(b/;\n}", "export default (a: number) => {\n  return /a(b/;\n}"]
    {
        let error = refused(source);
        assert_eq!(error.line, Some(2), "{}", error.message);
    }
    let typed = compile(br"export default (a: string) => /\/(?<n>x)[\d]+/giu.test(a)", Phase::PreCreate, None).unwrap();
    assert!(typed.text.contains(r"/\/(?<n>x)[\d]+/giu"), "{}", typed.text);
    assert_eq!(compile(b"export default\n\xff", Phase::PreCreate, None).unwrap_err().line, Some(2));
}

#[test]
fn types_are_stripped() {
    let source = "interface A { b: number }\nimport type { X } from './x';\nenum E { One = 1 }\n\
                  export const preCreate = async ({ after }: { after: A }): Promise<A> => ({ ...after, b: E.One as number });";
    let source = compile(source.as_bytes(), Phase::PreCreate, None).unwrap();
    assert!(!source.text.contains("interface") && !source.text.contains("Promise<A>"), "{}", source.text);
    assert!(refused("@d class A {}\nexport default (a: number) => a").message.contains("decorators"));
}

#[test]
fn the_language_is_guessed_only_where_nothing_says_it() {
    let (javascript, typescript) = (Some(SourceLanguage::JavaScript), Some(SourceLanguage::TypeScript));
    // Comparisons in JavaScript, a type argument in TypeScript.
    let both = b"export default ({ after }) => [1].reduce<number>((sum, n) => sum + n, 0)";
    for (language, is_stripped) in [(None, false), (javascript, false), (typescript, true)] {
        let source = compile(both, Phase::PreCreate, language).unwrap();
        assert_eq!(source.text.contains("<number>"), !is_stripped, "{language:?}");
    }
    let typed = b"export default (a: number) => a";
    assert!(compile(typed, Phase::PreCreate, None).is_ok());
    let error = compile(typed, Phase::PreCreate, javascript).unwrap_err();
    assert_eq!((error.line, error.column), (Some(1), Some(18)), "{}", error.message);
    assert!(error.message.contains("TypeScript"), "{}", error.message);
}

#[test]
fn positions_lead_back() {
    let plain = compile(b"export default () => {\n  throw 1;\n}", Phase::PreCreate, None).unwrap();
    assert_eq!(plain.position(3, 9), Some(Position { line: 2, column: 9 }));
    assert_eq!(plain.position(1, 1), None);
    let typed =
        compile(b"type T = {\n  a: number\n};\n\nexport default (t: T) => {\n\n   throw t;\n}", Phase::PreCreate, None);
    let typed = typed.unwrap();
    let line = 1 + typed.text.lines().position(|line| line.contains("throw")).unwrap() as u32;
    let column = 1 + typed.text.lines().nth(line as usize - 1).unwrap().find("throw").unwrap() as u32;
    assert_eq!(typed.position(line, column), Some(Position { line: 7, column: 4 }));
}

/// Whether it is taken is QuickJS's business; parsing it ends with a verdict, which may be that it is too complex.
async fn ends(source: String) {
    if let Err(error) = Source::of(source.as_bytes(), Phase::PreCreate, None).await {
        assert!(!error.message.contains("parsing the source failed"), "{source:.40}: {error}");
    }
}

#[tokio::test]
async fn hostile_nesting_ends_in_an_error_and_not_in_a_crash() {
    let deep = |open: &str, close: &str, count: usize| {
        format!("export default {}1{}", open.repeat(count), close.repeat(count))
    };
    assert!(refused(&deep("(", ")", 100_000)).message.contains("brackets"));
    assert!(refused(&deep("[", "]", 501)).message.contains("brackets"));
    // Those that are text nest nothing.
    let many = "[({".repeat(400);
    for text in [format!("'{many}'"), format!("`{many}${{1}}`"), format!("/* {many} */ 1"), format!("/[{many}]/")] {
        let source = format!("export default () => [{text}]\n// {many}");
        assert!(compile(source.as_bytes(), Phase::PreCreate, None).is_ok(), "{text:.20}");
        let typed = format!("export default (): any => [{text}]\n// {many}");
        assert!(compile(typed.as_bytes(), Phase::PreCreate, None).is_ok(), "{text:.20}");
        let deep = format!("export default () => [{text}, {}1{}]", "[".repeat(501), "]".repeat(501));
        assert!(refused(&deep).message.contains("brackets"), "{text:.20}");
    }
    for (open, close) in
        [("!", ""), ("-+", ""), ("a=>", ""), ("a?b:", ""), ("a=", ""), ("typeof ", ""), ("new ", ""), ("a**", "")]
    {
        let source = deep(open, close, (SOURCE_BYTES_MAX - 100) / open.len());
        ends(source).await;
        let typed = deep(open, close, (SOURCE_BYTES_MAX - 200) / open.len());
        ends(format!("const x: number = 1; {typed}")).await;
    }
    for statement in ["if(a)", "a:", "for(;;)", "else if(a)", "while(a)", "with(a)", "do "] {
        let source =
            format!("if(a){}b\n;export default 1", statement.repeat((SOURCE_BYTES_MAX - 100) / statement.len()));
        ends(source).await;
    }
    let types = format!("export default (x: {}1) => 1", "keyof ".repeat(SOURCE_BYTES_MAX / 8));
    ends(types).await;
}
