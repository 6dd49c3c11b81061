//! How PostgreSQL executes the statements, over a table of 50,000 rows.

use serde_json::json;
use snaphook_driver::{Condition, Filter, ModelStore as _, OpenContext, Operator, SortKey};
use snaphook_driver_testkit::run;
use snaphook_driver_testkit::sample::created;
use snaphook_driver_testkit::servers::postgres;
use tokio_postgres::{Client, NoTls};

use super::PostgresModelStore;
use super::key::key;
use super::page_position::PagePosition;
use super::plan::{Plan, Stream};
use super::reader::{select, settings};
use super::registry::Model;
use super::table::tests::{shape, sort_key};

const ROWS: u64 = 50_000;

async fn explain(client: &Client, model: &Model, stream: &Stream, data: bool) -> Vec<String> {
    let mut plans = Vec::new();
    for part in &stream.parts {
        client.batch_execute(&format!("BEGIN; {}", settings(&part.order))).await.unwrap();
        let select = select(&model.table, &part.rows, &part.order, &stream.given, data).replace("@.", "s.");
        for explain in [
            format!("EXPLAIN (COSTS OFF) DECLARE c NO SCROLL CURSOR FOR {select}"),
            format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {select} LIMIT 11"),
        ] {
            let rows = client.query_typed(&explain, &part.rows.typed()).await.unwrap();
            plans.push(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n"));
        }
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    plans
}

fn filter(conditions: &[(&str, Operator)]) -> Filter {
    let condition =
        |(path, operator): &(&str, Operator)| Condition { path: sort_key(path).path, operator: operator.clone() };
    conditions.iter().map(condition).collect::<Vec<_>>().into()
}

#[test]
fn pages_are_read_from_indexes() {
    run(async {
        let server = postgres::start(&["autovacuum=off"]);
        let url = postgres::url(&server);
        let connection = json!({"name": "plans", "settings": {"url": url, "schema": "s"}});
        let context = OpenContext::new([("connection".to_owned(), connection)].into_iter().collect(), "/");
        let store = PostgresModelStore::open(&context).await.unwrap();
        let shape = shape(&[&["status", "-total"], &["-total"], &["deep.name"], &["any"]]);
        store.define(0, None, &shape, &snaphook_driver::CarryOver::default(), 1).await.unwrap();
        for start in (0..ROWS).step_by(5000) {
            let event = |row: u64| {
                let data = json!({
                    "status": format!("s{}", row % 5), "total": row % 997, "deep": {"name": format!("n{row}")},
                    "any": if row.is_multiple_of(2) { json!(row) } else { json!(format!("{row}")) }, "x": "y".repeat(200),
                });
                created(row + 2, "m", &format!("i{row:05}"), &data)
            };
            let events: Vec<_> = (start..start + 5000).map(event).collect();
            store.apply(0, &events, start + 5001).await.unwrap();
        }
        let model = store.shared.reload("test").await.unwrap().models["m"].clone();
        let (client, wire) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(wire);
        client.batch_execute("SET jit = off; SET plan_cache_mode = force_custom_plan").await.unwrap();
        let text = |text: &str| json!(text);
        let is = |text: &str| Operator::Eq(json!(text));
        type Case<'a> = (Vec<(&'a str, Operator)>, &'a [&'a str], Vec<serde_json::Value>);
        let cases: Vec<Case<'_>> = vec![
            (vec![], &[], vec![]),
            (vec![], &["-total"], vec![json!(500)]),
            (vec![], &["total"], vec![json!(500)]),
            (vec![], &["status", "-total"], vec![text("s2"), json!(500)]),
            (vec![], &["status"], vec![text("s2")]),
            (vec![], &["any"], vec![text("1")]),
            (vec![], &["-any"], vec![text("1")]),
            (vec![], &["deep.name"], vec![text("n5")]),
            (vec![("status", is("s1"))], &["-total"], vec![json!(500)]),
            (vec![("status", is("s1"))], &["total"], vec![json!(500)]),
            (vec![("status", is("s1")), ("total", Operator::Lt(json!(700)))], &["-total"], vec![json!(500)]),
            (vec![("total", Operator::Gt(json!(100)))], &["-total"], vec![json!(500)]),
            (vec![("total", Operator::Lte(json!(900)))], &["-total"], vec![json!(500)]),
            (vec![("deep.name", Operator::Like("n1%".into()))], &["deep.name"], vec![text("n100")]),
        ];
        // With and without statistics.
        for analyzed in [false, true] {
            for (conditions, sort, values) in &cases {
                let filter = filter(conditions);
                let sort: Vec<SortKey> = sort.iter().map(|text| sort_key(text)).collect();
                let plan = Plan::new(&model.table, &filter, &sort);
                assert!(!plan.narrows, "{filter:?} by {sort:?}");
                let keys = plan.sort.iter().zip(values).map(|(key_of, value)| key(Some(value), key_of.descending));
                let place = PagePosition { keys: keys.collect(), id: "i25000".into() };
                for cursor in [None, Some(&place)] {
                    let stream = plan.ordered(cursor).unwrap();
                    for plan in explain(&client, &model, &stream, true).await {
                        let name = format!("{filter:?} by {sort:?} after {cursor:?}:\n{plan}");
                        assert!(plan.contains("Index Scan"), "{name}");
                        assert!(!plan.contains("Sort") && !plan.contains("Seq Scan"), "{name}");
                        let bounded = cursor.is_some() || !filter.conjuncts().is_empty();
                        assert!(!bounded || plan.contains("Index Cond"), "{name}");
                        assert!(!plan.contains("Rows Removed"), "{name}");
                    }
                }
            }
            client.batch_execute(if analyzed { "" } else { "ANALYZE" }).await.unwrap();
        }
        // Few rows match; an index finds them, whatever the order.
        for (path, operator) in [
            ("deep.name", is("n77")),
            ("deep.name", Operator::In(vec![text("n77"), text("n78")])),
            ("deep.name", Operator::Like("n4999%".into())),
            ("any", Operator::Gte(json!(49_990))),
            ("any", Operator::Exists(false)),
        ] {
            let filter = filter(&[(path, operator)]);
            let plan = Plan::new(&model.table, &filter, &[sort_key("other")]);
            let plans = explain(&client, &model, &plan.unordered().unwrap(), true).await.join("\n");
            assert!(plans.contains("Index Cond") && !plans.contains("Seq Scan"), "{filter:?}:\n{plans}");
            // Rows are read in the requested order only if many rows match.
            assert!(Plan::new(&model.table, &filter, &[sort_key("-total")]).narrows, "{filter:?}");
        }
        store.close().await.unwrap();
    });
}
