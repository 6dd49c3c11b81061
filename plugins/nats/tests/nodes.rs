//! Several nodes on one log.

mod support;

use std::sync::OnceLock;
use std::time::Duration;

use async_nats::jetstream::stream::Config;
use snaphook_driver::{
    Append, Claim, Conflict, ErrorKind, EventFilter, EventStore, Expected, Group, NOTE_BYTES_MAX, Position, Stream,
    judge,
};
use snaphook_driver_testkit::sample::{Random, any, append_one, create, digest};
use snaphook_driver_testkit::servers::{Server, nats};
use support::{Node, batch, check_answers, reaches, records, until};

const LEASE: Duration = Duration::from_secs(60);

fn server() -> &'static str {
    static SERVER: OnceLock<(Server, String)> = OnceLock::new();
    let (_, url) = SERVER.get_or_init(|| {
        let server = nats::start("always");
        let url = nats::url(&server);
        (server, url)
    });
    url
}

fn group(name: &str) -> Group {
    Group { name: name.to_owned(), filter: EventFilter::default() }
}

/// The fields of a log message that the tests need.
#[derive(Clone, PartialEq, prost::Message)]
struct Frame {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(uint32, tag = "2")]
    rules: u32,
    #[prost(string, tag = "3")]
    node: String,
    #[prost(string, tag = "4")]
    writer: String,
    #[prost(uint64, tag = "5")]
    counter: u64,
    #[prost(bytes = "vec", tag = "6")]
    content: Vec<u8>,
}

