//! Families of invalid requests. Each function draws one member of its family; every member is invalid.

use serde_json::{Value, json};

use super::Case;
use crate::chance::Chance;

type Family = fn(&mut Chance) -> Case;

/// Deeper than any parser should recurse.
const DEPTH: usize = 100_000;

pub(super) const FAMILIES: &[(&str, Family)] = &[
    ("broken JSON", broken_json),
    ("wrong type of a property", wrong_type),
    ("data that is no object", no_object),
    ("data that does not fit", misfit),
    ("number that does not fit", wrong_number),
    ("number that is none", no_number),
    ("deep nesting", deep),
    ("invalid UTF-8", invalid_utf8),
    ("lone surrogate", lone_surrogate),
    ("odd id in the path", odd_id_in_path),
    ("odd id in the body", odd_id_in_body),
    ("odd model id", odd_model_id),
    ("odd filter", odd_filter),
    ("mangled filter", mangled_filter),
    ("odd page", odd_page),
    ("odd cursor", odd_cursor),
    ("odd events", odd_events),
    ("odd header", odd_header),
    ("odd media type", odd_media_type),
    ("duplicate member", duplicate_member),
    ("duplicate parameter or header", duplicate_parameter),
    ("unknown member", unknown_member),
    ("unknown parameter", unknown_parameter),
    ("method that is not there", wrong_method),
    ("route that is not there", wrong_route),
    ("no body", no_body),
    ("too large", too_large),
    ("odd schema", odd_schema),
    ("odd definition", odd_definition),
    ("odd hook", odd_hook),
    ("odd chain", odd_chain),
    ("odd error or secret", odd_operation),
    ("target that is not there", absent),
    ("import", odd_import),
];

/// The model that the requests use.
pub(super) fn model() -> Value {
    json!({"id": "order", "schema": schema(), "indexes": [["count"]], "unique": [["code"]]})
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 100},
            "count": {"type": "integer", "minimum": 0, "maximum": 1_000_000},
            "price": {"type": "number", "minimum": -1000, "maximum": 1000, "multipleOf": 0.01},
            "paid": {"type": "boolean"},
            "code": {"type": "string", "pattern": "^[a-z]{2}-[0-9]+$"},
            "day": {"type": "string", "format": "date"},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3, "uniqueItems": true},
            "customer": {"type": "object", "properties": {"name": {"type": "string"}}, "additionalProperties": false},
        },
        "required": ["name"],
        "additionalProperties": false,
    })
}

const COLLECTION: &str = "/models/order/instances";
const INSTANCE: &str = "/models/order/instances/a";

