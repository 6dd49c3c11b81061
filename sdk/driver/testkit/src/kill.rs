//! Cases that kill a process in the middle of its work and check the state that it left.
//!
//! The process is the test binary itself; environment variables make it run only one case of this module. Such a case
//! does nothing in an ordinary run.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use snaphook_driver::{Append, Budget, Claim, EventFilter, EventQuery, InstanceQuery, Position, Stream};

use crate::Subject;
use crate::model::define;
use crate::sample::{Random, any, created, shape};
use crate::subject::{FOLDER_VARIABLE, NOT_DURABLE};

/// Marks the lines that the process prints for its parent.
const MARK: &str = "snaphook-testkit:";

/// How long a process runs at most if nobody kills it.
const LIFE: Duration = Duration::from_secs(60);

/// How many times a process is killed.
const ROUNDS: usize = 5;

/// Why a case of this module is skipped.
const NO_TEST: &str = "it kills a process of a test binary, and this is none";

/// Runs one case of this module in another process and kills it after `lines` lines; returns what it printed.
fn run_and_kill(subject: &Subject, case: &str, folder: &Path, lines: usize) -> Vec<u64> {
    let module = subject.module.and_then(|module| module.split_once("::")).map_or("", |(_, module)| module);
    let mut child: Child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::{case}"), "--nocapture"])
        .env(FOLDER_VARIABLE, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut numbers = Vec::new();
    let mut line = Vec::new();
    let mut killed = false;
    // Everything printed before the kill is read, because it was acknowledged.
    while output.read_until(b'\n', &mut line).unwrap() > 0 {
        let text = String::from_utf8_lossy(&line);
        // The test harness prints the name of the case on the same line as the first number.
        if let Some((_, number)) = text.split_once(MARK)
            && text.ends_with('\n')
        {
            numbers.push(number.trim().parse().unwrap());
        }
        line.clear();
        if !killed && numbers.len() >= lines {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the process ended by itself after {} lines", numbers.len());
    numbers
}

/// Whether a model store still exists when it is reopened.
async fn is_durable(subject: &Subject) -> bool {
    let other = subject.another();
    let store = other.model().await;
    store.close().await.unwrap();
    store.capabilities().durable
}

fn is_child() -> bool {
    std::env::var_os(FOLDER_VARIABLE).is_some()
}

/// Every acknowledged append exists completely, exactly once, with its claim; no append exists partially.
pub async fn appended_events_survive_a_kill(subject: &Subject) {
    if is_child() {
        return;
    }
    if subject.module.is_none() {
        return subject.skip(NO_TEST);
    }
    let store = subject.event().await;
    let durable = store.capabilities().durable;
    store.close().await.unwrap();
    drop(store);
    if !durable {
        return subject.skip(NOT_DURABLE);
    }
    let mut random = Random::new(std::process::id().into());
    let mut answered: Vec<Position> = Vec::new();
    for round in 0..subject.share(ROUNDS) {
        let lines = 1 + random.below(400);
        answered.extend(run_and_kill(subject, "append_until_killed", subject.folder(), lines));
        let store = subject.event().await;
        let (mut after, mut found) = (0, Vec::new());
        loop {
            let query = EventQuery { after, limit: 1000, filter: EventFilter::default() };
            let page = store.read(&query, None).await.unwrap();
            let Some(last) = page.events.last() else { break };
            after = last.position;
            for event in &page.events {
                let key = event.data.as_ref().unwrap().to_value().unwrap()["key"].as_str().unwrap().to_owned();
                let holder = store.holder(&key).await.unwrap().unwrap();
                assert_eq!((holder.position, holder.stream), (event.position, event.stream()), "round {round}");
                let last = store.last(&event.stream(), event.position).await.unwrap().unwrap();
                assert_eq!(&last, event);
                found.push(event.position);
            }
        }
        assert!(found.is_sorted_by(|left, right| left < right));
        for position in &answered {
            assert!(found.binary_search(position).is_ok(), "answered {position} is gone in round {round}");
        }
        assert_eq!(store.head().await.unwrap(), found.last().copied().unwrap_or(0));
        // The next event comes after all of them.
        let next = crate::sample::append_one(&*store, claiming(&format!("between {round}"))).await;
        assert!(found.last().is_none_or(|last| next > *last));
        answered.push(next);
        // The acknowledgements of a group survive.
        assert!(store.lag("g").await.unwrap().1 >= found.first().map_or(0, |first| first - 1));
        store.close().await.unwrap();
    }
}

fn claiming(key: &str) -> Append {
    let mut append = any("m", &format!("i{}", key.len() % 7));
    append.event.data =
        Some(snaphook_driver::Json::from_value(&json!({"key": key, "padding": "x".repeat(key.len() * 20)})));
    append.claims = vec![Claim::new(key)];
    append
}

/// Appends in batches of many sizes and prints each acknowledged position, until it is killed.
pub async fn append_until_killed(subject: &Subject) {
    if !is_child() {
        return;
    }
    let store = subject.event().await;
    let group = snaphook_driver::Group { name: "g".into(), filter: EventFilter::default() };
    store.create_group(&group, 0).await.unwrap();
    let started = Instant::now();
    let mut number = 0_u64;
    while started.elapsed() < LIFE {
        let batch: Vec<Append> =
            (0..1 + number % 13).map(|row| claiming(&format!("{}-{number}-{row}", std::process::id()))).collect();
        for appended in store.append(&batch, number.is_multiple_of(2)).await.unwrap() {
            println!("{MARK}{}", appended.unwrap().position);
        }
        for delivery in store.claim("g", 20, Duration::from_secs(60)).await.unwrap() {
            store.ack("g", &[(delivery.event.position, delivery.token)]).await.unwrap();
        }
        number += 1;
    }
}

/// The instances are exactly those of the events up to the checkpoint.
pub async fn the_checkpoint_fits_the_instances(subject: &Subject) {
    if is_child() {
        return;
    }
    if subject.module.is_none() {
        return subject.skip(NO_TEST);
    }
    if !is_durable(subject).await {
        return subject.skip(NOT_DURABLE);
    }
    let mut random = Random::new(std::process::id().into());
    for round in 0..subject.share(ROUNDS) {
        let lines = 1 + random.below(200);
        let printed = run_and_kill(subject, "apply_until_killed", subject.folder(), lines);
        let store = subject.model().await;
        let checkpoint = store.checkpoint().await.unwrap();
        assert!(checkpoint >= *printed.last().unwrap(), "round {round}: {checkpoint} after {printed:?}");
        let query = InstanceQuery { limit: 1000, ..InstanceQuery::default() };
        let found = store.query("m", &query, &Budget::unlimited()).await.unwrap().items;
        // Position p > 1 writes instance p % 50, so the last 50 positions are present.
        let expected = (2..=checkpoint).rev().take(50);
        let mut expected: Vec<(String, Position)> = expected.map(|position| (id(position), position)).collect();
        expected.sort();
        let found: Vec<(String, Position)> =
            found.into_iter().map(|instance| (instance.id, instance.position)).collect();
        assert_eq!(found, expected, "round {round}, checkpoint {checkpoint}");
        store.close().await.unwrap();
    }
}

fn id(position: Position) -> String {
    Stream::of_instance("m", format!("i{:02}", position % 50)).instance.unwrap_or_default()
}

/// Applies in batches of many sizes and prints the checkpoint after each, until it is killed.
pub async fn apply_until_killed(subject: &Subject) {
    if !is_child() {
        return;
    }
    let store = subject.model().await;
    if store.checkpoint().await.unwrap() == 0 {
        define(&*store, &shape("m", 1, &[("n", snaphook_driver::ColumnKind::Integer)], &[&["-n"]]), 1).await;
    }
    let started = Instant::now();
    let mut position = store.checkpoint().await.unwrap();
    while started.elapsed() < LIFE {
        let events: Vec<_> = (1..2 + position % 13)
            .map(|step| created(position + step, "m", &id(position + step), &json!({"n": step, "x": "y".repeat(500)})))
            .collect();
        position = events.last().map_or(position, |event| event.position);
        store.apply(0, &events, position).await.unwrap();
        println!("{MARK}{position}");
    }
}

/// The properties of the model in a version; they alternate between versions.
fn turn(version: u64) -> (&'static str, snaphook_driver::ModelShape) {
    let name = if version % 2 == 1 { "a" } else { "b" };
    (name, shape("m", version, &[(name, snaphook_driver::ColumnKind::Integer)], &[&[name]]))
}

/// A change takes effect completely or not at all, however much of it was prepared.
pub async fn changes_are_whole_after_a_kill(subject: &Subject) {
    if is_child() {
        return;
    }
    if subject.module.is_none() {
        return subject.skip(NO_TEST);
    }
    if !is_durable(subject).await {
        return subject.skip(NOT_DURABLE);
    }
    let mut random = Random::new(std::process::id().into());
    for round in 0..subject.share(ROUNDS) {
        run_and_kill(subject, "change_until_killed", subject.folder(), 1 + random.below(60));
        let store = subject.model().await;
        let definitions = store.definitions().await.unwrap();
        let (name, shape) = turn(definitions[0].version);
        assert_eq!(definitions, [shape], "round {round}");
        let query = InstanceQuery { limit: 1000, ..InstanceQuery::default() };
        let found = store.query("m", &query, &snaphook_driver::Budget::unlimited()).await.unwrap().items;
        let checkpoint = store.checkpoint().await.unwrap();
        assert!(found.len() as u64 + definitions[0].version <= checkpoint, "round {round}");
        for instance in &found {
            let data = instance.data.to_value().unwrap();
            assert_eq!(
                data[name], instance.position,
                "round {round}: {instance:?} in version {}",
                definitions[0].version
            );
            let filter = [crate::model::condition(&[name], snaphook_driver::Operator::Eq(json!(instance.position)))];
            assert_eq!(
                crate::model::ids(&*store, "m", &filter).await,
                std::slice::from_ref(&instance.id),
                "round {round}"
            );
        }
        store.close().await.unwrap();
    }
}

/// Renames a property back and forth with prepared changes while instances are written, and prints each version, until
/// it is killed.
pub async fn change_until_killed(subject: &Subject) {
    if !is_child() {
        return;
    }
    let store = subject.model().await;
    let mut position = store.checkpoint().await.unwrap();
    if position == 0 {
        position = 1;
        define(&*store, &turn(1).1, position).await;
    }
    let mut version = store.definitions().await.unwrap()[0].version;
    let started = Instant::now();
    while started.elapsed() < LIFE {
        let ((old, _), (new, shape)) = (turn(version), turn(version + 1));
        let carry = snaphook_driver::CarryOver { renames: vec![(old.into(), new.into())], defaults: Vec::new() };
        let first = position + 1;
        let (ticket, ()) = tokio::join!(store.prepare(&shape, &carry), async {
            for step in first..first + 20 {
                let event = created(step, "m", &format!("i{:03}", step % 300), &json!({old: step}));
                store.apply(0, &[event], step).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        ticket.unwrap();
        position += 21;
        store.define(0, None, &shape, &carry, position).await.unwrap();
        version += 1;
        println!("{MARK}{version}");
    }
}
