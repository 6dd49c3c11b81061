//! The reader with texts of all kinds: which texts it accepts, and with which messages it rejects others.

use serde_json::json;

use super::*;

#[track_caller]
fn rejected(text: &str, expected: &str) {
    let error = parse(text).expect_err(text);
    assert_eq!(error.to_string(), expected, "{text}");
}

fn object(members: &[(&str, Value)]) -> Value {
    Value::Object(members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}

const NAMES: [&str; 2] = ["$serde_json::private::RawValue", "$serde_json::private::Number"];

#[test]
fn names_that_serde_json_uses_are_names() {
    for name in NAMES {
        for inside in ["\"{\\\"a\\\":1}\"", "\"12\"", "\"{\"", "1", "{}", "null"] {
            let value = parse(inside).unwrap();
            for text in [format!("{{\"{name}\":{inside}}}"), format!("{{\"\\u0024{}\":{inside}}}", &name[1..])] {
                let expected = object(&[(name, value.clone())]);
                assert_eq!(parse(&text).unwrap(), expected);
                assert_eq!(parse(&format!("[{{\"x\":{text}}}]")).unwrap()[0]["x"], expected);
                let json = Json::trusted(text.as_str());
                // The value as text, as a tree, and inside another value.
                assert_eq!(parse(&Json::from_value(&expected)).unwrap(), expected);
                assert_eq!(parse(&serde_json::to_string(&json).unwrap()).unwrap(), expected);
                assert_eq!(json!({ "a": json })["a"], expected);
                assert_eq!(to_tree(&vec![&json]).unwrap()[0], expected);
                assert_eq!(typed::<Tree>(&text).unwrap().0, expected);
                assert_eq!(typed::<Vec<Tree>>(&format!("[{text}]")).unwrap()[0].0, expected);
                assert_eq!(from_tree::<Vec<Tree>>(Value::Array(vec![expected.clone()])).unwrap()[0].0, expected);
            }
        }
    }
}

#[test]
fn every_value_is_read() {
    let text = r#" { "a" : [ 1 , -0, 1.0,1E400 , null,true,false,"" ,{}, [ ] ], "b\n": "\"\\\/\b\f\n\r\t\u0000\u00e9\ud83d\ude00é😀" } "#;
    let (value, shape) = parse_within(text, Limits::default()).unwrap();
    let numbers: Vec<String> = (0..4).map(|index| value["a"][index].to_string()).collect();
    assert_eq!(numbers, ["1", "-0", "1.0", "1e+400"]);
    assert_eq!(
        value["a"].as_array().unwrap()[4..],
        [json!(null), json!(true), json!(false), json!(""), json!({}), json!([])]
    );
    assert_eq!(value["b\n"], json!("\"\\/\u{8}\u{c}\n\r\t\0é😀é😀"));
    assert_eq!(shape, Shape { values: 13, members: 2, lines: false });
    for lines in ["[\n]", "\r1", "{\"a\":\n1}", "[1\n,2]"] {
        assert!(parse_within(lines, Limits::default()).unwrap().1.lines, "{lines:?}");
    }
}

#[test]
fn members_keep_their_order_and_numbers_their_digits() {
    for text in [
        r#"{"b":9007199254740993,"a":12345678901234567890.123456789,"c":1.0,"d":-0.0,"e":-0,"f":123456789012345678}"#,
        r#"{"a":-999999999999999999,"b":999999999999999999,"c":18446744073709551616,"d":0.10}"#,
    ] {
        assert_eq!(parse(text).unwrap().to_string(), text);
    }
}

#[test]
fn what_is_no_json_is_rejected_with_its_place() {
    for (text, expected) in [
        ("", "the text ends inside a value at line 1 column 1"),
        (" ", "the text ends inside a value at line 1 column 2"),
        ("[1", "the text ends inside a value at line 1 column 3"),
        ("{\"a\"", "the text ends inside a value at line 1 column 5"),
        ("{\"a\":", "the text ends inside a value at line 1 column 6"),
        ("tru", "the text ends inside a value at line 1 column 1"),
        ("\"a", "the text ends inside a value at line 1 column 3"),
        ("\"\\", "the text ends inside a value at line 1 column 3"),
        ("\"\\u00", "the text ends inside a value at line 1 column 6"),
        ("-", "the text ends inside a value at line 1 column 2"),
        ("1.", "the text ends inside a value at line 1 column 3"),
        ("1e+", "the text ends inside a value at line 1 column 4"),
        ("1 2", "trailing characters after the value at line 1 column 3"),
        ("{}\n}", "trailing characters after the value at line 2 column 1"),
        ("[1,]", "trailing comma at line 1 column 4"),
        ("{\"a\":1,}", "trailing comma at line 1 column 8"),
        ("[1 2]", "expected `,` or `]` at line 1 column 4"),
        ("{\"a\":1 \"b\":2}", "expected `,` or `}` at line 1 column 8"),
        ("{\"a\" 1}", "expected `:` at line 1 column 6"),
        ("{a:1}", "expected a name in quotes at line 1 column 2"),
        ("{,}", "expected a name in quotes at line 1 column 2"),
        ("[,]", "expected a value at line 1 column 2"),
        ("'a'", "expected a value at line 1 column 1"),
        ("NaN", "expected a value at line 1 column 1"),
        ("[Infinity]", "expected a value at line 1 column 2"),
        ("nulL", "expected a value at line 1 column 1"),
        ("+1", "expected a value at line 1 column 1"),
        (".5", "expected a value at line 1 column 1"),
        ("01", "invalid number at line 1 column 2"),
        ("-a", "invalid number at line 1 column 2"),
        ("[1.]", "invalid number at line 1 column 4"),
        ("[1e]", "invalid number at line 1 column 4"),
        ("1e1000000000000000", "the exponent of a number has more than 15 digits at line 1 column 1"),
        ("\"\n\"", "control character (\\u000a) in a string, expected its escape at line 1 column 2"),
        ("\"\\x\"", "invalid escape in a string at line 1 column 2"),
        ("\"\\u12g4\"", "invalid escape in a string at line 1 column 2"),
        ("{\"a\":1,\"\\u0061\":2}", "property `a` appears twice in one object at line 1 column 8"),
        ("\u{feff}{}", "a byte order mark (U+FEFF), which JSON must not begin with at line 1 column 1"),
    ] {
        rejected(text, expected);
    }
    for half in ["\\ud800", "\\udfff", "\\ud800\\ud800", "\\ud800\\u0041", "\\ud800x", "\\ude00\\ud83d"] {
        let error = parse(&format!("\"{half}\"")).unwrap_err();
        assert_eq!(*error.fault(), Fault::LoneSurrogate, "{half}");
    }
    assert_eq!(
        parse_bytes(b"[\"\xff\"]").unwrap_err().to_string(),
        "not UTF-8: the byte at offset 2 starts no character"
    );
}

#[test]
fn a_fault_has_a_pointer() {
    for (text, pointer) in [
        (r#"{"a":{"b":[1,{"c":1,"c":2}]}}"#, "/a/b/1/c"),
        (r#"{"a~/b":[[0],[x]]}"#, "/a~0~1b/1/0"),
        (r#"{"a":1,"a":2}"#, "/a"),
        (r#"{"a":[1 2]}"#, "/a"),
        (r#"{"a":{"b" 1}}"#, "/a"),
        ("[1,", "/1"),
        ("[1", ""),
        ("x", ""),
    ] {
        assert_eq!(parse(text).unwrap_err().pointer(), pointer, "{text}");
    }
    // A pointer is never long: it ends at an enclosing value.
    let long = "n".repeat(300);
    assert_eq!(parse(&format!(r#"{{"{long}":{{"{long}":x}}}}"#)).unwrap_err().pointer(), format!("/{long}"));
    let deep = "[".repeat(1000);
    assert_eq!(parse(&deep).unwrap_err().pointer(), "/0".repeat(250));
}

#[test]
fn strings_stop_at_every_offset() {
    for length in 0..20 {
        let plain = "é".repeat(length / 2) + &"x".repeat(length % 2 + length / 3);
        for (written, read) in [("\\\"", "\""), ("\\u0001", "\u{1}"), ("\u{7f}", "\u{7f}"), ("", "")] {
            let text = format!("[\"{plain}{written}{plain}\",1]");
            assert_eq!(parse(&text).unwrap()[0], json!(format!("{plain}{read}{plain}")));
        }
        for control in ["\u{1f}", "\u{0}", "\t"] {
            let error = parse(&format!("\"{plain}{control}{plain}\"")).unwrap_err();
            assert!(matches!(error.fault(), Fault::ControlCharacter(_)), "{plain}");
        }
    }
}

#[test]
fn limits_hold() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(&nested(DEPTH_MAX)).is_ok());
    assert_eq!(*parse(&nested(DEPTH_MAX + 1)).unwrap_err().fault(), Fault::TooDeep { max: DEPTH_MAX });
    assert_eq!(*parse(&"{\"a\":".repeat(1_000_000)).unwrap_err().fault(), Fault::TooDeep { max: DEPTH_MAX });
    let within = |text: &str, depth, values| parse_within(text, Limits { depth, values });
    assert!(within(&nested(3), 3, 3).is_ok());
    assert_eq!(*within(&nested(3), 2, 9).unwrap_err().fault(), Fault::TooDeep { max: 2 });
    assert_eq!(*within(&nested(3), 9, 2).unwrap_err().fault(), Fault::TooManyValues { max: 2 });
    assert_eq!(within(r#"{"a":[1,2]}"#, 9, 4).unwrap().1.values, 4);
}

#[test]
fn large_exponents_cost_nothing() {
    let number = parse("1e999999999999999").unwrap();
    assert_eq!(number.to_string(), "1e+999999999999999");
    assert!(parse(&format!("1e{}1", "0".repeat(1_000_000))).is_ok());
    assert!(parse(&format!("1e{}", "9".repeat(1_000_000))).is_err());
}

#[test]
#[should_panic(expected = "contains a tree")]
fn a_type_with_a_tree_is_noticed() {
    let _ = typed::<Vec<Value>>("[]");
}

#[test]
fn quoted_text() {
    assert_eq!(unquote(r#""a""#).as_deref(), Some("a"));
    assert_eq!(unquote(r#""\u0061""#).as_deref(), Some("a"));
    for text in ["", "a", "\"", r#""a"b"#, r#""\ud800""#, " \"a\""] {
        assert_eq!(unquote(text), None, "{text}");
    }
}
