//! Tests of the whole crate: hostile schemas and documents, and that counting changes no verdict.

use std::time::Duration;

use super::*;

fn compile(schema: &Value) -> Result<Compiled, Refusal> {
    on_large_stack(|| Compiled::new(schema, &Limits::schema()))
}

fn check(compiled: &Compiled, document: &Value) -> Result<Result<(), Vec<Fault>>, Excess> {
    on_large_stack(|| compiled.check(document, &Limits::document(), 100, true))
}

/// Checks that compiling a schema and checking a document end soon, whatever the result.
#[track_caller]
fn ends(name: &str, schema: &Value, document: &Value) {
    let (compiled, compiling) = timed(|| Compiled::new(schema, &Limits::schema()));
    assert!(compiling < Duration::from_secs(1), "{name}: compiled in {compiling:?}");
    let Ok(compiled) = compiled else { return };
    let (_, inline) = timed(|| compiled.check(document, &Limits::inline(), 100, false));
    assert!(inline < Duration::from_millis(50), "{name}: inline took {inline:?}");
    let (verdict, checking) = timed(|| compiled.check(document, &Limits::document(), 100, true));
    assert!(checking < Duration::from_secs(1), "{name}: checked in {checking:?}: {:?}", verdict.map(|_| ()));
}

/// Measures CPU time, because other tests run at the same time.
fn timed<T: Send>(work: impl FnOnce() -> T + Send) -> (T, Duration) {
    on_large_stack(|| {
        let started = budget::thread_time();
        let result = work();
        (result, budget::thread_time() - started)
    })
}

fn nested(depth: usize, leaf: Value) -> Value {
    (0..depth).fold(leaf, |below, _| json!({ "a": below }))
}

fn numbers(count: usize, number: impl Fn(usize) -> String) -> Value {
    let text: Vec<String> = (0..count).map(number).collect();
    serde_json::from_str(&format!("[{}]", text.join(","))).unwrap()
}

/// Creates `count` definitions by calling `definition` with their indexes.
fn definitions(count: usize, definition: impl Fn(usize) -> Value) -> Value {
    Value::Object((0..count).map(|row| (format!("d{row}"), definition(row))).collect())
}

fn reference(row: usize) -> Value {
    json!({ "$ref": format!("#/$defs/d{row}") })
}

#[test]
fn recursion_that_branches_ends() {
    for keyword in ["anyOf", "oneOf", "allOf"] {
        for leaf in [json!(1), json!("x"), json!({})] {
            let tree = json!({"$ref": "#/$defs/n", "$defs": {"n": {keyword: [
                {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["a", "b"]},
                {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["a", "c"]},
                {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["a"]}]}}});
            ends(keyword, &tree, &nested(100, leaf));
        }
    }
    let not = json!({"$defs": {"n": {"not": {"anyOf": [{"properties": {"a": {"$ref": "#/$defs/n"}}},
        {"properties": {"a": {"not": {"$ref": "#/$defs/n"}}}}]}}}, "$ref": "#/$defs/n"});
    ends("not", &not, &nested(110, json!(1)));
    let conditional = json!({"$defs": {"n": {"if": {"properties": {"a": {"$ref": "#/$defs/n"}}},
        "then": {"properties": {"a": {"$ref": "#/$defs/n"}}}, "else": {"properties": {"a": {"$ref": "#/$defs/n"}}}}},
        "$ref": "#/$defs/n"});
    ends("if", &conditional, &nested(110, json!(1)));
}

#[test]
fn directed_graphs_that_double_end() {
    for leaf in [json!(true), json!(false), json!({"title": "x"})] {
        for keyword in ["allOf", "anyOf", "oneOf"] {
            let defs = definitions(60, |row| match row {
                59 => leaf.clone(),
                _ => json!({keyword: [reference(row + 1), reference(row + 1)]}),
            });
            ends(keyword, &json!({"$defs": defs, "$ref": "#/$defs/d0"}), &json!({"a": 1}));
            let unevaluated = json!({"$defs": defs, "$ref": "#/$defs/d0", "unevaluatedProperties": false});
            ends("unevaluatedProperties", &unevaluated, &json!({"a": 1}));
        }
        let defs = definitions(60, |row| match row {
            59 => leaf.clone(),
            _ => json!({"dependentSchemas": {"a": reference(row + 1), "b": reference(row + 1)}}),
        });
        ends("dependentSchemas", &json!({"$defs": defs, "$ref": "#/$defs/d0"}), &json!({"a": 1, "b": 2}));
        let defs = definitions(60, |row| match row {
            59 => leaf.clone(),
            _ => json!({"not": {"allOf": [reference(row + 1), {"not": reference(row + 1)}]}}),
        });
        ends("not", &json!({"$defs": defs, "$ref": "#/$defs/d0"}), &json!({"a": 1}));
    }
}

