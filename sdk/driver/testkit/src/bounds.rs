//! Cases for the cost of reads (budgets, cancellation, bounded scans), and for values that databases tend to misread.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snaphook_driver::compare::order;
use snaphook_driver::{
    Append, Budget, ColumnKind, Condition, ErrorKind, EventFilter, EventKind, EventQuery, InstanceQuery, Json, Limits,
    Operator, Position, SCAN_MAX, SortKey, Stream,
};

use crate::Subject;
use crate::model::{all, condition, define, ids, matches};
use crate::sample::{append, append_one, bare, change, create, created, event, shape, sort_key, uuid};

use ColumnKind::{Any, Integer, Number, Text};
use Operator::{Eq, Gt, Gte, In, Like, Lt, Lte, Ne, Nin};

/// Longer than anything that a case waits for.
const DEADLINE: Duration = Duration::from_secs(60);

const GENEROUS: Limits = Limits { steps: u64::MAX, time: DEADLINE, memory: 1 << 30, wait: DEADLINE };

/// A read that exceeds its budget ends, and its error says which limit it exceeded.
pub async fn reads_end_with_their_budget(subject: &Subject) {
    let store = subject.model().await;
    define(&*store, &shape("m", 1, &[("n", Integer), ("t", Text)], &[&["n"]]), 1).await;
    let text = "a".repeat(200);
    let events: Vec<_> = (0..20_000_u64)
        .map(|number| created(2 + number, "m", &format!("i{number:05}"), &json!({"n": number, "t": text})))
        .collect();
    store.apply(0, &events, 30_000).await.unwrap();
    let slow = [condition(&["t"], Like("%a_b%".into()))];
    assert_eq!(store.count("m", &all(&slow), &Budget::new(GENEROUS)).await.unwrap(), 0);
    for (limits, what) in [
        (Limits { steps: 50_000, ..GENEROUS }, "more than 50000 steps"),
        (Limits { time: Duration::ZERO, ..GENEROUS }, "longer than 0.0 s"),
    ] {
        let error = store.count("m", &all(&slow), &Budget::new(limits)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooComplex, "{error}");
        assert!(error.message().contains(what), "{error}");
        for sort in [Vec::new(), vec![sort_key("t")], vec![sort_key("-n"), sort_key("t")]] {
            let query = InstanceQuery { filter: all(&slow), sort, limit: 10, cursor: None };
            let error = store.query("m", &query, &Budget::new(limits)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooComplex, "{error}");
        }
    }
    // A cancelled budget allows no reads, and both calls use the same budget.
    let budget = Budget::new(GENEROUS);
    budget.cancel();
    assert!(store.count("m", &all(&slow), &budget).await.is_err());
    let budget = Budget::new(GENEROUS);
    store.count("m", &all(&slow), &budget).await.unwrap();
    let once = budget.steps();
    store.count("m", &all(&slow), &budget).await.unwrap();
    assert!(once > 20_000 && budget.steps() > once + once / 2, "{once}, then {}", budget.steps());
    store.close().await.unwrap();
}

/// A read stops working when the caller no longer waits for it.
pub async fn a_dropped_read_ends(subject: &Subject) {
    let store = subject.model().await;
    define(&*store, &shape("m", 1, &[("t", Text)], &[]), 1).await;
    let text = "a".repeat(20_000);
    let events: Vec<_> =
        (0..2000_u64).map(|number| created(2 + number, "m", &format!("i{number:04}"), &json!({"t": text}))).collect();
    store.apply(0, &events, 3000).await.unwrap();
    // More than 10^10 character comparisons.
    let filter = vec![condition(&["t"], Like(format!("%{}_b%", "a".repeat(400))))];
    let budget = Budget::new(GENEROUS);
    let read = tokio::spawn({
        let (store, filter, budget) = (Arc::clone(&store), filter, budget.clone());
        async move { store.count("m", &all(&filter), &budget).await }
    });
    let started = Instant::now();
    // Behind a transport the steps are only visible at the end: then the read is dropped at an arbitrary moment.
    while subject.is_linked() && budget.steps() == 0 {
        assert!(started.elapsed() < DEADLINE, "the read does not begin");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    read.abort();
    assert!(read.await.unwrap_err().is_cancelled());
    let dropped = Instant::now();
    assert_eq!(store.count("m", &all(&[]), &Budget::new(GENEROUS)).await.unwrap(), 2000);
    let mut steps = budget.steps();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if budget.steps() == steps {
            break;
        }
        steps = budget.steps();
        assert!(dropped.elapsed() < Duration::from_secs(10), "the read goes on");
    }
    store.close().await.unwrap();
}

