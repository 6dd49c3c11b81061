//! A server that is paused: calls end at their deadlines, and work again when it is resumed.

use std::time::{Duration, Instant};

use snaphook_driver::{ErrorKind, EventFilter, EventQuery};
use snaphook_driver_testkit::run;
use snaphook_driver_testkit::sample::{any, append_one};
use snaphook_driver_testkit::servers::{Signal, postgres};

use crate::common::{all, client, eventually, open};

/// The shortest time that callers wait.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn calls_end_while_the_server_stands_still() {
    run(async {
        let server = postgres::start(&[]);
        let url = postgres::url(&server);
        let store = open("paused", &url, "s").await;
        append_one(&*store, any("m", "i")).await;
        // The processes of the connections must be paused too, or they would still respond.
        let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'snaphook'";
        let processes: Vec<i32> = {
            let client = client(&url).await;
            client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
        };
        let signal = |name: &str| {
            for process in &processes {
                std::process::Command::new("kill").args([name, &process.to_string()]).status().unwrap();
            }
        };
        server.pause();
        signal("-STOP");
        let started = Instant::now();
        let query = EventQuery { after: 0, limit: 10, filter: EventFilter::default() };
        let batch = [any("m", "late")];
        let (append, read, health) =
            tokio::join!(store.append(&batch, false), store.read(&query, None), store.health());
        assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
        let append = append.unwrap_err();
        // It was not sent completely, or its outcome is unknown.
        assert!(matches!(append.kind(), ErrorKind::Unavailable | ErrorKind::Uncertain), "{append}");
        assert_eq!(read.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(health.unwrap_err().kind(), ErrorKind::Unavailable);
        signal("-CONT");
        server.resume();
        eventually(|| store.health()).await;
        let events = all(&*store).await;
        assert!(append.kind() == ErrorKind::Uncertain || events.len() == 1, "{events:?}");
        append_one(&*store, any("m", "after")).await;
        assert_eq!(all(&*store).await.len(), events.len() + 1);
        store.close().await.unwrap();
    });
}

/// All connections find a restarted server again, those of waiting readers too.
#[test]
fn a_server_that_starts_again_is_found_again() {
    run(async {
        let mut server = postgres::start(&[]);
        let url = postgres::url(&server);
        let (store, other) = (open("again", &url, "s").await, open("again other", &url, "s").await);
        append_one(&*store, any("m", "i")).await;
        let waiting = tokio::spawn({
            let store = std::sync::Arc::clone(&store);
            async move {
                let query = EventQuery { after: 1, limit: 10, filter: EventFilter::default() };
                let started = Instant::now();
                loop {
                    match store.read(&query, Some(Duration::from_secs(20))).await {
                        Ok(page) if !page.events.is_empty() => return page.events.len(),
                        _ => assert!(started.elapsed() < crate::common::DEADLINE),
                    }
                }
            }
        });
        for _ in 0..2 {
            server.end(Signal::Quit);
            let error = store.head().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            let error = store.append(&[any("m", "lost")], false).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            server.restart();
            assert_eq!(eventually(|| store.head()).await, 1);
            eventually(|| store.health()).await;
        }
        assert!(!waiting.is_finished());
        append_one(&*other, any("m", "i")).await;
        assert_eq!(waiting.await.unwrap(), 1);
    });
}