#[test]
fn long_chains_do_not_reach_the_end_of_the_stack() {
    for count in [400, 600, 5_000, 15_000] {
        let chain = |link: &dyn Fn(usize) -> Value| {
            definitions(count, |row| if row + 1 == count { json!({"type": "object"}) } else { link(row + 1) })
        };
        let defs = chain(&|row| json!({"allOf": [reference(row)]}));
        ends("allOf", &json!({"$defs": defs, "$ref": "#/$defs/d0"}), &json!({}));
        ends(
            "unevaluated",
            &json!({"$defs": defs, "$ref": "#/$defs/d0", "unevaluatedProperties": false}),
            &json!({"x": 1}),
        );
        ends("$ref", &json!({"$defs": chain(&reference), "$ref": "#/$defs/d0"}), &json!({}));
        let old = json!({"$schema": "http://json-schema.org/draft-07/schema#", "$defs": chain(&reference),
            "allOf": [{"$ref": "#/$defs/d0"}]});
        ends("draft 7", &old, &json!({}));
        let properties = chain(&|row| json!({"properties": {"a": reference(row)}}));
        ends("properties", &json!({"$defs": properties, "$ref": "#/$defs/d0"}), &nested(120, json!(1)));
        let dynamic = chain(&|row| json!({"$dynamicRef": format!("#/$defs/d{row}")}));
        ends("$dynamicRef", &json!({"$defs": dynamic, "$ref": "#/$defs/d0"}), &json!({}));
    }
}

#[test]
fn resources_that_refer_to_each_other_end() {
    for keyword in ["$ref", "$dynamicRef"] {
        let count = 14;
        let defs = definitions(count, |row| {
            let others: Vec<Value> = (0..count)
                .filter(|other| *other != row)
                .map(|other| json!({keyword: format!("r{other}#node")}))
                .collect();
            json!({"$id": format!("r{row}"), "$dynamicAnchor": "node", "properties": {"a": {"anyOf": others}}})
        });
        let schema = json!({"$id": "https://example.com/root", "$defs": defs, "$ref": "r0"});
        ends(keyword, &schema, &nested(100, json!(1)));
    }
}

#[test]
fn large_numbers_end() {
    let schema = json!({"properties": {"u": {"uniqueItems": true}, "m": {"items": {"multipleOf": 0.01}},
        "i": {"items": {"type": "integer", "multipleOf": 3}}, "b": {"items": {"minimum": 0, "maximum": 1e308}},
        "c": {"contains": {"const": serde_json::from_str::<Value>("1e400").unwrap()}}, "e": {"items": {"enum": [1, 2.5, "x", null]}}}});
    for (name, items) in [
        ("beyond 64 bits", numbers(8_000, |n| format!("123456789012345678901{n:05}"))),
        ("beyond floats", numbers(8_000, |n| format!("1e{}", 400 + n))),
        ("exponents", numbers(8_000, |n| format!("1e99999{n:04}"))),
        ("small exponents", numbers(8_000, |n| format!("1e-99999{n:04}"))),
        ("fractions", numbers(8_000, |n| format!("0.1234567890123456789{n:05}"))),
        ("digits", numbers(8, |n| format!("{}{}", n + 1, "7".repeat(100_000)))),
        ("one", numbers(1, |_| "9".repeat(1_000_000))),
        ("one fraction", numbers(1, |_| format!("0.{}", "9".repeat(1_000_000)))),
    ] {
        for member in ["u", "m", "i", "b", "c", "e"] {
            ends(&format!("{name} {member}"), &schema, &json!({ member: items }));
        }
    }
    for number in ["1e999999999", "1e-999999999", "3e5000", "0.00000001", "123456789012345678901234567890"] {
        let number: Value = serde_json::from_str(number).unwrap();
        let schema = json!({"items": {"multipleOf": number, "maximum": number, "const": number}});
        ends("in the schema", &schema, &numbers(2_000, |n| format!("1e{}", 99_999 + n)));
    }
}

#[test]
fn large_enums_and_contains_end() {
    let many = numbers(50_000, |n| format!("123456789012345678901{n:06}"));
    let schema = json!({"items": {"enum": many}});
    let compiled = compile(&schema).unwrap();
    assert_eq!(check(&compiled, &many), Ok(Ok(())));
    assert!(check(&compiled, &json!([1])).unwrap().is_err());
    let old = json!({"$schema": "http://json-schema.org/draft-04/schema#", "items": {"enum": many}});
    ends("draft 4", &old, &many);
    let ones = Value::from(vec![1; 20_000]);
    ends("contains", &json!({"contains": {"enum": many}, "maxContains": 2, "minContains": 0}), &ones);
    let contains: Vec<Value> = (0..2_000).map(|n| json!({"contains": {"const": n}})).collect();
    ends("many contains", &json!({"allOf": contains}), &ones);
    let objects: Vec<Value> = (0..5_000).map(|n| json!({"a": [n, {"b": n}]})).collect();
    ends("objects", &json!({"items": {"enum": objects}, "uniqueItems": true}), &Value::from(objects.clone()));
    let unevaluated = json!({"anyOf": contains, "unevaluatedItems": false});
    ends("unevaluatedItems", &unevaluated, &ones);
}