/// Filters and sorts compare numbers by value, with any number of digits and in any notation.
pub async fn numbers_are_exact_whatever_their_digits(subject: &Subject) {
    let store = subject.model().await;
    let numbers: Vec<Value> = [
        "-1e400",
        "-18446744073709551617",
        "-18446744073709551616",
        "-9223372036854775809",
        "-9223372036854775808",
        "-9007199254740993.5",
        "-9007199254740993.0",
        "-0.10000000000000000001",
        "-0.1",
        "-1e-400",
        "-0.0",
        "0",
        "1e-400",
        "0.1",
        "0.10000000000000000001",
        "1",
        "1.0",
        "10e-1",
        "9007199254740992",
        "9007199254740993",
        "9007199254740993.0",
        "9007199254740993.000000000001",
        "9223372036854775807",
        "9223372036854775808",
        "9223372036854775809",
        "18446744073709551615",
        "18446744073709551616",
        "12345678901234567890.123456789",
        "12345678901234567890.123456790",
        "12345678901234567890.123456791",
        "1e400",
    ]
    .iter()
    .map(|text| snaphook_driver::json::parse(text).unwrap())
    .collect();
    let columns = [("i", Integer), ("n", Number), ("a", Any)];
    let indexes: [&[&[&str]]; 2] = [&[], &[&["i"], &["-n", "i"], &["a"], &["deep.x"]]];
    for indexes in indexes {
        store.reset("log").await.unwrap();
        define(&*store, &shape("m", 1, &columns, indexes), 1).await;
        let rows: Vec<(String, Value)> = numbers
            .iter()
            .enumerate()
            .map(|(index, number)| {
                (format!("i{index:02}"), json!({"i": number, "n": number, "a": number, "deep": {"x": number}}))
            })
            .collect();
        let events: Vec<_> =
            rows.iter().enumerate().map(|(index, (id, data))| created(index as Position + 2, "m", id, data)).collect();
        store.apply(0, &events, 1000).await.unwrap();
        for path in [&["i"][..], &["n"], &["a"], &["deep", "x"]] {
            for number in &numbers {
                let list = vec![number.clone(), numbers[0].clone()];
                for operator in [
                    Eq(number.clone()),
                    Ne(number.clone()),
                    Lt(number.clone()),
                    Lte(number.clone()),
                    Gt(number.clone()),
                    Gte(number.clone()),
                    In(list.clone()),
                    Nin(list.clone()),
                ] {
                    let filter = [condition(path, operator)];
                    let expected: Vec<&String> =
                        rows.iter().filter(|(_, data)| matches(data, &filter)).map(|(id, _)| id).collect();
                    let found = ids(&*store, "m", &filter).await;
                    assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{filter:?}, indexes {indexes:?}");
                }
            }
            for descending in [false, true] {
                let sort = vec![SortKey {
                    path: path.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>().into(),
                    descending,
                }];
                let mut expected: Vec<&(String, Value)> = rows.iter().collect();
                expected.sort_by(|left, right| match order(&bare(&left.1), &bare(&right.1), &sort) {
                    Ordering::Equal => left.0.cmp(&right.0),
                    other => other,
                });
                let mut query = InstanceQuery { sort, limit: 3, ..InstanceQuery::default() };
                let mut found = Vec::new();
                loop {
                    let page = store.query("m", &query, &Budget::unlimited()).await.unwrap();
                    found.extend(page.items.into_iter().map(|instance| instance.id));
                    let Some(next) = page.next else { break };
                    query.cursor = Some(next);
                }
                let expected: Vec<&String> = expected.iter().map(|(id, _)| id).collect();
                assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{:?}, indexes {indexes:?}", query.sort);
            }
        }
    }
    store.close().await.unwrap();
}

