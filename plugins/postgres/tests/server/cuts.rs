//! A connection that breaks at any byte of an append: nothing is lost, nothing is there twice, and the answer is right.

use serde_json::json;
use snaphook_driver::{Append, Claim, ErrorKind};
use snaphook_driver_testkit::cut::{Cut, Direction, Proxy};
use snaphook_driver_testkit::run;
use snaphook_driver_testkit::sample::{any, append_one, create};

use crate::common::{all, eventually, open, schema, try_open, url};

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
            // Each byte would take minutes; the last ones are those of the commit.
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

/// The calls of groups, too: what was answered is so, and the group goes on.
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
            // Leases whose answer was lost end soon.
            for delivery in store.claim("g", 2, Duration::from_millis(50)).await.unwrap_or_default() {
                let position = delivery.event.position;
                // If the answer is lost, it may have been taken: then it does not come again.
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