#[test]
fn patterns_have_one_budget_for_the_document() {
    let texts: Vec<String> = (0..2_000).map(|n| format!("{}{n}!", "a".repeat(500))).collect();
    for pattern in ["^(?=(a+)+$)", "(?=.*x)(a*)*$", "(a*)*\\1c", "^(a+)+$"] {
        ends(pattern, &json!({"items": {"pattern": pattern}}), &json!(texts));
        ends(pattern, &json!({"items": {"pattern": pattern}}), &json!(["a".repeat(100_000)]));
        let members: Value =
            texts.iter().map(|text| (text.clone(), json!(1))).collect::<serde_json::Map<_, _>>().into();
        ends(pattern, &json!({"patternProperties": {pattern: true}}), &members);
        ends(pattern, &json!({"propertyNames": {"pattern": pattern}}), &members);
        let unevaluated = json!({"patternProperties": {pattern: true}, "unevaluatedProperties": false});
        ends(pattern, &unevaluated, &members);
        ends(pattern, &json!({"patternProperties": {pattern: true}}), &json!({"a".repeat(100_000): 1}));
    }
    let many: serde_json::Map<String, Value> = (0..100).map(|n| (format!("(?=(a+)+{n}$)"), json!(true))).collect();
    assert!(matches!(compile(&json!({"patternProperties": many})), Err(Refusal::TooComplex(_))));
    let heavy: Vec<Value> = (0..500).map(|n| json!({"pattern": format!("[ab]{{900}}{n}")})).collect();
    ends("many", &json!({"allOf": heavy}), &json!("ab".repeat(1_000)));
}

#[test]
fn errors_are_bounded_in_number_and_size() {
    let branches: Vec<Value> = (0..50).map(|n| json!({"items": {"const": format!("x{n}")}})).collect();
    let schema = json!({"properties": {"a": {"anyOf": branches}}});
    ends("anyOf", &schema, &json!({"a": vec!["y".repeat(100); 5_000]}));
    let large = json!({"a": vec!["y".repeat(1_000); 5_000]});
    let schema = json!({"type": "string", "required": ["b", "c", "d"], "additionalProperties": false, "enum": [1]});
    ends("large", &schema, &large);
    let compiled = compile(&schema).unwrap();
    let faults = check(&compiled, &large).unwrap().unwrap_err();
    assert!(faults.iter().all(|fault| fault.message.len() < 1_000), "{faults:?}");
    let defs = json!({"$defs": {"n": {"anyOf": [{"properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["z"]},
        {"properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["y"]}]}}, "$ref": "#/$defs/n"});
    ends("context", &defs, &json!({"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": 1}}}}}}}}}));
}

#[test]
fn long_names_are_not_copied_for_ever() {
    let long = "n".repeat(500_000);
    let many: serde_json::Map<String, Value> =
        (0..10_000).map(|n| (format!("p{n}"), json!({"type": "string"}))).collect();
    let schema = json!({"properties": {&long: {"properties": many}}});
    assert!(matches!(compile(&schema), Err(Refusal::TooComplex(_))));
    let schema = json!({"$id": format!("https://example.com/{long}/"), "properties": many});
    assert!(matches!(compile(&schema), Err(Refusal::TooComplex(_))));
    let schema = json!({"additionalProperties": {"additionalProperties": {"type": "string"}}});
    let numbers: serde_json::Map<String, Value> = (0..9_000).map(|n| (format!("p{n}"), json!(n))).collect();
    let compiled = compile(&schema).unwrap();
    let document = json!({ &long: numbers });
    let (faults, checking) = timed(|| compiled.check(&document, &Limits::document(), 100, true));
    let faults = faults.unwrap().unwrap_err();
    assert!(checking < Duration::from_secs(1), "{checking:?}");
    assert!(faults.len() == 1 && faults[0].pointer.len() < 5_000, "{}", faults.len());
}

