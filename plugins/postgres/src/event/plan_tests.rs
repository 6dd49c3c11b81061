//! Which index serves which filter, regardless of the planner's statistics. The index is scanned from the right end,
//! and no further than requested.

use serde_json::{Map, json};
use snaphook_driver::Stream;
use snaphook_driver::{Append, EventFilter, EventKind, EventStore as _, OpenContext};
use snaphook_driver_testkit::run;
use snaphook_driver_testkit::sample::{append, event};
use snaphook_driver_testkit::servers::postgres;

use super::PostgresEventStore;
use super::plan::Plan;
use super::read::PartOf;
use crate::session::Parameter;
use crate::sql::Sql;

async fn explained(store: &PostgresEventStore, sql: &Sql, parameters: &[Parameter<'_>]) -> String {
    let sql = Sql::new(format!("EXPLAIN {}", sql.text), &sql.types);
    let rows = store.database.session("read").await.unwrap().query(&sql, parameters).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_filter_has_its_index() {
    run(async {
        let server = postgres::start(&[]);
        let connection = json!({"name": "plans", "settings": {"url": postgres::url(&server)}});
        let settings = Map::from_iter([("connection".to_owned(), connection)]);
        let store = PostgresEventStore::open(&OpenContext::new(settings, "/")).await.unwrap();
        let fill = async |model: &str, count: usize| {
            for start in (0..count).step_by(1000) {
                let batch: Vec<Append> = (start..start + 1000)
                    .map(|number| {
                        let stream = Stream::of_instance(model, format!("i{}", number % 50));
                        append(event(EventKind::InstanceUpdated, &stream, Some("{}")))
                    })
                    .collect();
                store.append(&batch, false).await.unwrap();
            }
        };
        let model = Some("a".to_owned());
        let cases = [
            (EventFilter::default(), "events_pkey"),
            (EventFilter { kinds: vec![EventKind::InstanceDeleted], ..Default::default() }, "events_pkey"),
            (EventFilter { model: model.clone(), ..Default::default() }, "events_model"),
            (
                EventFilter { model: model.clone(), kinds: vec![EventKind::InstanceDeleted], ..Default::default() },
                "events_model",
            ),
            (EventFilter { model: model.clone(), instance: Some("i7".into()), ..Default::default() }, "events_stream"),
            // There are few definitions, so scanning all of them is just as good.
            (EventFilter { model, definitions_only: true, ..Default::default() }, "events_"),
            (EventFilter { definitions_only: true, ..Default::default() }, "events_definitions"),
        ];
        // With the statistics of a log with one model, with the same ones after another model was added, and with new
        // ones.
        for (round, analyzes) in [(0, true), (1, false), (2, true)] {
            fill(if round == 0 { "a" } else { "b" }, 20_000).await;
            if analyzes {
                store.database.session("read").await.unwrap().batch("ANALYZE").await.unwrap();
            }
            for (filter, index) in &cases {
                let plan = Plan::new(filter, 4).unwrap();
                let part = PartOf::new(&store.database, &plan);
                for after in [0_i64, 19_000, 30_000] {
                    // Filters that may exclude many events are read in parts.
                    let upto = if plan.is_sparse { after + 1000 } else { i64::MAX };
                    let values: [Parameter<'_>; 4] = [&after, &upto, &100_i64, &1_000_000_i64];
                    let values: Vec<_> = values.into_iter().chain(plan.parameters(true)).collect();
                    let text = explained(&store, &part.sql, &values).await;
                    let is_served =
                        [" using ", " on "].iter().any(|by| text.contains(&format!("Index Scan{by}{index}")));
                    assert!(is_served, "{filter:?} after {after} in round {round}:\n{text}");
                    assert!(!text.contains("Seq Scan"), "{filter:?}:\n{text}");
                }
            }
            let values: [Parameter<'_>; 4] = [&"a", &"i7", &i64::MAX, &0_i64];
            let text = explained(&store, &store.reader.last_but, &values).await;
            assert!(text.contains("Index Scan Backward using events_stream"), "round {round}:\n{text}");
        }
    });
}