async fn publish(log: &str, payload: Vec<u8>) {
    let client = async_nats::connect(server()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    jetstream.publish(format!("{log}.log"), payload.into()).await.unwrap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_write_at_once_agree() {
    let nodes: Vec<Node> = ["a", "b", "c"].map(|name| Node::new(name, server(), "agree")).to_vec();
    // They also begin the log at the same time.
    let stores = futures::future::join_all(nodes.iter().map(Node::open)).await;
    assert!(stores.iter().all(|store| store.identity() == stores[0].identity()));
    let writing = nodes.iter().zip(&stores).enumerate().map(|(index, (node, store))| {
        let (name, store) = (node.name.clone(), store.clone());
        tokio::spawn(async move {
            let mut random = Random::new(index as u64 + 1);
            let mut answered = Vec::new();
            for number in 0..60 {
                let batch = batch(&name, number, &mut random);
                let answers = store.append(&batch, number % 5 == 0).await.unwrap();
                for (append, answer) in batch.iter().zip(answers) {
                    answered.extend(answer.ok().map(|appended| (append.event.id.clone(), appended.position)));
                }
                let key = (format!("k{}", random.below(5)), Stream::of_instance("m", format!("i{index}")));
                store.reserve(&[key]).await.unwrap();
                if number % 20 == 7 {
                    store.forget_claims("k", 1).await.unwrap();
                    store.put_blob(&digest(name.as_bytes()), name.as_bytes()).await.unwrap();
                }
            }
            answered
        })
    });
    let mut answered = Vec::new();
    for written in futures::future::join_all(writing).await {
        answered.extend(written.unwrap());
    }
    let head = answered.iter().map(|(_, position)| *position).max().unwrap();
    for store in &stores {
        // The last change may not be an event: after another event of its own, a node has judged everything before it.
        append_one(&**store, any("m", "last")).await;
    }
    let last = head + 3;
    let mut found = Vec::new();
    for store in &stores {
        reaches(&**store, last).await;
        found.push(records(&**store).await);
    }
    assert_eq!(found[0], found[1]);
    assert_eq!(found[0], found[2]);
    check_answers(&found[0], &answered);
    // The same for a node that joins later, and for one whose file is lost or damaged.
    let late = Node::new("late", server(), "agree");
    let store = late.open().await;
    assert_eq!(records(&*store).await, found[0]);
    store.close().await.unwrap();
    let files = || ["log.db", "log.db-wal", "log.db-shm"].map(|name| late.folder.path().join(name));
    for damage in ["gone", "noise", "half"] {
        for file in files() {
            match damage {
                "gone" => drop(std::fs::remove_file(file)),
                "noise" if support::exists(&file) => std::fs::write(file, "noise ".repeat(5000)).unwrap(),
                "half" if support::exists(&file) => {
                    let file = std::fs::File::options().write(true).open(file).unwrap();
                    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
                }
                _ => {}
            }
        }
        let store = late.open().await;
        assert_eq!(records(&*store).await, found[0], "{damage}");
        store.close().await.unwrap();
    }
    for store in &stores {
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_want_the_same_one_gets_it() {
    let nodes = (Node::new("a", server(), "race"), Node::new("b", server(), "race"));
    let (a, b) = (nodes.0.open().await, nodes.1.open().await);
    for round in 0..30 {
        let attempt = |store: std::sync::Arc<dyn EventStore>| async move {
            let claims = vec![Claim::new(format!("key {round}"))];
            let create = Append { claims, ..create("m", &format!("i{round}"), "{}") };
            store.append(&[create], false).await.unwrap().remove(0)
        };
        let (one, other) = tokio::join!(attempt(a.clone()), attempt(b.clone()));
        let (won, lost) = if one.is_ok() { (one, other) } else { (other, one) };
        let last = won.unwrap().position;
        assert_eq!(lost, Err(Conflict::Stream { last, ended: false }), "{round}");
    }
    a.close().await.unwrap();
    b.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_again_or_late_counts_for_nobody() {
    let node = Node::new("a", server(), "late");
    let store = node.open().await;
    let first = append_one(&*store, create("m", "x", "{}")).await;
    let client = async_nats::connect(server()).await.unwrap();
    let stream = async_nats::jetstream::new(client).get_stream("late_log").await.unwrap();
    let message = stream.get_last_raw_message_by_subject("late.log").await.unwrap().payload;
    append_one(&*store, any("m", "y")).await;
    // Publishes the same message again, and then one of the same writer with an older, unused counter.
    publish("late", message.to_vec()).await;
    let mut frame: Frame = prost::Message::decode(message).unwrap();
    frame.counter = 1;
    publish("late", prost::Message::encode_to_vec(&frame)).await;
    let third = append_one(&*store, any("m", "z")).await;
    assert_eq!((first, third), (1, 3));
    // A message with the same content from another writer is judged.
    frame.writer = "somebody".into();
    publish("late", prost::Message::encode_to_vec(&frame)).await;
    assert_eq!(append_one(&*store, any("m", "z")).await, 4);
    let node = Node::new("b", server(), "late");
    let other = node.open().await;
    assert_eq!(records(&*other).await, records(&*store).await);
    store.close().await.unwrap();
    other.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_rules_stop_a_node_and_say_so() {
    for (log, format, rules) in [("newer-rules", 1, judge::VERSION + 1), ("newer-format", 2, judge::VERSION)] {
        let node = Node::new("a", server(), log);
        let store = node.open().await;
        let position = append_one(&*store, any("m", "a")).await;
        let frame =
            Frame { format, rules, node: "new one".into(), writer: "w".into(), counter: 1, content: Vec::new() };
        publish(log, prost::Message::encode_to_vec(&frame)).await;
        until("the node does not stop", async || store.health().await.is_err()).await;
        let error = store.append(&[any("m", "b")], false).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("update this node to the version of the node `new one`"), "{error}");
        // Judged events can still be read.
        let last = store.last(&Stream::of_instance("m", "a"), u64::MAX).await.unwrap().unwrap();
        assert_eq!(last.position, position);
        store.close().await.unwrap();
        let error = node.refused().await;
        assert!(error.to_string().contains("update this node"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_none_stops_the_node() {
    let node = Node::new("a", server(), "garbage");
    let store = node.open().await;
    append_one(&*store, any("m", "a")).await;
    publish("garbage", b"\xff\xff\xff".to_vec()).await;
    until("the node does not stop", async || store.health().await.is_err()).await;
    let error = store.health().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_another_log_is_refused() {
    let node = Node::new("a", server(), "mine");
    let store = node.open().await;
    append_one(&*store, any("m", "a")).await;
    store.close().await.unwrap();
    drop(store);
    // A stream that is shorter than the log that the node has judged, and one with another identity.
    let client = async_nats::connect(server()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    jetstream.delete_stream("mine_log").await.unwrap();
    let error = node.refused().await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("the stream ends with message 0"), "{error}");
    let another = Node::new("b", server(), "mine");
    let other = another.open().await;
    for _ in 0..5 {
        append_one(&*other, any("m", "b")).await;
    }
    let error = node.refused().await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("is a copy of the log"), "{error}");
    other.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_replaced_stops_its_nodes() {
    let node = Node::new("a", server(), "replaced");
    let store = node.open().await;
    append_one(&*store, any("m", "a")).await;
    let client = async_nats::connect(server()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    jetstream.delete_stream("replaced_log").await.unwrap();
    let config = Config { name: "replaced_log".into(), subjects: vec!["replaced.log".into()], ..Config::default() };
    jetstream.create_stream(config).await.unwrap();
    until("the node does not stop", async || {
        store.health().await.is_err_and(|error| error.kind() == ErrorKind::Corrupt)
    })
    .await;
    let error = store.append(&[any("m", "b")], false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_has_a_group_at_a_time() {
    let nodes = (Node::new("a", server(), "groups"), Node::new("b", server(), "groups"));
    let (a, b) = (nodes.0.open().await, nodes.1.open().await);
    a.create_group(&group("g"), 0).await.unwrap();
    b.create_group(&group("g"), 0).await.unwrap();
    let mut written = Vec::new();
    for id in ["a", "a", "b", "c"] {
        written.push(append_one(&*a, any("m", id)).await);
    }
    reaches(&*b, 4).await;
    let deliveries = a.claim("g", 10, LEASE).await.unwrap();
    let note = "ü".repeat(NOTE_BYTES_MAX / 2);
    assert_eq!(deliveries.len(), 3);
    assert_eq!(b.claim("g", 10, LEASE).await.unwrap(), []);
    // An acknowledgement applies on all nodes, and tokens of another node have no effect.
    a.ack("g", &[(written[0], deliveries[0].token)]).await.unwrap();
    b.ack("g", &[(written[2], deliveries[1].token)]).await.unwrap();
    assert!(!b.renew("g", written[2], deliveries[1].token, LEASE, None).await.unwrap());
    for store in [&a, &b] {
        assert!(store.is_done("g", &Stream::of_instance("m", "a"), written[0]).await.unwrap());
        assert!(!store.is_done("g", &Stream::of_instance("m", "a"), written[1]).await.unwrap());
        assert!(!store.is_done("g", &Stream::of_instance("m", "b"), written[2]).await.unwrap());
        assert_eq!(store.lag("g").await.unwrap(), (3, written[0]));
        assert_eq!(store.groups().await.unwrap(), ["g"]);
    }
    a.release("g", written[2], deliveries[1].token, Duration::ZERO, Some(&note)).await.unwrap();
    // An owner that closes releases its groups, so another node owns them at once.
    a.close().await.unwrap();
    let again = b.claim("g", 10, LEASE).await.unwrap();
    let found: Vec<(Position, u32)> =
        again.iter().map(|delivery| (delivery.event.position, delivery.attempt)).collect();
    assert_eq!(found, [(written[1], 1), (written[2], 2), (written[3], 2)]);
    assert_eq!(again[1].note.as_deref(), Some(note.as_str()));
    assert!(!deliveries.iter().any(|old| again.iter().any(|new| old.token == new.token)));
    // The owner uses a filter that another node sets.
    let a = nodes.0.open().await;
    let other = EventFilter { model: Some("n".into()), ..EventFilter::default() };
    a.create_group(&Group { name: "g".into(), filter: other }, 0).await.unwrap();
    append_one(&*a, any("n", "x")).await;
    b.ack("g", &[(written[1], again[0].token)]).await.unwrap();
    reaches(&*b, 5).await;
    let fresh = b.claim("g", 10, LEASE).await.unwrap();
    assert_eq!(fresh.iter().map(|delivery| delivery.event.position).collect::<Vec<_>>(), [5]);
    // A group that another node drops no longer exists.
    a.drop_group("g").await.unwrap();
    assert_eq!(b.ack("g", &[(5, fresh[0].token)]).await.map_err(|error| error.kind()), Err(ErrorKind::Invalid));
    assert_eq!(b.claim("g", 10, LEASE).await.unwrap_err().kind(), ErrorKind::Invalid);
    a.close().await.unwrap();
    b.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_gone_loses_its_groups() {
    let (a, b) = (Node::new("a", server(), "gone"), Node::new("b", server(), "gone"));
    let (lost, b) = (a.open().await, b.open().await);
    lost.create_group(&group("g"), 0).await.unwrap();
    let first = append_one(&*lost, any("m", "a")).await;
    let held = lost.claim("g", 10, LEASE).await.unwrap();
    assert_eq!(held.len(), 1);
    reaches(&*b, first).await;
    assert_eq!(b.claim("g", 10, LEASE).await.unwrap(), []);
    // The node ends without releasing its groups.
    drop(lost);
    let mut taken = Vec::new();
    until("nobody takes over", async || {
        taken = b.claim("g", 10, LEASE).await.unwrap();
        !taken.is_empty()
    })
    .await;
    assert_eq!((taken[0].event.position, taken[0].attempt), (first, 2));
    b.ack("g", &[(first, taken[0].token)]).await.unwrap();
    // The same node, opened again, owns its groups at once.
    drop(b);
    let again = a.open().await;
    assert_eq!(again.lag("g").await.unwrap(), (0, first));
    again.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_stream_has_the_expected_kind() {
    let node = Node::new("a", server(), "expected");
    let store = node.open().await;
    let at = Append { expected: Expected::At(7), ..any("m", "a") };
    let answers = store.append(&[at], false).await.unwrap();
    assert_eq!(answers, [Err(Conflict::Stream { last: 0, ended: false })]);
    assert!(store.capabilities().shared && store.capabilities().atomic_batch);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_begins_with_a_snapshot() {
    let old = Node { snapshots: 100, ..Node::new("a", server(), "snapshots") };
    let store = old.open().await;
    store.put_blob(&digest(b"x"), b"x").await.unwrap();
    for number in 0..250 {
        let claims = vec![Claim::new(format!("k{}", number % 50))];
        append_one(&*store, Append { claims, ..any("m", &format!("i{}", number % 50)) }).await;
    }
    let jetstream = async_nats::jetstream::new(async_nats::connect(server()).await.unwrap());
    let newest = jetstream.get_key_value("snapshots_snapshots").await.unwrap();
    until("no snapshot is made", async || newest.get("newest").await.unwrap().is_some()).await;
    let expected = records(&*store).await;
    let node = Node::new("b", server(), "snapshots");
    let begun = node.open().await;
    assert_eq!(records(&*begun).await, expected);
    assert_eq!(begun.identity(), store.identity());
    // The new node is independent: both write and agree.
    append_one(&*begun, any("m", "new")).await;
    append_one(&*store, any("m", "new")).await;
    reaches(&*begun, 252).await;
    assert_eq!(records(&*begun).await, records(&*store).await);
    begun.close().await.unwrap();
    // A snapshot without its parts is not used, and nothing is lost.
    jetstream.get_stream("snapshots_snapshot_parts").await.unwrap().purge().await.unwrap();
    let last = Node::new("c", server(), "snapshots");
    let read = last.open().await;
    assert_eq!(records(&*read).await, records(&*store).await);
    read.close().await.unwrap();
    store.close().await.unwrap();
}