#[test]
fn schemas_have_a_size() {
    let many: serde_json::Map<String, Value> =
        (0..SUBSCHEMAS_MAX).map(|n| (format!("p{n}"), json!({"type": "string"}))).collect();
    assert!(matches!(compile(&json!({"properties": many})), Err(Refusal::TooComplex(_))));
    let some: serde_json::Map<String, Value> =
        (0..2_000).map(|n| (format!("p{n}"), json!({"type": "string", "maxLength": 10}))).collect();
    let some = json!({"properties": some});
    let (compiled, compiling) = timed(|| Compiled::new(&some, &Limits::schema()));
    assert!(compiling < Duration::from_secs(1), "{compiling:?}");
    let compiled = compiled.unwrap();
    assert_eq!(check(&compiled, &json!({"p7": "x"})), Ok(Ok(())));
}

#[test]
fn faults_are_said_with_their_places() {
    let compiled = compile(&json!({"type": "object", "required": ["n"], "properties": {
        "s": {"pattern": "^a+$", "format": "date"}, "l": {"uniqueItems": true}, "e": {"enum": (0..40).collect::<Vec<_>>()}}}))
    .unwrap();
    let faults = check(&compiled, &json!({"s": "b", "l": [1, 1.0], "e": 99})).unwrap().unwrap_err();
    let mut rows: Vec<String> = faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.message)).collect();
    rows.sort();
    assert_eq!(
        rows,
        [
            "/e is 99, expected one of 0, 1, 2 and 37 more",
            "/l has an item twice",
            "/n is missing and required",
            "/s is \"b\", expected the format `date`",
            "/s is \"b\", which does not match `^a+$`",
        ]
    );
}

#[test]
fn what_is_wrong_with_a_schema_is_said_with_its_place() {
    let at = |schema: Value| match compile(&schema) {
        Err(Refusal::Invalid { pointer, message }) => format!("{pointer}: {message}"),
        Err(Refusal::Foreign(uri)) => format!("foreign {uri}"),
        other => panic!("{schema}: {other:?}"),
    };
    assert!(at(json!({"properties": {"a": {"pattern": "("}}})).starts_with("/properties/a/pattern: `(` is not"));
    assert!(at(json!({"properties": {"a/b": {"type": "text"}}})).starts_with("/properties/a~1b/type: "));
    assert!(at(json!({"patternProperties": {"[": {}}})).starts_with("/patternProperties/[: "));
    assert_eq!(at(json!({"$ref": "other.json"})), "foreign other.json");
    assert_eq!(at(json!({"items": {"$ref": "https://example.com/x"}})), "foreign https://example.com/x");
    assert_eq!(at(json!({"items": {"$ref": "file:///etc/passwd"}})), "foreign file:///etc/passwd");
    assert!(!at(json!({"$ref": "#/$defs/nothing"})).is_empty());
    assert!(!at(json!({"properties": {"a": {"items": 1}}})).contains('\u{0}'));
}

#[test]
fn references_mean_what_the_drafts_say() {
    for (schema, fits, not) in [
        (
            json!({"$id": "https://example.com/a", "properties": {"a": {"$ref": "https://example.com/a"}, "b": {"type": "string"}}}),
            json!({"a": {"b": "x"}}),
            json!({"a": {"b": 1}}),
        ),
        (
            json!({"properties": {"a": {"$ref": "https://example.com/b"}}, "$defs": {"b": {"$id": "https://example.com/b", "type": "string"}}}),
            json!({"a": "x"}),
            json!({"a": 1}),
        ),
        (
            json!({"$id": "https://example.com/a/", "properties": {"a": {"$ref": "b"}}, "$defs": {"b": {"$id": "b", "type": "string"}}}),
            json!({"a": "x"}),
            json!({"a": 1}),
        ),
        (
            json!({"x-note": {"$ref": "https://example.com/nowhere"}, "properties": {"a": {"type": "string"}}}),
            json!({"a": "x"}),
            json!({"a": 1}),
        ),
        (
            json!({"x-parts": {"p": {"type": "string", "pattern": "^x"}}, "properties": {"a": {"$ref": "#/x-parts/p"}}}),
            json!({"a": "x"}),
            json!({"a": "y"}),
        ),
        (
            json!({"properties": {"a": {"enum": [{"$ref": "https://example.com/nowhere"}]}}}),
            json!({"a": {"$ref": "https://example.com/nowhere"}}),
            json!({"a": 1}),
        ),
        (
            json!({"properties": {"\u{0}guard": {"type": "string"}}, "\u{0}pattern": 7}),
            json!({"\u{0}guard": "x"}),
            json!({"\u{0}guard": 1}),
        ),
    ] {
        let compiled = compile(&schema).unwrap_or_else(|refusal| panic!("{schema}: {refusal:?}"));
        assert_eq!(check(&compiled, &fits), Ok(Ok(())), "{schema}");
        assert!(check(&compiled, &not).unwrap().is_err(), "{schema}");
    }
}