/// Values that a database's own JSON functions may misread: NUL, names that look like paths, depth.
pub async fn data_is_read_as_it_stands(subject: &Subject) {
    let store = subject.model().await;
    let deep = format!(r#"{{"v":1,"x":{}{}}}"#, "[".repeat(100), "]".repeat(100));
    let texts = [
        r#"{"v":"a\u0000b"}"#,
        r#"{"v":"a"}"#,
        r#"{"v\u0000":1,"v":null}"#,
        r#"{"v\u0000":"b"}"#,
        r#"{"\u0076":"\u0062\ud83c\udf88"}"#,
        r#"{"a.b":1,"a":{"b":2}}"#,
        r##"{"a":[{"b":1}],"$":1,"$.v":2,"[0]":3,"#-1":4,"":5}"##,
        r#"{"\"v\"":1,"v'":"b","v\\":true," v ":false}"#,
        r#"{ "v" : 1.0e0 , "w" : [ ] }"#,
        deep.as_str(),
    ];
    let names = ["v", "w", "v\0", "a.b", "a", "$", "$.v", "[0]", "#-1", "", "\"v\"", "v'", "v\\", " v "];
    let paths: Vec<Vec<&str>> =
        names.iter().map(|name| vec![*name]).chain([vec!["v", "w"], vec!["a", "b"], vec!["a", "0"]]).collect();
    let columns: Vec<(&str, ColumnKind)> = names.iter().map(|name| (*name, Any)).collect();
    let mut indexed = shape("m", 1, &columns, &[]);
    indexed.indexes = paths
        .iter()
        .map(|path| {
            vec![SortKey {
                path: path.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>().into(),
                descending: false,
            }]
        })
        .collect();
    for shape in [shape("m", 1, &columns, &[]), indexed] {
        store.reset("log").await.unwrap();
        define(&*store, &shape, 1).await;
        let mut rows = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let (id, position) = (format!("i{index:02}"), index as Position + 2);
            store
                .apply(0, &[change(EventKind::InstanceCreated, position, "m", &id, Some(text))], position)
                .await
                .unwrap();
            rows.push((id, Json::trusted(*text).to_value().unwrap()));
        }
        let values = [json!(1), json!(2), json!(5), json!("a"), json!("b"), json!("a\0b"), json!("b🎈"), json!(true)];
        for path in &paths {
            let operators = values
                .iter()
                .flat_map(|value| [Eq(value.clone()), Ne(value.clone()), Lte(value.clone()), Gt(value.clone())])
                .chain([Operator::Exists(true), Operator::Exists(false), Like("a%b".into()), Like("b_".into())]);
            for operator in operators {
                let filter: [Condition; 1] = [condition(path, operator)];
                let expected: Vec<&String> =
                    rows.iter().filter(|(_, data)| matches(data, &filter)).map(|(id, _)| id).collect();
                let found = ids(&*store, "m", &filter).await;
                assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{filter:?}");
            }
        }
    }
    store.close().await.unwrap();
}

