//! Cases for filters, sorts and pages. [`snaphook_driver::compare`] defines their meaning, and every driver must agree
//! with it.

use std::cmp::Ordering;

use serde_json::{Value, json};
use snaphook_driver::compare::order;
use snaphook_driver::{
    Budget, ColumnKind, Condition, ErrorKind, EventKind, Filter, InstanceQuery, ModelStore, Operator, Path, Position,
    SortKey,
};

use crate::Subject;
use crate::model::{all, condition, define, ids, matches};
use crate::sample::{Random, bare, change, created, seeds, shape, sort_key};

use ColumnKind::{Any, Boolean, Integer, Number, Text};
use Operator::{Eq, Exists, Gt, Gte, In, Like, Lt, Lte, Ne, Nin};

/// Every operator against every kind of value: in a column of one type, in a column of several types, and in nested
/// properties.
pub async fn filters(subject: &Subject) {
    let store = subject.model().await;
    let values = [
        ("absent", None),
        ("array", Some(json!(["b"]))),
        ("empty", Some(json!(""))),
        ("false", Some(json!(false))),
        ("five", Some(json!(5))),
        ("half", Some(json!(5.5))),
        ("minus", Some(json!(-5))),
        ("null", Some(json!(null))),
        ("object", Some(json!({"b": 1}))),
        ("text-5", Some(json!("5"))),
        ("text-b", Some(json!("b"))),
        ("text-B", Some(json!("B"))),
        ("text-bc", Some(json!("bc"))),
        ("text-é", Some(json!("é"))),
        ("true", Some(json!(true))),
        ("zero", Some(json!(0))),
    ];
    let everything = "array empty false five half minus object text-5 text-B text-b text-bc text-é true zero";
    let cases: Vec<(Operator, &str)> = vec![
        (Eq(json!(5)), "five"),
        (Eq(json!(5.0)), "five"),
        (Eq(json!("5")), "text-5"),
        (Eq(json!("b")), "text-b"),
        (Eq(json!(true)), "true"),
        (Eq(json!(1)), ""),
        (Eq(json!(false)), "false"),
        (Eq(json!(0)), "zero"),
        (Eq(json!("")), "empty"),
        (Eq(json!(null)), ""),
        (Eq(json!(["b"])), ""),
        (Ne(json!(5)), "array empty false half minus object text-5 text-B text-b text-bc text-é true zero"),
        (Ne(json!("b")), "array empty false five half minus object text-5 text-B text-bc text-é true zero"),
        (Ne(json!(null)), everything),
        (Ne(json!({"b": 1})), everything),
        (Lt(json!(5)), "minus zero"),
        (Lte(json!(5)), "five minus zero"),
        (Gt(json!(5)), "half"),
        (Gte(json!(5)), "five half"),
        (Lt(json!("b")), "empty text-5 text-B"),
        (Lte(json!("b")), "empty text-5 text-B text-b"),
        (Gt(json!("b")), "text-bc text-é"),
        (Gte(json!("")), "empty text-5 text-B text-b text-bc text-é"),
        (Lt(json!(true)), "false"),
        (Gte(json!(false)), "false true"),
        (Gt(json!(null)), ""),
        (Lt(json!([])), ""),
        (In(vec![json!(5), json!("b"), json!(true), json!(null)]), "five text-b true"),
        (In(vec![]), ""),
        (
            Nin(vec![json!(5), json!("b"), json!(true)]),
            "array empty false half minus object text-5 text-B text-bc text-é zero",
        ),
        (Nin(vec![]), everything),
        (Like("b%".into()), "text-b text-bc"),
        (Like("_".into()), "text-5 text-B text-b text-é"),
        (Like("%".into()), "empty text-5 text-B text-b text-bc text-é"),
        (Like("".into()), "empty"),
        (Like("\\b".into()), "text-b"),
        (Like("%c".into()), "text-bc"),
        (Exists(true), everything),
        (Exists(false), "absent null"),
    ];
    let shapes = [
        shape("bare", 1, &[], &[]),
        shape("column", 1, &[("v", Any)], &[]),
        shape("indexed", 1, &[("v", Any)], &[&["v"], &["deep.v"]]),
        shape("descending", 1, &[("v", Any)], &[&["-v"], &["-deep.v", "v"]]),
    ];
    let mut position = 0;
    for shape in &shapes {
        position += 1;
        define(&*store, shape, position).await;
        for (id, value) in &values {
            position += 1;
            let data = match value {
                Some(value) => json!({"v": value, "deep": {"v": value}}),
                None => json!({"deep": {}}),
            };
            store.apply(0, &[created(position, &shape.model, id, &data)], position).await.unwrap();
        }
        for (operator, expected) in &cases {
            for path in [&["v"][..], &["deep", "v"]] {
                let filter = [condition(path, operator.clone())];
                let found = ids(&*store, &shape.model, &filter).await;
                assert_eq!(found.join(" "), *expected, "{path:?} {operator:?} in `{}`", shape.model);
                assert_eq!(
                    store.count(&shape.model, &all(&filter), &Budget::unlimited()).await.unwrap() as usize,
                    found.len()
                );
            }
        }
        // A value that is not an object has no nested properties.
        assert!(ids(&*store, &shape.model, &[condition(&["v", "b", "c"], Exists(true))]).await.is_empty());
        assert_eq!(ids(&*store, &shape.model, &[condition(&["v", "b"], Eq(json!(1)))]).await, ["object"]);
    }
    // Columns of one type: the same, except for values that the schema excludes.
    let typed = shape(
        "typed",
        1,
        &[("t", Text), ("n", Number), ("i", Integer), ("b", Boolean)],
        &[&["t"], &["-n"], &["b", "i"]],
    );
    position += 1;
    define(&*store, &typed, position).await;
    let rows = [
        ("full", json!({"t": "b", "n": 5.5, "i": 5, "b": true})),
        ("least", json!({"t": "", "n": -1, "i": 0, "b": false})),
        ("none", json!({})),
        ("nulls", json!({"t": null, "n": null, "i": null, "b": null})),
    ];
    for (id, data) in &rows {
        position += 1;
        store.apply(0, &[created(position, "typed", id, data)], position).await.unwrap();
    }
    for (path, operator, expected) in [
        ("t", Eq(json!("b")), "full"),
        ("t", Eq(json!(5)), ""),
        ("t", Ne(json!(5)), "full least"),
        ("t", Ne(json!("b")), "least"),
        ("t", Nin(vec![json!("b"), json!(1)]), "least"),
        ("t", In(vec![json!(""), json!(1)]), "least"),
        ("t", Like("%".into()), "full least"),
        ("t", Exists(false), "none nulls"),
        ("n", Eq(json!("5.5")), ""),
        ("n", Gt(json!(5)), "full"),
        ("n", Lt(json!(0)), "least"),
        ("n", Lt(json!(true)), ""),
        ("n", Like("5%".into()), ""),
        ("i", Eq(json!(5.0)), "full"),
        ("i", Lt(json!(5.5)), "full least"),
        ("i", Eq(json!(false)), ""),
        ("b", Eq(json!(true)), "full"),
        ("b", Eq(json!(1)), ""),
        ("b", Ne(json!(true)), "least"),
        ("b", Gte(json!(false)), "full least"),
        ("b", Exists(true), "full least"),
    ] {
        let found = ids(&*store, "typed", &[condition(&[path], operator.clone())]).await;
        assert_eq!(found.join(" "), expected, "{path} {operator:?}");
    }
    let both = [condition(&["t"], Exists(true)), condition(&["i"], Gte(json!(1))), condition(&["b"], Eq(json!(true)))];
    assert_eq!(ids(&*store, "typed", &both).await, ["full"]);
    let empty = [condition(&["t"], Eq(json!("b"))), condition(&["t"], Eq(json!("")))];
    assert_eq!(ids(&*store, "typed", &empty).await, Vec::<String>::new());
    store.close().await.unwrap();
}

