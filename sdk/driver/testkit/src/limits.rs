//! Cases for the limits that all stores share: everything within them can be applied and searched for.

use snaphook_driver::limits::{
    INSTANCE_ID_BYTES_MAX, LIST_LENGTH_MAX, LISTS_MAX, MODEL_ID_BYTES_MAX, NESTING_MAX, NUMBER_BYTES_MAX,
    PAYLOAD_BYTES_MAX, PROPERTY_NAME_BYTES_MAX, check_data,
};
use snaphook_driver::{
    Budget, CarryOver, ColumnKind, EventKind, InstanceQuery, ModelStore, Operator, Position, SortKey,
};

use crate::Subject;
use crate::hostile;
use crate::model::{condition, define, ids};
use crate::sample::{Random, change, shape};

const NAMES: [&str; 6] = ["a", "b", "n", "s", "deep", "a\0"];

/// A model with the maximum number of indexes, over the properties of the data below.
async fn open(subject: &Subject) -> std::sync::Arc<dyn ModelStore> {
    let store = subject.model().await;
    let kinds = [ColumnKind::Any, ColumnKind::Integer, ColumnKind::Number, ColumnKind::Text, ColumnKind::Boolean];
    let columns: Vec<(&str, ColumnKind)> = NAMES.iter().enumerate().map(|(at, name)| (*name, kinds[at % 5])).collect();
    let mut shape = shape("m", 1, &columns, &[]);
    let key = |number: usize, place: usize| SortKey {
        path: vec![NAMES[(number + place) % NAMES.len()].to_owned(), place.to_string()][..1 + place % 2]
            .to_vec()
            .into(),
        descending: number.is_multiple_of(2),
    };
    shape.indexes = (0..LISTS_MAX)
        .map(|number| (0..1 + number % LIST_LENGTH_MAX).map(|place| key(number, place)).collect())
        .collect();
    shape.unique = NAMES.iter().map(|name| vec![(*name).to_owned()]).collect();
    define(&*store, &shape, 1).await;
    store
}

async fn apply(store: &dyn ModelStore, position: Position, text: &str, what: &str) {
    assert!(check_data(text).is_ok(), "{what} is within the limits");
    let event = change(EventKind::InstanceCreated, position, "m", &format!("i{position:06}"), Some(text));
    let shown: String = text.chars().take(300).collect();
    store.apply(0, &[event], position).await.unwrap_or_else(|error| panic!("{what}: {error}: {shown}"));
    let found = store.get("m", &format!("i{position:06}")).await.unwrap().unwrap();
    assert!(found.data.as_str() == text, "{what}");
}

async fn can_be_asked(store: &dyn ModelStore, count: usize) {
    for name in NAMES {
        for descending in [false, true] {
            let sort = vec![SortKey { path: vec![name.to_owned()].into(), descending }];
            let query = InstanceQuery { sort, limit: 1000, ..InstanceQuery::default() };
            assert!(!store.query("m", &query, &Budget::unlimited()).await.unwrap().items.is_empty());
        }
        let there = ids(store, "m", &[condition(&[name], Operator::Exists(true))]).await.len();
        let absent =
            store.count("m", &condition(&[name], Operator::Exists(false)).into(), &Budget::unlimited()).await.unwrap()
                as usize;
        assert!(there == 1000 || there + absent == count, "{there} + {absent} of {count}");
    }
}

