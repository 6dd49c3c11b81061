//! Measures this driver alone: durable appends and applying them, by batch size; point reads; a rebuild; and opening
//! the resulting stores.
//!
//! `cargo run --release -p snaphook-file --example file_append [FOLDER] [EVENTS] [BATCH]` prints one line per
//! measurement. FOLDER is the folder for the files (by default a temporary folder in the working directory; on a memory
//! file system nothing is durable and only CPU time counts), EVENTS the number of creations per batch size, and BATCH
//! the only batch size.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use serde_json::json;
use snaphook_driver::{
    Append, CarryOver, Column, ColumnKind, Event, EventFilter, EventKind, EventQuery, EventStore, Expected, Json,
    ModelShape, ModelStore, Require, Stream,
};
use snaphook_file::{FileEventStore, FileModelStore};

/// The driver's writing calls only wait for the disk, so a single poll completes them.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the call did not complete at once"),
    }
}

fn uuid(number: u64) -> String {
    // In order of time at the start and mixed at the end, like UUIDv7.
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(
        "{:08x}-{:04x}-7{:03x}-8{:03x}-{:012x}",
        number >> 20,
        number >> 4 & 0xffff,
        mixed >> 52,
        mixed >> 40 & 0xfff,
        mixed & 0xffff_ffff_ffff
    )
}

fn create(number: u64) -> Append {
    let data =
        json!({"title": format!("film {number}"), "year": 1900 + number % 120, "rating": 7.5, "text": "x".repeat(120)});
    Append {
        event: Event {
            position: 0,
            id: uuid(number * 2),
            kind: EventKind::InstanceCreated,
            model: "film".into(),
            model_version: 1,
            instance: Some(uuid(number * 2 + 1)),
            revision: 1,
            data: Some(Json::from_value(&data)),
            actor: None,
            cause: None,
            hooks: Vec::new(),
            request_id: Some(uuid(number * 3)),
            trace: None,
            time: 1_700_000_000_000,
        },
        expected: Expected::New,
        requires: vec![Require { stream: Stream::of_model("film"), position: 1 }],
        quiet: None,
        claims: Vec::new(),
        releases: Vec::new(),
    }
}

/// CPU time of this thread, which is independent of other programs on the machine; zero if the system does not report
/// it.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