/// A write with this text as data.
fn write(chance: &mut Chance, data: &str) -> Case {
    match chance.below(3) {
        0 => Case::json("POST", COLLECTION, format!(r#"{{"data":{data}}}"#)),
        1 => Case::json("POST", COLLECTION, format!(r#"{{"id":"b","data":{data}}}"#)),
        _ => Case::json("PUT", INSTANCE, format!(r#"{{"data":{data}}}"#)),
    }
}

/// A write, or a patch, with this text.
fn write_or_patch(chance: &mut Chance, data: &str) -> Case {
    if chance.one_in(3) { Case::json("PATCH", INSTANCE, data) } else { write(chance, data) }
}

/// JSON with mutations that make it invalid.
pub(super) fn broken(chance: &mut Chance, body: &[u8]) -> Vec<u8> {
    const BYTES: &[u8] = b"{}[],:\"\\\0\x01\x1ftfnNI0-+.eE/'#\x7f\xff";
    let mut broken = body.to_vec();
    loop {
        let at = chance.below(broken.len());
        match chance.below(6) {
            0 => broken.truncate(at.max(1)),
            1 => drop(broken.remove(at)),
            2 => broken.insert(at, BYTES[chance.below(BYTES.len())]),
            3 => broken[at] = BYTES[chance.below(BYTES.len())],
            4 => broken.swap(at, 0),
            _ => broken.extend_from_slice(&body[at..]),
        }
        if broken.is_empty() {
            broken = body.to_vec();
        } else if serde_json::from_slice::<Value>(&broken).is_err() && !broken.iter().all(u8::is_ascii_whitespace) {
            return broken;
        }
    }
}

fn broken_json(chance: &mut Chance) -> Case {
    let data = r#"{"name":"x","count":12,"price":1.25,"paid":true,"tags":["a","b"],"customer":{"name":"ü\n"}}"#;
    let (method, target, body) = match chance.below(6) {
        0 => ("POST", COLLECTION, format!(r#"{{"id":"b","data":{data}}}"#)),
        1 => ("PUT", INSTANCE, format!(r#"{{"data":{data}}}"#)),
        2 => ("PATCH", INSTANCE, data.to_owned()),
        3 => ("POST", "/models", json!({"id": "other", "schema": schema()}).to_string()),
        4 => ("PUT", "/models/order", json!({"schema": schema(), "indexes": [["count"], ["name"]]}).to_string()),
        _ => (
            "PUT",
            "/models/order/hooks/preCreate",
            r#"{"chain":[{"engine":"quickjs","source":"export default () => {}"}]}"#.to_owned(),
        ),
    };
    Case::json(method, target, broken(chance, body.as_bytes()))
}

fn wrong_type(chance: &mut Chance) -> Case {
    let values: &[(&str, &[&str])] = &[
        ("name", &["1", "[]", "{}", "true", "[\"x\"]", "0"]),
        ("count", &["\"1\"", "true", "[]", "{}", "[1]"]),
        ("price", &["\"1\"", "false", "[]", "{}", "\"NaN\""]),
        ("paid", &["\"true\"", "0", "1", "[]", "{}"]),
        ("code", &["1", "[]", "{}", "true"]),
        ("tags", &["\"a\"", "{}", "1", "[1]", "[null]", "[[\"a\"]]"]),
        ("customer", &["\"x\"", "[]", "1", "true", "{\"name\":1}", "{\"name\":[]}"]),
    ];
    let (name, wrong) = values[chance.below(values.len())];
    let value = chance.pick(wrong);
    if name == "name" {
        return write_or_patch(chance, &format!(r#"{{"name":{value}}}"#));
    }
    write_or_patch(chance, &format!(r#"{{"name":"x","{name}":{value}}}"#))
}

fn no_object(chance: &mut Chance) -> Case {
    let data = chance.pick(&["[]", "\"x\"", "1", "true", "null", "[{\"name\":\"x\"}]", "-0.0", "\"\""]);
    write_or_patch(chance, data)
}

fn misfit(chance: &mut Chance) -> Case {
    let long = format!(r#"{{"name":"{}"}}"#, "ü".repeat(101));
    let data = chance.pick(&[
        r#"{"name":""}"#,
        &long,
        r#"{"name":"x","code":"A-1"}"#,
        r#"{"name":"x","code":"aa-"}"#,
        r#"{"name":"x","code":"aa-1\n"}"#,
        r#"{"name":"x","day":"2023-02-30"}"#,
        r#"{"name":"x","day":"yesterday"}"#,
        r#"{"name":"x","tags":["a","a"]}"#,
        r#"{"name":"x","tags":["a","b","c","d"]}"#,
        r#"{"name":"x","nope":1}"#,
        r#"{"name":"x","":1}"#,
        r#"{"name":"x","Name":"y"}"#,
        r#"{"name":"x","name ":"y"}"#,
        r#"{"name":"x","__proto__":{"paid":true}}"#,
        r#"{"name":"x","customer":{"nope":1}}"#,
        r#"{"name":"x","$ref":"file:///etc/passwd"}"#,
    ]);
    // A patch may omit required properties.
    if chance.one_in(8) { write(chance, r#"{"count":1}"#) } else { write_or_patch(chance, data) }
}

fn wrong_number(chance: &mut Chance) -> Case {
    let digits = "9".repeat(chance.within(10..20_000));
    let fraction = format!("0.{digits}");
    let exponent = format!("1e{}", "9".repeat(chance.within(1..20)));
    let value: &str = match chance.below(12) {
        0 => "1e400",
        1 => "-1e400",
        2 => "-1",
        3 => "1.5",
        4 => "1000001",
        5 => "1e999999999",
        6 => "-1E+99999999999999999999",
        7 => &digits,
        8 => &fraction,
        9 => &exponent.replacen("1e", "2e9", 1),
        10 => "-0.0000000000000000000000000000000000001",
        _ => "9007199254740993",
    };
    let name = chance.pick(&["count", "price"]);
    // Some of these values are valid prices.
    let value = if name == "price" && (value == "-1" || value == "1.5") { "1.005" } else { value };
    write_or_patch(chance, &format!(r#"{{"name":"x","{name}":{value}}}"#))
}

fn no_number(chance: &mut Chance) -> Case {
    let value = chance.pick(&[
        "01",
        "+1",
        ".5",
        "1.",
        "0x10",
        "NaN",
        "Infinity",
        "-Infinity",
        "1e",
        "1e+",
        "--1",
        "1_000",
        "-",
        "1e1.5",
        "٣",
        "1,5",
        "00",
        "-01",
        "1f",
        "1n",
        "²",
    ]);
    write_or_patch(chance, &format!(r#"{{"name":"x","count":{value}}}"#))
}

fn deep(chance: &mut Chance) -> Case {
    let (open, close) = match chance.below(4) {
        0 => ("[", "]"),
        1 => (r#"{"a":"#, "}"),
        2 => (r#"[{"a":"#, "}]"),
        _ => (" [ ", " ] "),
    };
    let depth = DEPTH / open.matches(['[', '{']).count();
    let inner = if open.contains(':') { "1" } else { "" };
    let close = if chance.one_in(3) { String::new() } else { close.repeat(depth) };
    let nested = format!("{}{inner}{close}", open.repeat(depth));
    match chance.below(8) {
        0 => Case::json("POST", COLLECTION, nested),
        1 => Case::json("POST", COLLECTION, format!(r#"{{"data":{nested}}}"#)),
        2 => Case::json("POST", COLLECTION, format!(r#"{{"data":{{"name":"x","customer":{nested}}}}}"#)),
        3 => Case::json("PUT", INSTANCE, format!(r#"{{"data":{{"name":"x","tags":{nested}}}}}"#)),
        4 => Case::json("PATCH", INSTANCE, format!(r#"{{"customer":{nested}}}"#)),
        5 => {
            Case::json("POST", "/models", format!(r#"{{"id":"deep","schema":{{"type":"object","default":{nested}}}}}"#))
        }
        6 => {
            let schema = format!("{}true{}", r#"{"properties":{"a":"#.repeat(DEPTH / 4), "}}".repeat(DEPTH / 4));
            Case::json("POST", "/models", format!(r#"{{"id":"deep","schema":{{"type":"object","not":{schema}}}}}"#))
        }
        _ => Case::json("PUT", "/models/order/hooks/preCreate", format!(r#"{{"chain":{nested}}}"#)),
    }
}

fn invalid_utf8(chance: &mut Chance) -> Case {
    const WRONG: &[&[u8]] = &[
        b"\xff",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xed\xa0\x80",
        b"\xf5\x80\x80\x80",
        b"\xf0\x80\x80\xaf",
        b"\xe2\x82",
        b"\x80",
        b"\xc3\x28",
        b"\xfe\xfe",
    ];
    let wrong = WRONG[chance.below(WRONG.len())];
    let (method, target, before, after): (_, _, &[u8], &[u8]) = match chance.below(5) {
        0 => ("POST", COLLECTION, br#"{"data":{"name":""#, br#""}}"#),
        1 => ("POST", COLLECTION, br#"{"id":""#, br#"","data":{"name":"x"}}"#),
        2 => ("PUT", INSTANCE, br#"{"data":{"name":"x","#, br#"":1}}"#),
        3 => ("PATCH", INSTANCE, br#"{"name":""#, br#""}"#),
        _ => ("POST", "/models", br#"{"id":"utf","schema":{"type":"object","title":""#, br#""}}"#),
    };
    Case::json(method, target, [before, wrong, after].concat())
}

fn lone_surrogate(chance: &mut Chance) -> Case {
    let text = chance.pick(&[
        r"\ud800",
        r"\udfff",
        r"a\ud800b",
        r"\udc00\ud800",
        r"\ud83d\u0041",
        r"\uD83D",
        r"\u12",
        r"\x41",
        r"\u{41}",
    ]);
    if chance.one_in(2) {
        write_or_patch(chance, &format!(r#"{{"name":"{text}"}}"#))
    } else {
        write_or_patch(chance, &format!(r#"{{"name":"x","{text}":1}}"#))
    }
}

/// Invalid instance ids, escaped for a path.
const ODD_IDS: &[&str] = &[
    "..",
    ".",
    "%2e%2e",
    "%2E",
    "..%2F..%2Fetc%2Fpasswd",
    "%00",
    "a%00",
    "%00a",
    "a%0a",
    "%20",
    "a%20b",
    "%2F",
    "a%2Fb",
    "%C3%BC",
    "%E2%80%AE",
    "%F0%9F%92%A9",
    "%FF",
    "%C0%AE%C0%AE",
    "%ED%A0%80",
    "%",
    "%4",
    "%zz",
    "%u0041",
    "-a",
    "_a",
    "~a",
    "a:b",
    "a;b=c",
    "a,b",
    "a@b",
    "a!b",
    "a'b",
    "a%22b",
    "a%5Cb",
    "a*",
    "(a)",
    "a%3Cscript%3E",
    "a%7Cb",
    "a%60b",
    "$(id)",
    "a&b",
    "a=b",
    "a+b",
    "a%25",
    "%EF%BC%A1",
    "A%CC%8A",
    "%E2%84%AA",
    "%09",
    "%7F",
];

fn long_id(chance: &mut Chance) -> String {
    "x".repeat([129, 200, 1000, 10_000, 40_000][chance.below(5)])
}

fn odd_id_in_path(chance: &mut Chance) -> Case {
    let id = if chance.one_in(8) { long_id(chance) } else { chance.pick(ODD_IDS).to_owned() };
    let target = format!("{COLLECTION}/{id}");
    match chance.below(6) {
        0 => Case::get(&target),
        1 => Case::json("PUT", &target, r#"{"data":{"name":"x"}}"#),
        2 => {
            let headers = [("Content-Type", "application/json"), ("If-None-Match", "*")];
            Case::new("PUT", &target, &headers, Some(br#"{"data":{"name":"x"}}"#))
        }
        3 => Case::json("PATCH", &target, r#"{"name":"x"}"#),
        4 => Case::new("DELETE", &target, &[], None),
        _ => Case::get(&format!("{target}/events")),
    }
}

fn odd_id_in_body(chance: &mut Chance) -> Case {
    let long = format!("\"{}\"", long_id(chance));
    let id = chance.pick(&[
        r#""""#,
        r#"" ""#,
        r#""a b""#,
        r#""ü""#,
        r#""a/b""#,
        r#""..""#,
        r#"".""#,
        r#""\u0000""#,
        r#""a\u0000""#,
        r#""-a""#,
        r#""_a""#,
        r#""a\n""#,
        r#""a%2Fb""#,
        r#""\u202ea""#,
        r#""💩""#,
        r#""a:b""#,
        r#""a\"b""#,
        r#""a\\b""#,
        r#""Ａ""#,
        "5",
        "{}",
        "[]",
        "true",
        "1.5",
        r#"["a"]"#,
        &long,
    ]);
    Case::json("POST", COLLECTION, format!(r#"{{"id":{id},"data":{{"name":"x"}}}}"#))
}

fn odd_model_id(chance: &mut Chance) -> Case {
    let long = "m".repeat(chance.within(64..5000));
    if chance.one_in(2) {
        let id = chance.pick(&[
            "",
            " ",
            "A",
            "Order",
            "-a",
            "_a",
            "a.b",
            "a/b",
            "a b",
            "ü",
            "..",
            "a\u{0}",
            "a\n",
            "order\u{301}",
            "a'--",
            &long,
        ]);
        return Case::json("POST", "/models", json!({"id": id, "schema": {"type": "object"}}).to_string());
    }
    let id = chance.pick(&[
        "A", "Order", "-a", "_a", "a.b", "a%2Fb", "%20", "%C3%BC", "..", "%2e%2e", "%00", "order%00", "%FF", "%", &long,
    ]);
    match chance.below(6) {
        0 => Case::get(&format!("/models/{id}")),
        1 => Case::get(&format!("/models/{id}/instances")),
        2 => Case::get(&format!("/models/{id}/hooks/preCreate/{}", chance.pick(&["log", "history", "source"]))),
        3 => Case::json("PUT", &format!("/models/{id}"), r#"{"schema":{"type":"object"}}"#),
        4 => Case::new("DELETE", &format!("/models/{id}?cascade=true"), &[], None),
        _ => Case::json("POST", &format!("/models/{id}/instances"), r#"{"data":{"name":"x"}}"#),
    }
}

const ODD_FILTERS: &[&str] = &[
    "filter[nope][eq]=1",
    "filter[name][nope]=1",
    "filter[name][EQ]=1",
    "filter[name]=1",
    "filter[]=1",
    "filter[][eq]=1",
    "filter=1",
    "filter[name][eq][eq]=1",
    "filter[name][]=1",
    "filter%5Bname%5D%5Beq=1",
    "filter[count][eq]=many",
    "filter[count][gt]=",
    "filter[count][gt]=1e",
    "filter[count][gt]=0x10",
    "filter[count][gt]=NaN",
    "filter[count][gt]=Infinity",
    "filter[count][in]=1,two",
    "filter[price][lte]=1,5",
    "filter[paid][eq]=yes",
    "filter[paid][eq]=1",
    "filter[name][exists]=perhaps",
    "filter[name][exists]=",
    "filter[customer.nope][eq]=1",
    "filter[name.first][eq]=1",
    "filter[data.name][eq]=1",
    "filter[name%00][eq]=1",
    "filter[name'--][eq]=1",
    "filter[%22name%22][eq]=1",
    "filter[name][eq]=%FF",
    "filter[name][eq]=%",
    "filter[%C3%28][eq]=1",
    "filters[name][eq]=1",
    "Filter[name][eq]=1",
];

fn odd_filter(chance: &mut Chance) -> Case {
    let filter = chance.pick(ODD_FILTERS);
    match chance.below(3) {
        0 => Case::get(&format!("{COLLECTION}?{filter}")),
        1 => Case::get(&format!("{COLLECTION}?limit=10&filter[count][gte]=0&{filter}")),
        _ => Case::get(&format!("{COLLECTION}?{filter}&count=true")),
    }
}

/// A valid filter with one character replaced.
fn mangled_filter(chance: &mut Chance) -> Case {
    let mut text = "filter[count][gte]=12".to_owned();
    // If the text before `=` is damaged, the parameter may be unknown.
    let at = chance.below("filter[count][gte]".len());
    let with = chance.pick(&["z", "%00", "[", "]", "%5D%5D", ".", "%22", "'", "%F0%9F%92%A9", "Z"]);
    let with = if text[at..].starts_with(with) { "z" } else { with };
    text.replace_range(at..=at, with);
    Case::get(&format!("{COLLECTION}?{text}"))
}

fn odd_page(chance: &mut Chance) -> Case {
    let query = chance.pick(&[
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=+5",
        "limit=1e2",
        "limit=5.0",
        "limit=",
        "limit=abc",
        "limit=%20",
        "limit=0x10",
        "limit=99999999999999999999999999",
        "limit=5;6",
        "limit=%EF%BC%95",
        "limit[]=5",
        "sort=nope",
        "sort=",
        "sort=-",
        "sort=--name",
        "sort=name,,count",
        "sort=,name",
        "sort=name,nope",
        "sort=name%00",
        "sort=name%20desc",
        "sort=+name",
        "sort=customer.nope",
        "sort=%FF",
        "fields=",
        "count=yes",
        "count=1",
        "count=",
        "count=TRUE",
    ]);
    Case::get(&format!("{COLLECTION}?{query}"))
}

fn odd_cursor(chance: &mut Chance) -> Case {
    let random: String = (0..chance.within(1..200)).map(|_| char::from(b"abcXYZ019-_"[chance.below(11)])).collect();
    let long = "A".repeat(20_000);
    let cursor = match chance.below(10) {
        0 => "",
        1 => "%00",
        2 => "%FF",
        3 => "null",
        4 => "bnVsbA",
        5 => "W10",
        6 => "eyJpZCI6ImEifQ==",
        7 => &long,
        8 => "..%2F..",
        _ => &random,
    };
    let sort = chance.pick(&["", "&sort=count", "&sort=-name"]);
    Case::get(&format!("{COLLECTION}?cursor={cursor}{sort}"))
}

fn odd_events(chance: &mut Chance) -> Case {
    let target = chance.pick(&[
        "/events?after=-1",
        "/events?after=x",
        "/events?after=1.5",
        "/events?after=99999999999999999999999",
        "/events?after=",
        "/events?limit=0",
        "/events?limit=100000",
        "/events?type=nope",
        "/events?type=",
        "/events?type=instance.created,",
        "/events?model=UPPER",
        "/events?model=",
        "/events?instance=a",
        "/events?model=order&instance=%20",
        "/events?from=1",
        "/events/stream?after=x",
        "/events/stream?after=-1",
        "/events/stream?type=nope",
        "/events/stream?limit=5",
        "/events/stream?model=%FF",
        "/models/order/instances/a/events?after=x",
        "/models/order/instances/a/events?limit=0",
        "/models/order/instances/a?at=",
        "/models/order/instances/a?at=yesterday",
        "/models/order/instances/a?at=-1",
        "/models/order/instances/a?at=1.5",
        "/models/order/instances/a?at=2023-13-01T00:00:00Z",
        "/models/order/instances/a?at=2023-01-01",
        "/models/order/instances/a?at=99999999999999999999999999",
        "/models/order/instances/a?at=1969-01-01T00:00:00Z",
        "/models/order/instances/a?at=0",
        "/models/order?version=0",
        "/models/order?version=-1",
        "/models/order?version=2",
        "/models/order?version=99999999999999999999",
        "/models/order?version=x",
        "/models/order?version=",
    ]);
    Case::get(target)
}

fn odd_header(chance: &mut Chance) -> Case {
    let body = br#"{"data":{"name":"x"}}"#;
    let json = ("Content-Type", "application/json");
    let long = "k".repeat(chance.within(256..5000));
    match chance.below(6) {
        0 | 1 => {
            let tag = chance.pick(&[
                "",
                "1",
                "\"1",
                "1\"",
                "\"\"1\"\"",
                "*, \"1\"",
                "\"1\" \"2\"",
                "w/\"1\"",
                "W/\"1\"",
                "\"999999\"",
                "\"-1\"",
                "\"abc\"",
                "\"99999999999999999999999\"",
                "\"01\"",
                "'1'",
                "{}",
                ",",
                "\"1\";q=1",
                "\"0\"",
            ]);
            match chance.below(3) {
                0 => Case::new("PUT", INSTANCE, &[json, ("If-Match", tag)], Some(body)),
                1 => Case::new("DELETE", INSTANCE, &[("If-Match", tag)], None),
                _ => Case::new(
                    "PATCH",
                    INSTANCE,
                    &[("Content-Type", "application/merge-patch+json"), ("If-Match", tag)],
                    Some(br#"{"name":"x"}"#),
                ),
            }
        }
        2 => {
            let tag = chance.pick(&["*", "\"1\"", "1", "", "W/\"1\"", "*, *", "\"1", "nope"]);
            Case::new("PUT", INSTANCE, &[json, ("If-None-Match", tag)], Some(body))
        }
        3 => {
            let key = chance.pick(&["", " ", "a b", "ü", "a\tb", &long]);
            Case::new("POST", COLLECTION, &[json, ("Idempotency-Key", key)], Some(body))
        }
        4 => {
            let id = chance.pick(&["x", "-1", "1.5", "", "99999999999999999999999", "1,2", "ü", "0x1"]);
            Case::new("GET", "/events/stream", &[("Last-Event-ID", id)], None)
        }
        _ => Case::new("PUT", INSTANCE, &[json, ("If-Match", "\"1\""), ("If-None-Match", "*")], Some(body)),
    }
}

fn odd_media_type(chance: &mut Chance) -> Case {
    let kind = chance.pick(&[
        "text/plain",
        "text/html",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=latin1",
        "application/json; charset=utf-16",
        "application",
        "json",
        "application/jsonn",
        "*/*",
        "application/json, text/plain",
        "ü/ü",
        "application/json-patch+json",
        "application/octet-stream",
    ]);
    let body: &[u8] = br#"{"data":{"name":"x"}}"#;
    match chance.below(6) {
        0 => Case::new("POST", COLLECTION, &[("Content-Type", kind)], Some(body)),
        1 => Case::new("PUT", INSTANCE, &[("Content-Type", kind)], Some(body)),
        2 => {
            let kind = chance.pick(&["application/json", kind]);
            Case::new("PATCH", INSTANCE, &[("Content-Type", kind)], Some(br#"{"name":"x"}"#))
        }
        3 => Case::new(
            "PUT",
            "/models/order/hooks/preCreate",
            &[("Content-Type", kind)],
            Some(b"export default () => {}"),
        ),
        4 => {
            let encoding = chance.pick(&["gzip", "br", "deflate", "compress", "x"]);
            let headers = [("Content-Type", "application/json"), ("Content-Encoding", encoding)];
            Case::new("POST", COLLECTION, &headers, Some(body))
        }
        _ => Case::new("POST", "/models/order/import", &[("Content-Type", kind)], Some(b"{}\n")),
    }
}

fn duplicate_member(chance: &mut Chance) -> Case {
    match chance.below(6) {
        0 => Case::json("POST", COLLECTION, r#"{"data":{"name":"x"},"data":{"name":"y"}}"#),
        1 => Case::json("POST", COLLECTION, r#"{"id":"b","data":{"name":"x"},"id":"c"}"#),
        2 => Case::json("POST", "/models", r#"{"id":"dup","schema":{"type":"object"},"schema":{"type":"object"}}"#),
        3 => Case::json("PUT", "/models/order", r#"{"schema":{"type":"object"},"unique":[],"unique":[]}"#),
        _ => {
            let data = chance.pick(&[
                r#"{"name":"x","name":"x"}"#,
                r#"{"name":"x","n\u0061me":"y"}"#,
                r#"{"name":"x","customer":{"name":"a","name":"b"}}"#,
                r#"{"name":"x","count":1,"paid":true,"count":1}"#,
            ]);
            write_or_patch(chance, data)
        }
    }
}

fn duplicate_parameter(chance: &mut Chance) -> Case {
    let body = br#"{"data":{"name":"x"}}"#;
    let json = ("Content-Type", "application/json");
    match chance.below(8) {
        0 => Case::get(&format!("{COLLECTION}?limit=5&limit=5")),
        1 => Case::get(&format!("{COLLECTION}?count=true&count=false")),
        2 => Case::get(&format!("{COLLECTION}?cursor=a&cursor=b")),
        3 => Case::get("/events?after=1&after=2"),
        4 => Case::get(&format!("{INSTANCE}?at=1&%61t=1")),
        5 => Case::new("POST", COLLECTION, &[json, ("Idempotency-Key", "a"), ("Idempotency-Key", "b")], Some(body)),
        6 => Case::new("PUT", INSTANCE, &[json, ("If-Match", "*"), ("If-Match", "\"1\"")], Some(body)),
        _ => Case::new("POST", &format!("{COLLECTION}?dry-run=false&dry-run=false"), &[json], Some(body)),
    }
}

fn unknown_member(chance: &mut Chance) -> Case {
    let name = chance.pick(&[
        "foo",
        "Data",
        "data ",
        "",
        "__proto__",
        "$schema",
        "\\u0000",
        "revision",
        "position",
        "if_match",
    ]);
    match chance.below(6) {
        0 => Case::json("POST", COLLECTION, format!(r#"{{"data":{{"name":"x"}},"{name}":1}}"#)),
        1 => Case::json("PUT", INSTANCE, format!(r#"{{"{name}":null,"data":{{"name":"x"}}}}"#)),
        2 => Case::json("PUT", INSTANCE, r#"{"id":"a","data":{"name":"x"}}"#),
        3 => Case::json("POST", "/models", format!(r#"{{"id":"more","schema":{{"type":"object"}},"{name}":1}}"#)),
        4 => Case::json("PUT", "/models/order", format!(r#"{{"schema":{{"type":"object"}},"{name}":1}}"#)),
        _ => Case::json("PUT", "/models/order/hooks/preCreate", format!(r#"{{"chain":[],"{name}":1}}"#)),
    }
}

fn unknown_parameter(chance: &mut Chance) -> Case {
    let query = chance.pick(&[
        "foo=1",
        "foo",
        "LIMIT=5",
        "dry_run=true",
        "dryrun=true",
        "=1",
        "%00=1",
        "limit%00=5",
        "__proto__=1",
        "dry-run=perhaps",
    ]);
    match chance.below(5) {
        0 => Case::get(&format!("{COLLECTION}?{query}")),
        1 => Case::get(&format!("{INSTANCE}?{query}")),
        2 => Case::get(&format!("/models/order?{query}")),
        3 => Case::json("POST", &format!("{COLLECTION}?{query}"), r#"{"data":{"name":"x"}}"#),
        _ => Case::new("DELETE", &format!("{INSTANCE}?{query}"), &[], None),
    }
}

fn wrong_method(chance: &mut Chance) -> Case {
    let (method, target) = [
        ("DELETE", COLLECTION),
        ("PUT", COLLECTION),
        ("PATCH", COLLECTION),
        ("POST", INSTANCE),
        ("PATCH", "/models/order"),
        ("POST", "/models/order"),
        ("DELETE", "/models"),
        ("PUT", "/models"),
        ("PUT", "/events"),
        ("POST", "/events/stream"),
        ("DELETE", "/models/order/instances/a/events"),
        ("PUT", "/models/order/instances/a/referring/order"),
        ("GET", "/models/order/import"),
        ("POST", "/models/order/hooks"),
        ("PATCH", "/models/order/hooks/preCreate"),
        ("DELETE", "/rebuild"),
        ("GET", "/hooks/check/preCreate"),
        ("POST", "/errors"),
        ("PUT", "/errors/01890a5d-ac96-774b-bcce-b302099a8057"),
        ("GET", "/errors/retry"),
        ("POST", "/secrets"),
        ("POST", "/healthz"),
        ("DELETE", "/metrics"),
        ("FOO", "/models"),
        ("TRACE", "/models"),
        ("get", "/models"),
        ("PROPFIND", COLLECTION),
    ][chance.below(27)];
    Case::new(method, target, &[], None)
}

fn wrong_route(chance: &mut Chance) -> Case {
    let random: String = (0..chance.within(1..100)).map(|_| char::from(b'a' + chance.below(26) as u8)).collect();
    let deep = "/a".repeat(chance.within(9..5000));
    let target = match chance.below(4) {
        0 => format!("/{random}"),
        1 => format!("/models/order/{random}"),
        2 => deep,
        _ => chance
            .pick(&[
                "/",
                "//",
                "//models",
                "/models/",
                "/models//instances",
                "/Models",
                "/models/order/",
                "/models/order/instances/",
                "/models/order/instances/a/",
                "/models/order/instances/a/b",
                "/models/order/instances/a/events/1",
                "/..",
                "/%2e%2e/etc/passwd",
                "/models%2Forder",
                "/models/order/hooks/preCreate/nope",
                "/models/order/hooks/preCreate/log/1",
                "/batches",
                "/token",
                "/openapi.json/",
                "/console/",
                "/%00",
                "/%FF",
                "/%",
                "/models\\order",
                "/.git/config",
                "/events/",
                "/events/stream/x",
                "/errors/",
                "/healthz/x",
            ])
            .to_owned(),
    };
    Case::get(&target)
}

fn no_body(chance: &mut Chance) -> Case {
    let body = chance.pick(&["", " ", "\n\t ", "null", "1", "\"x\"", "[]", "{}", "true", "\u{feff}{}", "\0"]);
    match chance.below(4) {
        0 => Case::json("POST", COLLECTION, body),
        1 => Case::json("PUT", INSTANCE, body),
        2 => Case::json("POST", "/models", body),
        _ => Case::json("PUT", "/models/order/hooks/postCreate", body),
    }
}

fn too_large(chance: &mut Chance) -> Case {
    let name = "x".repeat((1 << 20) + chance.below(1 << 20));
    match chance.below(4) {
        0 => Case::json("POST", COLLECTION, format!(r#"{{"data":{{"name":"{name}"}}}}"#)),
        1 => Case::json("PATCH", INSTANCE, format!(r#"{{"name":"{name}"}}"#)),
        2 => Case::new(
            "PUT",
            "/models/order/hooks/preCreate",
            &[("Content-Type", "text/javascript")],
            Some(name.as_bytes()),
        ),
        _ => {
            // A chunked body has no declared length.
            let mut case = Case::new(
                "POST",
                COLLECTION,
                &[("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")],
                None,
            );
            for chunk in name.as_bytes().chunks(60_000) {
                case.wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                case.wire.extend_from_slice(chunk);
                case.wire.extend_from_slice(b"\r\n");
            }
            case.wire.extend_from_slice(b"0\r\n\r\n");
            case
        }
    }
}

fn odd_schema(chance: &mut Chance) -> Case {
    let schema = chance.pick(&[
        "5",
        "[]",
        "\"x\"",
        "null",
        "true",
        "{}",
        r#"{"type":"array"}"#,
        r#"{"type":"objekt"}"#,
        r#"{"type":["object","null"]}"#,
        r#"{"type":"object","properties":5}"#,
        r#"{"type":"object","properties":{"a":5}}"#,
        r#"{"type":"object","properties":{"a":{"type":"nope"}}}"#,
        r#"{"type":"object","properties":{"a":{"pattern":"("}}}"#,
        r#"{"type":"object","properties":{"a":{"minimum":"1"}}}"#,
        r#"{"type":"object","required":"a"}"#,
        r#"{"type":"object","required":[1]}"#,
        r#"{"type":"object","$ref":"http://127.0.0.1:1/x"}"#,
        r#"{"type":"object","properties":{"a":{"$ref":"file:///etc/passwd"}}}"#,
        r#"{"type":"object","properties":{"a":{"$ref":"other.json"}}}"#,
        r##"{"type":"object","properties":{"a":{"$ref":"#/nope"}}}"##,
        r#"{"type":"object","$schema":"http://127.0.0.1/x"}"#,
        r#"{"type":"object","$schema":5}"#,
        r#"{"type":"object","multipleOf":0}"#,
        r#"{"type":"object","properties":{"a":{"maxLength":-1}}}"#,
        r#"{"type":"object","properties":{"a":{},"a":{}}}"#,
    ]);
    if chance.one_in(2) {
        Case::json("POST", "/models", format!(r#"{{"id":"odd","schema":{schema}}}"#))
    } else {
        Case::json("PUT", "/models/order", format!(r#"{{"schema":{schema}}}"#))
    }
}

fn odd_definition(chance: &mut Chance) -> Case {
    let extra = chance.pick(&[
        r#""indexes":"name""#,
        r#""indexes":[[]]"#,
        r#""indexes":[["nope"]]"#,
        r#""indexes":[[5]]"#,
        r#""indexes":["name"]"#,
        r#""indexes":{}"#,
        r#""indexes":[["--name"]]"#,
        r#""indexes":[["name","name"]]"#,
        r#""unique":"name""#,
        r#""unique":[[]]"#,
        r#""unique":[["nope"]]"#,
        r#""unique":[["-name"]]"#,
        r#""unique":[[null]]"#,
        r#""unique":[["name","name"]]"#,
        r#""renames":[]"#,
        r#""renames":{"name":5}"#,
        r#""renames":{"nope":"name"}"#,
        r#""renames":{"name":"nope"}"#,
        r#""renames":{"":"name"}"#,
        r#""renames":{"name":"count","count":"count"}"#,
    ]);
    match chance.below(6) {
        0 | 1 => Case::json("PUT", "/models/order", format!(r#"{{"schema":{},{extra}}}"#, schema())),
        2 => Case::json("POST", "/models", format!(r#"{{"id":"odd","schema":{},{extra}}}"#, schema())),
        3 => Case::json("POST", "/models", r#"{"id":"odd"}"#),
        4 => Case::json("POST", "/models", r#"{"schema":{"type":"object"}}"#),
        // The existing instance does not match the schema.
        _ => Case::json(
            "PUT",
            "/models/order",
            r#"{"schema":{"type":"object","properties":{"name":{"type":"string","maxLength":2}}}}"#,
        ),
    }
}

fn odd_hook(chance: &mut Chance) -> Case {
    let good = "export default function () {}";
    let put = |target: &str, kind: &str, body: &[u8]| {
        Case::new("PUT", &format!("/models/order/hooks/{target}"), &[("Content-Type", kind)], Some(body))
    };
    match chance.below(6) {
        0 => {
            let phase = chance.pick(&[
                "precreate",
                "create",
                "preRead",
                "PRECREATE",
                "%00",
                "preCreate%20",
                "pre-create",
                "0",
                "preCreate,postCreate",
            ]);
            put(phase, "text/javascript", good.as_bytes())
        }
        1 => {
            let source = chance.pick(&[
                "export default function ( {}",
                "export default",
                "let let = 1;",
                "import x from 'y'; export default () => {}",
                "function () {}",
                "export default () => { return `; }",
                "\u{0}",
                "export const preCreate = 5 5;",
                "#!x\n(",
                "export { x };",
                "'unterminated",
                "/* open",
                "return 5",
                "await = 5;",
                "export default () => { break; }",
                "",
                "const a = 1;",
                "export function postDelete() {}",
            ]);
            put("preCreate", "text/javascript", source.as_bytes())
        }
        2 => {
            let source = chance.pick(&[
                "export default (x: ) => {}",
                "let x: number = ;",
                "enum { A }",
                "interface",
                "type = 5;",
            ]);
            put("preCreate", "application/typescript", source.as_bytes())
        }
        3 => {
            let mut bytes: Vec<u8> = (0..chance.within(0..3000)).map(|_| chance.next() as u8).collect();
            if chance.one_in(2) {
                bytes.splice(0..0, *b"\0asm\x01\0\0\0");
            } else if chance.one_in(2) {
                bytes.splice(0..0, *b"\0asm\x0d\0\x01\0");
            }
            put("preCreate", "application/wasm", &bytes)
        }
        4 => {
            let query = chance.pick(&[
                "engine=nope",
                "engine=v8",
                "engine=native",
                "engine=",
                "engine=component",
                "name=",
                "name=a%2Fb",
                "name=%00",
                "name=..%2Fx",
                "mode=on",
            ]);
            put(&format!("preCreate?{query}"), "text/javascript", good.as_bytes())
        }
        _ => put("preCreate", "text/javascript", b"export default () => '\xff'"),
    }
}

fn odd_chain(chance: &mut Chance) -> Case {
    let chain = chance.pick(&[
        "5",
        "null",
        "{}",
        "[5]",
        "[null]",
        "[{}]",
        r#"[{"engine":"quickjs"}]"#,
        r#"[{"engine":"quickjs","source":5}]"#,
        r#"[{"engine":"nope","source":"export default () => {}"}]"#,
        r#"[{"engine":"quickjs","source":"export default () => {}","artifact":"x"}]"#,
        r#"[{"engine":"quickjs","artifact":"sha256:00"}]"#,
        r#"[{"engine":"quickjs","artifact":"../../etc/passwd"}]"#,
        r#"[{"engine":"quickjs","artifact":"/etc/passwd"}]"#,
        r#"[{"engine":"quickjs","artifact":"nope.js"}]"#,
        r#"[{"engine":"component","artifact":"0000000000000000000000000000000000000000000000000000000000000000"}]"#,
        r#"[{"engine":"native","library":"libc.so.6"}]"#,
        r#"[{"engine":"native","library":"../x.so"}]"#,
        r#"[{"engine":"quickjs","source":"export default () => {}","mode":"loud"}]"#,
        r#"[{"engine":"quickjs","source":"export default () => {}","name":""}]"#,
        r#"[{"engine":"quickjs","source":"export default () => {}","name":"a/b"}]"#,
        r#"[{"engine":"quickjs","source":"export default () => {}","name":"a"},{"engine":"quickjs","source":"export default () => {}","name":"a"}]"#,
        r#"[{"engine":"quickjs","source":"export default () => {}"},{"engine":"quickjs","source":"export default ("}]"#,
    ]);
    let phase = chance.pick(&["preCreate", "postCreate", "preDelete"]);
    Case::json("PUT", &format!("/models/order/hooks/{phase}"), format!(r#"{{"chain":{chain}}}"#))
}

fn odd_operation(chance: &mut Chance) -> Case {
    const GONE: &str = "/errors/01890a5d-ac96-774b-bcce-b302099a8057";
    match chance.below(5) {
        0 => {
            let method = chance.pick(&["GET", "DELETE"]);
            Case::new(
                method,
                chance.pick(&["/errors/nope", "/errors/%00", "/errors/-1", "/errors/%20", GONE]),
                &[],
                None,
            )
        }
        1 => Case::new(
            "POST",
            chance.pick(&["/errors/nope/retry", "/errors/..%2F/retry", &format!("{GONE}/retry")]),
            &[],
            None,
        ),
        2 => Case::get(chance.pick(&[
            "/errors?after=x",
            "/errors?limit=0",
            "/errors?model=UPPER",
            "/errors?foo=1",
            "/errors?hook=",
            "/errors?limit=x",
        ])),
        3 => Case::new(
            "POST",
            chance.pick(&[
                "/errors/retry?dry-run=perhaps",
                "/errors/retry?foo=1",
                "/errors/retry?model=%FF",
                "/rebuild?foo=1",
            ]),
            &[],
            None,
        ),
        _ => {
            let long = "s".repeat(129);
            let name = chance.pick(&["%00", "a%2Fb", "..", "%20", "-a", "%C3%BC", "a%20b", &long]);
            let method = chance.pick(&["PUT", "DELETE"]);
            Case::new(method, &format!("/secrets/{name}"), &[], Some(b"value"))
        }
    }
}

fn absent(chance: &mut Chance) -> Case {
    let body = r#"{"data":{"name":"x"}}"#;
    match chance.below(9) {
        0 => Case::get(&format!("{COLLECTION}/nope")),
        1 => Case::json("PUT", &format!("{COLLECTION}/nope"), body),
        2 => Case::json("PATCH", &format!("{COLLECTION}/nope"), r#"{"name":"x"}"#),
        3 => Case::new("DELETE", &format!("{COLLECTION}/nope"), &[], None),
        4 => Case::get(&format!("{COLLECTION}/nope/events")),
        5 => Case::json("POST", "/models/nope/instances", body),
        6 => Case::json("POST", COLLECTION, r#"{"id":"a","data":{"name":"x"}}"#),
        7 => Case::new("DELETE", "/models/order", &[], None),
        _ => Case::new(
            "DELETE",
            chance.pick(&["/models/nope", "/models/nope/hooks/preCreate", "/secrets/nope"]),
            &[],
            None,
        ),
    }
}

fn odd_import(chance: &mut Chance) -> Case {
    let line = b"{\"data\":{\"name\":\"x\"}}\n";
    let ndjson = ("Content-Type", "application/x-ndjson");
    match chance.below(5) {
        0 => Case::new("POST", "/models/nope/import", &[ndjson], Some(line)),
        1 => Case::new("POST", "/models/UPPER/import", &[ndjson], Some(line)),
        2 => Case::new("POST", "/models/order/import", &[ndjson, ("If-Match", "\"1\"")], Some(line)),
        3 => Case::new("POST", "/models/order/import?foo=1", &[ndjson], Some(line)),
        _ => Case::new("POST", "/models/order/import", &[ndjson, ("Content-Encoding", "gzip")], Some(line)),
    }
}
