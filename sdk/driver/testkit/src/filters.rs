//! Random condition trees, with and without sorting, on random documents: every driver must agree with
//! [`snaphook_driver::Filter::matches`].

use std::cmp::Ordering;

use serde_json::{Map, Value, json};
use snaphook_driver::compare::{InstanceView, order};
use snaphook_driver::{
    Budget, ColumnKind, Condition, EventKind, Filter, Instance, InstanceQuery, Meta, ModelStore, Operator, Path,
    Position, SortKey,
};

use crate::Subject;
use crate::model::{all, define};
use crate::sample::{Random, change, created, seeds, shape};

use ColumnKind::{Any, Number, Text};

const TEXTS: [&str; 16] = [
    "",
    "a",
    "A",
    "aB",
    "ß",
    "SS",
    "Σς",
    "σσ",
    "ı",
    "İ",
    "K",
    "\u{212a}",
    "a%_",
    "a\0",
    "' OR 1=1 --",
    "日本\u{10ffff}",
];

const NUMBERS: [&str; 9] = ["0", "1", "1.0", "-1.5", "3", "9007199254740993", "1e400", "-0", "1000"];

fn scalar(random: &mut Random) -> Value {
    match random.below(8) {
        0 => Value::Bool(random.below(2) == 0),
        1..4 => snaphook_driver::json::parse(NUMBERS[random.below(NUMBERS.len())]).unwrap(),
        _ => Value::from(*random.pick(&TEXTS)),
    }
}

fn anything(random: &mut Random) -> Value {
    match random.below(8) {
        0 => Value::Null,
        1 => json!({"x": scalar(random)}),
        2 => json!([[scalar(random)]]),
        3..5 => (0..random.below(4)).map(|_| if random.below(6) == 0 { Value::Null } else { scalar(random) }).collect(),
        _ => scalar(random),
    }
}

fn document(random: &mut Random) -> Value {
    let mut data = Map::new();
    if random.below(4) > 0 {
        data.insert("t".into(), if random.below(6) == 0 { Value::Null } else { (*random.pick(&TEXTS)).into() });
    }
    if random.below(4) > 0 {
        data.insert("n".into(), snaphook_driver::json::parse(NUMBERS[random.below(NUMBERS.len())]).unwrap());
    }
    for name in ["a", "tags", "$id"] {
        if random.below(4) > 0 {
            data.insert(name.into(), anything(random));
        }
    }
    if random.below(4) > 0 {
        data.insert("d".into(), json!({"x": anything(random), "$id": 5}));
    }
    Value::Object(data)
}

