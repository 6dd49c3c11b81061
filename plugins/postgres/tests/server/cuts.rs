//! A connection that breaks at any byte of an append: nothing is lost or stored twice, and the result is right.

use serde_json::json;
use snaphook_driver::{Append, Claim, ErrorKind, ErrorRecord, Result, Stream};
use snaphook_driver_testkit::cut::{Cut, Direction, Proxy};
use snaphook_driver_testkit::run;
use snaphook_driver_testkit::sample::{any, append_one, create, digest};
use snaphook_postgres::DRIVER;

use crate::common::{all, context, eventually, open, schema, try_open, url};

fn batch(round: usize) -> Vec<Append> {
    (0..3)
        .map(|row| Append {
            claims: vec![Claim::new(format!("key {round} {row}"))],
            ..create("m", &format!("i{round}-{row}"), "{\"x\":1}")
        })
        .collect()
}

#[test]
fn an_append_is_whole_wherever_its_connection_is_cut() {
    run(async {
        let (url, schema) = (url(), schema());
        let host = url.rsplit_once('@').unwrap().1.split('/').next().unwrap().parse().unwrap();
        let proxy = Proxy::start(host).await;
        let through = url.replace(&format!("@{host}"), &format!("@{}", proxy.address()));
        let store = try_open("cut", json!({"url": through, "schema": schema, "pool": 2})).await.unwrap();
        let direct = open("direct", &url, &schema).await;
        append_one(&*store, any("m", "first")).await;
        proxy.arm(None);
        assert!(store.append(&batch(0), true).await.unwrap().iter().all(Result::is_ok));
        let (to_host, to_driver) = proxy.disarm();
        let (mut answered, mut stored) = (0, 0);
        let mut round = 0;
        for (direction, bytes) in [(Direction::ToHost, to_host), (Direction::ToDriver, to_driver)] {
            // Cutting at every byte would take minutes. The last bytes are those of the commit.
            let step = (bytes / 60).max(1);
            for after in (1..bytes.saturating_sub(60)).step_by(step).chain(bytes.saturating_sub(60)..=bytes) {
                round += 1;
                proxy.arm(Some(Cut { direction, after }));
                let result = store.append(&batch(round), true).await;
                proxy.disarm();
                let is_there = direct.holder(&format!("key {round} 0")).await.unwrap().is_some();
                stored += usize::from(is_there);
                match result {
                    Ok(answers) => {
                        answered += 1;
                        assert!(is_there, "{direction:?} {after}: answered and not there");
                        for (row, answer) in answers.iter().enumerate() {
                            let holder = direct.holder(&format!("key {round} {row}")).await.unwrap().unwrap();
                            assert_eq!(holder.position, answer.as_ref().unwrap().position, "{direction:?} {after}");
                        }
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Unavailable, "{direction:?} {after}: {error}");
                        assert!(!is_there, "{direction:?} {after}: there and refused: {error}");
                    }
                }
            }
        }
        assert_eq!(answered, stored);
        let events = all(&*direct).await;
        assert_eq!(events.len(), 1 + 3 + 3 * stored);
        let mut ids: Vec<_> = events.iter().map(|event| event.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), events.len(), "an event is there twice");
        assert!(events.iter().map(|event| event.position).eq(1..=events.len() as u64));
        eprintln!("{round} cuts, {stored} of them after the commit");
    });
}