pub async fn big_integers_are_exact(subject: &Subject) {
    let store = subject.model().await;
    let columns = [("i", Integer), ("n", Number), ("a", Any)];
    define(&*store, &shape("m", 1, &columns, &[&["i"], &["-n"]]), 1).await;
    let numbers = [
        i64::MIN,
        -9_007_199_254_740_993,
        -9_007_199_254_740_992,
        0,
        9_007_199_254_740_992,
        9_007_199_254_740_993,
        i64::MAX,
    ];
    for (index, number) in numbers.iter().enumerate() {
        let position = 2 + index as Position;
        let data = json!({"i": number, "n": number, "a": number, "deep": {"x": number}});
        store.apply(0, &[created(position, "m", &format!("i{index}"), &data)], position).await.unwrap();
    }
    for path in [&["i"][..], &["n"], &["a"], &["deep", "x"]] {
        for (index, number) in numbers.iter().enumerate() {
            let found = ids(&*store, "m", &[condition(path, Eq(json!(number)))]).await;
            assert_eq!(found, [format!("i{index}")], "{path:?} = {number}");
            assert_eq!(ids(&*store, "m", &[condition(path, Lt(json!(number)))]).await.len(), index);
            assert_eq!(ids(&*store, "m", &[condition(path, Gte(json!(number)))]).await.len(), numbers.len() - index);
        }
    }
    store.close().await.unwrap();
}

