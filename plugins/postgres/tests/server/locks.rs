//! Nodes that hang in the middle of an append block the others for a while, not forever.

use std::time::{Duration, Instant};

use snaphook_driver::ErrorKind;
use snaphook_driver_testkit::run;
use snaphook_driver_testkit::sample::{any, append_one};

use crate::common::{client, open, schema, url};

#[test]
fn a_lock_that_nobody_gives_back_ends_an_append() {
    run(async {
        let (url, schema) = (url(), schema());
        let store = open("locked", &url, &schema).await;
        append_one(&*store, any("m", "i")).await;
        // A client that is not a node, so no timeout ends its transaction.
        let client = client(&url).await;
        client.batch_execute(&format!("BEGIN; SELECT head FROM {schema}.log FOR UPDATE")).await.unwrap();
        let started = Instant::now();
        let error = store.append(&[any("m", "i")], false).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
        // Reads do not wait.
        assert_eq!(store.head().await.unwrap(), 1);
        client.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(append_one(&*store, any("m", "i")).await, 2);
    });
}

/// Calls that are dropped leave no transaction and no lock behind.
#[test]
fn dropped_calls_leave_nothing_behind() {
    run(async {
        let (url, schema) = (url(), schema());
        let store = open("dropped", &url, &schema).await;
        append_one(&*store, any("m", "i")).await;
        for round in 0..60 {
            let batch: Vec<_> = (0..5).map(|_| any("m", "i")).collect();
            let patience = Duration::from_micros(50 * round);
            let _ = tokio::time::timeout(patience, store.append(&batch, true)).await;
            let _ = tokio::time::timeout(patience, store.reserve(&[("k".into(), batch[0].event.stream())])).await;
        }
        let started = Instant::now();
        let head = store.head().await.unwrap();
        let next = append_one(&*store, any("m", "i")).await;
        assert!(next > head && started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
        let events = crate::common::all(&*store).await;
        assert!(events.iter().map(|event| event.position).eq(1..=next), "positions without gaps");
    });
}