pub async fn what_is_at_a_limit_is_taken(subject: &Subject) {
    let store = open(subject).await;
    let nested = |depth: usize| format!("{{\"deep\":{}1{}}}", "{\"0\":".repeat(depth - 1), "}".repeat(depth - 1));
    let arrays = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    let digits = "7".repeat(NUMBER_BYTES_MAX);
    let many: Vec<String> = (0..100_000).map(|number| format!("\"p{number}\":{number}")).collect();
    let mut position = 1;
    for (what, text) in [
        ("objects", nested(NESTING_MAX)),
        ("arrays", arrays(NESTING_MAX)),
        ("a name", format!("{{\"{}\":1}}", "n".repeat(PROPERTY_NAME_BYTES_MAX - 2))),
        ("a number", format!("{{\"n\":{digits}}}")),
        ("a fraction", format!("{{\"n\":-0.{}}}", &digits[..NUMBER_BYTES_MAX - 3])),
        // The JSON reader accepts no more digits in an exponent.
        ("an exponent", format!("{{\"n\":1e-{}}}", &digits[..15])),
        ("a large exponent", format!("{{\"n\":1E+{}}}", &digits[..15])),
        ("a payload", format!("{{\"s\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES_MAX - 8))),
        ("many properties", format!("{{{}}}", many.join(","))),
        ("nothing", "{}".to_owned()),
    ] {
        position += 1;
        apply(&*store, position, &text, what).await;
    }
    can_be_asked(&*store, position as usize - 1).await;
    let model = "m".repeat(MODEL_ID_BYTES_MAX);
    let id = "i".repeat(INSTANCE_ID_BYTES_MAX);
    store.define(0, None, &shape(&model, 1, &[], &[]), &CarryOver::default(), position + 1).await.unwrap();
    let event = change(EventKind::InstanceCreated, position + 2, &model, &id, Some("{}"));
    store.apply(0, &[event], position + 2).await.unwrap();
    assert_eq!(ids(&*store, &model, &[]).await, [id]);
    store.close().await.unwrap();
}

/// Accepts random data that uses all features of JSON.
pub async fn random_data_is_taken(subject: &Subject) {
    let count = subject.share(1500);
    let store = open(subject).await;
    let names = hostile::properties();
    for number in 0..count {
        let mut random = Random::new(number as u64 + 1);
        let mut text = String::from("{");
        for (place, name) in NAMES.iter().enumerate() {
            if random.below(3) == 0 {
                continue;
            }
            if text.len() > 1 {
                text.push(',');
            }
            let name = if (number + place) % 4 == 0 { hostile::escaped(name) } else { quoted(name) };
            text.push_str(&name);
            text.push_str([":", " : ", ":\t"][place % 3]);
            value(&mut random, &names, NESTING_MAX - 1, &mut text);
        }
        text.push('}');
        apply(&*store, number as Position + 2, &text, &format!("seed {}", number + 1)).await;
    }
    can_be_asked(&*store, count).await;
    store.close().await.unwrap();
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn value(random: &mut Random, names: &[String], depth: usize, out: &mut String) {
    const SCALARS: [&str; 24] = [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-0.0",
        "1.0",
        "1e5",
        "1E+5",
        "-1e-5",
        "1e400",
        "-1e400",
        "1e-400",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551616",
        "0.1000000000000000055511151231257827",
        "123456789012345678901234567890.12345",
        "\"\"",
        "\"\\u0000\"",
        "\"a\\u0000b\"",
        "\"\\ud83c\\udf88\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
    ];
    match random.below(12) {
        0..2 if depth > 0 => {
            out.push('[');
            for item in 0..random.below(4) {
                out.push_str(if item > 0 { " , " } else { "" });
                value(random, names, depth - 1, out);
            }
            out.push(']');
        }
        2..4 if depth > 0 => {
            let mut seen = std::collections::HashSet::new();
            out.push('{');
            for _ in 0..random.below(4) {
                let name = random.pick(names);
                if name.len() < 2000 && seen.insert(name) {
                    out.push_str(if seen.len() > 1 { "," } else { "" });
                    out.push_str(&if random.below(2) == 0 { quoted(name) } else { hostile::escaped(name) });
                    out.push(':');
                    value(random, names, depth - 1, out);
                }
            }
            out.push('}');
        }
        4 if depth > 2 => {
            // A chain of nested lists or objects.
            let levels = 1 + random.below(depth - 1);
            let object = random.below(2) == 0;
            (0..levels).for_each(|_| out.push_str(if object { "{\"0\":" } else { "[" }));
            value(random, names, 0, out);
            (0..levels).for_each(|_| out.push_str(if object { "}" } else { "]" }));
        }
        5 => out.push_str(&hostile::escaped(random.pick(names).as_str())),
        6 => out.push_str(&quoted(random.pick(names).as_str())),
        7 => {
            let digits = 1 + random.below(400);
            out.push(['1', '9', '5'][digits % 3]);
            (1..digits).for_each(|at| out.push(char::from(b'0' + (at * 7 % 10) as u8)));
        }
        _ => out.push_str(random.pick::<&str>(&SCALARS)),
    }
}