pub async fn sorts(subject: &Subject) {
    let store = subject.model().await;
    for (round, indexes) in [&[][..], &[&["t"][..], &["-t"], &["n", "-t"], &["a"], &["d.x"]]].into_iter().enumerate() {
        store.reset("log").await.unwrap();
        define(&*store, &shape("m", 1, &[("t", Text), ("n", Number), ("a", Any)], indexes), 1).await;
        let rows = [
            ("1", json!({"t": "b", "n": 1, "a": "x", "d": {"x": 2}})),
            ("2", json!({"t": "B", "n": 2, "a": 10, "d": {"x": 1.5}})),
            ("3", json!({"t": "é", "n": 1, "a": true, "d": {"x": null}})),
            ("4", json!({"t": null, "n": 10, "a": [1], "d": []})),
            ("5", json!({"n": 1.5, "a": null})),
            ("6", json!({"t": "b", "n": 1, "a": 9, "d": {"x": -1}})),
            ("7", json!({"t": "", "a": false, "d": {"x": 2.0}})),
        ];
        for (index, (id, data)) in rows.iter().enumerate() {
            let position = 2 + index as Position;
            store.apply(0, &[created(position, "m", id, data)], position).await.unwrap();
        }
        for (sort, expected) in [
            ("", "1234567"),
            ("t", "7216345"),
            ("-t", "3162745"),
            ("n", "1365247"),
            ("-n", "4251367"),
            ("n,-t", "3165247"),
            ("-t,n", "3162754"),
            ("a", "7362145"),
            ("-a", "3726145"),
            ("d.x", "6217345"),
            ("-d.x", "1726345"),
        ] {
            let sort: Vec<SortKey> = sort.split(',').filter(|key| !key.is_empty()).map(sort_key).collect();
            let found = pages(&*store, &[], &sort, 3).await;
            assert_eq!(found.concat(), expected, "{sort:?}, round {round}");
        }
    }
    store.close().await.unwrap();
}