fn path(random: &mut Random) -> Path {
    let names = |names: &[&str]| Path::from(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    match random.below(9) {
        0 => names(&["t"]),
        1 => names(&["n"]),
        2 => names(&["a"]),
        3 => names(&["tags"]),
        4 => names(&["$id"]),
        5 => names(&["d", "x"]),
        6 => names(&["d", "$id"]),
        _ => (*random.pick(&Meta::ALL)).into(),
    }
}

fn condition(random: &mut Random) -> Filter {
    let path = path(random);
    let is_time = matches!(path, Path::Meta(Meta::CreatedAt | Meta::UpdatedAt));
    let value = |random: &mut Random| match path {
        Path::Meta(Meta::Id) if random.below(4) > 0 => Value::from(format!("i{:03}", random.below(60))),
        Path::Meta(_) if is_time && random.below(4) > 0 => json!(1_000 * random.below(70) as i64 + 1),
        Path::Meta(_) if random.below(4) > 0 => json!(random.below(70)),
        _ if random.below(20) == 0 => anything(random),
        _ => scalar(random),
    };
    let operator = match random.below(14) {
        0 => Operator::Ne(value(random)),
        1 => Operator::Lt(value(random)),
        2 => Operator::Lte(value(random)),
        3 => Operator::Gt(value(random)),
        4 => Operator::Gte(value(random)),
        5 => Operator::In((0..random.below(4)).map(|_| value(random)).collect()),
        6 => Operator::Nin((0..random.below(4)).map(|_| value(random)).collect()),
        7 => Operator::Like((*random.pick(&["a%", "%", "_", "\\%", "I0%", "i0%"])).to_owned()),
        8 | 9 => {
            Operator::Ilike((*random.pick(&["A%", "%", "_", "ΣΣ", "k", "ss", "ß", "%B", "I0_1", "A\\%\\_"])).to_owned())
        }
        10 | 11 => Operator::Has(value(random)),
        12 => Operator::Exists(random.below(2) == 0),
        _ => Operator::Eq(value(random)),
    };
    Condition { path, operator }.into()
}

fn tree(random: &mut Random, depth: usize) -> Filter {
    let parts = |random: &mut Random| (0..random.below(4)).map(|_| tree(random, depth - 1)).collect();
    match random.below(if depth == 0 { 2 } else { 7 }) {
        0..3 => condition(random),
        3 => Filter::Not(Box::new(tree(random, depth - 1))),
        4 | 5 => Filter::Or(parts(random)),
        _ => Filter::And(parts(random)),
    }
}

/// Random trees; see the head of this file. The first seed is the same in every run.
pub async fn filters_agree_with_the_meaning(subject: &Subject) {
    for seed in seeds() {
        agree(subject, seed).await;
    }
}

async fn agree(subject: &Subject, seed: u64) {
    let store = subject.model().await;
    let mut random = Random::new(seed);
    let indexes: [&[&[&str]]; 3] = [
        &[],
        &[&["t"], &["n", "-t"], &["a"], &["tags"], &["d.x"], &["$id"]],
        &[&["-t", "n"], &["-n"], &["-tags", "a"]],
    ];
    for indexes in indexes {
        store.reset("log").await.unwrap();
        define(&*store, &shape("m", 1, &[("t", Text), ("n", Number), ("a", Any)], indexes), 1).await;
        let mut events = Vec::new();
        for number in 0..60 {
            let position = 2 + number as Position;
            let mut event = created(position, "m", &format!("i{number:03}"), &document(&mut random));
            event.time = 1_000 * random.below(70) as i64 + 1;
            events.push(event);
        }
        for number in 0..20 {
            let (position, id) = (62 + number as Position, format!("i{:03}", 3 * number));
            let data = document(&mut random).to_string();
            let mut event = change(EventKind::InstanceUpdated, position, "m", &id, Some(&data));
            event.revision = 2;
            event.time = 1_000 * random.below(70) as i64 + 1;
            events.push(event);
        }
        store.apply(0, &events, 100).await.unwrap();
        let page = InstanceQuery { limit: 1000, ..InstanceQuery::default() };
        let rows = store.query("m", &page, &Budget::unlimited()).await.unwrap().items;
        let rows: Vec<(Instance, Value)> = rows
            .into_iter()
            .map(|instance| {
                let data = instance.data.to_value().unwrap();
                (instance, data)
            })
            .collect();
        assert_eq!(rows.len(), 60);
        for round in 0..subject.share(300) {
            let filter = tree(&mut random, 1 + round % 4);
            let mut sort: Vec<SortKey> = Vec::new();
            for _ in 0..random.below(3) {
                let path = path(&mut random);
                if sort.iter().all(|key| key.path != path) {
                    sort.push(SortKey { path, descending: random.below(2) == 0 });
                }
            }
            check(&*store, &rows, &filter, &sort, [1, 7, 1000][random.below(3)], seed).await;
        }
    }
    // A list of conditions means the same as their conjunction.
    assert_eq!(all(&[]), Filter::default());
    store.close().await.unwrap();
}

async fn check(
    store: &dyn ModelStore,
    rows: &[(Instance, Value)],
    filter: &Filter,
    sort: &[SortKey],
    limit: u32,
    seed: u64,
) {
    let view = |row: &'_ (Instance, Value)| -> bool { filter.matches(&InstanceView::new(&row.0, &row.1)) };
    let mut expected: Vec<&(Instance, Value)> = rows.iter().filter(|row| view(row)).collect();
    expected.sort_by(|left, right| {
        let ordering = order(&InstanceView::new(&left.0, &left.1), &InstanceView::new(&right.0, &right.1), sort);
        if ordering == Ordering::Equal { left.0.id.cmp(&right.0.id) } else { ordering }
    });
    let expected: Vec<&str> = expected.iter().map(|row| row.0.id.as_str()).collect();
    let mut query = InstanceQuery { filter: filter.clone(), sort: sort.to_vec(), limit, cursor: None };
    let mut found = Vec::new();
    loop {
        let page = store.query("m", &query, &Budget::unlimited()).await.unwrap();
        found.extend(page.items.into_iter().map(|instance| instance.id));
        query.cursor = page.next;
        if query.cursor.is_none() {
            break;
        }
    }
    assert_eq!(found, expected, "{filter:?} by {sort:?}, pages of {limit}, seed {seed}");
    assert_eq!(store.count("m", filter, &Budget::unlimited()).await.unwrap() as usize, found.len(), "{filter:?}");
}
