//! Servers that are killed, paused or cut off, and how nodes handle it.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use snaphook_driver::wire::Opened;
use snaphook_driver::{ErrorKind, EventStore, Position, Stream};
use snaphook_driver_testkit::cut::{Cut, Direction, Proxy};
use snaphook_driver_testkit::sample::{Random, any, append_one};
use snaphook_driver_testkit::servers::{Server, Signal, nats};
use support::{DEADLINE, Node, batch, check_answers, reaches, records, until};

/// The results of one node.
#[derive(Default)]
struct Done {
    answered: Vec<(String, Position)>,
    failed: usize,
    uncertain: usize,
}

/// Waits until a store works again.
async fn recovers(store: &dyn EventStore) {
    let started = Instant::now();
    while let Err(error) = store.health().await {
        assert!(started.elapsed() < DEADLINE, "the store does not recover: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Appends until `stop` is set. Like Snaphook, it waits after an error until the store is healthy again.
async fn write(name: String, store: Arc<dyn EventStore>, stop: Arc<AtomicBool>) -> Done {
    let mut random = Random::new(name.bytes().map(u64::from).sum());
    let (mut done, mut number) = (Done::default(), 0);
    while !stop.load(Ordering::Acquire) {
        number += 1;
        let batch = batch(&name, number, &mut random);
        match store.append(&batch, number % 4 == 0).await {
            Ok(answers) => {
                for (append, answer) in batch.iter().zip(answers) {
                    done.answered.extend(answer.ok().map(|appended| (append.event.id.clone(), appended.position)));
                }
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Uncertain), "{error}");
                done.failed += 1;
                done.uncertain += usize::from(error.kind() == ErrorKind::Uncertain);
                recovers(&*store).await;
                let is_there = |records: &[snaphook_driver::LogRecord]| {
                    records.iter().any(|record| {
                        matches!(record, snaphook_driver::LogRecord::Event(event)
                            if batch.iter().any(|append| append.event.id == event.id))
                    })
                };
                let found = is_there(&records(&*store).await);
                // After any error but `Uncertain`, nothing is stored, now or later.
                assert!(!found || error.kind() == ErrorKind::Uncertain, "{error}");
            }
        }
    }
    done
}

/// Nodes write during a fault of their server. In the end they agree with each other and with a new node.
async fn agree_after(log: &str, urls: Vec<String>, happens: impl AsyncFnOnce()) {
    agree_with(urls.iter().map(|url| serde_json::json!({"url": url, "name": log})).collect(), happens).await;
}

/// The same with these connections of the nodes.
async fn agree_with(connections: Vec<serde_json::Value>, happens: impl AsyncFnOnce()) {
    let log = connections[0]["name"].as_str().unwrap().to_owned();
    let nodes: Vec<Node> = connections
        .iter()
        .zip(["a", "b", "c"])
        .map(|(connection, name)| Node::with(name, connection.clone()))
        .collect();
    let stores = futures::future::join_all(nodes.iter().map(Node::open)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writing: Vec<_> = nodes
        .iter()
        .zip(&stores)
        .map(|(node, store)| tokio::spawn(write(node.name.clone(), store.clone(), Arc::clone(&stop))))
        .collect();
    happens().await;
    // On a slow machine little may have been written during the fault.
    until("enough is written", async || stores[0].head().await.is_ok_and(|head| head > 100)).await;
    stop.store(true, Ordering::Release);
    let (mut answered, mut failed, mut uncertain) = (Vec::new(), 0, 0);
    for done in futures::future::join_all(writing).await {
        let done = done.unwrap();
        answered.extend(done.answered);
        failed += done.failed;
        uncertain += done.uncertain;
    }
    eprintln!("{log}: {} answered, {failed} calls failed, {uncertain} of them uncertain", answered.len());
    assert!(answered.len() > 50);
    let mut last = 0;
    for store in &stores {
        last = append_one(&**store, any("m", "last")).await;
    }
    let mut found = Vec::new();
    for store in &stores {
        reaches(&**store, last).await;
        found.push(records(&**store).await);
    }
    let node = Node::with("fresh", connections[0].clone());
    let fresh = node.open().await;
    let expected = records(&*fresh).await;
    found.iter().for_each(|found| assert!(*found == expected, "nodes differ"));
    check_answers(&expected, &answered);
    for store in stores.into_iter().chain([fresh]) {
        store.close().await.unwrap();
    }
}

/// Gives the nodes time to write. Nothing waits for this.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed() {
    let mut server = nats::start("always");
    let urls = vec![nats::url(&server); 2];
    agree_after("killed", urls, async || {
        for _ in 0..4 {
            a_moment().await;
            server.end(Signal::Kill);
            a_moment().await;
            server.restart();
            a_moment().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_paused() {
    let server = nats::start("always");
    let urls = vec![nats::url(&server); 2];
    agree_after("paused", urls, async || {
        for seconds in [1, 5] {
            a_moment().await;
            server.pause();
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            server.resume();
            a_moment().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_away_is_an_error_in_time() {
    let mut server = nats::start("always");
    let node = Node::new("a", &nats::url(&server), "away");
    let store = node.open().await;
    let first = append_one(&*store, any("m", "a")).await;
    server.pause();
    let started = Instant::now();
    let error = store.append(&[any("m", "b")], false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Uncertain, "{error}");
    assert!(started.elapsed() < Duration::from_secs(30));
    assert!(store.health().await.is_err());
    // Judged events can still be read, but only the server knows where the log ends.
    assert_eq!(store.last(&Stream::of_instance("m", "a"), u64::MAX).await.unwrap().unwrap().position, first);
    assert_eq!(store.head().await.unwrap_err().kind(), ErrorKind::Unavailable);
    server.resume();
    recovers(&*store).await;
    // Now the outcome is known: the event is in the log, or never will be.
    let head = store.head().await.unwrap();
    assert_eq!(append_one(&*store, any("m", "c")).await, head + 1);
    server.end(Signal::Kill);
    let error = store.append(&[any("m", "d")], false).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Uncertain), "{error}");
    // Once the lost connection is detected, nothing is sent.
    until("the loss is not noticed", async || {
        store.append(&[any("m", "d")], false).await.is_err_and(|error| error.kind() == ErrorKind::Unavailable)
    })
    .await;
    server.restart();
    recovers(&*store).await;
    append_one(&*store, any("m", "e")).await;
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut() {
    let server = nats::start("always");
    let proxies = [Proxy::start(server.address()).await, Proxy::start(server.address()).await];
    let urls = proxies.iter().map(|proxy| format!("nats://{}", proxy.address())).collect();
    agree_after("cut", urls, async || {
        let mut random = Random::new(7);
        for round in 0..24 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            let direction = if round % 2 == 0 { Direction::ToHost } else { Direction::ToDriver };
            let after = 1 + random.below(3000);
            proxies[random.below(2)].arm(Some(Cut { direction, after }));
        }
        for proxy in &proxies {
            proxy.disarm();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_survive_kills_and_cuts() {
    let mut server = nats::start("always");
    let proxy = Proxy::start(server.address()).await;
    let settings =
        serde_json::json!({"connection": {"name": "s", "settings": {"url": format!("nats://{}", proxy.address())}}});
    let serde_json::Value::Object(settings) = settings else { unreachable!() };
    let context = snaphook_driver::OpenContext::new(settings, ".");
    let Opened::Secure(store) =
        Opened::open(&snaphook_nats::DRIVER, snaphook_driver::Store::Secure, context).await.unwrap()
    else {
        unreachable!()
    };
    let mut version = 0;
    for round in 0..12_usize {
        let value = vec![round as u8; if round % 3 == 0 { 300_000 } else { 100 }];
        if round == 6 {
            server.end(Signal::Kill);
            server.restart();
        } else {
            let direction = if round % 2 == 0 { Direction::ToHost } else { Direction::ToDriver };
            proxy.arm(Some(Cut { direction, after: 40 + 37 * round }));
        }
        // A failed put may have been stored, but only once.
        let put = store.put("a", &value, Some(version)).await;
        proxy.disarm();
        let mut kept = None;
        until("the secret cannot be read", async || {
            kept = store.get("a").await.unwrap_or_default();
            kept.is_some() || version == 0
        })
        .await;
        match put {
            Ok(put) => assert_eq!(put, version + 1),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Uncertain), "{error}");
            }
        }
        if let Some(kept) = kept {
            assert!(kept.version == version || (kept.version == version + 1 && kept.bytes == value), "{round}");
            version = kept.version;
        }
    }
    assert!(version > 6, "{version}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_of_a_cluster_that_are_killed() {
    let mut servers = nats::cluster(3, "always");
    let urls: Vec<String> = servers.iter().map(nats::url).collect();
    let connection = serde_json::json!({"url": urls.join(","), "name": "cluster", "replicas": 3});
    let addresses: Vec<async_nats::ServerAddr> = urls.iter().map(|url| url.parse().unwrap()).collect();
    let leader = async || {
        let client = async_nats::connect(addresses.clone()).await.ok()?;
        let jetstream = async_nats::jetstream::new(client);
        let info = jetstream.get_stream("cluster_log").await.ok()?.get_info().await.ok()?;
        info.cluster?.leader?.strip_prefix('n')?.parse::<usize>().ok()
    };
    agree_with(vec![connection; 3], async || {
        for _ in 0..2 {
            a_moment().await;
            let mut killed = None;
            until("the stream has no leader", async || {
                killed = leader().await;
                killed.is_some()
            })
            .await;
            let server = &mut servers[killed.unwrap()];
            server.end(Signal::Kill);
            // The other servers elect a new leader.
            until("no new leader", async || leader().await.is_some()).await;
            a_moment().await;
            servers[killed.unwrap()].restart();
            a_moment().await;
        }
    })
    .await;
}

/// Limits the size of all files of a server: further writes fail as on a full disk.
fn limit_files(server: &Server, bytes: &str) {
    let process = std::fs::read_to_string(server.folder().join("process")).unwrap();
    let limit = format!("--fsize={bytes}:");
    assert!(std::process::Command::new("prlimit").args(["--pid", &process, &limit]).status().unwrap().success());
}

/// A leader with a full disk lacks the newest messages, but still responds as the leader beside the newly elected one.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_is_full() {
    let mut servers = nats::cluster(3, "always");
    let urls: Vec<String> = servers.iter().map(nats::url).collect();
    let connection = serde_json::json!({"url": urls.join(","), "name": "cluster", "replicas": 3});
    let leader = async |at: &str| {
        let jetstream = async_nats::jetstream::new(async_nats::connect(at).await.ok()?);
        let info = jetstream.get_stream("cluster_log").await.ok()?.get_info().await.ok()?;
        info.cluster?.leader?.strip_prefix('n')?.parse::<usize>().ok()
    };
    agree_with(vec![connection; 3], async || {
        let mut first = None;
        until("the stream has no leader", async || {
            first = leader(&urls[0]).await;
            first.is_some()
        })
        .await;
        let first = first.unwrap();
        limit_files(&servers[first], "1");
        let other = &urls[(first + 1) % 3];
        until("no new leader", async || leader(other).await.is_some_and(|leader| leader != first)).await;
        a_moment().await;
        limit_files(&servers[first], "unlimited");
        servers[first].restart();
        a_moment().await;
    })
    .await;
}

/// A server with a full disk does not respond at all, and its stream accepts nothing until the server is restarted.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_disk_is_full() {
    let mut server = nats::start("always");
    let node = Node::new("a", &nats::url(&server), "full");
    let store = node.open().await;
    let first = append_one(&*store, any("m", "a")).await;
    limit_files(&server, "1");
    let started = Instant::now();
    let error = store.append(&[any("m", "b")], false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Uncertain, "{error}");
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(store.last(&Stream::of_instance("m", "a"), u64::MAX).await.unwrap().unwrap().position, first);
    limit_files(&server, "unlimited");
    server.restart();
    recovers(&*store).await;
    let head = store.head().await.unwrap();
    let stored = store.last(&Stream::of_instance("m", "b"), u64::MAX).await.unwrap().is_some();
    assert_eq!(head, first + u64::from(stored));
    assert_eq!(append_one(&*store, any("m", "c")).await, head + 1);
    store.close().await.unwrap();
}

/// A server that has reached its storage limit reports that, and accepts writes again once there is space.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stores_no_more_than_it_may() {
    let server = nats::start_small("2MB");
    let url = nats::url(&server);
    let jetstream = async_nats::jetstream::new(async_nats::connect(&url).await.unwrap());
    let other = async_nats::jetstream::stream::Config { name: "other".into(), ..Default::default() };
    jetstream.create_stream(other).await.unwrap();
    for _ in 0..8 {
        jetstream.publish("other", vec![0; 100_000].into()).await.unwrap().await.unwrap();
    }
    let node = Node::new("a", &url, "small");
    let store = node.open().await;
    let event = |number: usize| {
        let mut append = any("m", &format!("i{number}"));
        append.event.data = Some(snaphook_driver::Json::from_value(&serde_json::json!({"pad": "x".repeat(60_000)})));
        append
    };
    let (mut number, mut last) = (0, 0);
    let error = loop {
        match store.append(&[event(number)], false).await {
            Ok(answers) => last = answers[0].as_ref().unwrap().position,
            Err(error) => break error,
        }
        number += 1;
        assert!(number < 100, "it has no end");
    };
    assert!(number > 5, "{number}");
    // Nothing of the append is stored, and its outcome is certain.
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert_eq!(store.head().await.unwrap(), last);
    assert_eq!(records(&*store).await.len(), number);
    jetstream.delete_stream("other").await.unwrap();
    recovers(&*store).await;
    assert_eq!(append_one(&*store, event(number)).await, last + 1);
    store.close().await.unwrap();
}

/// Messages that the servers lost are detected, even if others have been written in their place.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_lost_its_end_and_grew_again_is_refused() {
    let mut server = nats::start("always");
    let node = |name: &str| Node::new(name, &nats::url(&server), "regrown");
    let (ahead, behind) = (node("ahead"), node("behind"));
    for node in [&ahead, &behind] {
        let store = node.open().await;
        append_one(&*store, any("m", "both")).await;
        store.close().await.unwrap();
    }
    let data = server.folder().join("data");
    let kept = server.folder().join("kept");
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let _ = std::fs::remove_dir_all(to);
        let copied = std::process::Command::new("cp").arg("-r").args([from, to]).status().unwrap();
        assert!(copied.success());
    };
    server.end(Signal::Terminate);
    copy(&data, &kept);
    server.restart();
    let store = ahead.open().await;
    append_one(&*store, any("m", "lost")).await;
    store.close().await.unwrap();
    server.end(Signal::Terminate);
    copy(&kept, &data);
    server.restart();
    let error = ahead.refused().await;
    assert!(error.to_string().contains("acknowledged messages are lost"), "{error}");
    // As many messages as before, but different ones.
    let store = behind.open().await;
    for _ in 0..5 {
        append_one(&*store, any("m", "other")).await;
    }
    store.close().await.unwrap();
    let error = ahead.refused().await;
    assert!(error.to_string().contains("is not the one that this node has processed"), "{error}");
    // Without its file, the node starts with the contents of the stream.
    std::fs::remove_file(ahead.file()).unwrap();
    let store = ahead.open().await;
    assert!(store.last(&Stream::of_instance("m", "lost"), u64::MAX).await.unwrap().is_none());
    store.close().await.unwrap();
}