fn percentile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share) as usize]
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let temporary = tempfile::tempdir_in(".").expect("a temporary folder");
    let folder = arguments.next().map_or(temporary.path().to_owned(), PathBuf::from);
    let count: u64 = arguments.next().map_or(100_000, |text| text.parse().expect("a number of events"));
    let only: Option<u64> = arguments.next().map(|text| text.parse().expect("a batch size"));
    let log = Arc::new(FileEventStore::open(&folder.join("events")).expect("events"));
    let models = Arc::new(FileModelStore::open(&folder.join("models")).expect("models"));
    let column = |name: &str, kind| Column { name: name.into(), kind };
    let shape = ModelShape {
        model: "film".into(),
        version: 1,
        columns: vec![
            column("title", ColumnKind::Text),
            column("year", ColumnKind::Integer),
            column("rating", ColumnKind::Number),
        ],
        indexes: Vec::new(),
        unique: Vec::new(),
        record: Json::trusted("{}"),
    };
    let mut definition = create(0);
    definition.event.kind = EventKind::ModelCreated;
    definition.event.instance = None;
    definition.requires.clear();
    let position = now(log.append(&[definition], false)).expect("append")[0].clone().expect("a new model").position;
    now(models.define(0, None, &shape, &CarryOver::default(), position)).expect("define");

    let mut number = 0;
    for size in [1, 8, 24, 64].into_iter().filter(|size| only.is_none_or(|only| only == *size)) {
        let total = if size == 1 { count / 10 } else { count };
        let (mut appending, mut applying, mut times) = (Duration::ZERO, Duration::ZERO, Vec::new());
        let (mut append_cpu, mut apply_cpu) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..total / size {
            let batch: Vec<Append> = (number..number + size).map(create).collect();
            number += size;
            let cpu = processor_time();
            let started = Instant::now();
            let answers = now(log.append(&batch, false)).expect("append");
            let appended = Instant::now();
            append_cpu += processor_time() - cpu;
            let events: Vec<Event> = batch
                .into_iter()
                .zip(answers)
                .map(|(append, answer)| Event { position: answer.expect("no conflict").position, ..append.event })
                .collect();
            let cpu = processor_time();
            let filled = Instant::now();
            now(models.apply(0, &events, events[events.len() - 1].position)).expect("apply");
            apply_cpu += processor_time() - cpu;
            appending += appended - started;
            applying += filled.elapsed();
            times.push(started.elapsed());
        }
        let events = (times.len() as u64 * size) as f64;
        println!(
            "batches of {size:2}: {:7.0} creates/s; per event append {:5.1} µs ({:4.1} busy), apply {:4.1} µs ({:4.1} busy); per batch p50 {:?}, p99 {:?}, max {:?}",
            events / (appending + applying).as_secs_f64(),
            appending.as_secs_f64() * 1e6 / events,
            append_cpu.as_secs_f64() * 1e6 / events,
            applying.as_secs_f64() * 1e6 / events,
            apply_cpu.as_secs_f64() * 1e6 / events,
            percentile(&mut times, 0.5),
            percentile(&mut times, 0.99),
            percentile(&mut times, 1.0),
        );
    }

    // A pause without writes, during which the driver cleans up.
    std::thread::sleep(Duration::from_secs(1));
    let gets = 200_000;
    let (started, cpu) = (Instant::now(), processor_time());
    for index in 0..gets {
        let id = uuid((index * 7919 % number) * 2 + 1);
        assert!(now(models.get("film", &id)).expect("get").is_some());
    }
    println!(
        "gets, one thread: {:7.0} /s ({:4.1} µs busy)",
        gets as f64 / started.elapsed().as_secs_f64(),
        (processor_time() - cpu).as_secs_f64() * 1e6 / gets as f64
    );
    let started = Instant::now();
    let threads: Vec<_> = (0..2)
        .map(|thread| {
            let models = Arc::clone(&models);
            std::thread::spawn(move || {
                for index in 0..gets {
                    let id = uuid(((index + thread) * 7919 % number) * 2 + 1);
                    assert!(now(models.get("film", &id)).expect("get").is_some());
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("a reader"));
    println!("gets, two threads: {:7.0} /s", 2.0 * gets as f64 / started.elapsed().as_secs_f64());

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let started = Instant::now();
    let (mut after, mut read, mut reading) = (0, 0, Duration::ZERO);
    now(models.reset("bench")).expect("reset");
    now(models.define(0, None, &shape, &CarryOver::default(), position)).expect("define");
    loop {
        let begun = Instant::now();
        let query = EventQuery { after, limit: 1000, filter: EventFilter::default() };
        let page = runtime.block_on(log.read(&query, None)).expect("read");
        reading += begun.elapsed();
        let Some(last) = page.events.last() else { break };
        (after, read) = (last.position, read + page.events.len());
        now(models.apply(0, &page.events, after)).expect("apply");
    }
    let elapsed = started.elapsed();
    println!(
        "rebuild: {:7.0} events/s; per event read {:4.1} µs, apply {:4.1} µs",
        read as f64 / elapsed.as_secs_f64(),
        reading.as_secs_f64() * 1e6 / read as f64,
        (elapsed - reading).as_secs_f64() * 1e6 / read as f64
    );
    runtime.block_on(log.close()).expect("close");
    let started = Instant::now();
    runtime.block_on(models.close()).expect("close");
    println!("files written after the rebuild: {:.1} s", started.elapsed().as_secs_f64());
    drop((log, models));
    let started = Instant::now();
    let log = FileEventStore::open(&folder.join("events")).expect("events");
    let opened = started.elapsed();
    println!("opening the log of {read} events: {:.2} s", opened.as_secs_f64());
    let started = Instant::now();
    let models = FileModelStore::open(&folder.join("models")).expect("models");
    println!("opening the instances: {:.2} s", started.elapsed().as_secs_f64());
    runtime.block_on(log.close()).expect("close");
    runtime.block_on(models.close()).expect("close");
}