/// Without a response, a call reports that its outcome is unknown, so the caller can repeat it.
#[test]
fn other_changes_say_when_their_outcome_is_unknown() {
    run(async {
        let (url, schema) = (url(), schema());
        let host = url.rsplit_once('@').unwrap().1.split('/').next().unwrap().parse().unwrap();
        let proxy = Proxy::start(host).await;
        let through = url.replace(&format!("@{host}"), &format!("@{}", proxy.address()));
        let settings = json!({"url": through, "schema": schema, "pool": 2});
        let store = try_open("cut others", settings.clone()).await.unwrap();
        let errors = DRIVER.error.unwrap()(context("cut others", settings)).await.unwrap();
        let mut outcomes = [0; 3];
        for round in 0..120_usize {
            let direction = if round % 2 == 0 { Direction::ToHost } else { Direction::ToDriver };
            // Connects first, so that the cut hits the change.
            eventually(|| store.head()).await;
            let bytes = round.to_le_bytes();
            let name = digest(&bytes);
            proxy.arm(Some(Cut { direction, after: 1 + round * 7 }));
            let put = store.put_blob(&name, &bytes).await;
            proxy.disarm();
            let is_there = eventually(|| store.get_blob(&name)).await.is_some();
            check(&put, is_there, &mut outcomes);
            let record = failure(&format!("e{round}"));
            proxy.arm(Some(Cut { direction, after: 1 + round * 17 }));
            let recorded = errors.record(&record).await;
            proxy.disarm();
            let is_there = eventually(|| errors.get(&record.id)).await.is_some();
            check(&recorded, is_there, &mut outcomes);
            let key = (format!("k{round}"), Stream::of_instance("m", "i"));
            proxy.arm(Some(Cut { direction, after: 1 + round * 11 }));
            let reserved = store.reserve(std::slice::from_ref(&key)).await.map(drop);
            proxy.disarm();
            let is_there = eventually(|| store.holder(&key.0)).await.is_some();
            check(&reserved, is_there, &mut outcomes);
        }
        eprintln!("done, not done, unknown: {outcomes:?}");
        assert!(outcomes[0] > 0 && outcomes[1] > 0, "{outcomes:?}");
    });
}

fn failure(id: &str) -> ErrorRecord {
    ErrorRecord {
        id: id.into(),
        time: 0,
        model: "m".into(),
        phase: "postCreate".into(),
        hook: "h".into(),
        engine: "quickjs".into(),
        artifact: "sha256:ab".into(),
        event: any("m", "i").event,
        attempts: 1,
        cause: "trap".into(),
        message: String::new(),
        limit: None,
        log: Vec::new(),
    }
}

#[track_caller]
fn check(outcome: &Result<()>, is_there: bool, outcomes: &mut [usize; 3]) {
    let kind = outcome.as_ref().err().map(snaphook_driver::DriverError::kind);
    let place = match kind {
        None => 0,
        Some(ErrorKind::Unavailable) => 1,
        Some(ErrorKind::Uncertain) => 2,
        _ => panic!("{outcome:?}"),
    };
    outcomes[place] += 1;
    assert!(place == 2 || is_there == (place == 0), "{outcome:?}, and there: {is_there}");
}

/// The same for calls of groups: acknowledged changes persist, and the group continues to work.
#[test]
fn a_group_goes_on_wherever_a_connection_is_cut() {
    use std::time::Duration;

    use snaphook_driver::{EventFilter, Group};
    run(async {
        let (url, schema) = (url(), schema());
        let host = url.rsplit_once('@').unwrap().1.split('/').next().unwrap().parse().unwrap();
        let proxy = Proxy::start(host).await;
        let through = url.replace(&format!("@{host}"), &format!("@{}", proxy.address()));
        let store = try_open("cut group", json!({"url": through, "schema": schema, "pool": 2})).await.unwrap();
        store.create_group(&Group { name: "g".into(), filter: EventFilter::default() }, 0).await.unwrap();
        for number in 0..40 {
            append_one(&*store, any("m", &format!("i{}", number % 4))).await;
        }
        let (mut done, mut after) = (Vec::new(), 1);
        while done.len() < 40 {
            assert!(after < 1_000_000, "{done:?}");
            after += 737;
            let direction = if after % 2 == 0 { Direction::ToHost } else { Direction::ToDriver };
            proxy.arm(Some(Cut { direction, after: after % 20_000 }));
            // Leases whose response was lost expire soon.
            for delivery in store.claim("g", 2, Duration::from_millis(50)).await.unwrap_or_default() {
                let position = delivery.event.position;
                // If the response is lost, the acknowledgement may be stored; then the event is not delivered again.
                let _ = store.ack("g", &[(position, delivery.token)]).await;
                let stream = delivery.event.stream();
                if eventually(|| store.is_done("g", &stream, position)).await {
                    done.push(position);
                }
            }
            proxy.disarm();
        }
        done.sort_unstable();
        assert!(done.iter().copied().eq(1..=40), "{done:?}");
        assert_eq!(store.lag("g").await.unwrap(), (0, 40));
    });
}