/// A list of any length is processed or rejected, and never makes the store fail.
pub async fn lists_of_any_length(subject: &Subject) {
    let store = subject.model().await;
    define(&*store, &shape("m", 1, &[("n", Integer)], &[&["n"]]), 1).await;
    store.apply(0, &[created(2, "m", "a", &json!({"n": 5}))], 2).await.unwrap();
    for count in [0, 1, 1000, 5000, 40_000, 200_000] {
        let values: Vec<Value> = (0..count).map(Value::from).collect();
        for operator in [In(values.clone()), Nin(values)] {
            let query =
                InstanceQuery { filter: condition(&["n"], operator).into(), limit: 10, ..InstanceQuery::default() };
            match store.query("m", &query, &Budget::new(GENEROUS)).await {
                Ok(page) => {
                    let is_in = query.filter.any(&|condition| matches!(condition.operator, In(_)));
                    assert_eq!(page.items.len(), usize::from(is_in == (count > 5)), "{count}");
                }
                Err(error) => {
                    assert!(count > 5000, "{count} values: {error}");
                    assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::TooComplex), "{error}");
                }
            }
        }
    }
    store.close().await.unwrap();
}

/// A page scans a bounded number of events and reports how far it got.
pub async fn scans_are_bounded(subject: &Subject) {
    const COUNT: usize = 4 * SCAN_MAX as usize;
    if subject.tries_transport_only() {
        return subject.skip("the driver runs it linked in");
    }
    let store = subject.event().await;
    for start in (0..COUNT).step_by(1000) {
        let batch: Vec<Append> =
            (start..start + 1000).map(|number| create(&format!("m{}", number % 2), &uuid(), "{}")).collect();
        store.append(&batch, false).await.unwrap();
    }
    let deletion = event(EventKind::InstanceDeleted, &Stream::of_instance("m1", "i"), None);
    let last = append_one(&*store, append(deletion)).await;
    for model in [None, Some("m1".to_owned())] {
        let filter = EventFilter { model, kinds: vec![EventKind::InstanceDeleted], ..EventFilter::default() };
        let (mut after, mut pages, mut found) = (0, 0, Vec::new());
        loop {
            let page = store.read(&EventQuery { after, limit: 10, filter: filter.clone() }, None).await.unwrap();
            pages += 1;
            found.extend(page.events.iter().map(|event| event.position));
            assert!(page.events.iter().all(|event| event.position > after && event.position <= page.reached));
            match page.next() {
                Some(next) => {
                    assert!(next > after, "no page goes back");
                    after = next;
                }
                None => break,
            }
        }
        assert_eq!(found, [last], "{filter:?}");
        assert!(pages > 1, "one page looked at everything, {filter:?}");
        assert!(pages < 100, "{pages} pages, {filter:?}");
        // A read that waits for an event continues with the next scan automatically.
        let query = EventQuery { after: 0, limit: 10, filter };
        let page = store.read(&query, Some(DEADLINE)).await.unwrap();
        assert_eq!(page.events.iter().map(|event| event.position).collect::<Vec<_>>(), [last]);
    }
    store.close().await.unwrap();
}

pub async fn streams_are_read_backwards(subject: &Subject) {
    let store = subject.event().await;
    let stream = Stream::of_instance("m", "a");
    assert_eq!(store.last_but(&stream, Position::MAX, 0).await.unwrap(), None);
    let mut positions = Vec::new();
    for _ in 0..30 {
        positions.push(append_one(&*store, crate::sample::any("m", "a")).await);
        append_one(&*store, crate::sample::any("m", "b")).await;
        append_one(&*store, append(event(EventKind::ModelUpdated, &Stream::of_model("m"), Some("{}")))).await;
    }
    for (index, at_most) in positions.iter().enumerate() {
        for skip in 0..positions.len() {
            let found = store.last_but(&stream, *at_most, skip as u64).await.unwrap().map(|event| event.position);
            assert_eq!(found, index.checked_sub(skip).map(|index| positions[index]), "{skip} before {at_most}");
        }
        assert_eq!(store.last_but(&stream, *at_most, u64::MAX).await.unwrap(), None);
    }
    let definition = store.last_but(&Stream::of_model("m"), Position::MAX, 29).await.unwrap().unwrap();
    assert_eq!((definition.instance, definition.position), (None, positions[0] + 2));
    store.close().await.unwrap();
}