/// The ids of all pages in order.
async fn pages(store: &dyn ModelStore, filter: &[Condition], sort: &[SortKey], limit: u32) -> Vec<String> {
    let mut query = InstanceQuery { filter: all(filter), sort: sort.to_vec(), limit, cursor: None };
    let mut found = Vec::new();
    loop {
        let page = store.query("m", &query, &Budget::unlimited()).await.unwrap();
        assert!(page.items.len() <= limit as usize);
        assert!(page.next.is_none() || page.items.len() == limit as usize);
        found.extend(page.items.into_iter().map(|instance| instance.id));
        let Some(next) = page.next else { return found };
        assert!(next.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{next}");
        query.cursor = Some(next);
    }
}

/// Random data, filters and sorts, compared with the reference implementation. The first seed is the same in every run.
pub async fn pages_agree_with_the_meaning(subject: &Subject) {
    for seed in seeds() {
        agree(subject, seed).await;
    }
}

async fn agree(subject: &Subject, seed: u64) {
    let store = subject.model().await;
    let mut random = Random::new(seed);
    let text = ["", "a", "A", "b", "aa", "é", "日本", "a%", "\\", "\"", "a\0", "'"].map(Value::from);
    let number = [
        "0",
        "-1",
        "1",
        "1.5",
        "2",
        "1e300",
        "-0.5",
        "10",
        "1.0",
        "9007199254740993",
        "9007199254740993.0",
        "9007199254740992.5",
        "18446744073709551616",
        "18446744073709551617",
        "-18446744073709551617",
        "0.1",
        "0.10000000000000000001",
        "1e-400",
        "-1e400",
    ]
    .map(|text| snaphook_driver::json::parse(text).unwrap());
    let mixed: Vec<Value> = text[..4]
        .iter()
        .chain(&number[..4])
        .chain(&number[9..15])
        .cloned()
        .chain([json!(true), json!(false), json!([1]), json!({"y": 1})])
        .collect();
    let indexes: [&[&[&str]]; 3] = [
        &[],
        &[&["t"], &["-n"], &["b", "n", "-t"], &["a"], &["d.x", "-n"]],
        &[&["-t", "-n"], &["n", "b"], &["-a", "t"], &["-d.x"]],
    ];
    for indexes in indexes {
        store.reset("log").await.unwrap();
        define(&*store, &shape("m", 1, &[("t", Text), ("n", Number), ("b", Boolean), ("a", Any)], indexes), 1).await;
        let mut rows: Vec<(String, Value)> = Vec::new();
        for index in 0..150 {
            let mut data = serde_json::Map::new();
            let mut put = |name: &str, value: Value| {
                if random.below(5) > 0 {
                    data.insert(name.to_owned(), if random.below(8) == 0 { Value::Null } else { value });
                }
            };
            let mut seeds = Random::new(seed ^ (index as u64 * 7 + 1));
            put("t", seeds.pick(&text).clone());
            put("n", seeds.pick(&number).clone());
            put("b", Value::Bool(seeds.below(2) == 0));
            put("a", seeds.pick(&mixed).clone());
            put("d", json!({"x": seeds.pick(&mixed).clone()}));
            rows.push((format!("i{index:03}"), Value::Object(data)));
        }
        let events: Vec<_> =
            rows.iter().enumerate().map(|(index, (id, data))| created(index as Position + 2, "m", id, data)).collect();
        store.apply(0, &events, 1000).await.unwrap();
        let paths: [&[&str]; 5] = [&["t"], &["n"], &["b"], &["a"], &["d", "x"]];
        for _ in 0..subject.share(200) {
            let filter: Vec<Condition> = (0..random.below(3))
                .map(|_| {
                    let path = *random.pick(&paths);
                    let value = random.pick(&mixed).clone();
                    let values = vec![value.clone(), random.pick(&text).clone(), random.pick(&number).clone()];
                    let operator = match random.below(10) {
                        0 => Ne(value),
                        1 => Lt(value),
                        2 => Lte(value),
                        3 => Gt(value),
                        4 => Gte(value),
                        5 => In(values),
                        6 => Nin(values),
                        7 => Like((*random.pick(&["a%", "%a", "_", "%", "\\%", "日%"])).to_owned()),
                        8 => Exists(random.below(2) == 0),
                        _ => Eq(value),
                    };
                    condition(path, operator)
                })
                .collect();
            let mut sort: Vec<SortKey> = Vec::new();
            for _ in 0..random.below(4) {
                let path: Path = random.pick(&paths).iter().map(|name| (*name).to_owned()).collect::<Vec<_>>().into();
                if sort.iter().all(|key| key.path != path) {
                    sort.push(SortKey { path, descending: random.below(2) == 0 });
                }
            }
            let mut expected: Vec<&(String, Value)> = rows.iter().filter(|(_, data)| matches(data, &filter)).collect();
            expected.sort_by(|left, right| match order(&bare(&left.1), &bare(&right.1), &sort) {
                Ordering::Equal => left.0.cmp(&right.0),
                other => other,
            });
            let limit = [1, 7, 50, 1000][random.below(4)];
            let found = pages(&*store, &filter, &sort, limit).await;
            let expected: Vec<&String> = expected.iter().map(|(id, _)| id).collect();
            assert_eq!(
                found.iter().collect::<Vec<_>>(),
                expected,
                "filter {filter:?}, sort {sort:?}, limit {limit}, indexes {indexes:?}, seed {seed}"
            );
            assert_eq!(store.count("m", &all(&filter), &Budget::unlimited()).await.unwrap() as usize, found.len());
        }
    }
    store.close().await.unwrap();
}

pub async fn cursors_are_bound_to_their_query(subject: &Subject) {
    let store = subject.model().await;
    define(&*store, &shape("m", 1, &[("n", Integer)], &[]), 1).await;
    define(&*store, &shape("other", 1, &[("n", Integer)], &[]), 2).await;
    let events: Vec<_> =
        (0..5).map(|number| created(3 + number, "m", &format!("i{number}"), &json!({"n": number}))).collect();
    store.apply(0, &events, 10).await.unwrap();
    let query = InstanceQuery {
        filter: condition(&["n"], Gte(json!(0))).into(),
        sort: vec![sort_key("-n")],
        limit: 2,
        cursor: None,
    };
    let cursor = store.query("m", &query, &Budget::unlimited()).await.unwrap().next;
    assert!(cursor.is_some());
    let good = InstanceQuery { cursor, ..query };
    assert_eq!(store.query("m", &good, &Budget::unlimited()).await.unwrap().items[0].id, "i2");
    // A different limit does not make it a different query.
    assert_eq!(
        store.query("m", &InstanceQuery { limit: 3, ..good.clone() }, &Budget::unlimited()).await.unwrap().items.len(),
        3
    );
    let others = [
        InstanceQuery { filter: Filter::default(), ..good.clone() },
        InstanceQuery { filter: condition(&["n"], Gte(json!(1))).into(), ..good.clone() },
        InstanceQuery { sort: vec![sort_key("n")], ..good.clone() },
        InstanceQuery { sort: Vec::new(), ..good.clone() },
    ];
    for other in others {
        let error = store.query("m", &other, &Budget::unlimited()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{other:?}");
    }
    assert_eq!(store.query("other", &good, &Budget::unlimited()).await.unwrap_err().kind(), ErrorKind::Invalid);
    let text = good.cursor.clone().unwrap();
    for cursor in
        ["", "x", "!!!", "W10", &text[1..], &text[..text.len() - 3], &format!("{text}AAAA"), &"A".repeat(10_000)]
    {
        let broken = InstanceQuery { cursor: Some(cursor.to_owned()), ..good.clone() };
        assert_eq!(
            store.query("m", &broken, &Budget::unlimited()).await.unwrap_err().kind(),
            ErrorKind::Invalid,
            "{cursor}"
        );
    }
    store.close().await.unwrap();
}

/// Instances that are created or deleted between two pages neither repeat nor hide others.
pub async fn pages_do_not_shift(subject: &Subject) {
    let store = subject.model().await;
    for (round, indexes) in [&[][..], &[&["n"][..]]].into_iter().enumerate() {
        store.reset("log").await.unwrap();
        define(&*store, &shape("m", 1, &[("n", Integer)], indexes), 1).await;
        let mut position = 1;
        let mut put = |kind, id: &str, data: Option<Value>| {
            position += 1;
            let event = change(kind, position, "m", id, data.map(|data| data.to_string()).as_deref());
            let store = &store;
            async move { store.apply(0, &[event], position).await.unwrap() }
        };
        for number in 0..6 {
            put(EventKind::InstanceCreated, &format!("i{number}"), Some(json!({"n": number / 2}))).await;
        }
        let mut query = InstanceQuery { sort: vec![sort_key("n")], limit: 3, ..InstanceQuery::default() };
        let first = store.query("m", &query, &Budget::unlimited()).await.unwrap();
        assert_eq!(first.items.last().unwrap().id, "i2");
        query.cursor = first.next;
        // The last instance of the page is deleted; one is created before it, one right after it, one at the end.
        put(EventKind::InstanceDeleted, "i2", None).await;
        put(EventKind::InstanceCreated, "i1x", Some(json!({"n": 1}))).await;
        put(EventKind::InstanceCreated, "i2x", Some(json!({"n": 1}))).await;
        put(EventKind::InstanceCreated, "z", Some(json!({}))).await;
        put(EventKind::InstanceUpdated, "i0", Some(json!({"n": 0, "x": 1}))).await;
        query.limit = 100;
        let rest = store.query("m", &query, &Budget::unlimited()).await.unwrap();
        let found: Vec<&str> = rest.items.iter().map(|instance| instance.id.as_str()).collect();
        assert_eq!(found, ["i2x", "i3", "i4", "i5", "z"], "round {round}");
        assert_eq!(rest.next, None);
    }
    store.close().await.unwrap();
}
